"""Videos to look at: which ones, what the head said of them, and its attention on their frames and over time."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ...cache.store import Store
from ..metrics.attention import into_region
from ..pictures.frames import FramesError, FrameSource, cropped
from ..pictures.overlay import heat_colours, shares
from ..pictures.scene import MEAN, WHOLE, Scene, StoreScenes, shown_segments
from ..runs.attention import attention
from ..runs.run import Run
from ..runs.views import central_view
from .scored import Scored

log = logging.getLogger(__name__)

FRAMES = 6
SIDE_PX = 176
JPEG_QUALITY = 78
MOST_BARS = 160
"""Of the strip over time; of longer videos neighbours are averaged."""
MEAN_OF_STREAMS = "mean of the streams"


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
    scenes = StoreScenes(store, streams)
    positions = [store.index.position(str(scored.ids[row])) for _, row in chosen]
    found = list(attention(run.path, store_path=store.path, videos=positions, view=central_view(store), device=device))
    looks = []
    with FrameSource() as source:
        drawing = _Drawing(source, videos)
        for number, ((kind, row), seen) in enumerate(zip(chosen, found, strict=True)):
            scene = scenes.of(seen)
            frames = drawing.frames(scene)
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
                    strip=_strip(scene, [frame.segment for frame in frames]),
                )
            )
    maps = any(frame.heats for look in looks for frame in look.frames)
    notes = [*drawing.notes, *scenes.notes]
    if not maps:
        notes.append(f"head {run.identity.head} attends to no cells: frames alone")
    return Looks(videos=tuple(looks), streams=streams if maps else (), notes=tuple(dict.fromkeys(notes)))


class _Drawing:
    """Turns scenes into what the page shows; `notes` is what it cannot show."""

    def __init__(self, source: FrameSource, videos: Path | None) -> None:
        self.notes: list[str] = []
        self._source, self._videos = source, videos
        if videos is None:
            self.notes.append("the frames are not shown: give --videos, the folder of the video files")

    def frames(self, scene: Scene) -> tuple[FrameLook, ...]:
        """Return the frames of a few segments, that of the largest weight among them."""
        shown = shown_segments(scene.attention.temporal, FRAMES)
        pictures, timed = self._pictures(scene, shown), scene.times.unit == "s"
        return tuple(
            FrameLook(
                segment=segment,
                seconds=float(scene.times.centres[segment]) if timed else None,
                weight=float(scene.attention.temporal[segment]),
                uri=pictures.get(segment),
                heats=_heats(scene, segment),
                box=_box(scene, segment),
            )
            for segment in shown
        )

    def _pictures(self, scene: Scene, shown: Sequence[int]) -> dict[int, str]:
        """Return the frames in which segments are centred as JPEG, by segment; what is missing is noted."""
        if self._videos is None or scene.regions is None:
            return {}
        path, region = self._videos / scene.path, scene.regions[0]
        if not path.is_file():
            self.notes.append(f"{path} is not there: its frames are missing (--videos)")
            return {}
        side = min(1920, round(SIDE_PX / min(region[2] - region[0], region[3] - region[1])))
        frames = [int(scene.frames[segment]) for segment in shown]
        try:
            found = self._source.stills(path, frames, side_px=side, sha256=scene.sha256)
        except FramesError as error:
            self.notes.append(f"{error} Its frames are missing")
            return {}
        square = {"width": SIDE_PX, "height": SIDE_PX}
        return {
            segment: _jpeg(cropped(found[frame], region, **square))
            for segment, frame in zip(shown, frames, strict=True)
            if frame in found
        }


def _box(scene: Scene, segment: int) -> tuple[float, float, float, float] | None:
    """Return the first true box in a segment's frame, in the part of it that the first stream shows."""
    boxes = scene.boxes.get(int(scene.frames[segment]))
    if boxes is None or scene.regions is None:
        return None
    x1, y1, x2, y2 = into_region(boxes[0], tuple(scene.regions[0])).clip(0, 1) * 100
    return (float(x1), float(y1), float(x2 - x1), float(y2 - y1)) if x2 > x1 and y2 > y1 else None


def _heats(scene: Scene, segment: int) -> tuple[Heat, ...]:
    view = tuple(WHOLE if scene.regions is None else scene.regions[0])
    names = {MEAN: MEAN_OF_STREAMS, **{stream: stream for stream in scene.streams}}
    return tuple(
        _heat(names[name], maps.cells[segment], into_region(maps.region, view))
        for name, maps in scene.maps.items()
        if name in names
    )


def _heat(stream: str, cells: np.ndarray, place: np.ndarray) -> Heat:
    """[K, K] -> a picture of K x K pixels, coloured by the share of the frame's largest value; it dims the rest."""
    x1, y1, x2, y2 = (float(100 * edge) for edge in place)
    bgra = (255 * heat_colours(shares(cells))[..., [2, 1, 0, 3]]).round().astype(np.uint8)
    return Heat(stream=stream, uri=_uri("png", bgra), left=x1, top=y1, width=x2 - x1, height=y2 - y1)


def _jpeg(rgb: np.ndarray) -> str:
    return _uri("jpeg", rgb[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))


def _uri(kind: str, picture: np.ndarray, options: Sequence[int] = ()) -> str:
    _, content = cv2.imencode(f".{kind}", np.ascontiguousarray(picture), list(options))
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"


def _strip(scene: Scene, shown: Sequence[int]) -> Strip:
    times, bounds, end = scene.times, scene.times.bounds, scene.times.end
    weights = scene.attention.temporal.astype(np.float64)
    runs = np.array_split(np.arange(len(weights)), min(len(weights), MOST_BARS))
    bars = [(bounds[run[0], 0], bounds[run[-1], 1], weights[run].mean()) for run in runs]
    highest = max(weight for *_, weight in bars)
    spans = [(i.start, i.stop) for i in scene.intervals if i.name != "ambiguous"]
    return Strip(
        bars=tuple(
            Bar(left=100 * start / end, width=100 * (stop - start) / end, height=100 * weight / highest)
            for start, stop, weight in bars
        ),
        truths=tuple(
            Bar(left=100 * i.start / end, width=100 * (i.stop - i.start) / end, name=i.name) for i in scene.intervals
        ),
        marks=tuple(100 * float(times.centres[segment]) / end for segment in shown),
        unit=times.unit,
        end=end,
        summary=_summary(weights, bounds, times.unit, np.array(spans, np.float64).reshape(-1, 2)),
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
