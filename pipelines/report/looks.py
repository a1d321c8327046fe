"""Videos to look at: which ones, what the head said of them, and its attention on their frames and over time."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from ...cache.store import Store
from ...errors import UsageError
from ...extract.video import VideoProblemError
from ..localisation.proposals import segment_bounds
from ..localisation.truth import BoxTruth
from ..metrics.attention import into_region
from ..metrics.detection import AMBIGUOUS
from ..pictures.drawing import crop_frames
from ..runs.attention import VideoAttention, attention
from ..runs.run import Run
from ..runs.views import central_view
from .scored import Scored

log = logging.getLogger(__name__)

FRAMES = 6
SIDE_PX = 176
JPEG_QUALITY = 78
MOST_BARS = 160
"""Of the strip over time; of longer videos neighbours are averaged."""
MEAN = "mean of the streams"


@dataclass(frozen=True, kw_only=True)
class Heat:
    """The attention of one stream over a frame, as a small transparent picture to be enlarged."""

    stream: str
    uri: str
    left: float  # place in the frame shown, percent; so the rest
    top: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class FrameLook:
    """One sampled frame; `box` in percent of the picture: left, top, width, height."""

    segment: int
    seconds: float | None
    weight: float  # of the segment
    uri: str | None  # JPEG; None: the video is not at hand
    heats: tuple[Heat, ...]
    box: tuple[float, float, float, float] | None  # the true one


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A part of a strip over time, in percent of its length and height."""

    left: float
    width: float
    height: float = 100.0
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Temporal attention, and the true intervals below it."""

    bars: tuple[Bar, ...]
    truths: tuple[Bar, ...]
    marks: tuple[float, ...]  # where the frames shown lie
    unit: str  # "s" or "segments"
    end: float  # of the axis, which begins at 0
    summary: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """One video: what it is, what was said, where the head looked."""

    key: str  # unique in the page
    id: str
    kind: str  # best, worst or random
    truth: tuple[str, ...]
    said: tuple[tuple[str, float], ...]  # the three highest
    right: bool
    frames: tuple[FrameLook, ...]
    strip: Strip


@dataclass(frozen=True, eq=False, kw_only=True)
class Times:
    """Where the segments of a video lie in time."""

    bounds: np.ndarray  # [T, 2] start and stop of what each stands for
    centres: np.ndarray  # [T] of the frames that they are centred on
    unit: str  # "s", or "segments" where times are unknown


@dataclass(frozen=True, kw_only=True)
class Looks:
    """The videos of a run that are shown, and what is to be said about that."""

    videos: tuple[Look, ...]
    streams: tuple[str, ...]  # whose maps can be laid over the frames
    notes: tuple[str, ...]


def choose(scored: Scored, each: int, seed: int) -> dict[str, list[int]]:
    """Return rows of the scores by why they are shown: the surest right ones, the worst mistakes, some of the rest."""
    labelled = np.flatnonzero(scored.hot.any(1))
    margin = scored.margins[labelled]
    order = labelled[np.argsort(-margin, kind="stable")]
    right = set(np.flatnonzero(scored.right).tolist())
    best = [int(row) for row in order if row in right][:each]
    worst = [int(row) for row in order[::-1] if row not in right][:each]
    rest = np.setdiff1d(np.arange(len(scored.ids)), [*best, *worst])
    drawn = np.random.default_rng(seed).permutation(rest)[:each]
    return {"best": best, "worst": worst, "random": drawn.tolist()}


def look_at(
    run: Run, store: Store, scored: Scored, videos: Path | None, *, key: str, each: int, seed: int, device: str
) -> Looks:
    """Compute the attention of a few videos of a run, and draw it.

    Parameters
    ----------
    videos : their folder; None = maps without frames
    key : of the run in the page
    each : how many of each kind
    """
    chosen = [(kind, row) for kind, rows in choose(scored, each, seed).items() for row in rows]
    if not chosen:
        return Looks(videos=(), streams=(), notes=())
    streams = run.identity.stream_names
    scene = Scene(store, streams, videos)
    positions = [store.index.position(str(scored.ids[row])) for _, row in chosen]
    found = list(attention(run.path, store_path=store.path, videos=positions, view=central_view(store), device=device))
    looks = []
    for number, ((kind, row), seen) in enumerate(zip(chosen, found, strict=True)):
        times = scene.times(seen)
        frames = scene.frames(seen, times)
        top = np.argsort(-scored.scores[row], kind="stable")[:3]
        looks.append(
            Look(
                key=f"{key}-v{number}",
                id=seen.id,
                kind=kind,
                truth=tuple(scored.classes[n] for n in np.flatnonzero(scored.hot[row])),
                said=tuple((scored.classes[n], float(scored.scores[row, n])) for n in top),
                right=bool(scored.right[row]),
                frames=frames,
                strip=_strip(store, seen, times, [frame.segment for frame in frames]),
            )
        )
    maps = any(frame.heats for look in looks for frame in look.frames)
    notes = scene.notes if maps else [*scene.notes, f"head {run.identity.head} attends to no cells: frames alone"]
    return Looks(videos=tuple(looks), streams=streams if maps else (), notes=tuple(dict.fromkeys(notes)))


class Scene:
    """Where a store's videos are, and how the maps of its streams lie on their frames."""

    def __init__(self, store: Store, streams: Sequence[str], videos: Path | None) -> None:
        self.notes: list[str] = []
        self._store, self._streams, self._videos = store, streams, videos
        self._stream = store.stream(streams[0])
        self._reader = self._stream.reader()
        self._truths: list[BoxTruth] | None = None
        if videos is None:
            self.notes.append("the frames are not shown: give --videos, the folder of the video files")
        try:
            if (store.plan.view_rule or "").startswith("train"):
                raise UsageError(f"{store.path} holds random crops, whose place in the frame is not kept.")
            self._truths = [BoxTruth(store, name) for name in streams]
        except UsageError as error:
            self.notes.append(f"frames and true boxes are not shown: {error}")

    def times(self, seen: VideoAttention) -> Times:
        """Return where the segments lie; that their times are unknown is noted."""
        T, position = len(seen.temporal), seen.position
        outcome = self._stream.outcome(position)
        try:
            bounds = segment_bounds(
                self._reader.frames(position)[:T], self._reader.seconds(position)[:T], fps=outcome.fps,
                frame_count=outcome.decoded_frames, stop=float(self._store.index.span_seconds[position, 1]),
            )  # fmt: skip
        except UsageError as error:
            self.notes.append(f"time is told in segments: a video {error}")
            places = np.arange(T, dtype=np.float64)
            return Times(bounds=np.stack([places, places + 1], axis=1), centres=places + 0.5, unit="segments")
        return Times(bounds=bounds, centres=self._reader.seconds(position)[:T], unit="s")

    def frames(self, seen: VideoAttention, times: Times) -> tuple[FrameLook, ...]:
        """Return the frames of a few segments, that of the largest weight among them."""
        T = len(seen.temporal)
        shown = np.unique(np.linspace(0, T - 1, FRAMES).round().astype(int))
        peak = int(seen.temporal.argmax())
        shown[np.abs(shown - peak).argmin()] = peak
        pictures, boxes = self._pictures(seen.position, shown), self._boxes(seen.position)
        return tuple(
            FrameLook(
                segment=segment,
                seconds=float(times.centres[segment]) if times.unit == "s" else None,
                weight=float(seen.temporal[segment]),
                uri=pictures.get(segment),
                heats=self._heats(seen, segment),
                box=boxes.get(segment),
            )
            for segment in np.unique(shown).tolist()
        )

    def _pictures(self, position: int, segments: np.ndarray) -> dict[int, str]:
        """Return the frames in which segments are centred as JPEG, by segment; what is missing is noted."""
        if self._videos is None or self._truths is None:
            return {}
        path = self._videos / str(self._store.index.paths[position])
        if not path.is_file():
            self.notes.append(f"{path} is not there: its frames are missing (--videos)")
            return {}
        frames = self._truths[0].frames(position)
        try:
            found = crop_frames(path, self._truths[0].region(position), frames[segments], side_px=SIDE_PX)
        except VideoProblemError as error:
            self.notes.append(f"{path} cannot be read ({error.outcome}: {error.detail}): its frames are missing")
            return {}
        return {int(s): _jpeg(found[int(frames[s])]) for s in segments if int(frames[s]) in found}

    def _boxes(self, position: int) -> dict[int, tuple[float, float, float, float]]:
        found = {}
        for truth in self._truths[0].segments(position) if self._truths else ():
            x1, y1, x2, y2 = np.clip(truth.box, 0, 1) * 100
            if x2 > x1 and y2 > y1:
                found[truth.segment] = (float(x1), float(y1), float(x2 - x1), float(y2 - y1))
        return found

    def _heats(self, seen: VideoAttention, segment: int) -> tuple[Heat, ...]:
        if seen.spatial is None:
            return ()
        maps = seen.spatial[segment]
        places = [(0.0, 0.0, 1.0, 1.0)] * len(self._streams)
        if self._truths is not None:
            regions = [truth.region(seen.position) for truth in self._truths]
            places = [tuple(into_region(np.array(region), regions[0])) for region in regions]
        heats = [_heat(name, cells, place) for name, cells, place in zip(self._streams, maps, places, strict=True)]
        if len(heats) > 1 and np.allclose(places, places[0], atol=1e-3):
            heats.insert(0, _heat(MEAN, maps.mean(axis=0), places[0]))
        return tuple(heats)


