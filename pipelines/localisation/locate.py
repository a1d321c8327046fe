"""`vidatt locate`: where in each sampled frame the action is, from the spatial attention of a fitted head."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...cache.scratch import write_atomically
from ...cache.store import Store
from ...errors import RefusedError, UsageError
from ...heads.registry import HEADS
from ..metrics.localisation import Boxes, LocationMeasures, location_measures
from ..runs.attention import VideoAttention, attention
from ..runs.views import central_view, shows_centre
from .box_files import COLUMNS
from .boxes import BOX_RULES, ThresholdRule, boxes_of, out_of_region
from .reading import ReadingConfig, ReadingResult, open_reading
from .rules import read_rule
from .truth import BoxTruth


@dataclass(frozen=True, kw_only=True)
class LocateConfig(ReadingConfig):
    """What `locate` is asked for."""

    rule: str = "threshold"  # of `BOX_RULES`


@dataclass(frozen=True, eq=False, kw_only=True)
class Located:
    """What is found in the sampled frames of one video, one row per frame, by frame."""

    position: int
    frames: np.ndarray  # [n] int64, decode order
    boxes: np.ndarray  # [n, 4] x1, y1, x2, y2 in pixels of the upright frame; NaN = no box
    label: int  # the video's likeliest class
    confidences: np.ndarray  # [n] float64, 0..1


@dataclass(frozen=True, kw_only=True)
class LocationResult(ReadingResult):
    """What `locate` wrote and measured."""

    rule: str
    settings: Mapping[str, Any]  # of the rule
    maps: str  # what they are
    out: str  # the CSV file
    frames: int  # sampled
    boxes: int
    measures: LocationMeasures | None  # None: no true box in these frames is known


def locate(config: LocateConfig) -> LocationResult:
    """Write a box for each sampled frame, and measure them where the store knows the true ones.

    The maps of the streams are averaged. The frame of a segment is the centre frame of the first stream. The confidence
    is the probability of the video's likeliest class times the mean of the mask; for attention that sums to 1 over its
    cells, whose mean is the same everywhere, it is the probability alone.

    Raises
    ------
    UsageError
        If the run is unfinished or attends to no cells, a setting is wrong, or it is unknown where cells lie in a
        frame.
    RefusedError
        As `evaluate`; if the streams show different parts of the frame.
    """
    rule: ThresholdRule = read_rule(BOX_RULES, config.rule, config.settings)
    reading = open_reading(config)
    store, identity = reading.store, reading.identity
    place = _Place(store, identity.stream_names)
    # a support vector machine looks where its head looks
    sums_to_one = HEADS[identity.base.head].head.spatial_sums_to_one
    rows: list[tuple[Any, ...]] = []
    found: list[Located] = []
    looks = attention(
        config.run,
        store_path=store.path,
        videos=reading.chosen.videos.tolist(),
        view=central_view(store),
        device=config.device,
    )
    for video in looks:
        looked = reading.substitute(video)
        if looked.spatial is None:
            raise UsageError(
                f"Run {config.run}: head {identity.head!r} attends to no cells of a frame; --attention uniform "
                "shows what comes of it without."
            )
        located = place.locate(looked, rule, sums_to_one=sums_to_one)
        found.append(located)
        name = store.index.classes[located.label]
        for frame, box, confidence in zip(located.frames, located.boxes, located.confidences, strict=True):
            if np.isfinite(box).all():
                told = (reading.is_seen(video.position),) if reading.chosen.seen_count else ()
                rows.append((video.id, frame, *(f"{x:.2f}" for x in box), name, f"{confidence:.6f}", *told))
    out = reading.out("boxes", config.rule, ".csv")
    text = io.StringIO()
    columns = COLUMNS + (("seen",) if reading.chosen.seen_count else ())
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomically(out, text.getvalue().encode())
    result = LocationResult(
        **vars(reading.said(len(reading.chosen.videos))),
        rule=config.rule,
        settings=asdict(rule),
        maps="distributions over cells" if sums_to_one else "masks",
        out=str(out),
        frames=sum(len(located.frames) for located in found),
        boxes=len(rows),
        measures=_measured(store, found, place),
    )
    return reading.keep("boxes", config.rule, result)


class _Place:
    """Where the cells of a run's maps lie in the frames of a store's videos."""

    def __init__(self, store: Store, streams: Sequence[str]) -> None:
        if not shows_centre(store):
            raise UsageError(
                f"{store.path} holds random crops (views {store.plan.view_rule}), whose place in the frame is "
                "not kept; extract with --views center."
            )
        self._store, self._streams = store, streams
        self._truths = [BoxTruth(store, name) for name in streams]

    def size(self, position: int) -> tuple[int, int]:
        """Return width and height of a video's upright frames, pixels."""
        outcome = self._store.stream(self._streams[0]).outcome(position)
        if not (outcome.width and outcome.height):
            raise UsageError(
                f"The size of the frames of {self._store.index.ids[position]!r} is not in {self._store.path}: its "
                "cubes were imported, and boxes in pixels cannot be made."
            )
        return outcome.width, outcome.height

    def locate(self, video: VideoAttention, rule: ThresholdRule, *, sums_to_one: bool) -> Located:
        """Return a box for each frame that a segment is centred on."""
        assert video.spatial is not None
        width, height = self.size(video.position)
        regions = [truth.region(video.position) for truth in self._truths]
        if not np.allclose(regions, regions[0], atol=1e-3):
            raise RefusedError(
                f"The streams {', '.join(self._streams)} of {self._store.path} show different parts of the frame "
                "(--resize, --crop); their maps cannot be averaged. Fit a head on one of them."
            )
        x1, y1, x2, y2 = regions[0]
        frames, segments = np.unique(
            self._truths[0].frames(video.position)[: len(video.temporal)].astype(np.int64), return_index=True
        )  # of several segments centred on one frame, as in a short video, the first
        maps = video.spatial.mean(axis=1, dtype=np.float64)[segments]  # [n, K, K]
        seen = {"width": max(1, round((x2 - x1) * width)), "height": max(1, round((y2 - y1) * height))}
        boxes = out_of_region(boxes_of(maps, rule=rule, sums_to_one=sums_to_one, **seen), regions[0])
        label = int(video.probabilities.argmax())
        confidences = np.full(len(frames), float(video.probabilities[label]))
        if not sums_to_one:
            confidences = confidences * maps.mean(axis=(1, 2))
        if rule.confidence_temporal:
            confidences = confidences * (video.temporal / video.temporal.max())[segments]
        return Located(
            position=video.position,
            frames=frames,
            boxes=boxes * [width, height, width, height],
            label=label,
            confidences=confidences,
        )


