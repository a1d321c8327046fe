"""`vidatt detect`: when in each video its action happens, from the attention of a fitted head; weakly supervised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from ...cache.store import Store
from ...errors import UnknownNameError, UsageError
from ..metrics.detection import AMBIGUOUS, MEASURES, DetectionMeasures, Intervals, detection_summary
from ..runs.attention import VideoAttention, attention
from ..runs.run import Run
from ..runs.views import central_view
from .proposals import (
    PROPOSAL_RULES,
    ClassifiedRule,
    Proposals,
    Rule,
    StanRule,
    UntrimmedNetRule,
    WhereAndWhenRule,
    normalised,
    proposal_seconds,
    segment_bounds,
    stan_proposals,
    untrimmednet_proposals,
    where_and_when_proposals,
)
from .reading import Reading, ReadingConfig, ReadingResult, open_reading
from .rules import read_rule
from .segment_scores import SegmentClassifier, scores_of, segment_classifier
from .submission import submission_classes, write_thumos14

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Overlaps at which both measures are taken, so that they can stand side by side."""


@dataclass(frozen=True, kw_only=True)
class DetectConfig(ReadingConfig):
    """What `detect` is asked for."""

    rule: str | None = None  # of `PROPOSAL_RULES`; None = by what the head gives, see `choose_rule`


@dataclass(frozen=True, kw_only=True)
class DetectionResult(ReadingResult):
    """What `detect` wrote and measured."""

    rule: str
    settings: Mapping[str, Any]  # of the rule
    class_scores: str  # where those of segments come from
    out: str  # the submission file
    proposals: int
    videos_with_proposals: int
    class_ids: Mapping[str, str]  # class by its id in the file
    measures: Mapping[str, DetectionMeasures] | None  # by rule; None: no true interval of these videos is known
    notes: tuple[str, ...]


def detect(config: DetectConfig) -> DetectionResult:
    """Write a THUMOS14 submission file, and measure it where the store knows the true intervals.

    Raises
    ------
    UsageError
        If the run is unfinished or weighs no segments, a setting is wrong, or the store has no times.
    RefusedError
        As `evaluate`; if class scores of segments are to be learned from a store that the run was not fitted on.
    """
    if config.rule is not None and config.rule not in PROPOSAL_RULES:
        raise UnknownNameError("rule", config.rule, PROPOSAL_RULES)
    reading = open_reading(config)
    store, videos = reading.store, reading.chosen.videos
    view = central_view(store)
    look = partial(attention, config.run, store_path=store.path, view=view, device=config.device, with_segments=True)
    first = next(look(videos=[int(videos[0])]))
    name = config.rule or choose_rule(first)
    rule: Rule = read_rule(PROPOSAL_RULES, name, config.settings)
    _require_attention(reading.substitute(first), rule, reading.run)
    if isinstance(rule, UntrimmedNetRule) and config.attention != "head":
        raise UsageError(f"--attention {config.attention}: rule untrimmednet reads no attention, nothing would change.")
    if rule.annotated_only:
        videos = _annotated(store, videos)
    classifier, said = None, "of the video"
    if isinstance(rule, ClassifiedRule):
        classifier, said = _class_scores(reading.run, store, first, rule, view=view, device=config.device)
    class_ids, emitted = submission_classes(store.plan.dataset, store.index)
    detections, highest = _found(look(videos=videos.tolist()), reading, rule, classifier, emitted)
    out = reading.out("detections", name, ".txt")
    write_thumos14(out, detections, class_ids, note=reading.chosen.note)
    result = DetectionResult(
        **vars(reading.said(len(videos))),
        rule=name,
        settings=asdict(rule),
        class_scores=said,
        out=str(out),
        proposals=len(detections),
        videos_with_proposals=len(np.unique(detections.videos)),
        class_ids={str(class_ids[label]): store.index.classes[label] for label in emitted},
        measures=_measured(store, videos, detections, emitted),
        notes=tuple(_notes(rule, highest)),
    )
    return reading.keep("detections", name, result)


def _found(
    looks: Iterable[VideoAttention],
    reading: Reading,
    rule: Rule,
    classifier: SegmentClassifier | None,
    emitted: np.ndarray,
) -> tuple[Intervals, float]:
    """Return the proposals of all videos in seconds, and the highest attention score on the scale of STAN's rule."""
    times = _Times(reading.store, reading.identity.stream_names[0])
    ids: list[str] = []
    spans, labels, scores = [np.empty((0, 2))], [np.empty(0, np.int64)], [np.empty(0)]
    highest = -np.inf
    for video in looks:
        looked = reading.substitute(video)
        if isinstance(rule, StanRule) and looked.temporal_raw is not None:
            highest = max(highest, float(normalised(looked.temporal_raw, rule.normalise_k).max()))
        found = propose(looked, rule, classifier)
        seconds = proposal_seconds(found, times.bounds(video.position, len(video.temporal)))
        # of the segments of a short video that start at the same frame, all but the last own no time
        kept = (seconds[:, 1] > seconds[:, 0]) & np.isin(found.labels, emitted)
        ids += [video.id] * int(kept.sum())
        spans.append(seconds[kept])
        labels.append(found.labels[kept])
        scores.append(found.scores[kept])
    detections = Intervals(
        videos=np.array(ids, dtype=str),
        seconds=np.concatenate(spans),
        labels=np.concatenate(labels),
        scores=np.concatenate(scores),
    )
    return detections, highest


