"""The official number of each dataset: which measure, over which splits, and what keeps it from being official."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from testkit.runs import without_digests

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.ledger import VideoOutcome
from vidatt.cache.store import Store
from vidatt.cli.main import main
from vidatt.errors import MissingFileError, RefusedError, UsageError
from vidatt.extract.datasets.dataset import PROTOCOLS
from vidatt.extract.datasets.registry import DATASETS, describe
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.metrics.classification import ClassResult, Denominators, Measures
from vidatt.pipelines.results.evaluate import evaluate, evaluate_officially
from vidatt.pipelines.results.fusion import FuseConfig, fuse
from vidatt.pipelines.results.protocols import OFFICIAL, official
from vidatt.pipelines.runs.measured import Evaluation


def store_of(path: Path, dataset: str, *, splits: int, missing: tuple[int, ...] = (), classes: int = 3) -> Store:
    """A store of 36 videos in which channel c tells class c, not always; split k tests every third video from k on."""
    N = 36
    index = Index(
        ids=np.array([f"v{i:02d}.avi" for i in range(N)]),
        paths=np.array([f"v{i:02d}.avi" for i in range(N)]),
        groups=np.array([f"g{i}" for i in range(N)]),
        labels=np.arange(N)[:, None] * 7 % 3,
        classes=tuple(f"class {n}" for n in range(classes)),
        splits={str(k + 1): np.where(np.arange(N) // 3 % splits == k, 2, 1) for k in range(splits)},
        length=np.full(N, 2),
    )
    attributes = {"dataset": dataset, "seed": 0}
    layout = plan_layout(index.length, 1, N)
    store = Store.create(path, index=index, views=1, layout=layout, attributes=attributes)
    stream = store.add_stream("rgb", cube_shape=(1, 1, 3), recipe={"made": "planted"})
    first, last = store.shard_row_range(0)
    generator = np.random.default_rng(0)
    cubes = generator.normal(0, 1.2, (last - first, 1, 1, 3)).astype(np.float16)
    frames = np.full((last - first, 3), -1, np.int32)
    outcomes = []
    for position in store.shard_videos(0):
        row = int(index.offset[position] if len(index.offset) else store.index.offset[position]) - first
        id = str(index.ids[position])
        if position in missing:
            outcomes.append(VideoOutcome(id=id, outcome="missing", segments=0, detail="not there"))
            continue
        cubes[row : row + 2, ..., int(index.labels[position, 0])] += 1.5
        frames[row : row + 2] = [[0, 0, 1], [1, 1, 2]]
        outcomes.append(VideoOutcome(id=id, outcome="ok", segments=2))
    stream.publish(0, cubes=cubes, frames=frames, seconds=np.zeros(last - first), outcomes=outcomes)
    return store


def fitted(store: Store, out: Path, split: str, **changes) -> Path:
    settings = {"steps": "20", "validate_every": "10"}
    settings |= {key: changes.pop(key) for key in [key for key in changes if key.startswith("clip_")]}
    config = {"head": "mean", "preset": "small", "validation_share": 0.2, "seed": 0, **changes}
    fit(FitConfig(store=store.path, out=out, split=split, settings=settings, device="cpu", **config))
    return out


def counted(split: str, top1: float, *, listed: int = 10, missing: int = 0, classes: int = 101) -> Evaluation:
    row = ClassResult(name="a", videos=1, accuracy=None, average_precision=None)
    return Evaluation(
        run="r", split=split, part="test", videos=listed - missing, listed=listed, missing=missing, protocol="",
        metrics=Measures(top1=top1, top5=1.0, class_mean=top1 / 2, map=top1 / 4), confusion=None,
        denominators=Denominators(top=listed, map=listed, classes=classes), per_class=(row,) * classes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[Path]]:
    folder = tmp_path_factory.mktemp("ucf")
    store = store_of(folder / "s.zarr", "ucf101", splits=3, missing=(0,))
    return store, [fitted(store, folder / f"run{k}", k) for k in ("1", "2", "3")]


def test_every_protocol_that_a_dataset_may_name_is_known():
    assert set(OFFICIAL) | {"", "detection-map"} == set(PROTOCOLS)
    assert {describe(name).protocol for name in DATASETS} <= set(PROTOCOLS)
    assert describe("ucf101").protocol == "accuracy-mean-of-splits"


def test_three_splits_are_averaged_with_their_spread():
    number = official("ucf101", [counted("1", 0.5, listed=3783), counted("2", 0.6, listed=3734),
                                 counted("3", 1.0, listed=3696)], [], "runs")  # fmt: skip
    assert (number.primary, number.value) == ("top1", pytest.approx(0.7))
    assert number.spread == pytest.approx(np.std([0.5, 0.6, 1.0], ddof=1))
    assert number.splits == {"1": 0.5, "2": 0.6, "3": 1.0}
    assert number.figures.class_mean == pytest.approx(0.35)
    assert (number.caveats, number.scored) == ((), 3783 + 3734 + 3696)


def test_what_keeps_a_number_from_being_official_is_said():
    number = official("ucf101", [counted("1", 0.5, missing=2, classes=14)], [], "runs")
    assert list(number.caveats) == [
        "2 of 3 splits have no run: 2, 3",
        "split 1: 2 of 10 listed test videos are missing",
        "split 1 lists 10 test videos, officially 3783",
        "there are 14 classes, officially 101",
    ]
    assert (number.spread, number.missing) == (None, 2)


def test_splits_that_are_not_official_or_given_twice_are_refused():
    with pytest.raises(RefusedError, match=r"runs: split '4' is none of the official ones \(1, 2, 3\)"):
        official("ucf101", [counted("4", 0.5)], [], "runs")
    with pytest.raises(RefusedError, match="split '1' is there twice"):
        official("ucf101", [counted("1", 0.5), counted("1", 0.5)], [], "runs")
    with pytest.raises(
        UsageError, match=r"dataset 'actionshapes' has no official protocol \(those that have: .*ucf101"
    ):
        official("actionshapes", [counted("1", 0.5)], ["1"], "runs")
    with pytest.raises(UsageError, match="dataset None has no official protocol"):
        official(None, [counted("1", 0.5)], ["1"], "runs")


@pytest.mark.parametrize(
    ("dataset", "primary", "value"),
    [
        ("hmdb51", "top1", 0.8), ("ucf50", "class_mean", 0.4), ("ccv", "map", 0.2), ("thumos14", "map", 0.2),
        ("sports1m", "top1", 0.8), ("kinetics400", "average", 0.9), ("kinetics600", "average", 0.9),
        ("moments", "average", 0.9),
    ],
)  # fmt: skip
def test_primary_number_of_each_dataset(dataset, primary, value):
    split = next(iter(describe(dataset).splits), "1")
    number = official(dataset, [counted(split, 0.8)], [split], "runs")
    assert (number.dataset, number.primary, number.value) == (dataset, primary, pytest.approx(value))


def test_ucf50_averages_the_folds_of_the_store():
    folds = [f"g{n:02d}" for n in range(1, 26)]
    number = official("ucf50", [counted(fold, n / 25, classes=50) for n, fold in enumerate(folds)], folds, "runs")
    assert number.value == pytest.approx(np.mean(np.arange(25) / 50))
    assert number.caveats == ()
    few = official("ucf50", [counted("g01", 0.5, classes=50)], folds, "runs")
    assert few.caveats[0].startswith("24 of 25 splits have no run: g02, g03")


def test_datasets_of_one_test_list_take_one_run():
    with pytest.raises(RefusedError, match="official protocol of 'ccv' has one test list"):
        official("ccv", [counted("1", 0.5), counted("2", 0.5)], ["1", "2"], "runs")


@pytest.mark.slow
def test_runs_of_all_splits_make_one_number(splits):
    _, runs = splits
    result = evaluate_officially(runs, device="cpu")
    single = [evaluate(run, device="cpu") for run in runs]
    assert result.official.value == pytest.approx(np.mean([own.metrics.top1 for own in single]))
    assert result.metrics.class_mean == pytest.approx(np.mean([own.metrics.class_mean for own in single]))
    assert (result.split, result.videos, result.listed, result.missing) == ("1, 2, 3", 35, 36, 1)
    assert list(result.runs) == single
    assert list(result.official.caveats) == [
        "split 1: 1 of 12 listed test videos are missing", "split 1 lists 12 test videos, officially 3783",
        "split 2 lists 12 test videos, officially 3734", "split 3 lists 12 test videos, officially 3696",
        "there are 3 classes, officially 101",
    ]  # fmt: skip


@pytest.mark.slow
def test_command_prints_the_official_number_its_spread_and_its_caveats(splits):
    _, runs = splits
    words = ["evaluate", *map(str, runs), "--protocol", "official", "--device", "cpu"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    expected = evaluate_officially(runs, device="cpu").official
    number = f"top1 {expected.value:.4f} +- {expected.spread:.4f} over 3 splits"
    line = f"official, ucf101 (accuracy over all test videos of a split, mean of the splits): {number}; 35 of 36 listed"
    assert line in done.output
    assert "class_mean " in done.output
    assert "NOT the official number: split 1: 1 of 12 listed test videos are missing" in done.output
    one = CliRunner().invoke(main, ["evaluate", str(runs[1]), "--protocol", "official", "--device", "cpu", "--json"])
    result = json.loads(one.stdout)
    assert {"run", "split", "videos", "metrics", "protocol", "confusion", "per_class", "denominators"} <= set(result)
    assert result["official"]["caveats"][0] == "2 of 3 splits have no run: 1, 3"
    assert result["denominators"] == {"top": 12, "map": 12, "classes": 3}


@pytest.mark.slow
def test_fused_runs_of_all_splits_make_one_number(splits, tmp_path):
    store, runs = splits
    fused = []
    for split, run in zip("12", runs, strict=False):
        evaluate(run, device="cpu")
        second = fitted(store, tmp_path / f"second{split}", split, seed=1)
        evaluate(second, device="cpu")
        fuse(FuseConfig(parts=(run, second), method="mean", out=tmp_path / f"fused{split}"))
        fused.append(tmp_path / f"fused{split}")
    result = evaluate_officially(fused, device="cpu")
    kept = [json.loads((run / "metrics.json").read_text())["evaluations"] for run in fused]
    expected = [own[f"{split}-test"]["metrics"]["top1"] for own, split in zip(kept, "12", strict=True)]
    assert result.official.value == pytest.approx(np.mean(expected))
    assert result.official.caveats[0] == "1 of 3 splits have no run: 3"
    with pytest.raises(UsageError, match="is a fusion of test scores of split '1'; leave out --split"):
        evaluate_officially(fused[:1], split="2", device="cpu")
    path = fused[0] / "config.json"
    path.write_text(path.read_text().replace(str(runs[0]), "gone").replace(str(tmp_path / "second1"), "lost"))
    with pytest.raises(MissingFileError, match="none of the runs it was made of is there now, such as gone"):
        evaluate_officially(fused[:1], device="cpu")


@pytest.mark.slow
def test_clips_of_a_head_are_stated(splits, tmp_path):
    store, _ = splits
    run = fitted(store, tmp_path / "run", "1", head="glka-la", clip_segments="1", clip_stride="1")
    assert "averaged over the clips of 1 segments of each video" in evaluate(run, device="cpu").protocol


@pytest.mark.slow
def test_runs_that_are_not_one_head_on_other_splits_are_refused(splits, tmp_path):
    store, runs = splits
    other = fitted(store, tmp_path / "other", "2", head="lstm")
    with pytest.raises(RefusedError, match=r"are not the same head on other splits: head: \"mean\" -> \"lstm\""):
        evaluate_officially([runs[0], other], device="cpu")
    shutil.copytree(runs[1], tmp_path / "features")
    path = without_digests(tmp_path / "features") / "config.json"
    content = json.loads(path.read_text())
    content["identity"]["streams"]["rgb"]["fingerprint"] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(RefusedError, match=r"same head on other splits: streams\.rgb: "):
        evaluate_officially([runs[0], tmp_path / "features"], device="cpu")
    with pytest.raises(RefusedError, match="split '1' is there twice"):
        evaluate_officially([runs[0], runs[0]], device="cpu")
    with pytest.raises(UsageError, match="--split is for one run"):
        evaluate_officially(runs[:2], split="1", device="cpu")
    plain = store_of(tmp_path / "plain.zarr", "mine", splits=2)
    with pytest.raises(UsageError, match="dataset 'mine' has no official protocol"):
        evaluate_officially([fitted(plain, tmp_path / "plain", "1")], device="cpu")
    with pytest.raises(RefusedError, match="are of different datasets"):
        evaluate_officially([runs[0], tmp_path / "plain"], device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "papers"], "--protocol 'papers': the only one is official"),
        (["--protocol", "official", "--part", "train"], "--protocol official is about test lists"),
        (["--average-clips"], "--average-clips is for files of scores"),
        ([], "Several runs make one number with --protocol official"),
    ],
)
def test_command_refuses_what_makes_no_sense(splits, words, message):
    _, runs = splits
    done = CliRunner().invoke(main, ["evaluate", str(runs[0]), str(runs[1]), *words])
    assert (done.exit_code, message in done.output) == (2, True)
