"""`vidatt detect`: when in each video its action happens, from the attention of a fitted head; weakly supervised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.store import Store
from ...errors import UnknownNameError, UsageError
from ..metrics.detection import AMBIGUOUS, MEASURES, DetectionMeasures, Intervals, detection_summary
from ..record import OPTIONAL
from ..runs.attention import VideoAttention
from ..runs.run import Run
from .proposals import (
    PROPOSAL_RULES,
    Proposals,
    Rule,
    StanRule,
    UntrimmedNetRule,
    WhereAndWhenRule,
    attention_scores,
    proposal_seconds,
    stan_proposals,
    untrimmednet_proposals,
    where_and_when_proposals,
)
from .reading import ReadingConfig, ReadingResult
from .rules import read_rule
from .segment_scores import SegmentClassifier
from .sources import Source, average, open_sources
from .submission import submission_classes, write_thumos14

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Overlaps at which both measures are taken, so that they can stand side by side."""


@dataclass(frozen=True, kw_only=True)
class DetectConfig(ReadingConfig):
    """What `detect` is asked for."""

    rule: str | None = None  # of `PROPOSAL_RULES`; None = by what the head gives, see `choose_rule`
    others: tuple[Path, ...] = ()  # runs whose verdicts on the same segments are averaged with those of `run`

    def __post_init__(self) -> None:
        if self.rule is not None and self.rule not in PROPOSAL_RULES:
            raise UnknownNameError("rule", self.rule, PROPOSAL_RULES)
        if self.others and self.out is None:
            raise UsageError("The proposals of several runs belong to none of them: say with --out where they go.")


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
    runs: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)  # where several are averaged


def detect(config: DetectConfig) -> DetectionResult:
    """Write a THUMOS14 submission file, and measure it where the store knows the true intervals.

    Raises
    ------
    UsageError
        If a run is unfinished or weighs no segments, a setting is wrong, or the store has no times.
    RefusedError
        As `evaluate`; if class scores of segments are to be learned from a store that the run was not fitted on; if
        several runs have not the same classes, split, videos and segments.
    """
    sources = open_sources(config, config.others)
    reading = sources[0].reading
    store = reading.store
    chosen = config.rule or ("stan" if all(choose_rule(s.first) == "stan" for s in sources) else "where-and-when")
    rule: Rule = read_rule(PROPOSAL_RULES, chosen, config.settings)
    for source in sources:
        _require_attention(source.reading.substitute(source.first), rule, source.reading.run)
    if isinstance(rule, UntrimmedNetRule) and config.attention != "head":
        raise UsageError(f"--attention {config.attention}: rule untrimmednet reads no attention, nothing would change.")
    rows = np.arange(len(reading.chosen.videos))
    if rule.annotated_only:
        rows = _annotated(store, reading.chosen.videos)
    videos = reading.chosen.videos[rows]
    class_ids, emitted = submission_classes(store.plan.dataset, store.index)
    scores = [source.class_scores(rule) for source in sources]
    detections, highest = _found(sources, rows, rule, [classifier for classifier, _ in scores], emitted)
    out = reading.out("detections", chosen, ".txt")
    write_thumos14(out, detections, class_ids, note=reading.chosen.note)
    said = " and ".join(dict.fromkeys(text for _, text in scores))
    result = DetectionResult(
        **vars(reading.said(len(videos))),
        rule=chosen,
        settings=asdict(rule),
        class_scores=said if len(sources) == 1 else f"{said}, averaged over {len(sources)} runs",
        out=str(out),
        proposals=len(detections),
        videos_with_proposals=len(np.unique(detections.videos)),
        class_ids={str(class_ids[label]): store.index.classes[label] for label in emitted},
        measures=_measured(store, videos, detections, emitted),
        notes=tuple(_notes(rule, highest)),
        runs=tuple(str(source.reading.config.run) for source in sources) if config.others else None,
    )
    return result if config.others else reading.keep("detections", chosen, result)


def _found(
    sources: Sequence[Source],
    rows: np.ndarray,
    rule: Rule,
    classifiers: Sequence[SegmentClassifier | None],
    emitted: np.ndarray,
) -> tuple[Intervals, float]:
    """Return the proposals of all videos in seconds, and the highest attention score on the scale of STAN's rule.

    Parameters
    ----------
    rows : [n] of the sources' videos, which are the same ones in each
    """
    ids: list[str] = []
    spans, labels, scores = [np.empty((0, 2))], [np.empty(0, np.int64)], [np.empty(0)]
    highest = -np.inf
    looks = [
        source.read(source.reading.chosen.videos[rows].tolist(), rule, classifier)
        for source, classifier in zip(sources, classifiers, strict=True)
    ]
    for videos in zip(*looks, strict=True):
        looked = average(sources, videos, rule)
        if isinstance(rule, StanRule) and looked.temporal_raw is not None:
            highest = max(highest, float(attention_scores(looked.temporal_raw, rule).max()))
        found = propose(looked, rule)
        seconds = proposal_seconds(found, sources[0].times.bounds(looked.position, len(looked.temporal)))
        # of the segments of a short video that start at the same frame, all but the last own no time
        kept = (seconds[:, 1] > seconds[:, 0]) & np.isin(found.labels, emitted)
        ids += [looked.id] * int(kept.sum())
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


def propose(video: VideoAttention, rule: Rule) -> Proposals:
    """Return the proposals of one video by a rule; where it reads class scores, they are those of the segments."""
    if isinstance(rule, WhereAndWhenRule):
        return where_and_when_proposals(video.temporal, video.probabilities, rule)
    if video.segment_probabilities is None:
        raise ValueError("this rule reads class scores of segments")
    if isinstance(rule, UntrimmedNetRule):
        return untrimmednet_proposals(video.segment_probabilities, video.probabilities, rule)
    if video.temporal_raw is None:
        raise ValueError("STAN's rule reads attention scores before the softmax")
    return stan_proposals(video.temporal_raw, video.segment_probabilities, rule)


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


def _annotated(store: Store, videos: np.ndarray) -> np.ndarray:
    """Return the rows of videos with true intervals."""
    kept = np.flatnonzero(np.isin(videos, store.index.interval_video))
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
