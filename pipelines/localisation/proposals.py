"""Temporal proposals from the attention over a video's segments: the rules of STAN, Where-and-When and UntrimmedNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...errors import UsageError
from ...heads.contract import require_choice, require_range


@dataclass(frozen=True, kw_only=True)
class ProposalRule:
    """What all rules share."""

    annotated_only: bool = False  # look only at videos with true intervals, as some published results do
    smooth: int = 1  # segments over which each track that the rule thresholds is averaged first; see `smoothed`
    bridge: int = 0  # segments that a gap may have which is closed; see `groups`

    def __post_init__(self) -> None:
        require_range(self, "smooth", least=1)
        require_range(self, "bridge", least=0)


@dataclass(frozen=True, kw_only=True)
class ClassifiedRule(ProposalRule):
    """What rules share that need a class score for each segment.

    The two fields are of the linear classifier on a head's segments (`segment_scores.py`); a head that classifies its
    segments itself needs none, and they change nothing.
    """

    classifier_C: float = 0.01  # strength of its fit, as scikit-learn counts: smaller = more regular
    classifier_segments: int = 50_000  # of the training videos at most, spread evenly; they are held in memory

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "classifier_C", above=0.0)
        require_range(self, "classifier_segments", least=1)


@dataclass(frozen=True, kw_only=True)
class StanRule(ClassifiedRule):
    """STAN's rule (spec 3.4); the defaults are the paper's."""

    k_threshold: float = 0.01  # segments with a raw attention score below it are dropped
    score_threshold: float = 0.4  # segments whose class score is not above it are dropped
    normalise_k: Literal["none", "minmax", "quantile"] = "none"  # the raw score is known up to a constant only
    divide_by_k: bool = False  # the mean of the class scores weighted by k, instead of their weighted sum

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "k_threshold")
        require_range(self, "score_threshold", least=0.0, below=1.0)
        require_choice(self, "normalise_k", ("none", "minmax", "quantile"))
        if self.divide_by_k and self.k_threshold <= 0:
            raise UsageError(f"Setting divide_by_k=True: needs k_threshold above 0, not {self.k_threshold:g}.")


@dataclass(frozen=True, kw_only=True)
class WhereAndWhenRule(ProposalRule):
    """Where-and-When's rule (spec 6.5)."""

    threshold: float = 0.5  # of the weights divided by the video's largest

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "threshold", above=0.0, below=1.0 + 1e-9)


@dataclass(frozen=True, kw_only=True)
class UntrimmedNetRule(ClassifiedRule):
    """What UntrimmedNet's released code does, not what its paper says: it reads no attention (spec 3.4)."""

    annotated_only: bool = True
    smooth: int = 2  # with the next one
    video_threshold: float = 0.1  # classes whose score of the whole video is not above it are skipped
    share_of_maximum: float = 0.5  # segments not above this share of the class's largest score are dropped
    video_weight: float = 0.2  # of the video's score in that of a proposal

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "video_threshold", least=0.0, below=1.0)
        require_range(self, "share_of_maximum", least=0.0, below=1.0)
        require_range(self, "video_weight", least=0.0)


Rule = StanRule | WhereAndWhenRule | UntrimmedNetRule

PROPOSAL_RULES: dict[str, type[Any]] = {
    "stan": StanRule,
    "where-and-when": WhereAndWhenRule,
    "untrimmednet": UntrimmedNetRule,
}
"""The rules by name, with their settings."""


@dataclass(frozen=True, eq=False)
class Proposals:
    """Stretches of one video, in segments; by class, then by time."""

    first: np.ndarray  # [n] int64 segment
    last: np.ndarray  # [n] int64 segment, inclusive
    labels: np.ndarray  # [n] int64 class index
    scores: np.ndarray  # [n] float64, higher = more certain

    def __len__(self) -> int:
        return len(self.first)


