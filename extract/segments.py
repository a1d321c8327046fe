"""From one video file to the inputs of its segments, for all streams in one decoding pass."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import UsageError
from .sampling import Sampler
from .sliding import SlidingSampler
from .stopwatch import Stopwatch
from .video import (
    TRUNCATED_BELOW,
    Frame,
    VideoProblemError,
    VideoReader,
    VideoReport,
    file_sha256,
    presentation_seconds,
)
from .views import Geometry
from .windows import CHUNK_BYTES, Chunk, Collector, FrameStore, GrayChunk, StreamInput

ALIVE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class VideoJob:
    """One video to read."""

    id: str  # of the catalogue; seeds the random views
    path: Path
    sampler: Sampler | SlidingSampler
    window_frames: int  # of the longest stream: places the segments, the same for every stream
    segments: int  # rows that the plan gave to this video; segments beyond are not read
    start_seconds: float | None = None  # only this stretch of the file
    stop_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class CountJob:
    """One video whose segments are to be counted before it is planned; nothing is decoded."""

    path: Path
    sampler: Sampler | SlidingSampler
    start_seconds: float | None = None  # only this stretch of the file
    stop_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class PictureJob:
    """One video of which whole frames are wanted for people to look at."""

    path: Path
    frames: tuple[int, ...] | None = None  # in decode order of the whole file; None = all
    side_px: int  # longer side of the pictures
    start_seconds: float | None = None  # of all frames only those in this stretch of the file
    stop_seconds: float | None = None


@dataclass(frozen=True, eq=False)
class ShardJob:
    """The videos of one shard with the rows that the plan gave them."""

    shard: int
    rows: int  # of the shard, padding between videos included
    videos: tuple[VideoJob, ...]
    first_rows: tuple[int, ...]  # of each video, from the shard's first row; negative where it began in an earlier one


@dataclass(frozen=True, eq=False)
class VideoStart:
    """A decoding pass begins; whatever came of this video before is void."""

    first_frames: np.ndarray  # (T,) int64 in decode order of the whole file
    span: tuple[int, int]  # first and last frame that belong to the video; windows are clamped there
    key: tuple[int, ...]  # of its random views


@dataclass(frozen=True, eq=False)
class VideoEnd:
    """What a video turned out to be, after its last chunk."""

    report: VideoReport
    first_frames: np.ndarray  # (T,) int64 in decode order of the whole file; empty if nothing was read
    last_frame: int  # index of the last frame that belongs to the video; windows are clamped there
    seconds: np.ndarray  # (last_frame + 1,) float64, time of each frame from the file's first


@dataclass(frozen=True)
class Counted:
    """How many segments a video should have, by the packets that are in its file."""

    segments: int


@dataclass(frozen=True, eq=False)
class Pictures:
    """Whole frames of a video in order, all of one size: later ones of another size are stretched to the first's."""

    frames: np.ndarray  # (n,) int64, decode order
    seconds: np.ndarray  # (n,) float64 from the file's first frame; NaN = unknown
    rgb: np.ndarray  # (n, H, W, 3) uint8, upright


class Alive:
    """Decoding goes on, though no chunk is ready."""


Message = VideoStart | Chunk | GrayChunk | Pictures | VideoEnd | Counted | Alive


class _Pulse:
    """Says `Alive` about once a second, however often it is asked to."""

    def __init__(self, emit: Callable[[Message], None]) -> None:
        self._emit, self._heard = emit, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._heard > ALIVE_SECONDS:
            self._emit(Alive())
            self._heard = time.monotonic()


@dataclass(frozen=True, eq=False)
class _Pass:
    """What one decoding pass saw."""

    times: list[float | None]
    size: tuple[int, int]  # upright (width, height) of the first frame
    problem: VideoProblemError | None

    @property
    def decoded(self) -> int:
        return len(self.times)


def nothing_read(outcome: str, detail: str) -> VideoEnd:
    """Return the end of a video that gives no segment."""
    return VideoEnd(VideoReport(outcome=outcome, detail=detail), np.empty(0, np.int64), -1, np.empty(0))


def read_segments(job: VideoJob, streams: tuple[StreamInput, ...], emit: Callable[[Message], None]) -> None:
    """Decode one video once and emit the inputs of its segments, then a `VideoEnd`.

    The segments are placed by the stated frame count. If decoding shows another count, the file is read again with
    the true one, which a second `VideoStart` announces: rare, and cheaper than keeping a whole video in memory.
    """
    with _ending_in_an_outcome(emit):
        _read(job, streams, emit)


def count_segments(job: CountJob, emit: Callable[[Message], None]) -> None:
    """Emit how many segments a video should have, or else a `VideoEnd`."""
    with _ending_in_an_outcome(emit):
        emit(Counted(_count(job, _Pulse(emit))))


