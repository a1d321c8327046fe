"""Films: every frame of the video, the right map on it, the cursor where the time is; files that go wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vidatt.extract.datasets.generator import generate
from vidatt.extract.video import VideoReader
from vidatt.extract.views import Geometry
from vidatt.pipelines.explanation.film import Filmed, write_film
from vidatt.pipelines.metrics.attention import cell_overlap, into_region
from vidatt.pipelines.pictures.frames import FramesError, FrameSource
from vidatt.pipelines.pictures.scene import Interval, Scene, Times
from vidatt.pipelines.pictures.sheet import SheetSettings
from vidatt.pipelines.runs.attention import VideoAttention

pytestmark = pytest.mark.slow

GEOMETRY = Geometry(resize="short:128", crop_px=112)
FRAMES, FPS, K, PANEL = 40, 15, 7, 512


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "videos"
    generate(folder, variant="untrimmed", videos=6, shapes=2, motions=1, frames=FRAMES, n_jobs=1)
    return folder


@pytest.fixture
def source() -> Iterator[FrameSource]:
    with FrameSource() as one:
        yield one


def scene(path: Path, place: tuple[float, float, float, float] = (0.3, 0.3, 0.6, 0.7)) -> Scene:
    """A scene of five segments, the map of each in another place; `place` is that of segment 2."""
    region = np.array(GEOMETRY.region(160, 120))
    shifted = [np.array(place) + np.array([s, 0, s, 0]) for s in (-0.15, -0.1, 0.0, 0.1, 0.2)]
    cells = np.stack([cell_overlap(into_region(box, tuple(region)), K) for box in shifted])
    weights = np.array([0.1, 0.1, 0.5, 0.2, 0.1], np.float32)
    seen = VideoAttention(
        position=0, id=path.name, probabilities=np.array([0.25, 0.75], np.float32), temporal=weights,
        temporal_raw=None, spatial=cells[:, None].astype(np.float32),
    )  # fmt: skip
    starts = np.arange(5) * 8 / FPS
    bounds = np.stack([starts, np.append(starts[1:], FRAMES / FPS)], 1)
    return Scene(
        attention=seen, classes=("a $\\alpha$ b", "jump"), truth=("jump",), streams=("rgb",), path=path.name, sha256="",
        frames=np.arange(5) * 8, size=(160, 120), fps=FPS, regions=region[None],
        times=Times(bounds=bounds, centres=starts, unit="s"), boxes={20: np.array([place])},
        intervals=(Interval(start=1.0, stop=2.0, name="jump"),), span=(None, None),
    )  # fmt: skip


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def film(
    tmp_path: Path, source: FrameSource, one: Scene, file: Path, **settings: object
) -> tuple[Filmed, list[np.ndarray]]:
    written = write_film(tmp_path / "f.mp4", one, source, file, SheetSettings(**settings))  # type: ignore[arg-type]
    return written, decoded(written.path)


def test_every_frame_is_there_with_its_segments_map_in_its_place(
    videos: Path, tmp_path: Path, source: FrameSource
) -> None:
    file = sorted(videos.rglob("*.mp4"))[0]
    one = scene(file)
    written, pictures = film(tmp_path, source, one, file, style="light")
    assert written.frames == len(pictures) == FRAMES
    with VideoReader(file) as reader:
        frames = [cv2.resize(frame.rgb(), (PANEL, PANEL * 3 // 4)) for frame in reader.frames()]
    W = pictures[0].shape[1]
    left, top = (W - PANEL) // 2, 60
    for index in (0, 7, 8, 17, 25, 39):
        panel = pictures[index][top : top + PANEL * 3 // 4, left : left + PANEL].astype(float)
        share = panel.mean(-1) / np.maximum(frames[index].mean(-1), 20)
        centre = 0.45 + (-0.15, -0.1, 0.0, 0.1, 0.2)[index // 8]
        column, row = round(centre * PANEL), round(0.5 * PANEL * 3 // 4)
        assert share[row - 8 : row + 8, column - 8 : column + 8].mean() > 0.85, index
        region = (one.regions[0] * [PANEL, PANEL * 3 // 4, PANEL, PANEL * 3 // 4]).round().astype(int)  # type: ignore[index]
        assert share[:, : region[0] - 6].mean() == pytest.approx(0.45, abs=0.08)  # the network did not see it
        assert share[region[1] + 4 : region[1] + 20, region[0] + 4 : region[0] + 30].mean() < 0.35
        far = round((0.75 if index < 24 else 0.22) * PANEL)
        assert share[row - 8 : row + 8, far - 8 : far + 8].mean() < 0.4, index
    boxed = pictures[20][top : top + PANEL * 3 // 4, left : left + PANEL].astype(int)
    green = (boxed[..., 1] - boxed[..., 0] > 70) & (boxed[..., 1] > 150)
    rows, columns = np.nonzero(green)
    assert columns.min() == pytest.approx(0.3 * PANEL, abs=4)
    assert columns.max() == pytest.approx(0.6 * PANEL, abs=4)
    assert rows.min() == pytest.approx(0.3 * PANEL * 3 / 4, abs=4)
    assert rows.max() == pytest.approx(0.7 * PANEL * 3 / 4, abs=4)


def test_the_film_lasts_as_long_and_its_cursor_moves_with_time(
    videos: Path, tmp_path: Path, source: FrameSource
) -> None:
    file = sorted(videos.rglob("*.avi"))[0]
    written, pictures = film(tmp_path, source, scene(file), file)
    assert written.seconds == pytest.approx(FRAMES / FPS)
    with av.open(str(written.path)) as container:
        stream = container.streams.video[0]
        times = [float(frame.pts * stream.time_base) for frame in container.decode(video=0)]
    assert np.allclose(times, np.arange(FRAMES) / FPS, atol=2e-3)
    H, W, _ = pictures[0].shape
    strip = slice(H - 34 - 10 - 38 - 60, H - 34 - 10 - 38 - 20)  # two classes below, then the axis
    dark = [np.flatnonzero(picture[strip].max((0, 2)) < 70) for picture in pictures]
    assert all(len(columns) for columns in dark)
    cursor = np.array([columns.max() for columns in dark[1:]])
    wanted = 52 + (W - 62) * np.arange(1, FRAMES) / FRAMES
    assert np.abs(cursor - wanted).max() <= 4


def test_a_stretch_and_two_panels(videos: Path, tmp_path: Path, source: FrameSource) -> None:
    file = sorted(videos.rglob("*.mp4"))[0]
    written, pictures = film(tmp_path, source, scene(file), file, seconds=(1.0, 2.0), rows=("frame", "time"), crop=True)
    assert written.frames == len(pictures) == 15
    dim = [
        picture[100:300, 500:700].mean() / picture[100:300, 100:300].mean() for picture in (pictures[2], pictures[14])
    ]
    assert dim[0] > 0.8  # the segment of the largest weight
    assert dim[1] < 0.6
    with pytest.raises(FramesError, match=r"has no frame between 100 and 200 s"):
        film(tmp_path, source, scene(file), file, seconds=(100.0, 200.0))


def test_frames_of_another_file_are_not_shown(videos: Path, tmp_path: Path, source: FrameSource) -> None:
    file = sorted(videos.rglob("*.mp4"))[0]
    other = replace(scene(file), sha256="f" * 64)
    with pytest.raises(FramesError, match=r"is another file than the one that the store's features were made of"):
        write_film(tmp_path / "f.mp4", other, source, file, SheetSettings())
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_one_line(tmp_path: Path, source: FrameSource) -> None:
    for name, content, said in (("none.mp4", None, "missing"), ("text.mp4", b"no video", "unreadable")):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(FramesError, match=rf"{name} cannot be read \({said}: "):
            source.stills(tmp_path / name, [3], side_px=64)
    unknown = replace(scene(tmp_path / "x.mp4"), frames=np.full(5, -1))
    with pytest.raises(FramesError, match=r"imported without a time map"):
        write_film(tmp_path / "f.mp4", unknown, source, tmp_path / "x.mp4", SheetSettings())


def test_a_decoder_that_is_killed_from_outside_is_replaced(videos: Path, source: FrameSource) -> None:
    file = sorted(videos.rglob("*.mp4"))[0]
    seen = []
    for picture in source.film(file, side_px=1200):
        if picture.frame == 2:
            pid = source._decoder.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        seen.append(picture.frame)
    assert seen == list(range(FRAMES))


def test_stills_beyond_the_end_are_said(videos: Path, source: FrameSource) -> None:
    file = sorted(videos.rglob("*.mp4"))[0]
    found = source.stills(file, [38, 39, 400], side_px=64)
    assert sorted(found) == [38, 39]
    with pytest.raises(FramesError, match=r"has no frame of those that were sampled \(400 to 500\)"):
        source.stills(file, [400, 500], side_px=64)
