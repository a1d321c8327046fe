"""`vidatt extract` as a user runs it: real processes on real files, killed, sliced, repeated, and misused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from testkit.commands import Running, start_vidatt, vidatt
from testkit.stores import content
from torchvision.models import get_model

from vidatt.cache.store import Store
from vidatt.extract.backbones.preprocessing import IMAGENET
from vidatt.extract.datasets.generator import generate
from vidatt.extract.video import VideoReader
from vidatt.extract.views import CENTER, Geometry

pytestmark = pytest.mark.slow


def _run(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return vidatt(*arguments, env={**os.environ, **(env or {})})


def _extract(videos: Path, store: Path, *more: str | Path) -> list[str | Path]:
    return ["extract", "--dataset", "actionshapes", "--videos", videos, "--store", store, "--streams", "rgb",
            "--backbone", "hog", "--sampler", "centre:6", "--shard-videos", "2", *more]  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated data set: 24 real files, mp4 and avi."""
    folder = tmp_path_factory.mktemp("shapes") / "videos"
    generate(folder, videos=24, shapes=2, motions=2, n_jobs=2)
    return folder


@pytest.fixture(scope="module")
def reference(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that one undisturbed process makes."""
    store = tmp_path_factory.mktemp("reference") / "shapes.zarr"
    done = _run(*_extract(shapes, store, "--json", "--workers", "1"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["outcomes"] == {"ok": 24}
    assert summary["streams"]["rgb"]["cube"] == [7, 7, 36]
    assert summary["streams"]["rgb"]["segments"] == 24 * 6
    return store


def test_rerun_does_nothing_and_changes_nothing(shapes: Path, reference: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in reference.rglob("*") if p.is_file()}
    assert _run(*_extract(shapes, reference)).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in reference.rglob("*") if p.is_file()} == before


def test_two_workers_make_the_same_bytes(shapes: Path, reference: Path, tmp_path: Path) -> None:
    assert _run(*_extract(shapes, tmp_path / "s.zarr", "--workers", "2")).returncode == 0
    assert content(tmp_path / "s.zarr") == content(reference)


@pytest.mark.long
def test_four_slices_at_once_make_the_same_bytes(shapes: Path, reference: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    slices = [start_vidatt(*_extract(shapes, store, "--shard", f"{i}/4", "--workers", "1")) for i in range(4)]
    assert [s.wait() for s in slices] == [0, 0, 0, 0]
    assert content(store) == content(reference)


@pytest.mark.long
def test_slurm_array_variables_choose_the_slice(shapes: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    env = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}
    done = _run(*_extract(shapes, store, "--json"), env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["videos"] == 6
    stream = Store.open(store).stream("rgb")
    assert [s for s in range(12) if stream.is_done(s)] == [2, 6, 10]


def _wait_until(condition: Callable[[], object], process: Running) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _done(store: Path) -> int:
    return len(list(store.glob("rgb/.done/[0-9]*.json")))


@pytest.mark.long
def test_kill_9_at_random_moments_then_rerun_gives_the_same_bytes(
    shapes: Path, reference: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    moments = random.Random(7)
    # as the store comes to be, as a shard is written, and after further commits, each a little later than can be seen
    reached: list[Callable[[], object]] = [
        lambda: list(tmp_path.iterdir()),
        (store / "zarr.json").exists,
        lambda: list(store.glob(".tmp/*")),
        lambda: _done(store) > 0,
        lambda: _done(store) > before + 1,
    ]
    for condition in reached:
        before = _done(store)
        process = start_vidatt(*_extract(shapes, store, "--workers", "1"))
        _wait_until(condition, process)
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert 0 < _done(store) < 12
    time.sleep(1.0)  # the children of the killed die with their parent
    done = _run(*_extract(shapes, store, "--workers", "1"))
    assert done.returncode == 0, done.stderr
    assert content(store) == content(reference)


@pytest.mark.long
def test_every_signal_drains_and_the_same_command_continues(shapes: Path, reference: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        before = _done(store)
        process = start_vidatt(*_extract(shapes, store, "--workers", "1"))
        _wait_until(lambda: _done(store) > before, process)  # noqa: B023
        process.send_signal(number)
        assert process.wait() == 75, process.stderr
        assert "Run the same command again" in process.stderr
        assert before < 12 - len(Store.open(store).stream("rgb").missing_shards()) < 12
    assert _run(*_extract(shapes, store)).returncode == 0
    assert content(store) == content(reference)


def test_a_worker_that_is_killed_is_replaced(shapes: Path, reference: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    process = start_vidatt(*_extract(shapes, store, "--workers", "1"))
    while not (store / "rgb" / ".done" / "0.json").exists():
        assert process.poll() is None, process.stderr
        time.sleep(0.01)
    (child,) = process.children()
    os.kill(child, signal.SIGKILL)
    assert process.wait() == 0, process.stderr
    assert "SIGKILL" in process.stderr
    assert content(store) == content(reference)


def test_other_recipe_is_refused_and_the_difference_printed(shapes: Path, reference: Path) -> None:
    before = content(reference)
    refused = _run(*_extract(shapes, reference, "--crop", "112", "--resize", "short:128"))
    assert refused.returncode == 3
    assert "crop_px" in refused.stderr
    assert "112" in refused.stderr
    assert "224" in refused.stderr
    assert refused.stderr.strip().count("\n") <= 1
    assert content(reference) == before


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [("--sampler", "centre:7", "centre:7"), ("--seed", "1", "seed"), ("--shard-videos", "3", "shard_videos")],
)
def test_other_plan_is_refused_and_the_difference_printed(
    shapes: Path, reference: Path, option: str, value: str, named: str
) -> None:
    refused = _run(*_extract(shapes, reference), option, value)
    assert refused.returncode == 3
    assert named in refused.stderr


def test_dry_run_plans_and_writes_nothing(shapes: Path, tmp_path: Path) -> None:
    done = _run(*_extract(shapes, tmp_path / "s.zarr", "--dry-run", "--json"))
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["videos"], plan["segments"], plan["shards"]) == (24, 144, 12)
    assert plan["estimated_seconds"] > 0
    assert not any(tmp_path.iterdir())


BAD = [
    (["extract", "--dataset", "ucf110"], 2, "Unknown dataset 'ucf110'. Did you mean 'ucf101'?"),
    (["extract", "--dataset", "folder", "--videos", "nowhere"], 2, "There is no folder nowhere"),
    (["extract", "--dataset", "folder", "--videos", ".", "--streams", "rbg"], 2, "Unknown stream 'rbg'. Did you mean"),
    (["extract", "--dataset", "folder", "--videos", ".", "--shard", "4/4"], 2, "--shard '4/4': write I/N"),
    (["extract", "--dataset", "folder", "--segments", "3", "--sampler", "fps:2"], 2, "give one of them"),
    (["extract", "--dataset", "folder", "--videos", ".", "--layer", "folw=x"], 2, "stream in --layer"),
    (["evaluate", "nowhere"], 2, "nowhere"),
    (["fit-head", "--head", "stan", "--store", "nowhere.zarr"], 2, "No vidatt store at nowhere.zarr"),
    (["cache", "info", "nowhere.zarr"], 2, "No vidatt store at nowhere.zarr"),
    (["weights", "fetch", "vgg61"], 2, "Unknown weights 'vgg61'"),
    (["heads", "stam"], 2, "Did you mean 'stan'?"),
    (["datasets", "ucf"], 2, "Unknown dataset 'ucf'"),
    (["extrct"], 2, "No such command"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD, ids=[" ".join(b[0][:6]) for b in BAD])
def test_wrong_use_is_one_clear_line(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    done = vidatt(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--backbone", "vgg61", "Unknown backbone 'vgg61'. Did you mean 'vgg16'?"),
        ("--backbone", "hof", "works on flow, not on rgb"),
        ("--layer", "pool9", "Unknown layer of hog 'pool9'"),
    ],
)
def test_a_backbone_that_cannot_be_makes_no_store(
    shapes: Path, tmp_path: Path, option: str, value: str, message: str
) -> None:
    done = _run(*_extract(shapes, tmp_path / "s.zarr", option, value))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_every_odd_file_goes_through_in_one_run(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "videos" / "odd"
    names = sorted(p.name for p in folder.iterdir())
    rows = "".join(f"{name},any,train\n" for name in [*names, "not_there.mp4"])
    (tmp_path / "odd.csv").write_text(f"path,label,split\n{rows}")
    done = _run(
        "extract", "--dataset", "list", "--videos", folder, "--annotations", tmp_path / "odd.csv",
        "--store", tmp_path / "odd.zarr", "--streams", "rgb", "--recipe", "hands", "--sampler", "fps:2", "--json",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert summary["outcomes"] == {"missing": 1, "no_video_stream": 1, "ok": 14, "truncated": 2, "unreadable": 1}
    assert {o["id"] for o in summary["failed"] if o["outcome"] == "missing"} == {"not_there.mp4"}
    ledger = {o.id: o for o in Store.open(tmp_path / "odd.zarr").stream("rgb").outcomes()}
    assert set(ledger) == {*names, "not_there.mp4"}
    truncated = ledger["decord__corrupted.mp4"]
    assert (truncated.decoded_frames, truncated.header_frames, truncated.segments) == (28, 50, 6)


def test_vgg16_cubes_equal_torchvision_on_the_real_ucf101_clip(shared_data: Path, tmp_path: Path) -> None:
    import torch

    done = _run(
        "extract", "--dataset", "folder", "--videos", shared_data / "videos" / "ucf101",
        "--option", "unlabelled=true",
        "--store", tmp_path / "u.zarr", "--streams", "rgb", "--weights", "random", "--precision", "float32",
        "--segments", "5", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reader = Store.open(tmp_path / "u.zarr").stream("rgb").reader()
    cubes, frames = reader.read_video(0), reader.frames(0)
    assert cubes.dtype == np.float16
    path = shared_data / "videos" / "ucf101" / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g01_c01.avi"
    with VideoReader(path) as video:
        pictures = [f.rgb() for f in video.frames()]
    geometry = Geometry(resize="short:256", crop_px=224)
    pixels = torch.from_numpy(
        CENTER.cut(np.stack([geometry.resized(pictures[i]) for i in frames[:, 1]]), geometry, key=())[0]
    )
    pixels = pixels.permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(IMAGENET.mean).view(1, 3, 1, 1)) / torch.tensor(IMAGENET.std).view(1, 3, 1, 1)
    torch.manual_seed(0)
    network = get_model("vgg16", weights=None).eval()
    with torch.inference_mode():
        expected = network.features(pixels).permute(0, 2, 3, 1).numpy()
    error = np.abs(cubes.astype(np.float32) - expected)
    assert error.max() <= np.abs(expected).max() * 2**-11 * 1.05  # half a unit in the last place of float16


def test_store_is_read_by_plain_zarr(reference: Path) -> None:
    group: Any = zarr.open_group(str(reference), mode="r")
    store = Store.open(reference)
    ours = store.stream("rgb").reader().read_video(5)
    offset = int(store.index.offset[5])
    assert np.array_equal(group["rgb/cubes"][offset : offset + 6], ours)
    assert ours.any()
    assert list(group["index/id"][:3]) == list(store.index.ids[:3])


@pytest.mark.parametrize("rule", ["every:4", "fps:5"])
def test_rules_that_follow_the_length_give_ragged_rows(shapes: Path, tmp_path: Path, rule: str) -> None:
    store_path = tmp_path / "s.zarr"
    done = _run("extract", "--dataset", "actionshapes", "--videos", shapes, "--store", store_path, "--streams", "rgb",
                "--recipe", "hands", "--sampler", rule, "--shard-videos", "1", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    store = Store.open(store_path)
    reader = store.stream("rgb").reader()
    for position in range(24):
        frames = reader.frames(position)
        expected = np.arange(0, 45, 4) if rule == "every:4" else np.arange(0, 45, 3)
        assert frames[:, 0].tolist() == expected.tolist()
        assert reader.read_video(position).any(axis=(1, 2, 3)).all()
