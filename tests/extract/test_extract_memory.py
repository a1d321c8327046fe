"""What a decoder may take: absurd sizes are outcomes, long pictures are cut before they are enlarged, 4K works."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidatt.extract.decoder import MEMORY_BYTES, Decoder, DecoderSettings
from vidatt.extract.kinds import CLIP, FLOW, RGB
from vidatt.extract.sampling import Sampler
from vidatt.extract.segments import VideoEnd, VideoJob
from vidatt.extract.video import VideoReader
from vidatt.extract.views import Geometry, Views
from vidatt.extract.windows import Chunk, FlowSettings, StreamInput, StreamKind

pytestmark = pytest.mark.slow

KINDS = {kind.name: kind for kind in (RGB, CLIP, FLOW)}


def _stream(kind: StreamKind, views: str = "center") -> StreamInput:
    return StreamInput(
        name=kind.name,
        kind=kind,
        geometry=Geometry(resize="short:256", crop_px=224),
        views=Views.parse(views),
        flow=FlowSettings(preset="fast"),
    )


def _video(path: Path, width: int, height: int, *, frames: int, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "libx264":
            stream.options = {"preset": "ultrafast"}
        for level in range(frames):
            picture = av.VideoFrame(width, height, stream.pix_fmt)
            for plane in picture.planes:
                row = ((np.arange(plane.line_size) // 64 + 4 * level) % 256).astype(np.uint8)  # stripes that move
                plane.update(row.tobytes() * plane.height)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.fixture
def decoder(request: pytest.FixtureRequest) -> Iterator[Decoder]:
    one = Decoder(request.param, DecoderSettings())
    yield one
    one.close()


def _read(decoder: Decoder, path: Path, segments: int) -> tuple[VideoEnd, int, int]:
    """The end, the segments that came, and the most bytes that the child had in memory."""
    job = VideoJob(
        id=path.name, path=path, sampler=Sampler.parse(f"uniform:{segments}"), window_frames=16, segments=segments
    )
    decoder.submit(job)
    came = 0
    for message in decoder.messages():
        if isinstance(message, Chunk):
            came += len(message.segments)
    assert isinstance(message, VideoEnd)
    status = Path(f"/proc/{decoder.pid}/status").read_text()
    return message, came, 1024 * int(status.split("VmHWM:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.parametrize("decoder", [tuple(map(_stream, KINDS.values()))], indirect=True, ids=["all-kinds"])
def test_a_long_thin_video_takes_little(decoder: Decoder, tmp_path: Path) -> None:
    path = _video(tmp_path / "thin.mp4", 16000, 2, frames=12, codec="libx264")
    assert path.stat().st_size < 100_000
    end, came, peak = _read(decoder, path, 2)
    assert (end.report.outcome, end.report.width, end.report.height, came) == ("ok", 16000, 2, 6)
    assert peak < 600e6


@pytest.mark.parametrize("decoder", [(_stream(RGB, "10crop"),)], indirect=True, ids=["rgb"])
@pytest.mark.parametrize("size", [(8208, 4208), (2200, 16000)])
def test_a_picture_beyond_8k_is_an_outcome(decoder: Decoder, tmp_path: Path, size: tuple[int, int]) -> None:
    path = _video(tmp_path / "huge.avi", *size, frames=2, codec="mjpeg")
    end, came, peak = _read(decoder, path, 2)
    assert (end.report.outcome, came) == ("unreadable", 0)
    assert end.report.detail == f"its pictures are {size[0]}x{size[1]} pixels; up to 33,554,432 (8192x4096) are read"
    assert peak < 800e6


@pytest.mark.slow
@pytest.mark.parametrize("decoder", [tuple(map(_stream, KINDS.values()))], indirect=True, ids=["all-kinds"])
def test_4k_with_flow_and_25_segments_fits(decoder: Decoder, tmp_path: Path) -> None:
    path = _video(tmp_path / "4k.mp4", 3840, 2160, frames=60, codec="libx264")
    end, came, peak = _read(decoder, path, 25)
    assert (end.report.outcome, came) == ("ok", 75)
    assert peak < 1.2e9


@pytest.mark.parametrize("decoder", [(_stream(RGB),)], indirect=True, ids=["rgb"])
def test_the_limit_is_set_beside_the_libraries(decoder: Decoder, tmp_path: Path) -> None:
    _read(decoder, _video(tmp_path / "a.mp4", 64, 48, frames=4, codec="mpeg4"), 2)
    assert decoder.pid is not None
    soft, hard = resource.prlimit(decoder.pid, resource.RLIMIT_AS)
    assert MEMORY_BYTES < soft == hard < MEMORY_BYTES + 4e9


@pytest.mark.parametrize("decoder", [tuple(map(_stream, KINDS.values()))], indirect=True, ids=["all-kinds"])
def test_a_video_whose_size_changes_is_read_at_its_first_size(decoder: Decoder, tmp_path: Path) -> None:
    """Flow of two frames of different sizes once wrote beyond its arrays; a clip of them stopped the run."""
    path = tmp_path / "changing.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuvj420p"
        for index, (width, height) in enumerate([(320, 240)] * 10 + [(240, 320)] * 10 + [(64, 16), (640, 480)] * 6):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = width, height, "yuvj420p", 25
            encoder.time_base = stream.time_base or Fraction(1, 25)
            picture = av.VideoFrame.from_ndarray(np.full((height, width, 3), 8 * index, np.uint8), format="rgb24")
            for packet in encoder.encode(picture.reformat(format="yuvj420p")):
                packet.stream, packet.pts = stream, 40 * index
                container.mux(packet)
    with VideoReader(path) as reader:
        assert len({(frame.picture.width, frame.picture.height) for frame in reader.frames()}) == 4
    decoder.submit(VideoJob(id="x", path=path, sampler=Sampler.parse("every:3"), window_frames=16, segments=50))
    messages = list(decoder.messages())
    end = messages[-1]
    assert isinstance(end, VideoEnd)
    assert (end.report.outcome, end.report.decoded_frames, end.report.width) == ("ok", 32, 320)
    came = {name: sum(len(m.segments) for m in messages if isinstance(m, Chunk) and m.stream == name) for name in KINDS}
    assert came == dict.fromkeys(KINDS, 11)
    (rgb,) = (m.inputs for m in messages if isinstance(m, Chunk) and m.stream == "rgb")
    assert np.allclose(rgb.mean(axis=(1, 2, 3, 4)), 24 * np.arange(11), atol=3)
