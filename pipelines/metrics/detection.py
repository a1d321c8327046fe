"""Temporal detection measured by two rules that give different numbers: THUMOS14's own, and ActivityNet's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import UnknownNameError
from ...extract.datasets.catalogue import AMBIGUOUS
from ..record import Record

MEASURES = {
    "thumos14": "THUMOS14 (TH14evalDet): each true segment takes the free detection of largest overlap, overlap > "
    "threshold, unmatched detections on Ambiguous segments dropped, non-interpolated AP",
    "activitynet": "ActivityNet: each detection by falling score takes the free true segment of largest overlap, "
    "overlap >= threshold, interpolated AP",
}
"""What each rule does, in one line that stands beside every result."""
THRESHOLDS = {
    "thumos14": tuple(round(0.1 * k, 1) for k in range(1, 6)),
    "activitynet": tuple(float(x) for x in np.linspace(0.5, 0.95, 10)),  # the float64 values the official code uses
}
"""Overlaps that each evaluation reports by default."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Intervals:
    """Labelled stretches of videos: the truth, or detections with scores.

    Raises
    ------
    ValueError
        If shapes differ, a number is not finite, or a segment ends before it starts.
    """

    videos: np.ndarray  # [n] str
    seconds: np.ndarray  # [n, 2] float64: start, stop
    labels: np.ndarray  # [n] int, class index; truth only: -1 = ambiguous
    scores: np.ndarray | None = None  # [n] floating, higher = more certain; None for the truth

    def __post_init__(self) -> None:
        n = len(self.videos)
        shapes = [(self.seconds, (n, 2)), (self.labels, (n,))] + ([] if self.scores is None else [(self.scores, (n,))])
        if any(array.shape != shape for array, shape in shapes):
            raise ValueError(f"Intervals of {n} videos with arrays of shapes {[a.shape for a, _ in shapes]}.")
        if not np.isfinite(self.seconds).all() or (self.scores is not None and not np.isfinite(self.scores).all()):
            raise ValueError("A time or a score of a segment is not finite.")
        if n and (self.seconds[:, 1] < self.seconds[:, 0]).any():
            raise ValueError("A segment stops before it starts.")

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        return f"Intervals({len(self)} in {len(np.unique(self.videos))} videos)"

    def __getitem__(self, keep: np.ndarray) -> Intervals:
        """Return the segments that a mask or an array of places selects."""
        scores = None if self.scores is None else self.scores[keep]
        return Intervals(videos=self.videos[keep], seconds=self.seconds[keep], labels=self.labels[keep], scores=scores)


@dataclass(frozen=True, kw_only=True)
class ClassDetections(Record):
    """One class of a detection task."""

    name: str
    instances: int  # true segments
    detections: int
    ap: tuple[float | None, ...]  # by threshold; None without instances


@dataclass(frozen=True, kw_only=True)
class DetectionMeasures(Record):
    """Detections measured by a rule: what was counted, and the numbers; None where undefined."""

    rule: str
    rule_text: str
    videos: int  # with truth, ambiguous included
    instances: int
    ambiguous: int
    detections: int
    detections_elsewhere: int  # in videos without truth: all false
    classes: int  # with truth: the denominator of mAP
    thresholds: tuple[float, ...]
    map: tuple[float | None, ...]  # by threshold
    average_map: float | None
    per_class: tuple[ClassDetections, ...]