def _heat(stream: str, cells: np.ndarray, place: tuple[float, float, float, float]) -> Heat:
    """[K, K] -> a picture of K x K pixels, coloured by the share of the frame's largest value; it dims the rest."""
    share = cells.astype(np.float64) / max(float(cells.max()), 1e-12)
    colours = matplotlib.colormaps["inferno"](share)  # [K, K, 4], 0..1
    colours[..., 3] = 0.5 + 0.3 * share
    x1, y1, x2, y2 = (100 * edge for edge in place)
    bgra = (255 * colours[..., [2, 1, 0, 3]]).round().astype(np.uint8)
    return Heat(stream=stream, uri=_uri("png", bgra), left=x1, top=y1, width=x2 - x1, height=y2 - y1)


def _jpeg(rgb: np.ndarray) -> str:
    return _uri("jpeg", rgb[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))


def _uri(kind: str, picture: np.ndarray, options: Sequence[int] = ()) -> str:
    _, content = cv2.imencode(f".{kind}", np.ascontiguousarray(picture), list(options))
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"


def _strip(store: Store, seen: VideoAttention, times: Times, shown: Sequence[int]) -> Strip:
    index, position, bounds = store.index, seen.position, times.bounds
    end = float(bounds[-1, 1])
    mine = np.flatnonzero(index.interval_video == position) if times.unit == "s" else np.array([], int)
    spans = index.interval_seconds[mine].clip(0, end)
    names = ["ambiguous" if n == AMBIGUOUS else index.classes[n] for n in index.interval_label[mine]]
    weights = seen.temporal.astype(np.float64)
    runs = np.array_split(np.arange(len(weights)), min(len(weights), MOST_BARS))
    bars = [(bounds[run[0], 0], bounds[run[-1], 1], weights[run].mean()) for run in runs]
    highest = max(weight for *_, weight in bars)
    return Strip(
        bars=tuple(
            Bar(left=100 * start / end, width=100 * (stop - start) / end, height=100 * weight / highest)
            for start, stop, weight in bars
        ),
        truths=tuple(
            Bar(left=100 * start / end, width=100 * (stop - start) / end, name=name)
            for (start, stop), name in zip(spans, names, strict=True)
        ),
        marks=tuple(100 * float(times.centres[segment]) / end for segment in shown),
        unit=times.unit,
        end=end,
        summary=_summary(weights, bounds, times.unit, spans[np.array([name != "ambiguous" for name in names], bool)]),
    )


def _summary(weights: np.ndarray, bounds: np.ndarray, unit: str, spans: np.ndarray) -> str:
    """Say in words what the strip shows."""
    peak = int(weights.argmax())
    start, stop = bounds[peak]
    if np.ptp(weights) < 1e-6 / len(weights):
        text = f"all {len(weights)} segments weigh the same"
    else:
        text = f"largest weight {weights[peak]:.2f} of {len(weights)} segments, at {start:.1f} to {stop:.1f} {unit}"
    if len(spans):
        lengths = bounds[:, 1] - bounds[:, 0]
        covered = np.zeros(len(weights))
        for low, high in spans:  # they may overlap: no segment is covered more than whole
            shared = np.minimum(bounds[:, 1], high) - np.maximum(bounds[:, 0], low)
            covered = np.minimum(covered + shared.clip(0), lengths)
        inside = float((weights * np.divide(covered, lengths, out=np.zeros_like(covered), where=lengths > 0)).sum())
        share = covered.sum() / bounds[-1, 1]
        text += f"; {inside:.0%} of the weight lies in the true intervals, which are {share:.0%} of the time"
    return text
