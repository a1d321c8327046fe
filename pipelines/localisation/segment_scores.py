"""Class scores of single segments: a linear classifier on what a head made of them, learned from video labels."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy.special import softmax

from ...cache.fingerprint import sha256_of
from ...cache.scratch import write_atomically
from ...cache.store import Store
from ...errors import RefusedError, UsageError
from ..runs.attention import VideoAttention, attention
from ..runs.reload import require_fit
from ..runs.run import WEIGHTS, Run
from ..runs.seen import derive_lists
from ..runs.views import shows_centre
from .proposals import ClassifiedRule, Rule

log = logging.getLogger(__name__)

FILE = "segment-classifier.safetensors"
MOST_ITERATIONS = 500


@dataclass(frozen=True, eq=False)
class SegmentClassifier:
    """A linear softmax classifier of segments (spec 3.4: the separate classifier on f_att^t)."""

    weights: np.ndarray  # [N, R] float64
    bias: np.ndarray  # [N] float64; -inf for a class without training segments

    def probabilities(self, segments: np.ndarray) -> np.ndarray:
        """Segments [T, R] -> class scores [T, N] float64, each row sums to 1."""
        return softmax(segments.astype(np.float64) @ self.weights.T + self.bias, axis=1)


def scores_of(video: VideoAttention, classifier: SegmentClassifier | None) -> np.ndarray:
    """Return the class scores of a video's segments, [T, N].

    A head's own verdicts where it classifies segments; else those of a classifier on its segments; else, for a head
    that makes nothing of single segments, the video's probabilities for each of them.
    """
    if video.segment_probabilities is not None:
        return video.segment_probabilities
    if classifier is not None and video.segments is not None:
        return classifier.probabilities(video.segments)
    return np.broadcast_to(video.probabilities, (len(video.temporal), len(video.probabilities)))


def classified(video: VideoAttention, rule: Rule, classifier: SegmentClassifier | None) -> VideoAttention:
    """Return a video with the class scores of its segments, if a rule reads them."""
    if not isinstance(rule, ClassifiedRule):
        return video
    return replace(video, segment_probabilities=scores_of(video, classifier))


def segment_classifier(run: Run, store: Store, *, C: float, segments: int, view: int, device: str) -> SegmentClassifier:
    """Return the classifier of a run's segments, learned now or taken from the run's folder.

    It is learned from the training part of the run, without its validation videos: each segment has the label of its
    video, one with several labels is an example of each with a share of the weight, segments of background too. Each
    feature is standardised first. The fit is deterministic; the run keeps it in `segment-classifier.safetensors` with
    what it depends on, and learns it again if that changes.

    Parameters
    ----------
    store : the store of the run's training videos; not read if the run has the classifier already
    C : strength of the fit as scikit-learn counts
    segments : of all training videos at most, spread evenly over each
    view : of the cubes

    Raises
    ------
    RefusedError
        If the store has other training videos than the run.
    UsageError
        If the head makes nothing of single segments, or the training videos are of one class.
    """
    settings = _learned_by(run, C=C, segments=segments, centred=shows_centre(store))
    kept = _kept(run.path / FILE, settings)
    if kept is not None:
        return kept
    videos = training_videos(run, store)
    most = max(1, segments // len(videos))
    features: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    for video in attention(
        run.path, store_path=store.path, videos=videos.tolist(), view=view, device=device, with_segments=True
    ):
        if video.segments is None:
            raise UsageError(f"Run {run.path}: head {run.identity.head!r} makes nothing of single segments.")
        T = len(video.segments)
        chosen = np.unique(np.linspace(0, T - 1, min(T, most)).round().astype(int))
        features.append(video.segments[chosen])
        owners.append(np.full(len(chosen), video.position))
    classifier = learn(np.concatenate(features), store.index.labels[np.concatenate(owners)], store.index.classes, C=C)
    tensors = {"weights": torch.from_numpy(classifier.weights), "bias": torch.from_numpy(classifier.bias)}
    told = {**settings, "sha256": _digest(classifier.weights, classifier.bias)}
    # in one key: the order of several is another each time
    write_atomically(run.path / FILE, save(tensors, metadata={"settings": json.dumps(told, sort_keys=True)}))
    log.info("segment classifier of %s: learned from %d segments of %d videos", run.path, sum(map(len, owners)),
             len(videos))  # fmt: skip
    return classifier


def kept_classifier(run: Run, *, C: float, segments: int, centred: bool) -> SegmentClassifier | None:
    """Return the classifier that a run keeps, None if it has none that was learned so.

    Parameters
    ----------
    centred : whether what is read shows the centre of the frame
    C, segments : see `segment_classifier`
    """
    return _kept(run.path / FILE, _learned_by(run, C=C, segments=segments, centred=centred))


def _learned_by(run: Run, *, C: float, segments: int, centred: bool) -> dict[str, Any]:
    """Return what a classifier depends on."""
    return {
        "C": C,
        "segments": segments,
        "view": 0 if centred else "random",  # what is seen, wherever the store has it
        "train": require_fit(run).train.to_dict(),
        "weights": sha256_of(run.path / WEIGHTS),
    }


def training_videos(run: Run, store: Store) -> np.ndarray:
    """Return the positions in a store of the videos that a run was trained on, without its validation videos.

    Raises
    ------
    RefusedError
        If the store has others.
    """
    identity = require_fit(run)
    lists = derive_lists(identity, store)
    if lists is None:
        raise RefusedError(
            f"{store.path} has not the {identity.train.videos} training videos of run {run.path}, from which "
            "scores of single segments are learned; give the store that it was fitted on as --store once, the run "
            "keeps what is learned."
        )
    return lists[0]


def learn(features: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], *, C: float) -> SegmentClassifier:
    """Learn a linear softmax classifier.

    Parameters
    ----------
    features : [S, R]
    labels : [S, L] class indices padded with -1; rows without a label are left out
    classes : names, N of them

    Raises
    ------
    UsageError
        If all rows are of one class.
    """
    from sklearn.exceptions import ConvergenceWarning  # a second, which reading a learned classifier does without
    from sklearn.linear_model import LogisticRegression

    rows, places = np.nonzero(labels >= 0)
    targets = labels[rows, places]
    if len(np.unique(targets)) < 2:
        named = ", ".join(classes[t] for t in np.unique(targets)) or "no class"
        raise UsageError(f"The segments that a classifier should learn from are all of {named}; it needs two classes.")
    mean, spread = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    spread[spread == 0] = 1  # a feature that never changes says nothing
    standard = ((features - mean) / spread).astype(np.float32)
    model = LogisticRegression(C=C, max_iter=MOST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told below, in one line
        inputs = standard if len(rows) == len(standard) else standard[rows]
        model.fit(inputs, targets, sample_weight=1 / (labels >= 0).sum(1)[rows])
    if model.n_iter_.max() >= MOST_ITERATIONS:
        log.warning("the segment classifier stopped after %d iterations; a smaller C converges sooner", MOST_ITERATIONS)
    R = features.shape[1]
    weights, bias = np.zeros((len(classes), R)), np.full(len(classes), -np.inf)
    coefficients, intercepts = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(model.classes_) == 2:  # one row, for the second class
        coefficients = np.concatenate([np.zeros((1, R)), coefficients])
        intercepts = np.concatenate([[0.0], intercepts])
    weights[model.classes_] = coefficients / spread
    bias[model.classes_] = intercepts - weights[model.classes_] @ mean
    return SegmentClassifier(weights, bias)


def _kept(path: Path, settings: Mapping[str, Any]) -> SegmentClassifier | None:
    """Read the classifier that a run keeps, if it was learned with these settings."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            told = json.loads((file.metadata() or {}).get("settings", "{}"))
            digest = told.pop("sha256", None)  # None: of version 0.1.0
            if told != json.loads(json.dumps(settings)):
                return None
            weights, bias = file.get_tensor("weights"), file.get_tensor("bias")
            if digest not in (None, _digest(weights, bias)):
                raise ValueError("it is not what was learned")
            return SegmentClassifier(weights, bias)
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is damaged ({error}); delete it, it is learned again.") from None


def _digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
