"""`vidatt evaluate` on files of scores: own labels or those of a store, denominators, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import average_precision_score
from testkit.commands import vidatt

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_store
from vidatt.cli.main import main
from vidatt.errors import MissingFileError, RefusedError, UnknownNameError, UsageError
from vidatt.pipelines.metrics.classification import Denominators
from vidatt.pipelines.results.score_evaluation import evaluate_scores
from vidatt.pipelines.results.score_files import read_scores
from vidatt.pipelines.truth import TruthSource

N = 30
IDS = np.array([f"v{i:04}.avi" for i in range(N)])
LABELS = np.arange(N) % 3
SCORES = np.random.default_rng(0).random((N, 3), dtype=np.float32)
TEST = np.arange(N) % 3 == 0
HOT = LABELS[:, None] == np.arange(3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 videos v0000.avi, ... of classes 0, 1, 2 in turn; split 1 tests every third, all of class 0."""
    return synthetic_store(tmp_path_factory.mktemp("store") / "s.zarr", [2] * N).path


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **({"ids": IDS, "scores": SCORES} | arrays))
    return path


def test_npz_with_its_own_labels(tmp_path):
    result = evaluate_scores(npz(tmp_path / "s.npz", labels=LABELS, classes=np.array(["a", "b", "c"])))
    assert result.metrics.top1 == (SCORES.argmax(1) == LABELS).mean()
    expected = np.mean([average_precision_score(HOT[:, n], SCORES[:, n]) for n in range(3)])
    assert result.metrics.map == pytest.approx(expected, abs=1e-12)
    assert [row.name for row in result.per_class] == ["a", "b", "c"]
    counts = {key: getattr(result, key) for key in ("videos", "listed", "missing", "unlisted", "split", "part")}
    assert counts == {"videos": 30, "listed": 30, "missing": 0, "unlisted": 0, "split": None, "part": None}
    assert "30 of 30 videos (labels of the file); top1 over all videos" in result.protocol


def test_several_labels_or_none_make_it_multi_label(tmp_path):
    labels = np.stack([LABELS, np.full(N, -1)], 1)
    labels[0] = [0, 2]
    labels[1] = -1
    result = evaluate_scores(npz(tmp_path / "s.npz", labels=labels))
    assert result.metrics.class_mean is None
    assert result.denominators == Denominators(top=29, map=30, classes=3)
    assert "Hit@k over the 29 labelled videos; the other 1 are negatives in AP" in result.protocol
    assert [row.videos for row in result.per_class] == [10, 9, 11]
    assert [row.name for row in result.per_class] == ["0", "1", "2"]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64])
def test_numbers_of_any_kind_rank_alike(tmp_path, kind):
    scores = (SCORES * 1000).astype(kind)
    table = read_scores(npz(tmp_path / "s.npz", scores=scores, labels=LABELS))
    assert table.scores.dtype == (np.float32 if kind in (np.float16, np.float32) else np.float64)
    assert (table.scores == scores).all()


def test_csv_gives_what_the_npz_gives(tmp_path):
    lines = ["id,c,labels,a,b"] + [
        f"{id},{c!r},{'abc'[label]},{a!r},{b!r}"
        for id, label, (a, b, c) in zip(IDS, LABELS, SCORES.tolist(), strict=True)
    ]
    (tmp_path / "s.csv").write_text("\n".join(lines) + "\n")
    table = read_scores(tmp_path / "s.csv", ("a", "b", "c"))
    assert (table.scores == SCORES).all()
    assert table.labels[:, 0].tolist() == LABELS.tolist()
    ours, other = evaluate_scores(tmp_path / "s.csv"), evaluate_scores(npz(tmp_path / "s.npz", labels=LABELS))
    assert ours.metrics == other.metrics
    assert [row.name for row in ours.per_class] == ["c", "a", "b"]


def test_csv_labels_may_be_several_quoted_or_none(tmp_path):
    (tmp_path / "s.csv").write_text('id,"tying knot, bow",run,labels\nx,1,2,"tying knot, bow; run"\ny,3,4,\n')
    table = read_scores(tmp_path / "s.csv")
    assert table.classes == ("tying knot, bow", "run")
    assert table.labels.tolist() == [[0, 1], [-1, -1]]


