"""`vidatt evaluate`: score a fitted head on a part of a split, and read its attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.batches import Batches
from ..cache.store import Store
from ..errors import NotFiniteError, RefusedError, UnknownNameError, UsageError
from ..heads.contract import Head
from .fit import TEST, TRAIN, choose_split
from .metrics.classification import measured, multi_hot
from .reload import load_head, open_store
from .run import Run
from .scoring import resolve_device, score_views

PARTS = {"train": TRAIN, "test": TEST}
"""Parts of a split by name; `train` holds the validation videos too."""


@dataclass(frozen=True, eq=False, kw_only=True)
class VideoAttention:
    """What a head says about one video, and where it looked; T counts the video's valid segments."""

    position: int  # in the store
    id: str
    probabilities: np.ndarray  # [N] float32
    temporal: np.ndarray  # [T] float32, sums to 1
    temporal_raw: np.ndarray | None  # [T] float32
    spatial: np.ndarray | None  # [T, M, K, K] float32


def evaluate(
    run_path: Path,
    store_path: Path | None = None,
    split: str | None = None,
    part: str = "test",
    device: str = "auto",
    *,
    batch_videos: int | None = None,
) -> dict[str, Any]:
    """Score a run's head; results are kept in the run (`metrics.json`, `scores-<split>-<part>.npz`).

    Parameters
    ----------
    run_path : a finished run
    store_path : None = the store it was fitted on; another one must have the same recipes and classes
    split : None = the run's
    part : "test" or "train"
    device : auto, cpu, cuda or cuda:i
    batch_videos : None = as in the fit

    Returns
    -------
    `{"run", "split", "videos", "metrics": {"top1", "top5", "class_mean", "map"}, "protocol"}` with fractions in 0..1
    (None where undefined), and `part, listed, missing, confusion` ([N][N] counts, row = truth; None for several
    labels each) `, per_class` (list of `name, videos, accuracy, average_precision`).

    Raises
    ------
    FingerprintMismatchError
        If a stream of the store was made by another recipe than the run's; the message says what differs.
    RefusedError
        If classes differ, or a test part holds videos the head was trained on.
    UsageError
        If the run is unfinished, or the part holds no video.
    """
    if part not in PARTS:
        raise UnknownNameError("part", part, PARTS)
    run, device_ = Run.open(run_path), resolve_device(device)
    metrics = run.metrics()
    store = open_store(run, store_path)
    split = choose_split(store, split or run.identity["split"])
    listed, videos = _choose_videos(run, store, split, part)
    head = load_head(run).to(device_)
    index, names = store.index, run.identity["stream_names"]
    scores = score_views(head, store, names, videos, device=device_, batch_videos=batch_videos or _batch_videos(run))
    if not np.isfinite(scores).all():
        bad = str(index.ids[videos[~np.isfinite(scores).all(1)][0]])
        raise NotFiniteError(f"The scores of video {bad!r} are not finite; run `vidatt verify` on {store.path}.")
    labels = index.labels[videos]
    hot = multi_hot(labels, len(index.classes))
    run.write_scores(f"{split}-{part}", ids=index.ids[videos], scores=scores, labels=labels)
    result = {
        "run": str(run_path),
        "split": split,
        "part": part,
        "videos": len(videos),
        "listed": listed,
        "missing": listed - len(videos),
        "protocol": _protocol(head, store, split, part, len(videos), listed, labelled=int(hot.any(1).sum())),
        **measured(scores, hot, index.classes, multi_label=index.multi_label),
    }
    metrics["evaluations"][f"{split}-{part}"] = result | {"store": str(store.path)}
    run.write_metrics(metrics)
    return result


