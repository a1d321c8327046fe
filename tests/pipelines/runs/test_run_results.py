"""Results of a run lie by what they measured, and what it was fitted or selected on is refused everywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from testkit.planted import planted_store
from testkit.runs import without_digests

from vidatt.cache.store import Store
from vidatt.cli.main import main
from vidatt.errors import MissingFileError, RefusedError
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.localisation.submission import read_thumos14
from vidatt.pipelines.results.compare import compare
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.results.fusion import FuseConfig, fuse
from vidatt.pipelines.results.score_evaluation import evaluate_scores
from vidatt.pipelines.runs.places import place_of
from vidatt.pipelines.runs.run import Run
from vidatt.pipelines.runs.seen import SeenVideos, read_seen
from vidatt.pipelines.truth import TruthSource

pytestmark = pytest.mark.slow

SEEN = [n for n in range(36) if n % 3]  # of split 1
NEW = list(range(36, 48))


def fitted(store: Store, out: Path, **changes) -> Path:
    given = {"head": "mean", "preset": "small", "settings": {"steps": "30"}, "split": "1", "device": "cpu"}
    fit(FitConfig(store=store.path, out=out, **given | changes))
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("made")
    store = planted_store(folder / "own.zarr")
    run = fitted(store, folder / "run")
    evaluate(run, device="cpu")
    return folder / "own.zarr", run


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A copy of the fitted and evaluated run; its store stays where it is."""
    return shutil.copytree(made[1], tmp_path / "run")


def invoked(*words: object) -> Result:
    """A command in this process: the forked ones cost seconds each."""
    return CliRunner().invoke(main, list(map(str, words)))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "log.txt"}


@pytest.mark.slow
def test_another_store_gets_a_place_of_its_own(run, tmp_path):
    before = content(run)
    own = Run.open(run).evaluation("1-test")
    other = planted_store(tmp_path / "other.zarr", videos=NEW, test=NEW)
    result = evaluate(run, other.path, device="cpu")
    place = place_of(Run.open(run), other, "1", "test")
    assert (result.videos, result.seen) == (12, None)
    assert place.name.startswith("1-test@")
    assert result.scores == str(run / f"scores-{place.name}.npz")
    after = content(run)
    assert {name: after[name] for name in before if name != "metrics.json"} == {
        name: before[name] for name in before if name != "metrics.json"
    }
    kept = Run.open(run)
    assert kept.evaluation("1-test") == own
    assert kept.evaluation(place.name).store == str(other.path)
    third = planted_store(tmp_path / "third.zarr", videos=NEW[:6], test=NEW[:6])
    evaluate(run, third.path, device="cpu")
    assert len(Run.open(run).metrics()["evaluations"]) == 3


def test_a_moved_or_copied_store_is_the_same_one(made, run, tmp_path):
    copy = shutil.copytree(made[0], tmp_path / "copy.zarr")
    before = content(run)
    assert evaluate(run, copy, device="cpu").scores == str(run / "scores-1-test.npz")
    assert content(run).keys() == before.keys()
    old = without_digests(shutil.copytree(run, tmp_path / "old"))
    assert evaluate(old, copy, device="cpu").scores == str(old / "scores-1-test.npz")
    config = json.loads((old / "config.json").read_text())
    config["environment"]["store"] = "gone.zarr"
    (old / "config.json").write_text(json.dumps(config))
    assert evaluate(old, copy, device="cpu").scores == str(old / "scores-1-test.npz")


def test_views_are_another_place(made, run, tmp_path):
    both = planted_store(tmp_path / "views.zarr", views=2)
    assert "@" in place_of(Run.open(run), both, "1", "test").name


@pytest.mark.slow
def test_compare_and_fuse_read_the_results_on_another_store(made, run, tmp_path):
    other = planted_store(tmp_path / "other.zarr", videos=NEW, test=NEW).path
    second = fitted(Store.open(made[0]), tmp_path / "second", seed=0, settings={"steps": "40"})
    evaluate(second, device="cpu")
    with pytest.raises(MissingFileError, match=r"make it by `vidatt evaluate .*run --store .*other\.zarr`"):
        compare([run, second], source=TruthSource(store=other))
    with pytest.raises(MissingFileError, match=r"`vidatt evaluate .*run --store .*other\.zarr`"):
        fuse(FuseConfig(parts=(run, second), method="mean", out=tmp_path / "f", store=other))
    for path in (run, second):
        evaluate(path, other, device="cpu")
    assert [row.videos for row in compare([run, second]).runs] == [12, 12]
    there = compare([run, second], source=TruthSource(store=other))
    assert there.runs[0].metrics == evaluate(run, other, device="cpu").metrics
    assert fuse(FuseConfig(parts=(run, second), method="mean", out=tmp_path / "f", store=other)).videos == 12
    done = invoked("compare", run, second, "--store", other, "--json")
    assert json.loads(done.stdout)["pairs"][0]["shared"] == 12