def test_labels_by_id_from_a_store(store, tmp_path):
    order = np.random.default_rng(1).permutation(N)
    path = npz(tmp_path / "s.npz", ids=IDS[order], scores=SCORES[order])
    result = evaluate_scores(path, source=TruthSource(store=store))
    assert result.metrics.top1 == (SCORES[TEST].argmax(1) == 0).mean()
    counts = {key: getattr(result, key) for key in ("videos", "listed", "missing", "unlisted", "split", "part")}
    assert counts == {"videos": 10, "listed": 10, "missing": 0, "unlisted": 20, "split": "1", "part": "test"}
    assert "20 videos of the file that are not listed are left out" in result.protocol
    assert [row.name for row in result.per_class] == ["class 0", "class 1", "class 2"]
    assert evaluate_scores(path, source=TruthSource(store=store), part="train").videos == 20


def test_listed_videos_without_scores_are_stated_and_not_counted(store, tmp_path):
    path = npz(tmp_path / "s.npz", ids=IDS[:15], scores=SCORES[:15])
    result = evaluate_scores(path, source=TruthSource(store=store))
    assert (result.videos, result.listed, result.missing) == (5, 10, 5)
    assert "5 of 10 videos" in result.protocol
    assert "5 without scores are left out of every denominator" in result.protocol
    assert result.metrics.top1 == (SCORES[:15][TEST[:15]].argmax(1) == 0).mean()


def test_rows_of_one_id_are_clips_that_are_averaged_on_request_only(store, tmp_path):
    ids, clips = np.repeat(IDS, 2)[:-1], np.repeat(SCORES, 2, axis=0)[:-1]
    clips[::2] += 0.25
    clips[1::2] -= 0.25
    order = np.random.default_rng(2).permutation(len(ids))
    path = npz(tmp_path / "s.npz", ids=ids[order], scores=clips[order], labels=np.repeat(LABELS, 2)[:-1][order])
    with pytest.raises(UsageError, match=r"is there twice \(`vidatt evaluate --average-clips` averages its rows\)"):
        evaluate_scores(path)
    table = read_scores(path, average_clips=True)
    assert (table.ids, table.clips) == (tuple(IDS), (1, 2))
    assert table.scores[:-1] == pytest.approx(SCORES[:-1])
    assert table.labels[:, 0].tolist() == LABELS.tolist()
    result = evaluate_scores(path, source=TruthSource(store=store), average_clips=True)
    assert result.videos == 10
    assert "averaged over the rows of each video (1 to 2)" in result.protocol
    text = CliRunner().invoke(main, ["evaluate", str(path), "--average-clips"]).output
    assert "averaged over the rows of each video (1 to 2)" in text
    other = np.repeat(LABELS, 2)[:-1].copy()
    other[4] = 0
    with pytest.raises(UsageError, match=r"rows of video 'v0002\.avi' have different labels"):
        read_scores(npz(tmp_path / "o.npz", ids=ids, scores=clips, labels=other), average_clips=True)


def test_file_of_a_run_equals_its_evaluation(store, tmp_path):
    path = npz(tmp_path / "scores-1-test.npz", ids=IDS[TEST], scores=SCORES[TEST], labels=LABELS[TEST][:, None])
    own, stored = evaluate_scores(path), evaluate_scores(path, source=TruthSource(store=store))
    assert own.metrics == stored.metrics


def test_other_labels_than_the_stores_are_refused(store, tmp_path):
    path = npz(tmp_path / "s.npz", labels=(LABELS + 1) % 3)
    with pytest.raises(RefusedError, match=r"other labels than .* for 10 of 10 videos, such as 'v0000\.avi'; are its"):
        evaluate_scores(path, source=TruthSource(store=store))


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({}, UsageError, "has no labels; give --store"),
        ({"labels": LABELS + 1}, UsageError, r"a label of video 'v0002\.avi' is outside 0\.\.2"),
        ({"labels": LABELS[:5]}, UsageError, r"`labels` must be \[n\] or \[n, L\] class indices of 30 videos"),
        ({"labels": LABELS / 2}, UsageError, "class indices"),
        ({"classes": np.array(["a", "b"])}, UsageError, "`classes` has 2 names beside 3 scores"),
        ({"ids": IDS[[0] * N], "labels": LABELS}, UsageError, r"video 'v0000\.avi' is there twice"),
        ({"scores": np.where(SCORES < 2, np.nan, 0), "labels": LABELS}, UsageError, r"'v0000\.avi' is not finite"),
        ({"ids": IDS[:0], "scores": SCORES[:0], "labels": LABELS[:0]}, UsageError, "has scores of no video"),
    ],
)
def test_files_that_cannot_be_measured_are_refused(tmp_path, arrays, error, words):
    with pytest.raises(error, match=words):
        evaluate_scores(npz(tmp_path / "s.npz", **arrays))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,a,b,labels\nx,1,2,c\n", r"line 2 \('x'\): the label 'c' is no class of the first line"),
        ("id,a,b,labels\nx,1,a\n", r"line 2 \('x'\): 3 fields, not 4"),
        ("id,a,b,labels\nx,1,two,a\n", r"line 2 \('x'\): could not convert string to float"),
        ("id,a,a,labels\nx,1,2,a\n", "does not name each of the 2 classes once: 'a'"),
        ("id,labels\n", "the first line must be id and the class names"),
        ("", "the first line must be id and the class names"),
        ('id,a\n"x,1\n', "cannot be read as CSV"),
    ],
)
def test_bad_lines_of_a_csv_are_refused(tmp_path, text, words):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(UsageError, match=rf"s\.csv.*{words}"):
        evaluate_scores(tmp_path / "s.csv")


