"""Sets of views from videos to results, with real commands: one store trains on random crops and tests on others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from testkit.commands import vidatt

from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate
from vidatt.pipelines.runs.reload import load_head

pytestmark = [pytest.mark.slow, pytest.mark.long]

FEATURE = (
    "--recipe", "hands", "--streams", "rgb", "--resize", "short:32", "--crop", "28", "--device", "cpu",
    "--shard-videos", "4", "--workers", "1",
)  # fmt: skip


def _run(*arguments: object) -> dict[str, Any]:
    done = vidatt(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views") / "videos"
    generate(folder, videos=12, shapes=2, motions=2, frames=24, n_jobs=1)
    return folder


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> dict[str, Path]:
    """Return stores of one feature, by their views; the first is made in two slices."""
    folder = tmp_path_factory.mktemp("stores")
    made = {}
    for views in ("train:3+center", "train:3", "center", "train:2+10crop"):
        made[views] = folder / f"{views}.zarr"
        extract = ("extract", "--dataset", "actionshapes", "--videos", videos, "--store", made[views], *FEATURE)
        for part in ("0/2", "1/2") if views == "train:3+center" else ("0/1",):
            _run(*extract, "--segments", "3", "--views", views, "--shard", part)
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, stores: dict[str, Path]) -> Path:
    """Return a run fitted on `train:3` of the store that has `center` too."""
    return _fitted(tmp_path_factory.mktemp("run") / "r", stores["train:3+center"])


def _fitted(out: Path, store: Path, *more: object) -> Path:
    fit = ("fit-head", "--head", "stan", "--preset", "small", "--set", "steps=5", "--device", "cpu", "--out", out)
    _run(*fit, "--store", store, *more)
    return out


def _expected(run: Path, store: Path, views: range) -> dict[str, np.ndarray]:
    """Return the probabilities of the test videos by hand: the mean over views, one video at a time."""
    opened, head = Store.open(store), load_head(run)
    found = {}
    for position in np.flatnonzero(opened.index.splits["1"] == 2).tolist():
        seen = [opened.stream("rgb").video(position, view=view) for view in views]
        with torch.inference_mode():
            each = [
                head.probabilities(head([torch.from_numpy(v.cubes)[None]], torch.from_numpy(v.valid)[None]).logits)[0]
                for v in seen
            ]
        found[str(opened.index.ids[position])] = torch.stack(each).mean(0).numpy()
    return found


def _same_scores(file: str, expected: dict[str, np.ndarray]) -> None:
    with np.load(file) as scores:
        got = dict(zip(scores["ids"].tolist(), scores["scores"], strict=True))
    assert got.keys() == expected.keys()
    for id, values in expected.items():
        np.testing.assert_allclose(got[id], values, atol=1e-5)


def test_a_set_holds_what_a_store_of_it_alone_does(stores: dict[str, Path]) -> None:
    both = Store.open(stores["train:3+center"])
    assert (both.views, both.plan.view_rule) == (4, "train:3+center")
    for views, first in (("train:3", 0), ("center", 3)):
        alone = Store.open(stores[views])
        for position in range(len(both.index)):
            for view in range(alone.views):
                ours, theirs = both["rgb"].video(position, view=first + view), alone["rgb"].video(position, view=view)
                assert ours.cubes.tobytes() == theirs.cubes.tobytes()
                assert np.array_equal(ours.frames, theirs.frames)
    ten = Store.open(stores["train:2+10crop"])
    shown = ten["rgb"].video(0, view=2 + 4).cubes
    assert shown.tobytes() == Store.open(stores["center"])["rgb"].video(0).cubes.tobytes()


def test_the_command_continues_a_store_without_its_views(stores: dict[str, Path], videos: Path) -> None:
    store = stores["train:3+center"]
    extract = ("extract", "--dataset", "actionshapes", "--videos", videos, "--store", store, *FEATURE)
    planned = _run(*extract, "--dry-run")
    assert (planned["segments"], planned["shards_to_do"]) == (12 * 3 * 4, 0)
    refused = vidatt(*extract, "--views", "train:3+10crop")
    assert refused.returncode == 3
    assert "view_rule: 'train:3+10crop' here, 'train:3+center' in the store" in refused.stderr


def test_a_fit_and_its_evaluation_take_each_their_set(stores: dict[str, Path], run: Path) -> None:
    store = stores["train:3+center"]
    tested = _run("evaluate", run)
    assert tested["sampled"] == {"views": "center", "sampler": "uniform:3", "window_frames": 1, "seed": None}
    _same_scores(tested["scores"], _expected(run, store, range(3, 4)))
    trained = _run("evaluate", run, "--views", "train")
    assert trained["sampled"] == {"views": "train:3", "sampler": "uniform:3", "window_frames": 1, "seed": 0}
    _same_scores(trained["scores"], _expected(run, store, range(3)))
    said = vidatt("evaluate", run)
    assert "view center; segments uniform:3, window 1" in said.stdout
    odd = vidatt("evaluate", run, "--views", "10crop")
    assert odd.returncode == 2
    assert odd.stderr.strip().endswith("'10crop'. Known: center, train, train:3.")


def test_a_run_meets_any_store_of_equal_features(
    tmp_path: Path, stores: dict[str, Path], run: Path, videos: Path
) -> None:
    ten = _run("evaluate", run, "--store", stores["train:2+10crop"])
    assert ten["sampled"]["views"] == "10crop"
    _same_scores(ten["scores"], _expected(run, stores["train:2+10crop"], range(2, 12)))
    on_train = _fitted(tmp_path / "t", stores["train:3"])
    assert _run("evaluate", on_train, "--store", stores["center"])["sampled"]["views"] == "center"
    on_center = _fitted(tmp_path / "c", stores["center"])
    assert _run("evaluate", on_center, "--store", stores["train:2+10crop"])["sampled"]["views"] == "10crop"
    other = tmp_path / "other.zarr"
    extract = ("extract", "--dataset", "actionshapes", "--videos", videos, "--store", other, *FEATURE)
    _run(*extract, "--segments", "3", "--crop", "14", "--resize", "short:40")
    refused = vidatt("evaluate", run, "--store", other)
    assert refused.returncode == 3
    said = refused.stderr.split("fitted on:")[1]
    assert "crop_px: 28 -> 14" in said
    assert 'resize: "short:32" -> "short:40"' in said
    assert "view" not in said


def test_boxes_are_of_the_centre_wherever_a_store_has_it(tmp_path: Path, stores: dict[str, Path], run: Path) -> None:
    boxes = []
    for views in ("train:3+center", "train:2+10crop", "center"):
        found = _run("locate", run, "--store", stores[views], "--out", tmp_path / "boxes.csv")
        assert found["sampled"]["views"] == "center"
        boxes.append((tmp_path / "boxes.csv").read_bytes())
    assert boxes[0] == boxes[1] == boxes[2]
    refused = vidatt("locate", run, "--store", stores["train:3"], "--out", tmp_path / "boxes.csv")
    assert refused.returncode == 2
    assert "holds random crops (views train:3)" in refused.stderr


def _drawn(store: Path, videos: Path, *more: object) -> Store:
    _run("extract", "--dataset", "actionshapes", "--videos", videos, "--store", store, *FEATURE, *more)
    return Store.open(store)


DRAWN = ("--sampler", "random:3:2", "--views", "train:2", "--seed", "6")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """Return a store of drawn segments."""
    return _drawn(tmp_path_factory.mktemp("drawn") / "drawn.zarr", videos, *DRAWN).path


def test_drawn_segments_are_stored_the_same_for_every_stream_and_worker(
    tmp_path: Path, videos: Path, drawn: Path
) -> None:
    one = Store.open(drawn)["rgb"]
    frames = [one.video(position).frames[:, 0] for position in range(12)]
    assert all((first // 8).tolist() == [0, 0, 1, 1, 2, 2] for first in frames)  # of 24 frames
    assert len({first.tobytes() for first in frames}) == 12
    assert all(np.array_equal(first, one.video(p, view=1).frames[:, 0]) for p, first in enumerate(frames))
    cut = _drawn(tmp_path / "cut.zarr", videos, *DRAWN, "--shard", "1/2", "--workers", "2")["rgb"]
    mine = [position for position in range(12) if cut.is_done(position // 4)]
    assert mine
    for position in mine:
        ours, theirs = cut.video(position, view=1), one.video(position, view=1)
        assert ours.cubes.tobytes() == theirs.cubes.tobytes()
        assert np.array_equal(ours.frames, theirs.frames)
    # the clip stream is added without a word on sampler and views, which are the store's
    clip = ("--streams", "clip", "--crop", "112", "--resize", "short:112", "--seed", "6", "--shard", "1/2")
    more = _drawn(tmp_path / "cut.zarr", videos, *clip)["clip"]
    assert all(np.array_equal(more.video(p).frames[:, 0], frames[p]) for p in mine)


def test_segments_drawn_to_train_on_and_even_ones_to_test_on(
    tmp_path: Path, stores: dict[str, Path], drawn: Path
) -> None:
    run = _fitted(tmp_path / "r", drawn)
    own = _run("evaluate", run)
    assert own["sampled"] == {"views": "train:2", "sampler": "random:3:2", "window_frames": 1, "seed": 6}
    assert "segments random:3:2, window 1; drawn by seed 6" in own["protocol"]
    tested = _run("evaluate", run, "--store", stores["center"])
    assert tested["sampled"] == {"views": "center", "sampler": "uniform:3", "window_frames": 1, "seed": None}
