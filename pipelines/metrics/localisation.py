"""Spatial localisation: boxes in frames against true boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..record import Record
from .detection import interpolated_ap, match_detections_first

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Overlaps at which boxes are measured by default."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Boxes:
    """Labelled boxes in frames: the truth, or detections with scores.

    Raises
    ------
    ValueError
        If shapes differ, or a number is not finite.
    """

    frames: np.ndarray  # [n] int or str: which frame of which video, unique over the dataset
    boxes: np.ndarray  # [n, 4] x1, y1, x2, y2
    labels: np.ndarray  # [n] int, class index
    scores: np.ndarray | None = None  # [n] floating, higher = more certain; None for the truth

    def __post_init__(self) -> None:
        n = len(self.frames)
        shapes = [(self.boxes, (n, 4)), (self.labels, (n,))] + ([] if self.scores is None else [(self.scores, (n,))])
        if any(array.shape != shape for array, shape in shapes):
            raise ValueError(f"Boxes of {n} frames with arrays of shapes {[a.shape for a, _ in shapes]}.")
        if not np.isfinite(self.boxes).all() or (self.scores is not None and not np.isfinite(self.scores).all()):
            raise ValueError("A corner or a score of a box is not finite.")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, keep: np.ndarray) -> Boxes:
        """Return the boxes that a mask or an array of places selects."""
        scores = None if self.scores is None else self.scores[keep]
        return Boxes(frames=self.frames[keep], boxes=self.boxes[keep], labels=self.labels[keep], scores=scores)


@dataclass(frozen=True, kw_only=True)
class ClassBoxes(Record):
    """One class of the true boxes."""

    name: str
    frames: int  # with a true box of it
    ap: tuple[float, ...]  # by threshold


@dataclass(frozen=True, kw_only=True)
class LocationMeasures(Record):
    """Boxes in sampled frames, measured."""

    videos: int
    frames: int  # with a true box
    true_boxes: int
    frames_without: int  # sampled frames of these videos in which there is none
    thresholds: tuple[float, ...]
    frame_hit: tuple[float, ...]  # by threshold; so frame_map
    frame_map: tuple[float, ...]
    classes: int
    per_class: tuple[ClassBoxes, ...]


def corners(xywh: np.ndarray) -> np.ndarray:
    """Boxes x, y, width, height -> x1, y1, x2, y2 in float64; the official files' uint8 would wrap at 256."""
    x, y, w, h = np.moveaxis(np.asarray(xywh, np.float64), -1, 0)
    return np.stack([x, y, x + w, y + h], axis=-1)


def box_iou(a: np.ndarray, b: np.ndarray, *, plus_one: bool = False) -> np.ndarray:
    """Intersection over union of each pair of boxes (spec 9.3).

    Parameters
    ----------
    a, b : [n, 4] and [m, 4] x1, y1, x2, y2 of any numeric dtype; NaN = no box, which overlaps nothing
    plus_one : count pixels: widths and heights are x2 - x1 + 1, as some public code has it; else continuous

    Returns
    -------
    [n, m] float64 in 0..1
    """
    return _iou(_float(a)[:, None], _float(b)[None, :], plus_one=plus_one)


def frame_hit(
    boxes: np.ndarray, truth: np.ndarray, *, thresholds: Sequence[float], plus_one: bool = True
) -> np.ndarray:
    """Share of annotated frames whose one box overlaps the one true box (spec 6.4): no class, no score, no mAP.

    The public code behind it takes the first tube of a video only, and counts pixels; the caller chooses the frames.

    Parameters
    ----------
    boxes : [n, 4] found in each annotated frame, x1, y1, x2, y2; a row of NaN = none found, a miss
    truth : [n, 4] true box of the same frame
    thresholds : an overlap must reach them
    plus_one : see `box_iou`; False for boxes in fractions of the frame

    Returns
    -------
    [len(thresholds)] float64 in 0..1; NaN without frames

    Raises
    ------
    ValueError
        If shapes differ.
    """
    if boxes.shape != truth.shape or boxes.shape[1:] != (4,):
        raise ValueError(f"Found and true boxes must be [n, 4] each, and are {boxes.shape} and {truth.shape}.")
    if not len(boxes):
        return np.full(len(thresholds), np.nan)
    overlap = _iou(_float(boxes), _float(truth), plus_one=plus_one)
    return np.array([(overlap >= threshold).mean() for threshold in thresholds])