def groups(kept: np.ndarray, bridge: int = 0) -> np.ndarray:
    """Return the stretches of neighbours that are kept, [n, 2] int64: first and last segment, inclusive.

    Parameters
    ----------
    kept : [T] bool
    bridge : stretches with so many segments between them, or fewer, are one
    """
    edges = np.diff(np.concatenate([[0], kept.astype(np.int8), [0]]))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    apart = first[1:] - last[:-1] - 1 > bridge
    return np.stack([first[np.append(True, apart)[: len(first)]], last[np.append(apart, True)[: len(last)]]], axis=1)


def smoothed(track: np.ndarray, segments: int) -> np.ndarray:
    """Return the mean of each segment and its neighbours, `segments` of them in all, float64 of the track's shape.

    An even number has one more behind than before: with 2 each is averaged with the next one. At both ends of the
    video those are averaged that there are.

    Parameters
    ----------
    track : [T, ...]
    """
    T = len(track)
    total, count = np.zeros(track.shape), np.zeros((T,) + (1,) * (track.ndim - 1))
    for shift in range(-min((segments - 1) // 2, T - 1), min(segments // 2, T - 1) + 1):
        here, there = slice(max(0, -shift), T - max(0, shift)), slice(max(0, shift), T - max(0, -shift))
        total[here] += track[there]
        count[here] += 1
    return total / count


def attention_scores(k: np.ndarray, rule: StanRule) -> np.ndarray:
    """Return raw attention scores of one video, [T] float64, as STAN's rule thresholds them."""
    return normalised(smoothed(k, rule.smooth), rule.normalise_k)


def normalised(k: np.ndarray, how: str) -> np.ndarray:
    """Return raw attention scores of one video, [T], on a scale that a constant added to them does not change.

    Parameters
    ----------
    how : "none" leaves them; "minmax" maps the smallest to 0 and the largest to 1 (all alike: 1); "quantile" is the
        share of the video's segments with a lower score, half of those with the same counted (all alike: 0.5)
    """
    k = k.astype(np.float64)
    if how == "minmax":
        spread = np.ptp(k)
        return (k - k.min()) / spread if spread > 0 else np.ones_like(k)
    if how == "quantile":
        ordered = np.sort(k)
        return (np.searchsorted(ordered, k, "left") + np.searchsorted(ordered, k, "right")) / (2 * len(k))
    return k


def stan_proposals(k: np.ndarray, scores: np.ndarray, rule: StanRule) -> Proposals:
    """Group the segments that attention and a class score both keep: STAN's rule (spec 3.4).

    A segment survives for a class if k >= `k_threshold` and its score > `score_threshold`; neighbours that survive are
    one proposal, whose score is the sum of k s over the survivors: a gap that is bridged adds time and no score.
    Overlapping proposals are all kept. The sum ranks long proposals first; that is the paper's rule, and `divide_by_k`
    leaves it.

    Parameters
    ----------
    k : [T] attention scores before the softmax
    scores : [T, N] class scores of the segments, 0..1
    """
    k, scores = attention_scores(k, rule), smoothed(scores, rule.smooth)
    attended = k >= rule.k_threshold
    found = []
    for label in np.flatnonzero((scores > rule.score_threshold).any(axis=0)):
        s = scores[:, label]
        kept = attended & (s > rule.score_threshold)
        for first, last in groups(kept, rule.bridge):
            own = first + np.flatnonzero(kept[first : last + 1])
            score = float(k[own] @ s[own])
            found.append((first, last, label, score / float(k[own].sum()) if rule.divide_by_k else score))
    return _proposals(found)


def where_and_when_proposals(w: np.ndarray, probabilities: np.ndarray, rule: WhereAndWhenRule) -> Proposals:
    """Group the segments whose weight is at least half the largest: Where-and-When's rule (spec 6.5).

    The class is that of the video; the score of a proposal is the class's probability times the mean of the weights
    that are kept.

    Parameters
    ----------
    w : [T] attention weights, 0 and up, not all 0
    probabilities : [N] of the video
    """
    w = smoothed(w, rule.smooth)
    label = int(probabilities.argmax())
    share = float(probabilities[label])
    kept = w / w.max() >= rule.threshold
    found = []
    for first, last in groups(kept, rule.bridge):
        own = slice(first, last + 1)
        found.append((first, last, label, share * float(w[own][kept[own]].mean())))
    return _proposals(found)


def untrimmednet_proposals(scores: np.ndarray, probabilities: np.ndarray, rule: UntrimmedNetRule) -> Proposals:
    """Group the segments above a share of a class's largest score: the rule of UntrimmedNet's released code.

    The score of a segment is averaged with that of the next one first. The score of a proposal is the mean of its
    segments' that are kept and `video_weight` times the video's. The released code starts and ends intervals one frame
    later than `segment_bounds` does.

    Parameters
    ----------
    scores : [T, N] class scores of the segments, 0..1
    probabilities : [N] of the video
    """
    scores = smoothed(scores, rule.smooth)
    found = []
    for label in np.flatnonzero(probabilities > rule.video_threshold):
        s = scores[:, label]
        kept = s > rule.share_of_maximum * s.max()
        for first, last in groups(kept, rule.bridge):
            own = slice(first, last + 1)
            score = float(s[own][kept[own]].mean()) + rule.video_weight * float(probabilities[label])
            found.append((first, last, label, score))
    return _proposals(found)


def segment_bounds(frames: np.ndarray, seconds: np.ndarray, *, fps: float, frame_count: int, stop: float) -> np.ndarray:
    """Return the stretch of the video that each segment stands for, [T, 2] float64 seconds.

    A segment owns the time from its own first frame to the first frame of the next one; the last one owns the rest of
    the video. With a segment every n frames that is [n a, n (a + 1)) / fps. Nobody owns what lies before the first
    segment. Times are those of the store's time map, in seconds from the file's first frame.

    Parameters
    ----------
    frames : [T, 3] first, centre and stop frame of each segment
    seconds : [T] presentation time of the centre frames
    fps : frames per second, for the way from a centre to a first frame, and from the last centre to the end
    frame_count : of the video; 0 = unknown, then the last segment owns as much as the one before it
    stop : the video's end in the file where the dataset says so, else NaN

    Raises
    ------
    UsageError
        If times or the frame rate are unknown, or segments do not follow each other in time.
    """
    if not np.isfinite(seconds).all() or not fps > 0:
        raise UsageError("has no times: its cubes were imported without a time map or a frame rate (--stride-frames)")
    starts = seconds - (frames[:, 1] - frames[:, 0]) / fps
    if (np.diff(starts) < -1e-6).any():
        raise UsageError("has segments that go back in time (sampler windows), so neighbours are no stretch of it")
    if frame_count:
        end = seconds[-1] + (frame_count - frames[-1, 1]) / fps
    elif len(starts) > 1:
        end = 2 * starts[-1] - starts[-2]
    else:
        raise UsageError("has one segment, and its length is unknown")
    if np.isfinite(stop):
        end = min(end, stop)
    starts = np.maximum(starts, 0)
    return np.stack([starts, np.append(starts[1:], max(end, starts[-1]))], axis=1)


def proposal_seconds(proposals: Proposals, bounds: np.ndarray) -> np.ndarray:
    """Return start and stop of each proposal, [n, 2] float64 seconds: from its first segment's to its last one's.

    Parameters
    ----------
    bounds : [T, 2] of `segment_bounds`
    """
    return np.stack([bounds[proposals.first, 0], bounds[proposals.last, 1]], axis=1)


def _proposals(found: list[tuple[Any, Any, Any, float]]) -> Proposals:
    first, last, labels = (np.array([row[i] for row in found], np.int64) for i in range(3))
    return Proposals(first, last, labels, np.array([row[3] for row in found], np.float64))
