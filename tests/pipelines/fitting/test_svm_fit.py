"""Fits of support vector machines through the same door as any head: run folder, evaluation, refusals."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from sklearn.svm import LinearSVC

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.ledger import VideoOutcome
from vidatt.cache.store import Store
from vidatt.cli.main import main
from vidatt.errors import (
    InterruptedRunError,
    MissingFileError,
    NotFiniteError,
    RefusedError,
    UnknownNameError,
    UsageError,
)
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.fitting.svm import require_memory
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.runs.attention import attention
from vidatt.pipelines.runs.reload import load_head
from vidatt.pipelines.runs.run import Run
from vidatt.pipelines.runs.scoring import score_views

N, D = 4, 6


def build(
    path: Path,
    *,
    videos: int = 96,
    grids: dict[str, int] | None = None,
    views: int = 1,
    multi_label: bool = False,
    lengths: Callable[[int], int] = lambda v: 3,
    bad: int | None = None,
) -> Path:
    """Every third video is a test video; all cells are the class's code and noise, non-negative."""
    random = np.random.default_rng(0)
    codes = np.random.default_rng(1).random((N, D)) * 1.5
    labels = (np.arange(videos) // 3 % N)[:, None]
    if multi_label:
        second = np.where(np.arange(videos) % 5 == 0, (labels[:, 0] + 1) % N, -1)
        labels = np.stack([labels[:, 0], second], 1)
    index = Index(
        ids=np.array([f"v{v:03}.avi" for v in range(videos)]),
        paths=np.array([f"v{v:03}.avi" for v in range(videos)]),
        groups=np.array([f"g{v // 3}" for v in range(videos)]),
        labels=labels,
        classes=tuple(f"class {n}" for n in range(N)),
        multi_label=multi_label,
        splits={"a": np.where(np.arange(videos) % 3 == 0, 2, 1)},
        length=np.array([lengths(v) for v in range(videos)]),
    )
    layout = plan_layout(index.length, views, 16)
    store = Store.create(path, index=index, views=views, layout=layout, attributes={"dataset": "coded"})
    for name, K in (grids or {"rgb": 2}).items():
        stream = store.add_stream(name, cube_shape=(K, K, D), recipe={"stream": name})
        for shard in range(store.shard_count):
            start, stop = store.shard_row_range(shard)
            cubes = np.zeros((stop - start, K, K, D), np.float16)
            frames, outcomes = np.full((stop - start, 3), -1, np.int32), []
            for v in store.shard_videos(shard):
                T = int(index.length[v])
                row = int(store.index.offset[v]) - start
                code = codes[index.labels[v][index.labels[v] >= 0]].sum(0)
                noise = random.standard_normal((views * T, K, K, D))
                cubes[row : row + views * T] = np.nan if v == bad else np.maximum(code + noise, 0)
                frames[row : row + views * T] = np.tile(np.arange(T), views)[:, None]
                outcomes.append(VideoOutcome(id=str(index.ids[v]), outcome="ok", segments=T))
            stream.publish(shard, cubes=cubes, frames=frames, seconds=np.zeros(stop - start), outcomes=outcomes)
    return store.path


def config(store: Path, out: Path, head: str = "svm-pool5-mean", **changes) -> FitConfig:
    return replace(FitConfig(head=head, store=store, out=out, settings={"C": "1"}, device="cpu"), **changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("coded") / "s.zarr")


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory) -> Path:
    """A run of a head that is trained step by step."""
    out = tmp_path_factory.mktemp("runs") / "san"
    settings = {"conv6": "8", "kernel": "1", "steps": "30", "validate_every": "15"}
    fit(config(store, out, "san", preset="small", settings=settings))
    return out