def test_what_does_not_fit_the_store_is_refused(store, tmp_path):
    path = npz(tmp_path / "s.npz")
    with pytest.raises(UnknownNameError, match="Unknown split '2'"):
        evaluate_scores(path, source=TruthSource(store=store), split="2")
    with pytest.raises(UnknownNameError, match="Unknown part 'tset'"):
        evaluate_scores(path, source=TruthSource(store=store), part="tset")
    with pytest.raises(UsageError, match="has no official protocol"):
        evaluate_scores(path, source=TruthSource(store=store), by_official_protocol=True)
    with pytest.raises(UsageError, match="--split and --protocol need --store"):
        evaluate_scores(path, by_official_protocol=True)
    with pytest.raises(UsageError, match=r"scores of none of the 10 test videos of split '1' of .*, such as 'v00"):
        evaluate_scores(npz(tmp_path / "o.npz", ids=np.char.add(IDS, "x")), source=TruthSource(store=store))
    with pytest.raises(UsageError, match="2 scores per video, and there are 3 classes"):
        evaluate_scores(npz(tmp_path / "t.npz", scores=SCORES[:, :2]), source=TruthSource(store=store))
    with pytest.raises(UsageError, match="are not those of the task in their order"):
        evaluate_scores(
            npz(tmp_path / "c.npz", classes=np.array(["class 1", "class 0", "class 2"])),
            source=TruthSource(store=store),
        )
    with pytest.raises(MissingFileError, match="There is no file of scores"):
        evaluate_scores(tmp_path / "none.npz")


def test_background_videos_are_negatives_in_the_official_map(tmp_path):
    """CCV: the test list has videos of no class; one of them ranked first halves the precision of the rest."""
    index = Index(
        ids=np.array(list("abcd")), paths=np.array(list("abcd")), groups=np.array([""] * 4),
        labels=np.array([[0, -1], [0, 1], [-1, -1], [-1, -1]]), classes=("x", "y"), multi_label=True,
        splits={"1": np.array([2, 2, 2, 1])}, length=np.ones(4),
    )  # fmt: skip
    store = Store.create(
        tmp_path / "s.zarr", index=index, views=1, layout=plan_layout(index.length, 1, 4), attributes={"dataset": "ccv"}
    )
    scores = np.array([[0.5, 0.1], [0.4, 0.2], [0.9, 0.3]])
    path = npz(tmp_path / "s.npz", ids=np.array(list("abc")), scores=scores)
    result = evaluate_scores(path, source=TruthSource(store=store.path), by_official_protocol=True)
    assert result.official.value == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1 / 2) / 2)
    assert (result.official.primary, result.denominators) == ("map", Denominators(top=2, map=3, classes=2))
    text = (
        CliRunner().invoke(main, ["evaluate", str(path), "--store", str(store.path), "--protocol", "official"]).output
    )
    assert "official, ccv (non-interpolated average precision of each class, videos of no class being negatives" in text
    assert "NOT the official number: split 1 lists 3 test videos, officially 4658" in text


@pytest.mark.slow
def test_command_prints_a_table_and_json(store, tmp_path):
    path = npz(tmp_path / "s.npz", labels=LABELS)
    done = vidatt("evaluate", path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == evaluate_scores(path).to_dict()
    text = CliRunner().invoke(main, ["evaluate", str(path)]).output
    assert f"{path}: 30 videos (classification of 30 of 30 videos (labels of the file)" in text
    assert "class_mean" in text
    done = CliRunner().invoke(main, ["evaluate", str(path), str(path)])
    assert (done.exit_code, "Give one file of scores, or runs" in done.output) == (2, True)
