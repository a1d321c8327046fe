"""When in a new video its classes happen: the proposals of `vidatt detect`, where the run's rule can make some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...errors import UnknownNameError, UsageError
from ..localisation.detect import choose_rule, propose
from ..localisation.proposals import (
    PROPOSAL_RULES,
    ClassifiedRule,
    Rule,
    StanRule,
    WhereAndWhenRule,
    proposal_seconds,
    segment_bounds,
)
from ..localisation.rules import read_rule
from ..localisation.segment_scores import SegmentClassifier, classified, kept_classifier
from ..runs.attention import VideoAttention
from ..runs.run import Run
from .clip_cubes import ClipCubes
from .making import StreamMaking


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A stretch of a video in which a class is seen."""

    label: int  # place of the class
    start: float  # seconds from the file's first frame
    stop: float
    score: float  # of the rule: ranks the intervals of one rule only


@dataclass(frozen=True, kw_only=True)
class IntervalRule:
    """By which rule intervals are made.

    Raises
    ------
    UsageError
        For a rule or a setting that there is not.
    """

    name: str | None = None  # of `detect --rule`; None = by what the head gives
    settings: Mapping[str, str] = field(default_factory=dict)  # texts by field of the rule

    def __post_init__(self) -> None:
        if self.name is not None:
            read_rule(PROPOSAL_RULES, self.name, self.settings)
        elif self.settings:
            raise UsageError("--set is a setting of a rule; name it with --rule.")


class IntervalReader:
    """Makes the intervals of the videos that a run looks at."""

    def __init__(self, run: Run, how: IntervalRule, *, centred: bool) -> None:
        self._run, self._how, self._centred = run, how, centred
        self._rule: Rule | None = None
        self._classifier: SegmentClassifier | None = None

    def read(self, video: VideoAttention, cubes: ClipCubes, stream: StreamMaking) -> tuple[Interval, ...]:
        """Return the intervals of a video, in order of time.

        Raises
        ------
        UsageError
            If the head gives nothing that the rule reads, or the video has no times.
        """
        rule = self._rule or self._open(video)
        T = len(video.temporal)
        proposals = propose(classified(video, rule, self._classifier), rule)
        stop = cubes.clip.stop_seconds
        bounds = segment_bounds(
            cubes.frames[stream.key][:T],
            cubes.seconds[stream.key][:T],
            fps=cubes.report.fps,
            frame_count=cubes.report.decoded_frames,
            stop=np.nan if stop is None else stop,
        )
        seconds = proposal_seconds(proposals, bounds)
        found = [
            Interval(label=int(label), start=float(start), stop=float(end), score=float(score))
            for (start, end), label, score in zip(seconds, proposals.labels, proposals.scores, strict=True)
            if end > start
        ]
        return tuple(sorted(found, key=lambda one: (one.start, one.stop, one.label)))

    def _open(self, video: VideoAttention) -> Rule:
        """Choose the rule by what the head gives of a first video."""
        name = self._how.name or choose_rule(video)
        if name not in PROPOSAL_RULES:
            raise UnknownNameError("rule", name, PROPOSAL_RULES)
        rule: Rule = read_rule(PROPOSAL_RULES, name, self._how.settings)
        head = self._run.identity.head
        if isinstance(rule, StanRule) and video.temporal_raw is None:
            raise UsageError(f"head {head!r} gives no attention scores before the softmax, which rule stan reads")
        T = len(video.temporal)
        alike = T > 1 and np.ptp(video.temporal) < 1e-6 / T
        if isinstance(rule, WhereAndWhenRule) and video.temporal_raw is None and alike:
            raise UsageError(f"head {head!r} weighs all segments alike")
        learned = isinstance(rule, ClassifiedRule) and video.segment_probabilities is None
        if isinstance(rule, ClassifiedRule) and learned and video.segments is not None:
            self._classifier = kept_classifier(
                self._run, C=rule.classifier_C, segments=rule.classifier_segments, centred=self._centred
            )
            if self._classifier is None:
                raise UsageError(
                    f"class scores of segments are not learned yet: `vidatt detect {self._run.path}` learns them, and "
                    "the run keeps them"
                )
        self._rule = rule
        return rule