def test_a_run_keeps_what_it_was_fitted_and_selected_on(made):
    _, run = made
    seen = SeenVideos.read(run / "videos.npz")
    assert sorted(seen.ids) == [f"v{n:02}.avi" for n in SEEN]
    identity = Run.open(run).identity
    assert (seen.fitted.sum(), (~seen.fitted).sum()) == (identity.train.videos, identity.validation.videos)
    assert seen.dataset == "planted"


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.005], ids=["bytes", "another device"])
def test_seen_videos_under_another_list_are_refused_unless_allowed(run, tmp_path, noise):
    """The finding: ten training videos listed as test videos of another store gave exit code 0."""
    other = planted_store(tmp_path / "other.zarr", videos=SEEN[:10], test=SEEN[:10], noise=noise, dataset="list")
    before = content(run)
    for command in ("evaluate", "detect", "locate"):
        done = invoked(command, run, "--store", other.path)
        assert done.exit_code == 3, done.output
        assert "10 of 10 test videos of split '1' are videos that run" in done.stderr
        assert "--allow-seen" in done.stderr
        assert done.stderr.count("\n") == 1
    assert content(run) == before
    done = invoked("evaluate", run, "--store", other.path, "--allow-seen")
    assert done.exit_code == 0, done.output
    numbers = next(line for line in done.stdout.splitlines() if line.startswith("top1"))
    assert numbers.endswith("(SEEN)")
    assert "SEEN: 10 of 10 test videos" in done.stdout
    told = json.loads(invoked("evaluate", run, "--store", other.path, "--allow-seen", "--json").stdout)
    assert told["seen"] == 10
    assert "10 of 10 test videos" in told["protocol"]
    with np.load(told["scores"]) as scores:
        assert scores["seen"].all()
    kept = next(e for name, e in Run.open(run).metrics()["evaluations"].items() if "@" in name)
    assert kept["seen"] == 10


@pytest.mark.slow
def test_the_same_name_of_another_video_is_not_refused(run, tmp_path):
    """Told by the file's length, by its cubes, or where neither is known by the dataset."""
    for name, given in {
        "cubes": {"content": 1},
        "frames": {"decoded_frames": 99},
        "one-is-the-same": {"content": 1, "dataset": "elsewhere"},
    }.items():
        other = planted_store(tmp_path / f"{name}.zarr", videos=SEEN[:10], test=SEEN[:10], **given)
        if name != "frames":
            assert evaluate(run, other.path, device="cpu").seen is None
    fitted_there = planted_store(tmp_path / "long.zarr", decoded_frames=50)
    long = fitted(fitted_there, tmp_path / "long")
    assert evaluate(long, tmp_path / "frames.zarr", device="cpu").seen is None
    shutil.rmtree(fitted_there.path)  # the cubes cannot be compared any more
    with pytest.raises(RefusedError, match="10 of 10"):
        evaluate(long, tmp_path / "cubes.zarr", device="cpu")
    assert evaluate(long, tmp_path / "one-is-the-same.zarr", device="cpu").seen is None


def test_some_of_several_are_found_by_their_cubes(run, tmp_path):
    """Of ten names four are the same videos: the others are told apart."""
    mixed = planted_store(tmp_path / "mixed.zarr", videos=SEEN[:10], test=SEEN[:10], unlike=SEEN[1:3])
    with pytest.raises(RefusedError, match="8 of 10 test videos"):
        evaluate(run, mixed.path, device="cpu")


@pytest.mark.slow
def test_training_and_validation_scores_are_seen(made, run, tmp_path):
    with pytest.raises(RefusedError, match=r"24 of 24 train videos of split '1' are videos that run .*--allow-seen"):
        evaluate(run, part="train", device="cpu")
    result = evaluate(run, part="train", device="cpu", allow_seen=True)
    assert result.seen == 24
    twin = shutil.copytree(run, tmp_path / "twin")
    for part in ("train", "validation"):
        with pytest.raises(RefusedError, match="fitted or selected on"):
            compare([run, twin], part=part)
        told = compare([run, twin], part=part, allow_seen=True)
        assert told.runs[0].seen == told.runs[0].videos
        with pytest.raises(RefusedError, match="fitted or selected on"):
            evaluate_scores(run / f"scores-1-{part}.npz")
        assert evaluate_scores(run / f"scores-1-{part}.npz", allow_seen=True).seen == told.runs[0].videos
    done = invoked("compare", run, twin, "--part", "train", "--allow-seen")
    assert done.exit_code == 0, done.output
    assert "(SEEN)" in done.stdout
    assert "SEEN: 24 of the 24 videos" in done.stdout


