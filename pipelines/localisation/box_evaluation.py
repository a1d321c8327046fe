"""`vidatt evaluate-boxes`: boxes in frames that `vidatt locate`, or another program, has written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import RefusedError, UnknownNameError, UsageError
from ..metrics.localisation import THRESHOLDS, Boxes, LocationMeasures, location_measures
from ..record import OPTIONAL
from ..truth import TruthPart, TruthSource, require_truth
from .box_files import BoxFile, read_boxes

FRAMES = ("annotated", "file")
"""Whose true boxes count: those of all frames that have some, or of the frames that the file has a box in."""
_RULE = (
    "frame-mAP: each box, by falling score, takes the free true box of its class and frame with the largest overlap >= "
    "threshold, interpolated AP, mean of classes; frame-hit: the best box of each annotated frame against its first "
    "true box, no class, "
)
_PIXELS, _CONTINUOUS = "pixels counted as in the public code", "continuous, as the size of the frames is not known"


@dataclass(frozen=True, kw_only=True)
class BoxEvaluationConfig:
    """What `evaluate_boxes` is asked for.

    Raises
    ------
    UnknownNameError, UsageError
        If a value cannot be meant.
    """

    result: Path
    source: TruthSource
    split: str | None = None  # None = the only one
    part: str = "test"
    frames: str = "annotated"  # one of `FRAMES`
    thresholds: tuple[float, ...] | None = None  # overlaps above 0, at most 1; None = THRESHOLDS
    fps: float | None = None  # by which seconds are frames; None = what the store knows
    frame_px: tuple[int, int] | None = None  # width, height; None = what the store or the dataset knows
    allow_seen: bool = False  # also measure boxes in videos that their run was fitted on; the result says so

    def __post_init__(self) -> None:
        if self.frames not in FRAMES:
            raise UnknownNameError("choice of --frames", self.frames, FRAMES)
        if self.fps is not None and not 0 < self.fps < 1000:
            raise UsageError(f"--fps {self.fps:g}: must be frames per second, such as 25.")


@dataclass(frozen=True, kw_only=True)
class BoxEvaluation(LocationMeasures):
    """A file of boxes, measured."""

    result: str
    form: str  # of the file: "locate" or "ava"
    truth: str  # who says it
    split: str
    part: str
    listed: int  # videos of the part
    videos_without: int  # measured ones of which the file has no box: their true boxes are missed
    boxes: int  # measured
    boxes_elsewhere: int  # in videos that are not listed, or without a true box: left out
    frames_judged: str  # one of `FRAMES`
    rule_text: str
    seen: int | None = field(default=None, metadata=OPTIONAL)  # boxes in videos that their run was fitted on
    seen_note: str | None = field(default=None, metadata=OPTIONAL)  # the same in words


def evaluate_boxes(config: BoxEvaluationConfig) -> BoxEvaluation:
    """Measure a file of boxes against the true ones of a store, or of a dataset's annotations.

    Raises
    ------
    MissingFileError, UsageError
        If the file cannot be read, no true box is known, the file has a box in none of the videos, or the size or rate
        of frames is needed and nobody says it.
    RefusedError
        If boxes are in videos that their run was fitted or selected on.
    """
    part = require_truth(config.source).part(config.split, config.part)
    index = part.truth.index
    file = read_boxes(config.result, index.classes)
    boxed = index.box_video[index.box_label >= 0]
    judged = part.videos[np.isin(part.videos, boxed)]
    if not len(judged):
        raise UsageError(
            f"{part.truth.where} knows no true box of the {part.part} videos of split {part.split!r}; nothing can be "
            "measured."
        )
    position = {str(index.ids[video]): int(video) for video in judged}
    of_box = np.array([position.get(id, -1) for id in file.videos.tolist()], np.int64)
    kept = of_box >= 0
    if len(kept) and not kept.any():
        raise UsageError(
            f"{file.path} has boxes in none of the {len(judged)} {part.part} videos of split {part.split!r} of "
            f"{part.truth.where}, such as {next(iter(position))!r}."
        )
    seen = int(file.seen[kept].sum())
    note = _seen_note(file, seen, allow_seen=config.allow_seen)
    frames = _frames(file, of_box, part, config.fps)
    sizes = _sizes(file, judged, part, config.frame_px)
    measures = _measured(file, kept, of_box, frames, sizes, judged, part, config)
    return BoxEvaluation(
        **vars(measures),
        result=str(file.path),
        form="ava" if file.ava else "locate",
        truth=part.truth.where,
        split=part.split,
        part=part.part,
        listed=len(part.videos),
        videos_without=len(judged) - len(np.unique(of_box[kept])),
        boxes=int(kept.sum()),
        boxes_elsewhere=int((~kept).sum()),
        frames_judged=config.frames,
        rule_text=_RULE + (_CONTINUOUS if sizes is None else _PIXELS),
        seen=seen or None,
        seen_note=note,
    )


def _seen_note(file: BoxFile, seen: int, *, allow_seen: bool) -> str | None:
    if not seen:
        return None
    note = f"{seen} boxes of {file.path} are in videos that their run was fitted or selected on"
    if not allow_seen:
        raise RefusedError(
            f"{note}: numbers on them say nothing about new videos. --allow-seen takes them, and says so."
        )
    return note


def _frames(file: BoxFile, of_box: np.ndarray, part: TruthPart, fps: float | None) -> np.ndarray:
    """Return the frame of each box, [n] int64; of AVA's form that which is nearest to its second."""
    if not file.ava:
        return file.moments.astype(np.int64)
    rates = {}
    for video in np.unique(of_box[of_box >= 0]).tolist():
        rate = fps or part.truth.fps(video)
        if rate is None:
            raise UsageError(
                f"{file.path} has seconds, and {part.truth.where} has frames and does not know how many of "
                f"{str(part.truth.index.ids[video])!r} are a second; give --fps."
            )
        rates[video] = rate
    return np.array(
        [round(moment * rates.get(video, 0.0)) for moment, video in zip(file.moments, of_box.tolist(), strict=True)],
        np.int64,
    )


