"""The runs that `vidatt detect` reads: one, or several whose verdicts on the same segments are averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ...errors import RefusedError, UsageError
from ..runs.attention import VideoAttention, attention
from ..runs.views import central_view
from .proposals import ClassifiedRule, Rule, StanRule, normalised
from .reading import Reading, ReadingConfig, open_reading
from .segment_scores import SegmentClassifier, classified, segment_classifier
from .times import Times

SAME_SECONDS = 1e-3
"""Up to which two stores say the same of when a segment begins."""


@dataclass(frozen=True, eq=False)
class Source:
    """One run, and how it is read."""

    reading: Reading

    def look(self, videos: Sequence[int]) -> Iterator[VideoAttention]:
        """Yield what the head says of videos of its store, as it is."""
        store, config = self.reading.store, self.reading.config
        return attention(
            config.run, store_path=store.path, videos=videos, view=central_view(store), device=config.device,
            with_segments=True,
        )  # fmt: skip

    @cached_property
    def first(self) -> VideoAttention:
        """What the head says of its first video."""
        return next(self.look([int(self.reading.chosen.videos[0])]))

    @cached_property
    def times(self) -> Times:
        """When its segments are."""
        return Times(self.reading.store, self.reading.identity.stream_names[0])

    def class_scores(self, rule: Rule) -> tuple[SegmentClassifier | None, str]:
        """Return the classifier of segments if the rule and the head need one, and where class scores come from."""
        if not isinstance(rule, ClassifiedRule):
            return None, "of the video"
        if self.first.segment_probabilities is not None:
            return None, "of the segments, by the head"
        if self.first.segments is None:
            return None, "of the video, the same for all its segments"
        config, store = self.reading.config, self.reading.store
        classifier = segment_classifier(
            self.reading.run, store, C=rule.classifier_C, segments=rule.classifier_segments, view=central_view(store),
            device=config.device,
        )  # fmt: skip
        return classifier, "of the segments, by a linear classifier learned from the labels of the training videos"

    def read(self, videos: Sequence[int], rule: Rule, classifier: SegmentClassifier | None) -> Iterator[VideoAttention]:
        """Yield what a rule reads of videos: attention or what stands in its place, and scores of segments."""
        for video in self.look(videos):
            yield classified(self.reading.substitute(video), rule, classifier)


def open_sources(config: ReadingConfig, others: Sequence[Path]) -> tuple[Source, ...]:
    """Open the run of a configuration and others beside it, each with its videos in the order of the first one's.

    What is said of seen videos is said of all runs, by the first source.

    Raises
    ------
    UsageError
        As `open_reading`; if a run is given twice.
    RefusedError
        As `open_reading`; if the runs have other classes, splits or videos than the first.
    """
    paths = [config.run, *others]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("A run is given twice: averaged with itself it says the same; give each run once.")
    first, *more = (open_reading(replace(config, run=path)) for path in paths)
    ids = first.store.index.ids[first.chosen.videos].tolist()
    seen = first.chosen.seen.copy()
    notes = [first.chosen.note]
    readings = []
    for reading in more:
        ordered = _ordered(first, reading, ids)
        chosen = reading.chosen
        seen |= np.isin(ordered, chosen.videos[chosen.seen])
        notes.append(chosen.note)
        readings.append(replace(reading, chosen=replace(chosen, videos=ordered)))
    if more:
        note = "; ".join(dict.fromkeys(note for note in notes if note)) or None
        first = replace(first, chosen=replace(first.chosen, seen=seen, note=note))
    return tuple(Source(reading) for reading in (first, *readings))


def _ordered(first: Reading, other: Reading, ids: Sequence[str]) -> np.ndarray:
    """Return the positions of videos in the store of another run."""
    pair = f"Runs {first.config.run} and {other.config.run}"
    if first.store.index.classes != other.store.index.classes:
        raise RefusedError(f"{pair} have other classes; runs are averaged that know the same ones in the same order.")
    if first.split != other.split:
        raise RefusedError(f"{pair} are of splits {first.split} and {other.split}; average runs of one split.")
    position = {str(other.store.index.ids[video]): int(video) for video in other.chosen.videos}
    if different := sorted(set(ids) ^ set(position)):
        lacking, store = (other, other.store) if different[0] in set(ids) else (first, first.store)
        raise RefusedError(
            f"{pair} can be held to other videos: {different[0]!r} and {len(different) - 1} more are of one only, not "
            f"of {lacking.config.run} in {store.path}; runs are averaged on the same videos."
        )
    return np.array([position[id] for id in ids], np.int64)


def average(sources: Sequence[Source], videos: Sequence[VideoAttention], rule: Rule) -> VideoAttention:
    """Return one video as several runs see it: the means of their weights, raw scores, probabilities and verdicts.

    Raw scores of two heads lie on two scales; where the rule normalises them, each run's are before the mean.

    Raises
    ------
    RefusedError
        If the runs have other segments of the video; names it.
    """
    first = videos[0]
    if len(videos) == 1:
        return first
    bounds = sources[0].times.bounds(first.position, len(first.temporal))
    for source, video in zip(sources[1:], videos[1:], strict=True):
        theirs = source.times.bounds(video.position, len(video.temporal))
        if theirs.shape != bounds.shape or np.abs(theirs - bounds).max() > SAME_SECONDS:
            raise RefusedError(
                f"Runs {sources[0].reading.config.run} and {source.reading.config.run} see other segments of video "
                f"{first.id!r}: {len(bounds)} and {len(theirs)}, of {sources[0].reading.store.path} and "
                f"{source.reading.store.path}; runs are averaged on stores with the same --sampler."
            )
    how = rule.normalise_k if isinstance(rule, StanRule) else "none"
    raws = [None if video.temporal_raw is None else normalised(video.temporal_raw, how) for video in videos]
    verdicts = [video.segment_probabilities for video in videos]
    return replace(
        first,
        probabilities=np.mean([video.probabilities for video in videos], axis=0, dtype=np.float64),
        temporal=np.mean([video.temporal for video in videos], axis=0, dtype=np.float64),
        temporal_raw=None if any(raw is None for raw in raws) else np.mean(np.array(raws), axis=0),
        segment_probabilities=(
            None
            if any(scores is None for scores in verdicts)
            else np.mean(np.array(verdicts), axis=0, dtype=np.float64)
        ),
        spatial=None,
        segments=None,
    )
