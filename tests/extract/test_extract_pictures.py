"""Whole frames for people to look at: the right ones, of one size, at the right times, whatever the file is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vidatt.extract.segments import Message, PictureJob, Pictures, VideoEnd, read_pictures
from vidatt.extract.video import VideoReader, presentation_seconds
from vidatt.extract.windows import CHUNK_BYTES


def read(job: PictureJob) -> tuple[Pictures, VideoEnd, int]:
    """All pictures together, the end, and how many messages they came in."""
    messages: list[Message] = []
    read_pictures(job, messages.append)
    *found, end = messages
    assert isinstance(end, VideoEnd)
    pieces = [piece for piece in found if isinstance(piece, Pictures)]
    if not pieces:
        return Pictures(np.empty(0), np.empty(0), np.empty((0, 0, 0, 3))), end, 0
    frames, seconds, rgb = (np.concatenate([getattr(p, key) for p in pieces]) for key in ("frames", "seconds", "rgb"))
    return Pictures(frames, seconds, rgb), end, len(pieces)


@pytest.fixture(scope="module", params=["mp4", "avi"])
def counting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of 64x48 whose brightness says which they are; the right half is black."""
    path = tmp_path_factory.mktemp("pictures") / f"counting.{request.param}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264" if request.param == "mp4" else "mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"crf": "1"} if request.param == "mp4" else {"qscale": "1", "flags": "+qscale"}
        for i in range(60):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[:, :32] = 4 * i
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_wanted_frames_and_nothing_behind_them(counting: Path) -> None:
    found, end, _ = read(PictureJob(path=counting, frames=(41, 3, 17), side_px=128))
    assert found.frames.tolist() == [3, 17, 41]
    assert found.rgb.shape == (3, 96, 128, 3)
    assert np.allclose(found.rgb[:, :, :56].mean((1, 2, 3)), [12, 68, 164], atol=4)
    assert found.rgb[:, :, 70:].max() < 12
    assert end.report.outcome == "ok"
    assert end.report.decoded_frames == 42
    assert (end.report.width, end.report.height) == (64, 48)


def test_all_frames_have_the_times_that_an_extraction_gives_them(counting: Path) -> None:
    with VideoReader(counting) as reader:
        fps, times = reader.fps, [frame.seconds for frame in reader.frames()]
    found, end, pieces = read(PictureJob(path=counting, side_px=640))
    assert found.frames.tolist() == list(range(60))
    assert np.allclose(found.seconds, presentation_seconds(times, fps))
    assert end.report.sha256
    assert pieces > 10 > found.rgb.nbytes // (2 * CHUNK_BYTES)  # handed on in pieces: memory follows these


def test_a_stretch_is_half_open(counting: Path) -> None:
    found, end, _ = read(PictureJob(path=counting, side_px=32, start_seconds=0.5, stop_seconds=1.0))
    assert found.frames.tolist() == list(range(15, 30))
    assert end.report.decoded_frames == 30


def test_a_file_that_breaks_off_gives_what_is_there(counting: Path, tmp_path: Path) -> None:
    content = counting.read_bytes()
    part = tmp_path / "part.avi"
    part.write_bytes(content[: len(content) * 4 // 5])
    if counting.suffix == ".mp4":  # its index is at the end
        found, end, _ = read(PictureJob(path=part, side_px=32))
        assert end.report.outcome == "unreadable"
        assert not len(found.frames)
        return
    found, end, _ = read(PictureJob(path=part, side_px=32))
    assert end.report.outcome in ("ok", "truncated")
    assert 10 < len(found.frames) < 60
    assert (np.diff(found.frames) == 1).all()


def test_what_is_no_video_has_an_outcome(tmp_path: Path) -> None:
    for name, content, outcome in (("none.mp4", None, "missing"), ("text.mp4", b"no video", "unreadable")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        found, end, _ = read(PictureJob(path=tmp_path / name, side_px=32))
        assert end.report.outcome == outcome
        assert not len(found.frames)


def test_frames_of_another_size_are_stretched_to_the_first(tmp_path: Path) -> None:
    """An mpeg-ts of two streams' worth of pictures: the size changes within the file."""
    pieces = []
    for number, (width, height) in enumerate(((64, 48), (48, 64))):
        path = tmp_path / f"{number}.ts"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for _ in range(10):
                picture = np.full((height, width, 3), 60 + 100 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        pieces.append(path.read_bytes())
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(pieces))
    found, _, _ = read(PictureJob(path=both, side_px=64))
    assert found.rgb.shape[1:] == (48, 64, 3)
    levels = found.rgb.mean((1, 2, 3))
    assert levels[0] < 80
    assert levels[-1] > 140
    assert all(abs(b - a) < 5 or b - a > 80 for a, b in pairwise(levels))


def test_pictures_are_the_whole_upright_frame(shared_data: Path) -> None:
    path = next(iter(sorted((shared_data / "videos").rglob("*.avi"))), None)
    assert path is not None
    capture = cv2.VideoCapture(str(path))
    wanted = [capture.read()[1] for _ in range(6)][5][..., ::-1]
    found, _, _ = read(PictureJob(path=path, frames=(5,), side_px=max(wanted.shape)))
    assert found.rgb[0].shape == wanted.shape
    assert np.abs(found.rgb[0].astype(int) - wanted).mean() < 3