@dataclass(eq=False)
class _Collected:
    """Boxes of frames, one row each, as they are found."""

    frames: list[str] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def add(self, frame: str, box: np.ndarray, label: int, score: float = 1.0) -> None:
        self.frames.append(frame)
        self.boxes.append(box)
        self.labels.append(label)
        self.scores.append(score)

    def together(self) -> Boxes:
        return Boxes(
            frames=np.array(self.frames, dtype=str),
            boxes=np.array(self.boxes, np.float64).reshape(-1, 4),
            labels=np.array(self.labels, np.int64),
            scores=np.array(self.scores, np.float64),
        )


def _measured(store: Store, found: list[Located], place: _Place) -> LocationMeasures | None:
    """Measure boxes in the sampled frames of the videos that have true boxes; None without any.

    Frame-hit holds the one box of a frame to the first true box of it, class and confidence aside, and counts pixels as
    the public code does. Frame-mAP holds it to all true boxes of its class; boxes in frames without one are wrong.
    """
    index = store.index
    known = set(index.box_video[index.box_label >= 0].tolist())
    judged = [located for located in found if located.position in known]
    true, said = _Collected(), _Collected()
    hits: list[tuple[np.ndarray, np.ndarray]] = []
    for located in judged:
        row_of = {int(frame): row for row, frame in enumerate(located.frames)}
        first: set[int] = set()
        size = np.array(place.size(located.position) * 2, np.float64)
        for n in index.boxes(located.position):
            frame = int(index.box_frame[n])
            if frame not in row_of or index.box_label[n] < 0:
                continue
            box = index.box_xyxy[n].astype(np.float64) * size
            if frame not in first:
                hits.append((located.boxes[row_of[frame]], box))
            first.add(frame)
            true.add(f"{located.position}:{frame}", box, int(index.box_label[n]))
        for frame, box, confidence in zip(located.frames, located.boxes, located.confidences, strict=True):
            if np.isfinite(box).all():
                said.add(f"{located.position}:{frame}", box, located.label, confidence)
    if not hits:
        return None
    sampled = sum(len(located.frames) for located in judged)
    return location_measures(
        true.together(), said.together(), hits, index.classes, videos=len(judged), frames_without=sampled - len(hits)
    )
