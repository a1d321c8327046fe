"""One video as pictures show it: what a head said of it and when and where it looked, beside what is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...cache.store import Store
from ...errors import UsageError
from ..localisation.proposals import segment_bounds
from ..localisation.truth import BoxTruth
from ..metrics.detection import AMBIGUOUS
from ..runs.attention import VideoAttention
from ..runs.views import shows_centre

MEAN = "mean"
"""Name of the map that is the mean of several streams'."""


WHOLE = np.array([0.0, 0.0, 1.0, 1.0])
"""The region that is the whole frame."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Times:
    """Where the segments of a video lie in time."""

    bounds: np.ndarray  # [T, 2] start and stop of what each stands for
    centres: np.ndarray  # [T] of the frames that they are centred on
    unit: str  # "s", or "segments" where times are unknown

    @property
    def end(self) -> float:
        """Of the axis, which begins at 0."""
        return float(self.bounds[-1, 1])


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A stretch in which something truly happens, seconds from the file's first frame."""

    start: float
    stop: float
    name: str  # of its class, or "ambiguous"


@dataclass(frozen=True, eq=False, kw_only=True)
class Maps:
    """Attention over the cells of frames, one map a segment."""

    cells: np.ndarray  # [T, K, K] float32, 0 and up
    region: np.ndarray  # (4,) float64 x1, y1, x2, y2: the part of the upright frame that the cells cover, in fractions


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """One video; T segments, M streams."""

    attention: VideoAttention
    classes: tuple[str, ...]
    truth: tuple[str, ...]  # its classes; empty = unknown
    streams: tuple[str, ...]  # [M]
    path: str  # of the file, below the folder of videos
    sha256: str  # of the file that the features were made of; empty = unknown
    frames: np.ndarray  # [T] int, decode order: that which a segment of the first stream is centred on; -1 = unknown
    size: tuple[int, int] | None  # width and height of the upright frames, pixels; None = unknown
    fps: float  # 0 = unknown
    regions: np.ndarray | None  # [M, 4] float64, part of the upright frame that each stream shows; None = unknown
    times: Times
    boxes: Mapping[int, np.ndarray]  # true ones by frame, [n, 4] float64 in fractions of the upright frame
    intervals: tuple[Interval, ...]  # true ones; none where times are unknown
    span: tuple[float | None, float | None]  # stretch of the file that is the video, seconds; None = to its end

    @cached_property
    def maps(self) -> dict[str, Maps]:
        """The maps by name: the mean of several streams that show the same, each stream's, each kind's mean.

        Empty if the head attends to no cells. Where `regions` are unknown they are as if they covered the frame.
        """
        spatial = self.attention.spatial
        if spatial is None:
            return {}
        regions = np.tile(WHOLE, (len(self.streams), 1)) if self.regions is None else self.regions
        alike = np.allclose(regions, regions[0], atol=1e-3)
        found = {}
        if len(self.streams) > 1 and alike:
            found[MEAN] = Maps(cells=spatial.mean(axis=1), region=regions[0])
        for m, name in enumerate(self.streams):
            found[name] = Maps(cells=spatial[:, m], region=regions[m])
        if len(self.attention.kinds) > 1 and alike:
            for kind, maps in self.attention.kinds.items():
                found[kind] = Maps(cells=maps.mean(axis=1), region=regions[0])
        return found

    def said(self, count: int) -> list[tuple[str, float]]:
        """Return the likeliest classes with their probabilities."""
        best = np.argsort(-self.attention.probabilities, kind="stable")[:count]
        return [(self.classes[n], float(self.attention.probabilities[n])) for n in best]

    @property
    def right(self) -> bool:
        """Whether the likeliest class is a true one."""
        return self.said(1)[0][0] in self.truth

    def segment_of(self, frame: int, seconds: float) -> int | None:
        """Return the segment that a frame belongs to, None before the first: that in whose time it lies.

        Where times are unknown it is the one whose centre frame is nearest.
        """
        if self.times.unit != "s":
            return int(np.abs(self.frames - frame).argmin())
        begun = int(np.searchsorted(self.times.bounds[:, 0], seconds + 1e-6, side="right"))
        return begun - 1 if begun else None