def choose_rule(video: VideoAttention) -> str:
    """Return the rule that a head's outputs are made for: STAN's if it has raw scores and something of segments."""
    of_segments = video.segments is not None or video.segment_probabilities is not None
    return "stan" if of_segments and video.temporal_raw is not None else "where-and-when"


def propose(video: VideoAttention, rule: Rule, classifier: SegmentClassifier | None) -> Proposals:
    """Return the proposals of one video by a rule."""
    if isinstance(rule, WhereAndWhenRule):
        return where_and_when_proposals(video.temporal, video.probabilities, rule)
    scores = scores_of(video, classifier)
    if isinstance(rule, UntrimmedNetRule):
        return untrimmednet_proposals(scores, video.probabilities, rule)
    if video.temporal_raw is None:
        raise ValueError("STAN's rule reads attention scores before the softmax")
    return stan_proposals(video.temporal_raw, scores, rule)


class _Times:
    """The stretches that the segments of a store's videos stand for."""

    def __init__(self, store: Store, stream: str) -> None:
        self._store, self._stream = store, store.stream(stream)
        self._reader = self._stream.reader()

    def bounds(self, position: int, segments: int) -> np.ndarray:
        """Return start and stop of each of the first `segments` segments of a video, [T, 2] seconds."""
        outcome = self._stream.outcome(position)
        try:
            return segment_bounds(
                self._reader.frames(position)[:segments],
                self._reader.seconds(position)[:segments],
                fps=outcome.fps,
                frame_count=outcome.decoded_frames,
                stop=float(self._store.index.span_seconds[position, 1]),
            )
        except UsageError as error:
            raise UsageError(f"Video {self._store.index.ids[position]!r} of {self._store.path} {error}.") from None


def _require_attention(video: VideoAttention, rule: Rule, run: Run) -> None:
    head = run.identity.head
    floor = "--attention uniform shows what comes of it without"
    if isinstance(rule, StanRule) and video.temporal_raw is None:
        raise UsageError(
            f"Run {run.path}: head {head!r} gives no attention scores before the softmax, which rule stan reads; "
            f"{floor}."
        )
    T = len(video.temporal)
    if (
        isinstance(rule, WhereAndWhenRule)
        and video.temporal_raw is None
        and T > 1
        and np.ptp(video.temporal) < 1e-6 / T
    ):
        raise UsageError(f"Run {run.path}: head {head!r} weighs all segments alike; {floor}.")


def _class_scores(
    run: Run, store: Store, video: VideoAttention, rule: ClassifiedRule, *, view: int, device: str
) -> tuple[SegmentClassifier | None, str]:
    """Return the classifier of segments if the head needs one, and where class scores come from."""
    if video.segment_probabilities is not None:
        return None, "of the segments, by the head"
    if video.segments is None:
        return None, "of the video, the same for all its segments"
    C, most = rule.classifier_C, rule.classifier_segments
    classifier = segment_classifier(run, store, C=C, segments=most, view=view, device=device)
    return classifier, "of the segments, by a linear classifier learned from the labels of the training videos"


def _annotated(store: Store, videos: np.ndarray) -> np.ndarray:
    kept = videos[np.isin(videos, store.index.interval_video)]
    if not len(kept):
        raise UsageError(
            f"Setting annotated_only=true: {store.path} knows no true interval of these {len(videos)} videos; "
            "set it to false."
        )
    return kept


def _notes(rule: Rule, highest: float) -> list[str]:
    """Say why STAN's rule found nothing, where the scale of the attention is why."""
    if not isinstance(rule, StanRule) or highest >= rule.k_threshold:
        return []
    return [
        f"no segment of any video has an attention score of {rule.k_threshold:g} or more, the highest is "
        f"{highest:.3g}: scores before a softmax are known up to a constant only; try --set normalise_k=minmax "
        "--set k_threshold=0.5"
    ]


def _measured(
    store: Store, videos: np.ndarray, detections: Intervals, labels: np.ndarray
) -> dict[str, DetectionMeasures] | None:
    """Measure detections by every rule there is; None without truth."""
    index = store.index
    known = np.isin(index.interval_video, videos)
    if not (index.interval_label[known] != AMBIGUOUS).any():
        return None
    truth = Intervals(
        videos=np.array([str(id) for id in index.ids[index.interval_video[known]]], dtype=str),
        seconds=index.interval_seconds[known],
        labels=index.interval_label[known].astype(np.int64),
    )
    classes = [(int(label), index.classes[label]) for label in labels]
    return {
        rule: detection_summary(truth, detections, classes=classes, thresholds=THRESHOLDS, rule=rule)
        for rule in MEASURES
    }