@pytest.mark.slow
def test_fusions_refuse_what_a_part_has_seen_and_remember_it(made, run, tmp_path):
    store = Store.open(made[0])
    second = fitted(store, tmp_path / "second", settings={"steps": "40"})
    evaluate(second, device="cpu")
    clean = fuse(FuseConfig(parts=(run, second), method="mean", out=tmp_path / "clean"))
    assert clean.seen is None
    assert sorted(read_seen(Run.open(tmp_path / "clean")).ids) == [f"v{n:02}.avi" for n in SEEN]
    other = planted_store(tmp_path / "other.zarr", videos=SEEN[:10], test=SEEN[:10]).path
    for path in (run, second):
        evaluate(path, other, device="cpu", allow_seen=True)
    with pytest.raises(RefusedError, match="10 of the 10 videos"):
        fuse(FuseConfig(parts=(run, second), method="mean", out=tmp_path / "f", store=other))
    assert not (tmp_path / "f").exists()
    done = invoked("fuse", run, second, "--method", "mean", "--store", other, "--allow-seen", "--out", tmp_path / "f")
    assert done.exit_code == 0, done.output
    assert "(SEEN)" in done.stdout
    assert Run.open(tmp_path / "f").evaluation("1-test").seen == 10
    with np.load(tmp_path / "f" / "scores-1-test.npz") as scores:
        assert scores["seen"].all()
    # the file itself says so wherever it is carried
    shutil.copy(tmp_path / "f" / "scores-1-test.npz", tmp_path / "carried.npz")
    with pytest.raises(RefusedError, match="10 of the 10 videos"):
        evaluate_scores(tmp_path / "carried.npz")


@pytest.mark.slow
def test_runs_of_before_are_held_to_their_store_or_say_that_it_is_not_known(made, run, tmp_path):
    old = without_digests(run)
    other = planted_store(tmp_path / "other.zarr", videos=SEEN[:10], test=SEEN[:10]).path
    with pytest.raises(RefusedError, match="10 of 10 test videos"):
        evaluate(old, other, device="cpu")
    config = json.loads((old / "config.json").read_text())
    config["environment"]["store"] = str(tmp_path / "gone.zarr")
    (old / "config.json").write_text(json.dumps(config))
    done = invoked("evaluate", old, "--store", other)
    assert done.exit_code == 0, done.stderr
    assert "note: not known whether run" in done.stdout


@pytest.mark.slow
def test_a_machine_on_a_head_has_seen_what_the_head_has_seen(made, tmp_path):
    store = Store.open(made[0])
    base = fitted(store, tmp_path / "base", head="lstm", preset="paper", settings={"steps": "4", "validate_every": "4"})
    svm = fitted(store, tmp_path / "svm", head="svm", preset="paper", settings={}, on=base, split=None)
    seen = read_seen(Run.open(svm))
    assert sorted(seen.ids) == [f"v{n:02}.avi" for n in SEEN]
    assert evaluate(svm, device="cpu").seen is None
    with pytest.raises(RefusedError, match="12 of 12 test videos of split '2' are videos that run"):
        evaluate(svm, split="2", device="cpu")


@pytest.mark.slow
def test_files_of_detections_lie_beside_each_other_and_say_what_was_seen(tmp_path):
    run = fitted(planted_store(tmp_path / "own.zarr", fps=25), tmp_path / "run")
    mixed = [*SEEN[:6], *NEW]
    other = planted_store(tmp_path / "other.zarr", videos=mixed, test=mixed, fps=25).path
    own = invoked("detect", run, "--attention", "uniform", "--json")
    assert own.exit_code == 0, own.output
    kept = Path(json.loads(own.stdout)["out"]).read_bytes()
    done = invoked("detect", run, "--attention", "uniform", "--store", other, "--allow-seen", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["seen"], "@" in told["out"]) == (6, True)
    out = Path(told["out"])
    assert out.read_text().startswith("# 6 of 18 test videos")
    assert len(read_thumos14(out, list(range(1, 4)))) == told["proposals"]
    assert Path(json.loads(own.stdout)["out"]).read_bytes() == kept