def attention(
    run_path: Path,
    *,
    store_path: Path | None = None,
    videos: Sequence[int] | None = None,
    split: str | None = None,
    part: str = "test",
    view: int = 0,
    device: str = "auto",
    batch_videos: int | None = None,
) -> Iterator[VideoAttention]:
    """Yield the attention of each video, computed batch by batch.

    Parameters
    ----------
    videos : positions in the store, in the order wanted; None = all usable ones of `part` of `split`
    view : which view of the cubes
    run_path, store_path, split, part, device, batch_videos : see `evaluate`

    Raises
    ------
    VidattError
        As `evaluate`; from the first `next`.
    """
    run, device_ = Run.open(run_path), resolve_device(device)
    store = open_store(run, store_path)
    if part not in PARTS:
        raise UnknownNameError("part", part, PARTS)
    if videos is None:
        split = choose_split(store, split or run.identity["split"])
        roles = store.index.splits[split] == PARTS[part]
        videos = np.flatnonzero(roles & _usable(run, store)).tolist()
    if not len(videos):
        return
    head = load_head(run).to(device_).eval()
    batches = Batches(
        store,
        run.identity["stream_names"],
        videos=np.asarray(videos),
        batch_videos=batch_videos or _batch_videos(run),
        shuffle=False,
        view=view,
        device=device_,
    )
    for batch in batches.epoch(0):
        with torch.inference_mode():
            output = head(batch.cubes, batch.valid)
            probabilities = _numpy(head.probabilities(output.logits))
        temporal = _numpy(output.temporal)
        raw = None if output.temporal_raw is None else _numpy(output.temporal_raw)
        spatial = None if output.spatial is None else _numpy(output.spatial)
        for b, T in enumerate(batch.valid.sum(1).tolist()):
            yield VideoAttention(
                position=int(batch.videos[b]),
                id=str(store.index.ids[batch.videos[b]]),
                probabilities=probabilities[b],
                temporal=temporal[b, :T],
                temporal_raw=None if raw is None else raw[b, :T],
                spatial=None if spatial is None else spatial[b, :T],
            )


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()


def _choose_videos(run: Run, store: Store, split: str, part: str) -> tuple[int, np.ndarray]:
    """Return the number of listed videos, and the positions of those that can be scored."""
    roles = store.index.splits[split] == PARTS[part]
    if not roles.any():
        raise UsageError(f"Split {split!r} of {store.path} lists no {part} videos.")
    ours = run.identity["split"]
    if part == "test" and split != ours and ours in store.index.splits:
        seen = int((roles & (store.index.splits[ours] == TRAIN)).sum())
        if seen:
            raise RefusedError(
                f"{seen} of {roles.sum()} test videos of split {split!r} are training videos of split {ours!r}, which "
                f"run {run.path} was fitted on; fit one run per split."
            )
    videos = np.flatnonzero(roles & _usable(run, store))
    if not len(videos):
        raise UsageError(f"None of the {roles.sum()} {part} videos of split {split!r} has segments in {store.path}.")
    return int(roles.sum()), videos


def _usable(run: Run, store: Store) -> np.ndarray:
    identity = run.identity
    return store.usable(identity["stream_names"], allow_truncated=identity["allow_truncated"])


def _batch_videos(run: Run) -> int:
    return run.identity["settings"]["fit"]["batch_videos"]


def _protocol(head: Head, store: Store, split: str, part: str, videos: int, listed: int, *, labelled: int) -> str:
    """Say in one line how the numbers were made."""
    parts = [f"classification of {videos} of {listed} {part} videos of split {split}"]
    if videos < listed:
        parts.append(f"{listed - videos} without usable cubes are left out of every denominator")
    if store.views > 1:
        parts.append(f"{head.score_kind} averaged over {store.views} views")
    elif head.score_kind != Head.score_kind:
        parts.append(f"by {head.score_kind}")
    if store.index.multi_label:
        parts.append(f"top1 and top5 are Hit@k over the {labelled} labelled videos; the others are negatives in AP")
    else:
        parts.append("top1 over all videos, class_mean the mean of the classes' accuracies")
    if len(store.index.classes) < 5:
        parts.append(f"top5 of {len(store.index.classes)} classes is always 1")
    parts.append("map non-interpolated, classes without positives left out")
    return "; ".join(parts)
