"""Three streams and several views of one decoding pass, through the command line, on real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from testkit.commands import vidatt
from testkit.stores import content

from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate
from vidatt.extract.flow.engines import tvl1
from vidatt.extract.flow.levels import quantise
from vidatt.extract.streams import StreamConfig
from vidatt.extract.video import VideoReader
from vidatt.extract.views import CENTER, Geometry

pytestmark = pytest.mark.slow
SIDE = 56  # pixels: TV-L1 costs by the pixel
VIDEOS = 6


def _extract(videos: Path, store: Path, *more: str, code: int = 0) -> dict[str, Any]:
    done = vidatt(
        "extract", "--dataset", "actionshapes", "--videos", videos, "--store", store, "--recipe", "hands",
        "--resize", f"short:{SIDE}", "--crop", SIDE, "--sampler", "centre:3", "--json", *more,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code in (0, 1) else {"error": done.stderr}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "videos"
    generate(folder, videos=VIDEOS, shapes=2, motions=1, n_jobs=1)
    return folder


@pytest.fixture(scope="module")
def store(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    summary = _extract(shapes, path, "--workers", "1")
    assert summary["outcomes"] == {"ok": VIDEOS}
    assert {name: s["cube"][:2] for name, s in summary["streams"].items()} == {
        name: [7, 7] for name in ("rgb", "flow", "clip")
    }
    return path


def test_all_streams_stand_on_the_same_segments(store: Path) -> None:
    opened = Store.open(store)
    rgb, flow, clip = (opened.stream(name).reader() for name in ("rgb", "flow", "clip"))
    for position in range(VIDEOS):
        first = rgb.frames(position)[:, 0]
        assert first.tolist() == np.minimum([7, 22, 37], 45 - 16).tolist()
        assert np.array_equal(flow.frames(position)[:, 0], first)
        assert np.array_equal(clip.frames(position)[:, 0], first)
        assert (clip.frames(position)[:, 2] - first == 16).all()
        assert (flow.frames(position)[:, 2] - first == 11).all()


def test_streams_equal_their_parts_computed_by_hand(shapes: Path, store: Path) -> None:
    import torch

    opened = Store.open(store)
    position = 2
    with VideoReader(shapes / str(opened.index.paths[position])) as reader:
        pictures = [frame.rgb() for frame in reader.frames()]
    geometry = Geometry(resize=f"short:{SIDE}", crop_px=SIDE)

    grays = np.stack([cv2.cvtColor(geometry.resized(p), cv2.COLOR_RGB2GRAY) for p in pictures])
    levels = quantise(tvl1(grays[:-1], grays[1:]))
    _, _, H, W = levels.shape
    left, top = geometry.center(W, H)
    square = levels[:, :, top : top + SIDE, left : left + SIDE]
    first = opened.stream("flow").reader().frames(position)[:, 0]
    stacks = np.stack([np.ascontiguousarray(square[f : f + 10].transpose(2, 3, 0, 1)) for f in first])
    stacks = stacks.reshape(-1, SIDE, SIDE, 20)
    resized = np.stack([geometry.resized(picture) for picture in pictures])
    clips = np.stack([CENTER.cut(resized[f : f + 16], geometry, key=())[0] for f in first])
    for name, backbone, inputs in (("flow", "hof", stacks), ("clip", "hog3d", clips)):
        setup = StreamConfig(name=name, backbone=backbone, resize=f"short:{SIDE}", crop_px=SIDE).setup("cpu")
        with torch.inference_mode():
            expected = setup.backbone(torch.from_numpy(inputs)).numpy()
        ours = opened.stream(name).reader().read_video(position)
        assert np.allclose(ours, expected, atol=2e-3), name
        assert ours.any()


@pytest.mark.long
def test_adding_a_stream_touches_no_existing_file(shapes: Path, store: Path, tmp_path: Path) -> None:
    grown = tmp_path / "s.zarr"
    _extract(shapes, grown, "--streams", "rgb", "--window", "16")
    before = content(grown)
    _extract(shapes, grown, "--streams", "flow")
    _extract(shapes, grown, "--streams", "rgb,flow,clip")
    after = content(grown)
    assert {name: after[name] for name in before} == before
    reference = content(store)
    for name in ("rgb", "flow", "clip"):
        files = {key for key in reference if key.startswith(f"{name}/")}
        assert files
        assert all(after[key] == reference[key] for key in files)


@pytest.mark.long
def test_flow_in_the_worker_and_in_the_decoder_agree(shapes: Path, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "s.zarr"
    _extract(shapes, other, "--streams", "flow", "--window", "16", "--flow-engine", "torch")
    ours, theirs = (Store.open(p).stream("flow") for p in (other, store))
    assert (ours.recipe["flow"]["engine"], theirs.recipe["flow"]["engine"]) == ("torch", "numba")
    a = np.concatenate([ours.reader().read_video(p).astype(np.float32) for p in range(VIDEOS)])
    b = np.concatenate([theirs.reader().read_video(p).astype(np.float32) for p in range(VIDEOS)])
    assert np.linalg.norm(a - b) / np.linalg.norm(b) < 0.1


def test_another_flow_is_refused(shapes: Path, store: Path) -> None:
    before = content(store)
    refused = _extract(shapes, store, "--flow-bound", "15", code=3)
    assert "bound" in refused["error"]
    assert content(store) == before


@pytest.mark.long
@pytest.mark.parametrize(("rule", "count"), [("10crop", 10), ("train:2", 2)])
def test_views_are_a_leading_axis(shapes: Path, tmp_path: Path, rule: str, count: int) -> None:
    path = tmp_path / "s.zarr"
    summary = _extract(shapes, path, "--views", rule, "--shard-videos", "2", "--workers", "2")
    assert all(s["segments"] == VIDEOS * 3 for s in summary["streams"].values())
    again = tmp_path / "t.zarr"
    _extract(shapes, again, "--views", rule, "--shard-videos", "2", "--workers", "1")
    assert content(path) == content(again)
    opened = Store.open(path)
    assert opened.views == count
    for name in ("rgb", "flow", "clip"):
        reader = opened.stream(name).reader()
        views = [reader.read_video(3, view=v) for v in range(count)]
        assert all(v.any() for v in views)
        assert not np.array_equal(views[0], views[1])
        assert np.array_equal(reader.frames(3, view=0), reader.frames(3, view=count - 1))


def test_hof_of_a_mirrored_view_mirrors_its_bins(shapes: Path, tmp_path: Path) -> None:
    """The tenth crop is the fifth mirrored: HOG of rgb mirrors its columns, which ties views to their order."""
    path = tmp_path / "s.zarr"
    _extract(shapes, path, "--views", "10crop", "--streams", "rgb")
    reader = Store.open(path).stream("rgb").reader()
    plain, mirrored = (np.linalg.norm(reader.read_video(0, view=v).astype(np.float32), axis=-1) for v in (4, 9))
    assert np.allclose(plain, mirrored[:, :, ::-1], atol=5e-3)


@pytest.mark.long
def test_recipes_set_everything(shapes: Path, tmp_path: Path) -> None:
    done = vidatt(
        "extract", "--dataset", "actionshapes", "--videos", shapes, "--store", tmp_path / "s.zarr",
        "--recipe", "glka", "--weights", "random", "--dry-run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["streams"].keys() == {"rgb"}
    assert plan["streams"]["rgb"]["cube"] == [7, 7, 512]
    assert plan["segments"] == VIDEOS * 2 * 30  # 45 frames: windows at 0 and 15