def read_pictures(job: PictureJob, emit: Callable[[Message], None]) -> None:
    """Emit the wanted frames of one video as `Pictures`, then a `VideoEnd`; nothing behind the last one is decoded.

    The report of the `VideoEnd` counts what was decoded for this, and no header.
    """
    with _ending_in_an_outcome(emit):
        _read_pictures(job, emit)


@contextmanager
def _ending_in_an_outcome(emit: Callable[[Message], None]) -> Iterator[None]:
    try:
        yield
    except VideoProblemError as problem:
        emit(nothing_read(problem.outcome, problem.detail))
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        emit(nothing_read("out_of_memory", "not enough memory while decoding"))


def _count(job: CountJob, alive: Callable[[], None]) -> int:
    """Count the segments of a video by its packets: headers lie, and a store has room for what they state."""
    with VideoReader(job.path) as reader:
        fps = reader.fps
        frames = max(1, reader.packets(alive))
    if (job.start_seconds is not None or job.stop_seconds is not None) and fps > 0:
        length = frames / fps
        stop = length if job.stop_seconds is None else min(job.stop_seconds, length)
        frames = max(1, round((stop - (job.start_seconds or 0.0)) * fps) + 1)  # one spare for rounding
    try:
        return job.sampler.segments(frames, fps)
    except UsageError as error:  # fps:R, and the rate that the file states is none
        raise VideoProblemError("unreadable", str(error)) from None


def _read(job: VideoJob, streams: tuple[StreamInput, ...], emit: Callable[[Message], None]) -> None:
    watch = Stopwatch()
    emit = watch.outside(emit)
    with VideoReader(job.path) as reader:
        stated = reader.expected_frames(_Pulse(emit))
        header, fps = reader.header_frames or stated, reader.fps
    first, count, known = 0, stated, None
    if job.start_seconds is not None or job.stop_seconds is not None:
        known = _decode(job.path, (), emit, watch)  # only times tell which frames a stretch has
        first, count = _stretch(known, fps, job)
    firsts = _place(job, first, count, fps)
    seen = _decode(job.path, _collectors(job, streams, firsts, (first, first + count - 1), emit), emit, watch)
    if known is None and seen.decoded != stated and seen.decoded:
        count = seen.decoded
        firsts = _place(job, 0, count, fps)
        again = _decode(job.path, _collectors(job, streams, firsts, (0, count - 1), emit), emit, watch)
        if again.decoded != count:
            odd = f"decodes to {count} frames once and to {again.decoded} the next time"
            raise VideoProblemError("unreadable", seen.problem.detail if seen.problem else odd)
    if not seen.decoded:
        detail = seen.problem.detail if seen.problem else "no frame decodes"
        raise VideoProblemError("unreadable", detail)
    outcome, detail = "ok", ""
    if seen.problem is not None:
        outcome, detail = "truncated", seen.problem.detail
    elif seen.decoded < TRUNCATED_BELOW * header:
        outcome, detail = "truncated", f"{seen.decoded} of {header} stated frames decode"
    report = VideoReport(
        outcome=outcome,
        detail=detail,
        decoded_frames=seen.decoded,
        header_frames=header,
        fps=fps,
        width=seen.size[0],
        height=seen.size[1],
        sha256=file_sha256(job.path, _Pulse(emit)),
        spent=watch.seconds,
    )
    emit(VideoEnd(report, firsts, first + count - 1, presentation_seconds(seen.times, fps)[: first + count]))


def _place(job: VideoJob, first: int, count: int, fps: float) -> np.ndarray:
    if count < 1:
        return np.empty(0, np.int64)
    try:
        return first + job.sampler.first_frames(count, fps, window=job.window_frames, video=job.id)[: job.segments]
    except UsageError as error:  # fps:R, and the file states no rate
        raise VideoProblemError("unreadable", str(error)) from None


def _read_pictures(job: PictureJob, emit: Callable[[Message], None]) -> None:
    size, decoded, problem, alive = (0, 0), 0, None, _Pulse(emit)
    ready = _Ready(emit)
    with VideoReader(job.path) as reader:
        fps, time_of = reader.fps, _clock(reader.fps)
        try:
            for frame in reader.frames():
                seconds = time_of(frame)
                wanted = _wanted(job, frame.index, seconds)
                if wanted is None:
                    break
                if wanted or size == (0, 0):
                    rgb = frame.rgb()
                    if size == (0, 0):
                        size = rgb.shape[1], rgb.shape[0]
                    if wanted:
                        ready.add(frame.index, seconds, _shrunk(job, size).resized(rgb))
                decoded += 1  # a frame that cannot be converted is none
                alive()
        except VideoProblemError as caught:
            if caught.outcome == "out_of_memory" or not decoded:
                raise
            problem = caught
    ready.flush()
    report = VideoReport(
        outcome="truncated" if problem else "ok",
        detail=problem.detail if problem else "",
        decoded_frames=decoded,
        fps=fps,
        width=size[0],
        height=size[1],
        sha256=file_sha256(job.path, alive),
    )
    emit(VideoEnd(report, np.empty(0, np.int64), decoded - 1, np.empty(0)))