def _sizes(
    file: BoxFile, judged: np.ndarray, part: TruthPart, frame_px: tuple[int, int] | None
) -> dict[int, tuple[int, int]] | None:
    """Return width and height of the frames of each video; None if one is not known, which pixels need."""
    sizes = {}
    for video in judged.tolist():
        size = frame_px or part.truth.frame_px(video)
        if size is None and file.ava:
            return None
        if size is None:
            raise UsageError(
                f"{file.path} has pixels, and {part.truth.where} does not know the size of the frames of "
                f"{str(part.truth.index.ids[video])!r}; give --frame-px WIDTHxHEIGHT."
            )
        sizes[video] = size
    return sizes


def _measured(
    file: BoxFile, kept: np.ndarray, of_box: np.ndarray, frames: np.ndarray, sizes: dict[int, tuple[int, int]] | None,
    judged: np.ndarray, part: TruthPart, config: BoxEvaluationConfig,
) -> LocationMeasures:  # fmt: skip
    index = part.truth.index
    true = np.isin(index.box_video, judged) & (index.box_label >= 0)
    span = 1 + max([int(index.box_frame[true].max()), *frames[kept].tolist()])
    truth_keys = index.box_video[true].astype(np.int64) * span + index.box_frame[true]
    said_keys = of_box[kept] * span + frames[kept]
    counted = np.ones(len(truth_keys), bool) if config.frames == "annotated" else np.isin(truth_keys, said_keys)
    if not counted.any():
        raise UsageError(
            f"{file.path} has no box in a frame with a true one; nothing can be measured with --frames file."
        )
    truth = Boxes(
        frames=truth_keys[counted],
        boxes=_scaled(index.box_xyxy[true][counted], index.box_video[true][counted], sizes),
        labels=index.box_label[true][counted].astype(np.int64),
    )
    said = Boxes(
        frames=said_keys,
        boxes=_scaled(file.boxes[kept], of_box[kept], sizes) if file.ava else file.boxes[kept],
        labels=file.labels[kept],
        scores=file.scores[kept],
    )
    return location_measures(
        truth,
        said,
        _hits(truth, said),
        index.classes,
        videos=len(judged),
        frames_without=len(np.setdiff1d(said_keys, truth_keys)),
        thresholds=config.thresholds or THRESHOLDS,
        plus_one=sizes is not None,
    )


def _scaled(boxes: np.ndarray, videos: np.ndarray, sizes: dict[int, tuple[int, int]] | None) -> np.ndarray:
    """Fractions of frames, [n, 4], in pixels where their sizes are known, float64."""
    boxes = boxes.astype(np.float64)
    if sizes is None:
        return boxes
    return boxes * np.array([sizes[video] * 2 for video in videos.tolist()], np.float64).reshape(-1, 4)


def _hits(truth: Boxes, said: Boxes) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """Return the best box (NaN = none) and the first true box of each annotated frame."""
    assert said.scores is not None
    best: dict[int, int] = {}
    for row in np.argsort(-said.scores, kind="stable").tolist():
        best.setdefault(int(said.frames[row]), row)
    none = np.full(4, np.nan)
    keys, first = np.unique(truth.frames, return_index=True)
    return [
        (said.boxes[best[key]] if key in best else none, truth.boxes[row])
        for key, row in zip(keys.tolist(), first.tolist(), strict=True)
    ]