def segment_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of each pair of intervals; 0 where they do not overlap.

    Parameters
    ----------
    a, b : [n, 2] and [m, 2] start and stop

    Returns
    -------
    [n, m] float64 in 0..1
    """
    start = np.maximum(a[:, None, 0], b[None, :, 0])
    stop = np.minimum(a[:, None, 1], b[None, :, 1])
    shared = np.clip((stop - start).astype(np.float64), 0, None)
    # Two intervals that overlap are together one interval: their union is its length.
    span = np.maximum(a[:, None, 1], b[None, :, 1]) - np.minimum(a[:, None, 0], b[None, :, 0])
    return np.divide(shared, span, out=np.zeros_like(shared), where=shared > 0)


def match_truth_first(overlap: np.ndarray, threshold: float) -> np.ndarray:
    """Match as THUMOS14 does: each true segment, in order, takes the free detection of largest overlap (spec 9.2).

    Parameters
    ----------
    overlap : [true segments, detections by falling score]; of equal overlaps the higher score is taken
    threshold : an overlap must be above it, not equal to it

    Returns
    -------
    [detections] bool, True = taken
    """
    free = overlap.copy()
    taken = np.zeros(overlap.shape[1], bool)
    for row in free if overlap.shape[1] else ():
        best = row.argmax()
        if row[best] > threshold:
            taken[best] = True
            free[:, best] = -1
    return taken


def match_detections_first(overlap: np.ndarray, threshold: float) -> np.ndarray:
    """Match as ActivityNet does: each detection, by falling score, takes the free true segment of largest overlap.

    Parameters
    ----------
    overlap : [true segments, detections by falling score]
    threshold : an overlap must reach it

    Returns
    -------
    [detections] bool, True = it took one
    """
    free = overlap.copy()
    took = np.zeros(overlap.shape[1], bool)
    for d in np.flatnonzero((overlap >= threshold).any(0)):
        best = free[:, d].argmax()
        if free[best, d] >= threshold:
            took[d] = True
            free[best] = -1
    return took


def sampled_ap(right: np.ndarray, positives: int) -> float:
    """Non-interpolated average precision: the precisions at the right ones, summed, over `positives` (more than 0).

    Parameters
    ----------
    right : [detections by falling score] bool
    """
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].sum() / positives)


def interpolated_ap(right: np.ndarray, positives: int) -> float:
    """Area under the precision-recall curve after each precision is raised to the largest at its recall or beyond.

    Arguments as `sampled_ap`.
    """
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / positives)


def detection_ap(
    truth: Intervals, detections: Intervals, *, labels: Sequence[int], thresholds: Sequence[float], rule: str
) -> np.ndarray:
    """Average precision of each class at each overlap.

    Parameters
    ----------
    truth : true segments in the order of their file; label -1 = ambiguous, which only the rule `thumos14` regards
    detections : with scores; those of a label that is not in `labels` are not looked at. Equal scores are ranked by
        video name, then in the order given
    labels : the classes to measure
    thresholds : overlaps in 0..1
    rule : "thumos14" or "activitynet", see `MEASURES`

    Returns
    -------
    [len(thresholds), len(labels)] float64; 0 for a class that is never detected, NaN for a class without truth

    Raises
    ------
    UnknownNameError
        For another rule.
    ValueError
        If the detections have no scores.
    """
    if rule not in MEASURES:
        raise UnknownNameError("rule of detection", rule, MEASURES)
    if detections.scores is None:
        raise ValueError("The detections have no scores.")
    official = rule == "thumos14"
    match: Callable[[np.ndarray, float], np.ndarray] = match_truth_first if official else match_detections_first
    measure = sampled_ap if official else interpolated_ap
    ranked = detections[np.lexsort((detections.videos, -detections.scores))]
    ambiguous = truth[truth.labels == AMBIGUOUS] if official else None
    result = np.full((len(thresholds), len(labels)), np.nan)
    for column, label in enumerate(labels):
        true, found = truth[truth.labels == label], ranked[ranked.labels == label]
        if not len(true):
            continue
        pairs = [
            (places, segment_overlap(true.seconds[rows], found.seconds[places]))
            for rows, places in _by_video(true.videos, found.videos)
        ]
        unclear = np.zeros(len(found), bool) if ambiguous is None else _touches(found, ambiguous)
        for row, threshold in enumerate(thresholds):
            right = np.zeros(len(found), bool)
            for places, overlap in pairs:
                right[places] = match(overlap, threshold)
            result[row, column] = measure(right[right | ~unclear], len(true))
    return result


def detection_summary(
    truth: Intervals,
    detections: Intervals,
    *,
    classes: Sequence[tuple[int, str]],
    thresholds: Sequence[float] | None = None,
    rule: str,
) -> DetectionMeasures:
    """Measure detections and say how.

    Parameters
    ----------
    classes : (label, name) of each class to measure
    thresholds : None = those of the rule
    truth, detections, rule : as `detection_ap`
    """
    if rule not in MEASURES:
        raise UnknownNameError("rule of detection", rule, MEASURES)
    thresholds = THRESHOLDS[rule] if thresholds is None else thresholds
    labels = [label for label, _ in classes]
    ap = detection_ap(truth, detections, labels=labels, thresholds=thresholds, rule=rule)
    measured = ~np.isnan(ap[0])
    means = ap[:, measured].mean(1) if measured.any() else np.full(len(ap), np.nan)
    counted = np.isin(truth.labels, labels)
    videos = np.unique(truth.videos)
    return DetectionMeasures(
        rule=rule,
        rule_text=MEASURES[rule],
        videos=len(videos),
        instances=int(counted.sum()),
        ambiguous=int((truth.labels == AMBIGUOUS).sum()),
        detections=len(detections),
        detections_elsewhere=int((~np.isin(detections.videos, videos)).sum()),
        classes=int(measured.sum()),
        thresholds=tuple(float(threshold) for threshold in thresholds),
        map=tuple(_or_none(value) for value in means),
        average_map=_or_none(means.mean()),
        per_class=tuple(
            ClassDetections(
                name=name,
                instances=int((truth.labels == label).sum()),
                detections=int((detections.labels == label).sum()),
                ap=tuple(_or_none(value) for value in ap[:, column]),
            )
            for column, (label, name) in enumerate(classes)
        ),
    )


def window_recall(
    kept: np.ndarray, annotated: np.ndarray, class_right: np.ndarray, *, thresholds: Sequence[float]
) -> np.ndarray:
    """Share of windows that are classified right and of whose annotated frames more than a share is kept (spec 6.5).

    This is what the public code of "Where and When to Look" prints as THUMOS14 localisation. It is no mAP: the windows
    are cut around the true segments, and keeping every frame reaches the accuracy of classification.

    Parameters
    ----------
    kept : [windows, frames] bool, the frames whose attention is above the limit
    annotated : [windows, frames] bool, the frames inside a true segment; at least one in each window
    class_right : [windows] bool

    Returns
    -------
    [len(thresholds)] float64 in 0..1; NaN without windows

    Raises
    ------
    ValueError
        If shapes differ, or a window has no annotated frame.
    """
    if kept.shape != annotated.shape or class_right.shape != kept.shape[:1]:
        raise ValueError(f"Windows of shapes {kept.shape}, {annotated.shape} and {class_right.shape}.")
    if not annotated.any(1).all():
        raise ValueError("A window has no annotated frame; windows are cut around true segments.")
    if not len(kept):
        return np.full(len(thresholds), np.nan)
    recall = (kept & annotated).sum(1) / annotated.sum(1)
    return np.array([(class_right & (recall > threshold)).mean() for threshold in thresholds])


def _by_video(true: np.ndarray, found: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for each video that is in both lists, its places in one and in the other, ascending."""
    by_true, by_found = np.argsort(true, kind="stable"), np.argsort(found, kind="stable")
    sorted_true, sorted_found = true[by_true], found[by_found]
    shared = np.intersect1d(true, found)
    edges = [
        np.searchsorted(array, shared, side=side) for array in (sorted_true, sorted_found) for side in ("left", "right")
    ]
    for a, b, c, d in zip(*edges, strict=True):
        yield by_true[a:b], by_found[c:d]


def _touches(found: Intervals, others: Intervals) -> np.ndarray:
    """[found] bool: whether a segment overlaps any of the others of its video."""
    touches = np.zeros(len(found), bool)
    for rows, places in _by_video(others.videos, found.videos):
        touches[places] = segment_overlap(others.seconds[rows], found.seconds[places]).any(0)
    return touches


def _or_none(value: float) -> float | None:
    """NaN, which JSON has not, -> None."""
    return None if np.isnan(value) else float(value)
