"""A bug of ours, or a machine that crashes every decoder, is never a video's fault: the run stops, the store stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from testkit.commands import vidatt
from testkit.stores import content

from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate
from vidatt.extract.kinds import RGB
from vidatt.extract.sampling import Sampler
from vidatt.extract.segments import Message, VideoEnd, VideoJob, _place, read_segments
from vidatt.extract.video import VideoProblemError, VideoReader
from vidatt.extract.views import Geometry, Views
from vidatt.extract.windows import StreamInput

RAW = StreamInput(name="rgb", kind=RGB, geometry=Geometry(resize="none", crop_px=48), views=Views.parse("center"))
IN_THE_DECODER = "import sys, os, signal\nif 'vidatt.extract.decoder:serve' in sys.orig_argv:\n    import av\n"
OTHER_OPEN = IN_THE_DECODER + "    av.open = lambda: None\n"  # as a version of PyAV that takes other arguments
NO_OPENCV = IN_THE_DECODER.replace("import av", "sys.modules['cv2'] = None")
SEGMENTATION_FAULT = IN_THE_DECODER + "    av.open = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV)\n"
IN_THE_WORKER = (
    "import sys\nif 'vidatt.pipelines.extraction.worker:serve' in sys.orig_argv:\n"
    "    import torch\n    torch.inference_mode = None\n"
)


def _broken(folder: Path, code: str) -> dict[str, str]:
    """An environment in which every interpreter runs `code` at its start."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    path = os.pathsep.join(p for p in (str(folder), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path}


def _extract(
    videos: Path, store: Path, *more: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return vidatt(
        "extract", "--dataset", "folder", "--videos", videos, "--option", "unlabelled=true", "--store", store,
        "--streams", "rgb", "--backbone", "hog", "--segments", "2", "--shard-videos", "2", "--workers", "1",
        "--json", *more, env=env,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small real videos."""
    folder = tmp_path_factory.mktemp("shapes") / "videos"
    generate(folder, videos=12, shapes=2, motions=2, frames=8, n_jobs=1)
    (folder / "annotations.json").unlink()
    return folder


@pytest.fixture(scope="module")
def half(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of which every other shard is made."""
    store = tmp_path_factory.mktemp("half") / "s.zarr"
    assert _extract(shapes, store, "--shard", "0/2").returncode == 0
    return store


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "named"),
    [
        pytest.param(OTHER_OPEN, "TypeError", id="wrong-keyword"),
        pytest.param(NO_OPENCV, "ModuleNotFoundError", id="import-that-fails"),
        pytest.param(IN_THE_WORKER, "TypeError", id="in-the-worker"),
    ],
)
def test_a_bug_stops_the_run_with_its_traceback_and_leaves_the_store_as_it_was(
    shapes: Path, half: Path, tmp_path: Path, code: str, named: str
) -> None:
    store = shutil.copytree(half, tmp_path / "s.zarr")
    before = content(store)
    done = _extract(shapes, store, env=_broken(tmp_path / "broken", code))
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert named in done.stderr
    assert "decoder_crash" not in done.stderr
    assert done.stdout == ""
    assert content(store) == before
    assert json.loads(_extract(shapes, store).stdout)["outcomes"] == {"ok": 12}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_same_crash_on_the_first_videos_stops_the_run_and_commits_nothing(
    shapes: Path, tmp_path: Path, workers: str
) -> None:
    store = tmp_path / "s.zarr"
    crash = _broken(tmp_path / "broken", SEGMENTATION_FAULT)
    done = _extract(shapes, store, "--workers", workers, env=crash)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "videos all ended as decoder_crash" in line]
    assert "The first 8 videos" in line
    assert "SIGSEGV" in line
    assert "vidatt doctor" in line
    assert "Traceback" not in done.stderr
    assert len(Store.open(store).stream("rgb").missing_shards()) == 6
    done = _extract(shapes, store)
    assert json.loads(done.stdout)["outcomes"] == {"ok": 12}, done.stderr


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_short_run_of_crashes_is_judged_as_a_whole(shapes: Path, tmp_path: Path, workers: str) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(shapes.rglob("*.mp4"))[:4]:
        (few / path.name).write_bytes(path.read_bytes())
    crash = _broken(tmp_path / "broken", SEGMENTATION_FAULT)
    done = _extract(few, tmp_path / "s.zarr", "--workers", workers, "--shard-videos", "1", env=crash)
    assert done.returncode == 1
    assert "The first 4 videos all ended as decoder_crash" in done.stderr
    assert len(Store.open(tmp_path / "s.zarr").stream("rgb").missing_shards()) == 4


@pytest.mark.slow
@pytest.mark.long
def test_crashes_among_other_videos_are_outcomes(shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, path in enumerate(sorted(shapes.rglob("*.mp4"))[:6]):
        (folder / f"{number}-{'good' if number == 4 else 'bad'}.mp4").write_bytes(path.read_bytes())
    code = SEGMENTATION_FAULT.replace(
        "av.open = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV)",
        "right = av.open\n    av.open = lambda file, **k: right(file, **k) if 'good' in file else "
        "os.kill(os.getpid(), signal.SIGSEGV)",
    )
    done = _extract(
        folder, tmp_path / "s.zarr", "--workers", "2", "--shard-videos", "1", env=_broken(tmp_path / "broken", code)
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["outcomes"] == {"decoder_crash": 5, "ok": 1}
    assert not Store.open(tmp_path / "s.zarr").stream("rgb").missing_shards()


def _outcome(path: Path, rule: str = "uniform:2") -> VideoEnd:
    messages: list[Message] = []
    job = VideoJob(id="x", path=path, sampler=Sampler.parse(rule), window_frames=1, segments=2)
    read_segments(job, (RAW,), messages.append)
    assert isinstance(messages[-1], VideoEnd)
    return messages[-1]


def _avi(path: Path, *, title: str = "") -> bytes:
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(4):
            picture = np.full((48, 64, 3), 40 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def test_a_codec_that_nobody_knows_is_an_outcome(tmp_path: Path) -> None:
    path = tmp_path / "odd.avi"
    content = _avi(path)
    path.write_bytes(content.replace(b"FMP4", b"ZZZZ"))
    assert b"FMP4" in content
    with pytest.raises(VideoProblemError, match="no decoder for the codec"):
        VideoReader(path)
    assert _outcome(path).report.outcome == "unreadable"


def test_tags_that_are_not_utf8_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "tagged.avi"
    content = _avi(path, title="caf__name")
    assert b"caf__name" in content
    path.write_bytes(content.replace(b"caf__name", b"caf\xe9\xffname"))
    assert _outcome(path).report.outcome == "ok"


def test_a_rate_that_is_not_stated_is_an_outcome_of_the_rule_that_needs_it(tmp_path: Path) -> None:
    job = VideoJob(id="x", path=tmp_path, sampler=Sampler.parse("fps:2"), window_frames=1, segments=2)
    with pytest.raises(VideoProblemError, match="states no frame rate") as caught:
        _place(job, 0, 4, 0.0)
    assert caught.value.outcome == "unreadable"