VLAD = {"C": "1", "clusters": "3", "pca": "4", "descriptors": "500"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "settings", "length"),
    [
        ("svm-pool5-mean", {"C": "1"}, D),
        ("svm-pool5-flat", {"C": "1"}, 4 * D),
        ("svm-vlad", VLAD, 3 * 4),
        ("svm-vlad", VLAD | {"whiten": "true", "intra": "off", "signed_root": "off", "overall": "off"}, 3 * 4),
        ("svm-pool5-mean", {"form": "one-vs-one", "C": "1"}, D),
    ],
    ids=["mean", "flat", "vlad", "vlad-plain", "pairs"],
)
def test_svm_run_scores_above_chance_and_comes_back_from_its_folder(store, tmp_path, head, settings, length):
    result = fit(config(store, tmp_path / "r", head, settings=settings))
    assert result.to_dict().keys() >= {"run", "head", "streams", "metrics", "seconds", "C", "notes"}
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [
        "config.json", "log.txt", "metrics.json", "scores-a-validation.npz", "videos.npz",
        "weights.safetensors",
    ]  # fmt: skip
    machines = N if settings.get("form") != "one-vs-one" else N * (N - 1) // 2
    assert load_file(tmp_path / "r" / "weights.safetensors")["coefficients"].shape == (machines, length)
    scored = evaluate(tmp_path / "r", device="cpu")
    assert scored.metrics.top1 > 2 / N
    assert "by decision values" in scored.protocol
    with np.load(tmp_path / "r" / "scores-a-test.npz") as scores:
        head_again = load_head(Run.open(tmp_path / "r"))
        for video in attention(tmp_path / "r", device="cpu"):
            row = scores["scores"][scores["ids"].tolist().index(video.id)]
            np.testing.assert_allclose(video.probabilities.sum(), 1, rtol=1e-5)
            assert video.probabilities.argmax() == row.argmax()
            np.testing.assert_allclose(video.temporal, 1 / 3, rtol=1e-6)
    torch.testing.assert_close(head_again.scores(torch.tensor([[3.0, -2.0]])), torch.tensor([[3.0, -2.0]]))


@pytest.mark.slow
def test_svm_weights_are_those_of_liblinear_on_the_training_list(store, tmp_path):
    fit(config(store, tmp_path / "r"))
    opened = Store.open(store)
    reader, index = opened.stream("rgb").reader(), opened.index
    train = np.flatnonzero(index.splits["a"] == 1)
    x = np.stack([reader.read_video(v).astype(np.float32).mean((0, 1, 2)) for v in train])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    machine = LinearSVC(C=1, dual=False, tol=1e-9, max_iter=100_000, intercept_scaling=100)
    machine.fit(x, index.labels[train, 0])
    ours = load_file(tmp_path / "r" / "weights.safetensors")
    np.testing.assert_allclose(ours["coefficients"], machine.coef_, atol=2e-2)


@pytest.mark.slow
def test_svm_validation_scores_come_from_machines_that_never_saw_them(store, tmp_path):
    both = fit(config(store, tmp_path / "both"))
    part = fit(config(store, tmp_path / "part", settings={"C": "1", "refit": "false"}))
    assert both.metrics == part.metrics
    a, b = (load_file(tmp_path / name / "weights.safetensors")["coefficients"] for name in ("both", "part"))
    assert not torch.allclose(a, b)
    head, run = load_head(Run.open(tmp_path / "part")), Run.open(tmp_path / "part")
    videos = np.array([Store.open(store).index.position(str(id)) for id in _scores(run.path, "validation")["ids"]])
    again = score_views(
        head, Store.open(store), ["rgb"], videos, views=range(1), device=torch.device("cpu"), batch_videos=7
    )
    np.testing.assert_allclose(_scores(run.path, "validation")["scores"], again.probabilities, atol=1e-4)


def _scores(run: Path, part: str) -> dict[str, np.ndarray]:
    with np.load(run / f"scores-a-{part}.npz") as content:
        return {name: content[name] for name in content.files}


def test_svm_c_is_chosen_by_cross_validation_and_the_table_kept(store, tmp_path):
    result = fit(config(store, tmp_path / "r", settings={"grid": "1e-7,1"}))
    rows = {row.C: row.measure for row in result.cross_validation}
    assert rows.keys() == {1e-7, 1.0}
    assert max(rows, key=lambda C: (rows[C], -C)) == result.C
    assert "3 folds of whole groups" in result.selected_by
    assert Run.open(tmp_path / "r").fit_result().cross_validation == result.cross_validation
    again = fit(config(store, tmp_path / "r", settings={"grid": "1e-7,1"}))
    assert again.finished_before
    fit(config(store, tmp_path / "twin", settings={"grid": "1e-7,1"}))
    assert (tmp_path / "r/weights.safetensors").read_bytes() == (tmp_path / "twin/weights.safetensors").read_bytes()


