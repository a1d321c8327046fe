"""Fits and evaluations on small stores with a planted signal: one marked, class-coded cell among noise and decoys."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.ledger import VideoOutcome
from vidatt.cache.store import Store
from vidatt.errors import (
    FingerprintMismatchError,
    MissingFileError,
    NotFiniteError,
    RefusedError,
    UnknownNameError,
    UsageError,
)
from vidatt.pipelines.fitting.fit import FitConfig, fit, plan_fit
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.runs.attention import attention
from vidatt.pipelines.runs.run import Run

CLASSES, T, K, D = 4, 5, 5, 12


def planted(position: int, segment: int) -> tuple[int, int]:
    """The cell that carries the class in a segment of a video."""
    return divmod((7 * position + 3 * segment) % (K * K), K)


def build(
    path: Path,
    *,
    videos: int = 120,
    grids: dict[str, int] | None = None,
    views: int = 1,
    multi_label: bool = False,
    lengths: Callable[[int], int] = lambda position: T,
    missing: tuple[int, ...] = (),
    group: Callable[[int], str] = lambda position: f"g{position // 4}",
    recipe: str = "planted",
) -> Store:
    """Every third video is a test video. All cells hold noise, one the code of each label with a mark in channel 0, two
    the code of a random class without a mark: whoever averages hears the decoys."""
    generator = np.random.default_rng(0)
    codes = np.random.default_rng(1).standard_normal((CLASSES, D))
    codes *= 4 / np.linalg.norm(codes, axis=1, keepdims=True)
    codes[:, 0] = 0
    length = np.array([lengths(position) for position in range(videos)])
    labels = (np.arange(videos) // 3 % CLASSES)[:, None]
    if multi_label:
        labels = np.concatenate(
            [labels, np.where(np.arange(videos) % 5 == 0, (labels[:, 0] + 1) % CLASSES, -1)[:, None]], 1
        )
        labels[np.arange(videos) % 11 == 0] = -1
    index = Index(
        ids=np.array([f"v{i:03}.avi" for i in range(videos)]),
        paths=np.array([f"v{i:03}.avi" for i in range(videos)]),
        groups=np.array([group(i) for i in range(videos)]),
        labels=labels,
        classes=tuple(f"class {n}" for n in range(CLASSES)),
        multi_label=multi_label,
        splits={"a": np.where(np.arange(videos) % 3 == 0, 2, 1), "b": np.where(np.arange(videos) % 3 == 1, 2, 1)},
        length=length,
    )
    layout = plan_layout(length, views, 16)
    store = Store.create(path, index=index, views=views, layout=layout, attributes={"dataset": "planted"})
    for name, side in (grids or {"rgb": K}).items():
        stream = store.add_stream(name, cube_shape=(side, side, D), recipe={"backbone": recipe, "stream": name})
        for shard in range(store.shard_count):
            start, stop = store.shard_row_range(shard)
            cubes = np.zeros((stop - start, side, side, D), np.float16)
            frames, outcomes = np.full((stop - start, 3), -1, np.int32), []
            for v in store.shard_videos(shard):
                gone = v in missing
                for view in range(views):
                    for t in range(0 if gone else int(length[v])):
                        row = int(store.index.offset[v]) + view * int(length[v]) + t - start
                        cubes[row] = generator.standard_normal((side, side, D))
                        frames[row] = t
                        if side != K:
                            continue
                        for y, x, decoy in generator.integers([0, 0, 0], [K, K, CLASSES], (2, 3)):
                            cubes[row, y, x] += codes[decoy]
                        for label in store.index.labels[v][store.index.labels[v] >= 0]:
                            cubes[(row, *planted(v, t))] += codes[label]
                            cubes[(row, *planted(v, t), 0)] += 4
                outcomes.append(
                    VideoOutcome(
                        id=str(store.index.ids[v]),
                        outcome="missing" if gone else "ok",
                        segments=0 if gone else int(length[v]),
                    )
                )
            seconds = np.zeros(stop - start)
            stream.publish(shard, cubes=cubes, frames=frames, seconds=seconds, outcomes=outcomes)
    return store


QUICK = {"conv6": "8", "lstm": "8", "kernel": "1", "steps": "24", "validate_every": "8"}


def quick(store: Path, out: Path, **changes) -> FitConfig:
    config = FitConfig(head="stan", store=store, out=out, preset="small", settings=QUICK, device="cpu")
    return replace(config, **changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("planted") / "one.zarr").path


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    fit(quick(store, out))
    return out


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "weights.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_fit_stan_finds_the_planted_cell_and_beats_the_mean(tmp_path):
    path = build(tmp_path / "s.zarr", videos=360).path
    scores = {}
    for head, settings in (("stan", {"conv6": "32", "lstm": "16", "kernel": "1"}), ("mean", {})):
        fit(quick(path, tmp_path / head, head=head, settings={"steps": "300", **settings}))
        scores[head] = evaluate(tmp_path / head, device="cpu").metrics.top1
    assert scores["stan"] > 0.9
    assert scores["mean"] < 0.8
    found = [
        np.unravel_index(video.spatial[t, 0].argmax(), (K, K)) == planted(video.position, t)
        for video in attention(tmp_path / "stan", device="cpu")
        for t in range(T)
    ]
    assert np.mean(found) > 0.9


@pytest.mark.slow
def test_fit_writes_a_complete_run(store, finished):
    assert sorted(path.name for path in finished.iterdir()) == [
        "config.json", "history.csv", "log.txt", "metrics.json", "scores-a-validation.npz",
        "videos.npz", "weights.safetensors",
    ]  # fmt: skip
    run = Run.open(finished)
    identity, result = run.identity, run.fit_result()
    recorded = identity.streams["rgb"]
    assert (recorded.grid, recorded.channels) == (K, D)
    assert recorded.fingerprint == Store.open(store).stream("rgb").fingerprint
    assert recorded.recipe == {"backbone": "planted", "stream": "rgb"}
    assert (identity.head, identity.preset, identity.split, identity.seed) == ("stan", "small", "a", 0)
    assert identity.settings.config["conv6"] == 8
    assert identity.classes == tuple(f"class {n}" for n in range(CLASSES))
    assert run.config["environment"]["versions"].keys() >= {"vidatt", "torch"}
    assert result.to_dict().keys() >= {"run", "head", "streams", "metrics", "seconds"}
    assert result.metrics.validation.to_dict().keys() == {"top1", "top5", "class_mean", "map"}
    rows = (finished / "history.csv").read_text().splitlines()
    assert rows[0] == "step,lr,train_loss,validation_loss,top1,map,seconds"
    assert [row.split(",")[0] for row in rows[1:]] == ["8", "16", "24"]
    assert "24 steps of 32 on cpu" in (finished / "log.txt").read_text()
    with np.load(finished / "scores-a-validation.npz") as scores:
        assert scores["scores"].dtype == np.float32
        assert len(scores["ids"]) == len(scores["labels"]) == result.validation_videos
        top1 = accuracy_score(scores["labels"][:, 0], scores["scores"].argmax(1))
    assert top1 == pytest.approx(result.metrics.validation.top1)


@pytest.mark.slow
def test_fit_validates_on_whole_groups_of_the_training_list(store):
    plan = plan_fit(quick(store, Path("unused")))
    index = plan.store.index
    assert (index.splits["a"][np.concatenate([plan.train, plan.validation])] == 1).all()
    assert not set(map(str, index.groups[plan.train])) & set(map(str, index.groups[plan.validation]))
    assert len(plan.train) + len(plan.validation) == 80
    assert 12 <= len(plan.validation) <= 20
    assert "validation: " in plan.notes[-1]


@pytest.mark.slow
def test_fit_keeps_the_best_validated_weights(store, tmp_path):
    result = fit(quick(store, tmp_path / "r", settings=QUICK | {"steps": "60", "lr": "0.02", "validate_every": "3"}))
    rows = [row.split(",") for row in (tmp_path / "r" / "history.csv").read_text().splitlines()[1:]]
    best = max(rows, key=lambda row: (float(row[4]), -float(row[3])))
    assert result.best_step == int(best[0])
    assert result.metrics.validation.top1 == pytest.approx(float(best[4]))


@pytest.mark.slow
def test_fit_is_deterministic_and_the_seed_matters(store, finished, tmp_path):
    fit(quick(store, tmp_path / "again"))
    fit(quick(store, tmp_path / "other", seed=1))
    assert same(finished, tmp_path / "again")
    assert not same(finished, tmp_path / "other")


def test_fit_again_returns_the_finished_result_untouched(store, finished):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    result = fit(quick(store, finished))
    assert result.finished_before
    assert result.metrics == Run.open(finished).fit_result().metrics
    assert before == {path.name: path.read_bytes() for path in finished.iterdir()}


def test_fit_refuses_the_folder_of_another_fit_and_says_what_differs(store, finished):
    with pytest.raises(RefusedError, match=r"settings\.fit\.lr: 0\.001 -> 0\.5; seed: 0 -> 3"):
        fit(quick(store, finished, settings=QUICK | {"lr": "0.5"}, seed=3))


def test_fit_stops_on_nan_with_step_rate_and_cause(store, tmp_path):
    settings = QUICK | {"optimiser": "sgd", "lr": "1e30", "steps": "50", "schedule": "steps"}
    with pytest.raises(
        NotFiniteError, match=r"Loss is (nan|inf) at step \d+, learning rate 1e\+30.*lr=1e\+29"
    ) as caught:
        fit(quick(store, tmp_path / "r", settings=settings, checkpoint_seconds=0.0))
    assert "checkpoint is kept in" in str(caught.value)
    assert (tmp_path / "r" / "checkpoint.pt").exists()


@pytest.mark.slow
def test_fit_blames_the_cubes_that_hold_nan(tmp_path):
    store = build(tmp_path / "s.zarr", videos=24)
    bad = store.add_stream("flow", cube_shape=(2, 2, 3), recipe={"bad": True})
    for shard in range(store.shard_count):
        first, last = store.shard_row_range(shard)
        done = {o.id: o for o in store.stream("rgb").outcomes()}
        bad.publish(
            shard,
            cubes=np.full((last - first, 2, 2, 3), np.nan, np.float16),
            frames=np.zeros((last - first, 3), np.int32),
            seconds=np.zeros(last - first),
            outcomes=[done[str(store.index.ids[v])] for v in store.shard_videos(shard)],
        )
    with pytest.raises(NotFiniteError, match=r"at step 1, .*video 'v\d+\.avi' in stream 'flow' hold NaN"):
        fit(quick(store.path, tmp_path / "r"))


def test_evaluate_reports_what_scikit_learn_counts(store, finished):
    result = evaluate(finished, device="cpu")
    assert result.to_dict().keys() >= {
        "run",
        "split",
        "videos",
        "metrics",
        "protocol",
        "confusion",
        "per_class",
        "missing",
    }
    assert (result.split, result.videos, result.missing) == ("a", 40, 0)
    with np.load(finished / "scores-a-test.npz") as scores:
        np.testing.assert_allclose(scores["scores"].sum(1), 1, rtol=1e-5)
        index = Store.open(store).index
        assert set(scores["ids"]) == {str(id) for id in index.ids[index.splits["a"] == 2]}
        assert result.metrics.top1 == accuracy_score(scores["labels"][:, 0], scores["scores"].argmax(1))
    assert np.sum(result.confusion) == 40
    assert np.trace(result.confusion) == result.metrics.top1 * 40
    assert [row.name for row in result.per_class] == list(index.classes)
    kept = Run.open(finished).metrics()["evaluations"]["a-test"]
    assert kept["metrics"] == result.metrics.to_dict()
    assert "40 of 40 test videos" in result.protocol
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()
    with pytest.raises(RefusedError, match=r"80 of 80 train videos .* fitted on \(64\) and selected on \(16\)"):
        evaluate(finished, part="train", device="cpu")
    seen = evaluate(finished, part="train", device="cpu", allow_seen=True)
    assert (seen.videos, seen.seen) == (80, 80)


def test_evaluate_does_not_depend_on_the_batch(finished):
    one = evaluate(finished, device="cpu", batch_videos=7)
    assert one.metrics.map == pytest.approx(evaluate(finished, device="cpu").metrics.map)


def test_evaluate_refuses_what_does_not_fit(store, finished, tmp_path):
    other = build(tmp_path / "other.zarr", videos=24, recipe="resnet").path
    with pytest.raises(FingerprintMismatchError, match=r"backbone: \"planted\" -> \"resnet\""):
        evaluate(finished, store_path=other, device="cpu")
    with pytest.raises(RefusedError, match=r"40 of 40 test videos of split 'b' are videos that run .*Fit one run per"):
        evaluate(finished, split="b", device="cpu")
    with pytest.raises(UnknownNameError, match=r"Unknown part 'tset'\. Did you mean 'test'"):
        evaluate(finished, part="tset", device="cpu")
    with pytest.raises(UnknownNameError, match="Unknown split 'z'"):
        evaluate(finished, split="z", device="cpu")
    with pytest.raises(MissingFileError, match="is no run"):
        evaluate(tmp_path, device="cpu")
    with pytest.raises(UsageError, match="Device 'gpu': must be auto, cpu, cuda"):
        evaluate(finished, device="gpu")


@pytest.mark.slow
def test_evaluate_moved_store_of_the_same_recipe(store, finished, tmp_path):
    twin = build(tmp_path / "twin.zarr").path
    assert evaluate(finished, store_path=twin, device="cpu").metrics == evaluate(finished, device="cpu").metrics


@pytest.mark.slow
def test_evaluate_states_missing_videos(tmp_path):
    path = build(tmp_path / "s.zarr", videos=60, missing=(3, 4, 9)).path  # 3 and 9 are test videos of split a
    result = fit(quick(path, tmp_path / "r"))
    assert "1 of 40 training videos left out: no segments in every one of rgb" in result.notes
    scored = evaluate(tmp_path / "r", device="cpu")
    assert (scored.listed, scored.videos, scored.missing) == (20, 18, 2)
    assert "2 without usable cubes are left out of every denominator" in scored.protocol


@pytest.mark.slow
def test_fit_and_evaluate_multi_label(tmp_path):
    store = build(tmp_path / "s.zarr", multi_label=True)
    plan = plan_fit(quick(store.path, Path("unused")))
    assert (store.index.labels[plan.train] >= 0).any(1).all()
    assert any("no label" in note for note in plan.notes)
    for loss in ("softmax", "sigmoid"):
        result = fit(quick(store.path, tmp_path / loss, settings=QUICK | {"loss": loss}))
        assert result.selected_by.startswith("map")
        scored = evaluate(tmp_path / loss, device="cpu")
        assert scored.videos == 40  # those without labels are negatives
        assert scored.metrics.class_mean is None
        assert scored.confusion is None
        assert 0 < scored.metrics.map <= 1
    with np.load(tmp_path / "sigmoid" / "scores-a-test.npz") as scores:
        assert scores["labels"].shape == (40, 2)
        assert not np.allclose(scores["scores"].sum(1), 1)


@pytest.mark.slow
def test_fit_several_streams_views_and_lengths(tmp_path):
    path = build(
        tmp_path / "s.zarr", videos=48, views=2, grids={"rgb": K, "flow": 3}, lengths=lambda p: 2 + p % 4
    ).path  # fmt: skip
    fit(quick(path, tmp_path / "r"))
    result = evaluate(tmp_path / "r", device="cpu")
    assert "averaged over 2 views" in result.protocol
    seen = list(attention(tmp_path / "r", videos=[5, 0, 2], view=1, device="cpu"))
    assert [video.position for video in seen] == [5, 0, 2]
    for video in seen:
        length = 2 + video.position % 4
        assert video.spatial.shape == (length, 2, K, K)
        np.testing.assert_allclose(video.spatial.sum((2, 3)), 1, rtol=1e-5)
        np.testing.assert_allclose(video.temporal.sum(), 1, rtol=1e-5)
        assert video.temporal_raw.shape == (length,)
    with np.load(tmp_path / "r" / "scores-a-test.npz") as scores:
        means = {}
        for view in (0, 1):
            for video in attention(tmp_path / "r", view=view, device="cpu"):
                means[video.id] = means.get(video.id, 0) + video.probabilities / 2
        for id, row in zip(scores["ids"], scores["scores"], strict=True):
            np.testing.assert_allclose(row, means[str(id)], atol=1e-6)


def test_attention_of_a_head_without_maps_is_none(store, tmp_path):
    fit(quick(store, tmp_path / "m", head="mean", settings={"steps": "8"}))
    video = next(attention(tmp_path / "m", device="cpu"))
    assert video.spatial is None
    assert video.temporal_raw is None
    np.testing.assert_allclose(video.temporal, 1 / T)


def test_fit_without_validation_keeps_the_last_weights(store, tmp_path):
    result = fit(quick(store, tmp_path / "r", validation_share=0.0))
    assert (result.best_step, result.selected_by, result.metrics.validation) == (24, "last step", None)
    assert any("no validation part" in note for note in result.notes)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["steps", "plateau"])
def test_fit_other_schedules_lower_the_rate(store, tmp_path, schedule):
    settings = QUICK | {"schedule": schedule, "milestones": "4", "patience": "1", "validate_every": "2", "lr": "0.5"}
    fit(quick(store, tmp_path / "r", settings=settings))
    rates = [float(row.split(",")[1]) for row in (tmp_path / "r" / "history.csv").read_text().splitlines()[1:]]
    assert rates[0] == 0.5
    assert rates[-1] < 0.5


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"streams": ("flwo",)}, UsageError, "flwo"),
        ({"split": "c"}, UnknownNameError, "Unknown split 'c'"),
        ({"head": "stam"}, UnknownNameError, "Did you mean 'stan'"),
        ({"settings": {"lrr": "1"}}, UnknownNameError, "Did you mean 'lr'"),
        ({"store": Path("nowhere.zarr")}, MissingFileError, "nowhere.zarr"),
        ({"validation_share": 0.9}, UsageError, "must be 0 .none. to 0.5"),
        ({"device": "cuda:99"}, UsageError, "this machine offers"),
    ],
    ids=["stream", "split", "head", "setting", "store", "share", "device"],
)
def test_fit_refuses_wrong_requests_before_writing(store, tmp_path, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        fit(replace(quick(store, tmp_path / "r"), **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("changes", [{"seed": -1}, {"checkpoint_seconds": -1.0}], ids=str)
def test_fit_config_refuses_negative_numbers(store, changes):
    with pytest.raises(UsageError, match="must be 0 or more"):
        quick(store, Path("unused"), **changes)
