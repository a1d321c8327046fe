"""Scores of other programs held to a dataset's annotations, without a store or a video; `.npy` with a list of ids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.io import loadmat
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score
from testkit.commands import vidatt

from vidatt.cache.store import Store
from vidatt.cli.main import main
from vidatt.errors import MissingFileError, RefusedError, UnknownNameError, UsageError
from vidatt.extract.datasets.registry import load_catalogue
from vidatt.pipelines.extraction.plan import make_index
from vidatt.pipelines.results.compare import compare
from vidatt.pipelines.results.score_evaluation import evaluate_scores
from vidatt.pipelines.results.score_files import pair_ids, read_scores
from vidatt.pipelines.runs.identity import FitEnvironment, FitIdentity
from vidatt.pipelines.runs.run import Run
from vidatt.pipelines.truth import TruthSource

N, CLASSES = 24, ("jump", "run", "sit")
IDS = [f"clips/v{n:02}.avi" for n in range(N)]
SCORES = np.random.default_rng(0).random((N, 3), dtype=np.float32)
LABELS = np.arange(N) % 3
TESTED = np.arange(N) % 2 == 0


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CSV of a `list` dataset: 24 videos that are nowhere, every second one tested."""
    path = tmp_path_factory.mktemp("list") / "videos.csv"
    rows = [f"{id},{CLASSES[LABELS[n]]},{'test' if TESTED[n] else 'train'}" for n, id in enumerate(IDS)]
    path.write_text("\n".join(["path,label,split", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def source(listed: Path) -> TruthSource:
    return TruthSource(dataset="list", annotations=listed)


@pytest.fixture(scope="module")
def store(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the same catalogue as an extraction would plan it, in its shuffled order; nothing is in it."""
    catalogue = load_catalogue("list", annotations=listed)
    index, layout = make_index(catalogue, np.full(N, 2, np.int32), views=1, shard_videos=8, seed=3)
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    return Store.create(path, index=index, views=1, layout=layout, attributes={"dataset": "list"}).path


def array(folder: Path, scores: np.ndarray = SCORES, ids: list[str] = IDS) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    np.save(folder / "s.npy", scores)
    (folder / "ids.txt").write_text("\n".join(ids) + "\n")
    return folder / "s.npy", folder / "ids.txt"


def test_annotations_and_the_store_made_of_them_give_the_same_numbers(tmp_path, source, store):
    path, ids = array(tmp_path)
    result = evaluate_scores(path, ids=ids, source=source)
    assert result.metrics.top1 == (SCORES.argmax(1) == LABELS)[TESTED].mean()
    hot = LABELS[TESTED][:, None] == np.arange(3)
    expected = np.mean([average_precision_score(hot[:, n], SCORES[TESTED][:, n]) for n in range(3)])
    assert result.metrics.map == pytest.approx(expected, abs=1e-12)
    assert (result.split, result.part, result.videos, result.listed, result.unlisted) == ("1", "test", 12, 12, 12)
    assert result.truth == f"the annotations of 'list' in {source.annotations}"
    assert "12 of 12 videos (test videos of split 1, labels of the annotations of 'list' in " in result.protocol
    assert [row.name for row in result.per_class] == list(CLASSES)
    stored = evaluate_scores(path, ids=ids, source=TruthSource(store=store))
    assert stored.truth == str(store)
    assert stored.metrics.to_dict() == pytest.approx(result.metrics.to_dict(), abs=1e-12)
    assert stored.confusion == result.confusion
    assert evaluate_scores(path, ids=ids, source=source, part="train").videos == 12


def test_npy_is_read_as_the_npz_of_the_same_scores(tmp_path, source):
    path, ids = array(tmp_path, SCORES.astype(np.float64) * 9)
    np.savez(tmp_path / "s.npz", ids=np.array(IDS), scores=SCORES.astype(np.float64) * 9)
    ours, theirs = read_scores(path, CLASSES, ids=ids), read_scores(tmp_path / "s.npz", CLASSES)
    assert ours.ids == theirs.ids
    assert (ours.scores == theirs.scores).all()
    assert ours.scores.dtype == theirs.scores.dtype == np.float64
    as_npz = evaluate_scores(tmp_path / "s.npz", source=source)
    assert replace(evaluate_scores(path, ids=ids, source=source), run=as_npz.run) == as_npz


def test_clips_of_an_npy_are_averaged_by_their_ids(tmp_path, source):
    path, ids = array(tmp_path, np.repeat(SCORES, 2, axis=0), [id for id in IDS for _ in "ab"])
    with pytest.raises(UsageError, match="is there twice"):
        evaluate_scores(path, ids=ids, source=source)
    result = evaluate_scores(path, ids=ids, source=source, average_clips=True)
    assert result.metrics.top1 == (SCORES.argmax(1) == LABELS)[TESTED].mean()


@pytest.mark.parametrize(
    ("scores", "text", "words"),
    [
        (SCORES, "a\nb\n", r"s\.npy must be \[n, N\] scores of the 2 ids of .*ids\.txt, and is \(24, 3\)"),
        (SCORES[:, :, None], "\n".join(IDS), r"and is \(24, 3, 1\)"),
        (SCORES[:, :2], "\n".join(IDS), r"2 scores per video, and there are 3 classes"),
        (np.array(IDS), "\n".join(IDS), r"scores must be numbers, and are <U"),
        (np.array([[{}]]), "a\n", r"holds Python objects, which are never loaded"),
        (SCORES * np.nan, "\n".join(IDS), r"a score of video 'clips/v00\.avi' is not finite"),
        (SCORES, "a\n\nb\n", r"ids\.txt, line 2: an empty line names no row of scores"),
    ],
)
def test_npy_that_cannot_be_meant_is_one_line(tmp_path, source, scores, text, words):
    path, ids = array(tmp_path, scores)
    ids.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        evaluate_scores(path, ids=ids, source=source)
    assert "\n" not in str(caught.value)


def test_wrong_use_of_lists_of_ids_is_refused(tmp_path, source):
    path, ids = array(tmp_path)
    with pytest.raises(UsageError, match=r"s\.npy has scores without ids; give --ids FILE\.txt"):
        evaluate_scores(path, source=source)
    with pytest.raises(MissingFileError, match="There is no list of ids"):
        evaluate_scores(path, ids=tmp_path / "no.txt", source=source)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no list of ids, one per line"):
        evaluate_scores(path, ids=tmp_path / "bytes.txt", source=source)
    one, two, other = Path("a.npy"), Path("b.npy"), Path("c.csv")
    assert pair_ids([one, other, two], [ids]) == {one: ids, two: ids}
    assert pair_ids([one, other, two], [ids, path]) == {one: ids, two: path}
    for paths, lists in (([other], [ids]), ([one, two], [ids] * 3)):
        with pytest.raises(UsageError, match=r"--ids names the rows of \.npy files: give one list for all of them"):
            pair_ids(paths, lists)


def test_the_command_refuses_what_contradicts_itself(tmp_path, listed, store):
    path, ids = array(tmp_path)
    wrong = [
        (["--dataset", "list", "--annotations", listed, "--store", store], "Give --store or --dataset, not both"),
        (["--annotations", listed], "--annotations, --option and --videos are of a dataset; name it with --dataset"),
        (["--dataset", "folder"], "--videos"),
        (["--dataset", "lists", "--annotations", listed], "Unknown dataset 'lists'. Did you mean 'list'?"),
        (["--dataset", "list", "--annotations", listed, "--split", "2"], "Unknown split '2'"),
        (["--dataset", "list", "--annotations", listed, "--protocol", "official"], "has no official protocol"),
        (["--dataset", "list", "--annotations", listed, "--option", "x"], "write KEY=VALUE"),
        (["--dataset", "ucf101"], "name the folder that holds it with --annotations"),
        ([], "has no labels; give --store STORE or --dataset NAME --annotations DIR"),
    ]
    for options, words in wrong:
        done = CliRunner().invoke(main, ["evaluate", str(path), "--ids", str(ids), *map(str, options)])
        assert (done.exit_code, words in done.output) == (2, True), (words, done.output)
        assert len(done.output.strip().splitlines()) == 1
    for option in (["--dataset", "list"], ["--ids", str(ids)]):
        done = CliRunner().invoke(main, ["evaluate", str(tmp_path / "run"), *option])
        assert (done.exit_code, f"{option[0]} is for files of scores" in done.output) == (2, True)


def test_several_splits_are_never_guessed_and_labels_of_the_file_are_held_to_the_annotations(tmp_path, source):
    csv = tmp_path / "two.csv"
    csv.write_text(
        "path,label,split:a,split:b\n" + "".join(f"{id},x{n % 2},test,train\n" for n, id in enumerate("pqrs"))
    )
    (tmp_path / "s.csv").write_text("id,x0,x1\np,1,0\nq,0,1\n")
    two = TruthSource(dataset="list", annotations=csv)
    with pytest.raises(UsageError, match="Dataset 'list' has the splits a, b; say with --split which one it is"):
        evaluate_scores(tmp_path / "s.csv", source=two)
    assert evaluate_scores(tmp_path / "s.csv", source=two, split="a").metrics.top1 == 1.0
    with pytest.raises(UsageError, match="Dataset 'list' has no test videos in split 'b'"):
        evaluate_scores(tmp_path / "s.csv", source=two, split="b")
    with pytest.raises(UnknownNameError, match="Unknown part 'tset'"):
        evaluate_scores(tmp_path / "s.csv", source=two, split="a", part="tset")
    np.savez(tmp_path / "own.npz", ids=np.array(IDS), scores=SCORES, labels=(LABELS + 1) % 3)
    with pytest.raises(RefusedError, match=r"other labels than the annotations of 'list' in .* for 12 of 12 videos"):
        evaluate_scores(tmp_path / "own.npz", source=source)


def test_a_dataset_that_is_its_folder_of_videos_is_named_by_it(tmp_path):
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4", "b/4.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    (tmp_path / "s.csv").write_text("id,b,a\na/1.mp4,0,1\na/2.mp4,0,1\nb/3.mp4,1,0\nb/4.mp4,0,1\n")
    source = TruthSource(dataset="folder", videos=tmp_path / "videos", options={"test_share": "0.5"})
    result = evaluate_scores(tmp_path / "s.csv", source=source)
    assert (result.videos, result.truth) == (2, f"the annotations of 'folder' in {tmp_path / 'videos'}")


def run_of(path: Path, scores: np.ndarray, *, tested: np.ndarray = TESTED) -> Path:
    """A finished and evaluated run on the list, with these scores."""
    identity = {
        "head": "mean", "preset": "paper", "settings": {"config": {}, "fit": {}}, "stream_names": ["rgb"],
        "streams": {"rgb": {"fingerprint": "f", "recipe": {}, "grid": 1, "channels": 2}},
        "split": "1", "seed": 0, "classes": list(CLASSES), "multi_label": False,
        "views": 1, "allow_truncated": True, "validation_share": 0.2,
        "train": {"videos": 1, "digest": "t"}, "validation": {"videos": 1, "digest": "v"},
    }  # fmt: skip
    environment = FitEnvironment(store="s.zarr", device="cpu", versions={}, notes=())
    run = Run.create(path, identity=FitIdentity.from_dict(identity, "identity"), environment=environment)
    rows = np.flatnonzero(tested)
    run.write_scores("1-test", ids=np.array(IDS)[rows], scores=scores[rows], labels=LABELS[rows][:, None])
    return path


def test_compare_takes_files_beside_runs_and_among_themselves(tmp_path, source):
    run = run_of(tmp_path / "run", np.eye(3)[LABELS] + SCORES / 9)
    path, ids = array(tmp_path)
    right = (SCORES.argmax(1) == LABELS)[TESTED]
    told = compare([run, path], ids=[ids])
    file = told.runs[1]
    assert (file.run, file.head, file.seed, file.split, file.videos) == (str(path), "file", None, "1", 12)
    assert file.metrics.top1 == right.mean()
    assert "seed" not in file.to_dict()
    pair = told.pairs[0]
    assert (pair.shared, pair.a_right_b_wrong, pair.b_right_a_wrong) == (12, int((~right).sum()), 0)
    assert pair.p_value == binomtest(0, int((~right).sum()), 0.5).pvalue
    few = run_of(tmp_path / "few", SCORES, tested=TESTED & (np.arange(N) < 12))
    by_run, by_list = compare([few, path], ids=[ids]), compare([few, path], ids=[ids], source=source)
    assert (by_run.runs[1].videos, by_list.runs[1].videos) == (6, 12)
    assert (by_list.pairs[0].shared, by_list.pairs[0].only_b) == (6, 6)
    second, _ = array(tmp_path / "b", SCORES[::-1], IDS[::-1])
    alone = compare([path, second], ids=[ids, tmp_path / "b" / "ids.txt"], source=source)
    assert (alone.split, alone.pairs[0].shared, alone.pairs[0].p_value) == ("1", 12, 1.0)
    with pytest.raises(UsageError, match=r"s\.npy has no labels; give --store STORE or --dataset"):
        compare([path, second], ids=[ids])
    np.savez(tmp_path / "own.npz", ids=np.array(IDS), scores=SCORES, labels=LABELS)
    assert compare([run, tmp_path / "own.npz"]).runs[1].videos == N
    np.savez(tmp_path / "four.npz", ids=np.array(IDS), scores=np.ones((N, 4)), labels=LABELS)
    with pytest.raises(UsageError, match="4 scores per video, and there are 3 classes"):
        compare([run, tmp_path / "four.npz"])
    with pytest.raises(RefusedError, match=r"four\.npz has other classes than .*own\.npz: 4 and 3"):
        compare([tmp_path / "own.npz", tmp_path / "four.npz"])


@pytest.mark.slow
def test_thumos14_classification_of_another_programs_scores_in_one_command(tmp_path, shared_data):
    """No store, no video: the mAP by the official lists, held to what scikit-learn makes of the file itself."""
    folder = shared_data / "annotations" / "thumos14"
    content = loadmat(folder / "test_set_meta.mat", squeeze_me=True)
    rows = next(value for key, value in content.items() if not key.startswith("__"))
    names = [str(row["video_name"]) for row in rows]
    hot = np.zeros((len(rows), 101), bool)
    for n, row in enumerate(rows):
        if str(row["background_video"]) != "YES":
            hot[n, int(row["primary_action_index"]) - 1] = True
            for index in np.atleast_1d(row["secondary_actions_indices"]):
                hot[n, int(index) - 1] = True
    scores = np.random.default_rng(0).random(hot.shape, np.float32) + 0.4 * hot.astype(np.float32)
    order = np.random.default_rng(1).permutation(len(names))
    path, ids = array(tmp_path, scores[order], [names[n] for n in order])
    done = vidatt(
        "evaluate", path, "--ids", ids, "--dataset", "thumos14", "--annotations", folder, "--protocol", "official",
        "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    expected = np.mean([average_precision_score(hot[:, n], scores[:, n]) for n in range(101)])
    assert result["official"]["value"] == pytest.approx(expected, abs=1e-9)
    assert (result["official"]["primary"], result["official"]["caveats"]) == ("map", [])
    assert (result["videos"], result["missing"], result["denominators"]["top"]) == (1574, 0, 1094)
    assert result["truth"] == f"the annotations of 'thumos14' in {folder}"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ids.txt", "s.npy"]