@pytest.mark.slow
def test_svm_early_fusion_weighs_streams_alike_and_takes_lengths_and_views(tmp_path):
    path = build(tmp_path / "s.zarr", grids={"flow": 1, "rgb": 2}, views=2, lengths=lambda v: 1 + v % 4)
    fit(config(path, tmp_path / "r", "svm-pool5-flat"))
    assert load_file(tmp_path / "r" / "weights.safetensors")["coefficients"].shape == (N, 5 * D)
    scored = evaluate(tmp_path / "r", device="cpu", batch_videos=5)
    assert "decision values averaged over 2 views" in scored.protocol
    head = load_head(Run.open(tmp_path / "r"))
    cubes = [torch.rand(1, 2, s.grid, s.grid, s.channels) for s in head.streams]
    vectors = head.encode(cubes, torch.ones(1, 2, dtype=torch.bool))
    first, second = vectors.split([stream.grid**2 * D for stream in head.streams], 1)
    torch.testing.assert_close(first.norm(), second.norm())


@pytest.mark.slow
def test_svm_on_a_run_reads_its_representation_and_keeps_its_attention(store, trained, tmp_path):
    settings = {"C": "10"}
    result = fit(config(store, tmp_path / "r", "svm", on=trained, settings=settings))
    assert result.streams == ("rgb",)
    assert evaluate(tmp_path / "r", device="cpu").metrics.top1 > 2 / N
    weights = load_file(tmp_path / "r" / "weights.safetensors")
    assert weights["coefficients"].shape == (N, 8)
    theirs = load_file(trained / "weights.safetensors")
    assert all(torch.equal(weights[f"on.{name}"], tensor) for name, tensor in theirs.items())
    ours, base = (next(attention(run, device="cpu")) for run in (tmp_path / "r", trained))
    np.testing.assert_allclose(ours.spatial, base.spatial)
    assert fit(config(store, tmp_path / "r", "svm", on=trained, settings=settings)).finished_before


@pytest.mark.slow
def test_svm_on_a_run_chooses_c_on_videos_that_the_head_was_not_fitted_on(store, trained, tmp_path):
    grid = (1e-6, 1e-3, 1.0, 100.0)
    result = fit(config(store, tmp_path / "r", "svm", on=trained, settings={"grid": ",".join(map(str, grid))}))
    measured = {row.C: row.measure for row in result.cross_validation}
    alone = {
        C: fit(config(store, tmp_path / str(C), "svm", on=trained, settings={"C": str(C)})).metrics.validation.top1
        for C in grid
    }
    assert measured == alone  # each is what the validation part says of machines learned from the training part
    assert max(grid, key=lambda C: (measured[C], -C)) == result.C
    assert len(set(measured.values())) > 1
    assert "of the validation scores, whose videos the head was not fitted on" in result.selected_by
    assert "but C was chosen by them" in result.notes[-1]


def test_svm_on_a_run_without_validation_wants_a_c(store, tmp_path):
    settings = {"conv6": "8", "kernel": "1", "steps": "4", "validate_every": "2"}
    base = config(store, tmp_path / "san", "san", preset="small", settings=settings, validation_share=0.0)
    fit(base)
    svm = config(store, tmp_path / "r", "svm", on=base.out, settings={}, validation_share=0.0)
    with pytest.raises(UsageError, match=r"C must be chosen on others: give one, such as --set C=1\."):
        fit(svm)
    assert not svm.out.exists()
    assert fit(replace(svm, settings={"C": "1"})).C == 1


def test_svm_that_is_quick_says_no_line_per_machine(store, tmp_path, caplog):
    caplog.set_level("INFO", logger="vidatt")
    fit(config(store, tmp_path / "r", settings={}))
    said = [record.message for record in caplog.records]
    assert not [line for line in said if "machine" in line and "/s" in line]
    assert len(said) <= 4, said


def test_svm_on_a_run_refuses_what_would_spoil_its_validation(store, trained, tmp_path):
    for changes, error, message in (
        ({"seed": 3}, RefusedError, r"holds out other videos .*--seed 0, --validation 0\.2"),
        ({"validation_share": 0.4}, RefusedError, "holds out other videos"),
        ({"split": "b"}, UsageError, r"--split 'b': run .*san was fitted on 'a'"),
        ({"streams": ("flow",)}, UsageError, "was fitted on"),
        ({"on": tmp_path / "none"}, MissingFileError, "is no run"),
        ({"on": None}, UsageError, r"only svm, and svm only, is fitted --on"),
        ({"head": "svm-pool5-mean"}, UsageError, r"only svm, and svm only, is fitted --on"),
    ):
        with pytest.raises(error, match=message):
            fit(config(store, tmp_path / "r", **({"head": "svm", "on": trained} | changes)))
        assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_svm_several_labels_are_ranked_by_map(tmp_path):
    path = build(tmp_path / "s.zarr", multi_label=True)
    result = fit(config(path, tmp_path / "r", settings={"grid": "0.1,10", "loss": "sigmoid"}))
    assert "map of out-of-fold scores" in result.selected_by
    scored = evaluate(tmp_path / "r", device="cpu")
    assert scored.metrics.map > 0.5
    assert scored.metrics.class_mean is None
    with pytest.raises(RefusedError, match="form=one-vs-one needs one each"):
        fit(config(path, tmp_path / "pairs", settings={"C": "1", "form": "one-vs-one"}))
    assert not (tmp_path / "pairs").exists()