def frame_ap(
    truth: Boxes, detections: Boxes, *, labels: Sequence[int], thresholds: Sequence[float], plus_one: bool = False
) -> np.ndarray:
    """Average precision over frames of each class (frame-AP): all true boxes count.

    Each detection, by falling score, takes the free true box of its frame with the largest overlap that reaches the
    threshold; interpolated AP.

    Parameters
    ----------
    truth : every true box of the frames that are judged
    detections : with scores; equal scores are ranked in the order given
    labels : the classes to measure
    plus_one : see `box_iou`

    Returns
    -------
    [len(thresholds), len(labels)] float64; 0 for a class that is never detected, NaN for a class without truth

    Raises
    ------
    ValueError
        If the detections have no scores.
    """
    if detections.scores is None:
        raise ValueError("The detections have no scores.")
    ranked = detections[np.argsort(-detections.scores, kind="stable")]
    result = np.full((len(thresholds), len(labels)), np.nan)
    for column, label in enumerate(labels):
        true, found = truth[truth.labels == label], ranked[ranked.labels == label]
        if not len(true):
            continue
        rows_of: dict[object, list[int]] = {}
        for row, frame in enumerate(true.frames.tolist()):
            rows_of.setdefault(frame, []).append(row)
        places_of: dict[object, list[int]] = {}
        for place, frame in enumerate(found.frames.tolist()):
            if frame in rows_of:
                places_of.setdefault(frame, []).append(place)
        pairs = [
            (places, box_iou(true.boxes[rows_of[frame]], found.boxes[places], plus_one=plus_one))
            for frame, places in places_of.items()
        ]
        for row, threshold in enumerate(thresholds):
            right = np.zeros(len(found), bool)
            for places, overlap in pairs:
                right[places] = match_detections_first(overlap, threshold)
            result[row, column] = interpolated_ap(right, len(true))
    return result


def location_measures(
    truth: Boxes,
    detections: Boxes,
    hits: Sequence[tuple[np.ndarray, np.ndarray]],
    names: Sequence[str],
    *,
    videos: int,
    frames_without: int,
    thresholds: Sequence[float] = THRESHOLDS,
    plus_one: bool = True,
) -> LocationMeasures:
    """Measure boxes by frame-hit and frame-mAP.

    Parameters
    ----------
    truth, detections : see `frame_ap`
    hits : the one box and the first true box of each frame with a true box, (4,) each; see `frame_hit`
    names : of the classes
    videos, frames_without : see `LocationMeasures`
    plus_one : of frame-hit, see `box_iou`
    """
    labels = np.unique(truth.labels)
    ap = frame_ap(truth, detections, labels=labels.tolist(), thresholds=thresholds)
    said, true = (np.array([pair[side] for pair in hits]) for side in (0, 1))
    hit = frame_hit(said, true, thresholds=thresholds, plus_one=plus_one)
    return LocationMeasures(
        videos=videos,
        frames=len(hits),
        true_boxes=len(truth),
        frames_without=frames_without,
        thresholds=tuple(thresholds),
        frame_hit=tuple(hit.tolist()),
        frame_map=tuple(ap.mean(axis=1).tolist()),
        classes=len(labels),
        per_class=tuple(
            ClassBoxes(
                name=names[label],
                frames=len(np.unique(truth.frames[truth.labels == label])),
                ap=tuple(ap[:, column].tolist()),
            )
            for column, label in enumerate(labels.tolist())
        ),
    )


def _float(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(boxes, np.float64)


def _iou(a: np.ndarray, b: np.ndarray, *, plus_one: bool) -> np.ndarray:
    """Overlap of boxes [..., 4] that are broadcast against each other."""
    one = 1.0 if plus_one else 0.0
    size = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + one, 0, None)
    shared = size[..., 0] * size[..., 1]
    areas = [(x[..., 2] - x[..., 0] + one) * (x[..., 3] - x[..., 1] + one) for x in (a, b)]
    union = areas[0] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