class _Ready:
    """Pictures on their way, handed on in pieces."""

    def __init__(self, emit: Callable[[Message], None]) -> None:
        self._emit = emit
        self._frames: list[tuple[int, float, np.ndarray]] = []

    def add(self, index: int, seconds: float, rgb: np.ndarray) -> None:
        self._frames.append((index, seconds, rgb))
        if len(self._frames) * rgb.nbytes >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._frames:
            indices, seconds, pictures = zip(*self._frames, strict=True)
            self._emit(Pictures(np.array(indices, np.int64), np.array(seconds, np.float64), np.stack(pictures)))
            self._frames.clear()


def _clock(fps: float) -> Callable[[Frame], float]:
    """Return what tells the times of frames that come in order, as `presentation_seconds` does of all at once.

    Of a file whose later frames have no times, or step back, the first ones have theirs all the same.
    """
    start: float | None = None
    last = -np.inf

    def time_of(frame: Frame) -> float:
        nonlocal start, last
        start = frame.seconds if frame.index == 0 else start
        if frame.seconds is not None and start is not None and frame.seconds - start > last:
            last = frame.seconds - start
            return last
        return frame.index / fps if fps > 0 else np.nan

    return time_of


def _wanted(job: PictureJob, index: int, seconds: float) -> bool | None:
    """Tell whether a frame is wanted; None = neither it nor any behind it."""
    if job.frames is not None:
        return None if index > max(job.frames, default=-1) else index in job.frames
    if job.stop_seconds is not None and seconds >= job.stop_seconds - 1e-6:
        return None
    return job.start_seconds is None or not seconds < job.start_seconds - 1e-6


def _shrunk(job: PictureJob, size: tuple[int, int]) -> Geometry:
    scale = job.side_px / max(size)
    width, height = (max(1, round(side * scale)) for side in size)
    return Geometry(resize=f"{width}x{height}", crop_px=1)


def _collectors(
    job: VideoJob, streams: tuple[StreamInput, ...], firsts: np.ndarray, span: tuple[int, int],
    emit: Callable[[Message], None],
) -> tuple[tuple[str, Collector], ...]:  # fmt: skip
    """Return what collects each stream, with the part of the work that it is."""
    if not len(firsts):
        return ()
    key = (zlib.crc32(job.id.encode()),)
    emit(VideoStart(firsts, span, key))
    return tuple(
        (
            "flow" if s.kind.flow_fields and not s.flow_in_worker else "inputs",
            s.kind.collect(s, firsts, span, (s.seed, *key), emit),
        )
        for s in streams
    )


def _stretch(known: _Pass, fps: float, job: VideoJob) -> tuple[int, int]:
    """Return the first frame and the number of frames in [start, stop) seconds."""
    seconds = presentation_seconds(known.times, fps)
    start = job.start_seconds or 0.0
    stop = np.inf if job.stop_seconds is None else job.stop_seconds
    inside = np.flatnonzero((seconds >= start - 1e-6) & (seconds < stop - 1e-6))
    if not len(inside):
        length = f"{seconds[-1]:.2f} s" if len(seconds) else "no frames"
        raise VideoProblemError("too_short", f"no frame between {start:g} and {stop:g} s (the file has {length})")
    return int(inside[0]), len(inside)


def _decode(
    path: Path, collectors: tuple[tuple[str, Collector], ...], emit: Callable[[Message], None], watch: Stopwatch
) -> _Pass:
    times: list[float | None] = []
    size = (0, 0)
    problem = None
    alive = _Pulse(emit)
    with VideoReader(path) as reader:
        try:
            watch.start()
            for frame in reader.frames():
                wanting = [(part, c) for part, c in collectors if c.wants(frame.index)]
                if wanting or size == (0, 0):
                    rgb = frame.rgb()
                    if size == (0, 0):
                        size = rgb.shape[1], rgb.shape[0]
                    watch.lap("decode")
                    forms = FrameStore(rgb, size)
                    for part, one in wanting:
                        one.add(frame.index, forms)
                        watch.lap(part)
                times.append(frame.seconds)  # a frame that cannot be converted is none
                alive()
        except VideoProblemError as caught:
            if caught.outcome == "out_of_memory":
                raise
            problem = caught
    watch.lap("decode")  # of the frames behind the last one that is wanted
    for part, one in collectors:
        one.flush()
        watch.lap(part)
    return _Pass(times, size, problem)