def test_svm_without_validation_learns_from_the_whole_list(store, tmp_path):
    result = fit(config(store, tmp_path / "r", validation_share=0.0))
    assert result.metrics.validation is None
    assert (result.train_videos, result.validation_videos) == (64, 0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"head": "svm-fc6"}, UsageError, "stream 'rgb' has a grid of 2 x 2"),
        ({"settings": {"lr": "1"}}, UnknownNameError, "Unknown setting of head 'svm-pool5-mean' 'lr'"),
        ({"settings": {"C": "0"}}, UsageError, "C=0.0: must be more than 0"),
        ({"settings": {"grid": "10,1"}}, UsageError, "must be rising numbers above 0"),
        ({"settings": {"folds": "1"}}, UsageError, "folds=1: must be at least 2"),
        ({"settings": {"form": "pairs"}}, UsageError, "must be one of one-vs-rest, one-vs-one"),
        ({"head": "svm-vlad", "settings": {"clusters": "128", "descriptors": "90"}}, UsageError, "128 clusters of "),
    ],
    ids=["grid", "setting", "C", "order", "folds", "form", "clusters"],
)
def test_svm_refuses_wrong_requests_in_one_line(store, tmp_path, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        fit(config(store, tmp_path / "r", **changes))
    assert "\n" not in str(caught.value)
    assert changes.get("head") == "svm-vlad" or not (tmp_path / "r").exists()


@pytest.mark.slow
def test_svm_blames_the_video_whose_cubes_hold_nan(tmp_path):
    path = build(tmp_path / "s.zarr", bad=4)
    with pytest.raises(NotFiniteError, match=r"vector of video 'v004\.avi' is not finite"):
        fit(config(path, tmp_path / "r"))


def test_svm_that_cannot_fit_in_memory_says_how_much_it_takes():
    with pytest.raises(UsageError, match=r"SVM on 2000000 vectors of 25088 numbers takes about 9\d\d\d\d\.\d GB"):
        require_memory(2_000_000, 25_088, 101)


@pytest.mark.slow
def test_svm_that_is_interrupted_is_not_finished_and_starts_again(store, tmp_path):
    settings = {"grid": ",".join(f"{C / 10:g}" for C in range(1, 400)), "folds": "10"}
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGTERM])
    timer.start()
    try:
        with pytest.raises(InterruptedRunError, match=r"Stopped by SIGTERM .*the same command starts it again"):
            fit(config(store, tmp_path / "r", settings=settings))
    finally:
        timer.cancel()
    assert not Run.open(tmp_path / "r").finished
    assert json.loads((tmp_path / "r" / "config.json").read_text())["identity"]["settings"]["fit"]["folds"] == 10


@pytest.mark.slow
def test_classifier_svm_fits_the_machine_beside_its_head(tmp_path: Path) -> None:
    arguments = ["fit-head", "--store", str(build(tmp_path / "s.zarr")), "--device", "cpu", "--preset", "small"]
    arguments += ["--set", "steps=5", "--out", str(tmp_path / "r"), "--classifier", "svm", "--json"]
    done = CliRunner().invoke(main, [*arguments, "--head", "glka-gp", "--aggregator", "lstm"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["run"] == str(tmp_path / "r")
    assert Run.open(tmp_path / "r").identity.settings.config["aggregator"] == "lstm"
    assert result["svm"]["run"] == str(tmp_path / "r" / "svm")
    assert evaluate(tmp_path / "r" / "svm", device="cpu").videos == 32
    many = CliRunner().invoke(main, [*arguments, "--head", "mean", "--seeds", "2"])
    assert many.exit_code == 2
    assert "--classifier svm is for one fit" in many.stderr