def shown_segments(temporal: np.ndarray, count: int, among: np.ndarray | None = None) -> list[int]:
    """Choose segments to show: spread evenly, that of the largest weight among them.

    Parameters
    ----------
    temporal : [T] weights
    among : segments to choose from; None = all
    """
    among = np.arange(len(temporal)) if among is None else among
    if not len(among):
        return []
    places = np.unique(np.linspace(0, len(among) - 1, min(count, len(among))).round().astype(int))
    shown = among[places]
    peak = among[temporal[among].argmax()]
    shown[np.abs(shown - peak).argmin()] = peak
    return [int(segment) for segment in np.unique(shown)]


def times_of(
    frames: np.ndarray, seconds: np.ndarray, *, fps: float, frame_count: int, stop: float, notes: list[str]
) -> Times:
    """Return where segments lie in time, by what `segment_bounds` takes; that it is unknown is added to the notes."""
    try:
        bounds = segment_bounds(frames, seconds, fps=fps, frame_count=frame_count, stop=stop)
    except UsageError as error:
        notes.append(f"time is told in segments: a video {error}")
        places = np.arange(len(frames), dtype=np.float64)
        return Times(bounds=np.stack([places, places + 1], axis=1), centres=places + 0.5, unit="segments")
    return Times(bounds=bounds, centres=seconds, unit="s")


class StoreScenes:
    """Makes the scenes of a store's videos; `notes` is what cannot be shown, and why."""

    def __init__(self, store: Store, streams: Sequence[str]) -> None:
        self.notes: list[str] = []
        self._store, self._streams = store, tuple(streams)
        self._stream = store.stream(streams[0])
        self._reader = self._stream.reader()
        self._truths: list[BoxTruth] | None = None
        try:
            if not shows_centre(store):
                raise UsageError(f"{store.path} holds random crops, whose place in the frame is not kept.")
            self._truths = [BoxTruth(store, name) for name in streams]
        except UsageError as error:
            self.notes.append(f"attention is not laid on frames, and true boxes are not shown: {error}")

    def of(self, seen: VideoAttention) -> Scene:
        """Return the scene of one video; what is unknown of it is noted."""
        index, position, T = self._store.index, seen.position, len(seen.temporal)
        times = self._times(seen)
        boxes = index.boxes(position) if self._truths is not None else np.empty(0, int)
        frames = index.box_frame[boxes]
        outcome = self._stream.outcome(position)
        return Scene(
            attention=seen,
            classes=index.classes,
            truth=tuple(index.classes[n] for n in index.labels[position] if n >= 0),
            streams=self._streams,
            path=str(index.paths[position]),
            sha256=outcome.sha256,
            size=(outcome.width, outcome.height) if outcome.width and outcome.height else None,
            fps=outcome.fps,
            frames=self._reader.frames(position)[:T, 1],
            regions=self._regions(position),
            times=times,
            boxes={int(f): index.box_xyxy[boxes[frames == f]].astype(np.float64) for f in np.unique(frames)},
            intervals=self._intervals(position, times),
            span=_span(index.span_seconds[position]),
        )

    def _regions(self, position: int) -> np.ndarray | None:
        outcome = self._stream.outcome(position)
        if self._truths is None or not (outcome.width and outcome.height):
            return None
        return np.array([truth.region(position) for truth in self._truths], np.float64)

    def _times(self, seen: VideoAttention) -> Times:
        T, position = len(seen.temporal), seen.position
        outcome = self._stream.outcome(position)
        return times_of(
            self._reader.frames(position)[:T], self._reader.seconds(position)[:T], fps=outcome.fps,
            frame_count=outcome.decoded_frames, stop=float(self._store.index.span_seconds[position, 1]),
            notes=self.notes,
        )  # fmt: skip

    def _intervals(self, position: int, times: Times) -> tuple[Interval, ...]:
        if times.unit != "s":
            return ()
        index = self._store.index
        mine = np.flatnonzero(index.interval_video == position)
        spans = index.interval_seconds[mine].clip(0, times.end).tolist()
        names = ["ambiguous" if n == AMBIGUOUS else index.classes[n] for n in index.interval_label[mine]]
        return tuple(Interval(start=a, stop=b, name=name) for (a, b), name in zip(spans, names, strict=True))


def _span(seconds: np.ndarray) -> tuple[float | None, float | None]:
    start, stop = (float(edge) if np.isfinite(edge) else None for edge in seconds)
    return start, stop
