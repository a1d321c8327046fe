"""`vidatt evaluate`: score a fitted head on a part of a split, and read its attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cache.batches import Batches
from ...cache.store import Store
from ...errors import MissingFileError, NotFiniteError, RefusedError, UnknownNameError, UsageError
from ...heads.contract import Head
from ..metrics.classification import measured, multi_hot
from ..runs.reload import load_head, open_store
from ..runs.run import CONFIG, Run, differences
from ..runs.scoring import resolve_device, score_views
from ..runs.splits import PARTS, TRAIN, choose_split
from .protocols import find_protocol, measures_text, official, official_splits

SEGMENTS_AT_ONCE = 3_200
"""Of a batch whose attention is read, as many as 128 videos of 25 have: untrimmed videos may have thousands each."""


@dataclass(frozen=True, eq=False, kw_only=True)
class VideoAttention:
    """What a head says about one video, and where it looked; T counts the video's valid segments."""

    position: int  # in the store
    id: str
    probabilities: np.ndarray  # [N] float32
    temporal: np.ndarray  # [T] float32, sums to 1
    temporal_raw: np.ndarray | None  # [T] float32
    spatial: np.ndarray | None  # [T, M, K, K] float32
    segments: np.ndarray | None = None  # [T, R] float32, what the head made of each segment; on request
    segment_probabilities: np.ndarray | None = None  # [T, N] float32, if the head classifies segments; on request


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
    (None where undefined), and `part, listed, missing`, and `denominators, confusion, per_class` as `measured` says.

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
    listed, videos = choose_videos(run, store, split, part)
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
        "protocol": _protocol(head, store, split, part, listed, hot, _clip_segments(run)),
        **measured(scores, hot, index.classes, multi_label=index.multi_label),
    }
    metrics["evaluations"][f"{split}-{part}"] = result | {"store": str(store.path)}
    run.write_metrics(metrics)
    return result


def evaluate_officially(
    run_paths: Sequence[Path], store_path: Path | None = None, split: str | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Evaluate runs, one per split, and make the official number of their dataset from them.

    Parameters
    ----------
    run_paths : finished runs of one head on the same streams; fusions that are evaluated count as well
    store_path, device : see `evaluate`
    split : for one run only, see `evaluate`

    Returns
    -------
    Of one run what `evaluate` returns, with `official`. Of several `{"run", "split", "videos", "listed", "missing",
    "metrics" (means over the runs), "protocol", "official", "runs": [what `evaluate` returned]}`.

    Raises
    ------
    RefusedError
        If the runs are of different heads, streams, classes or datasets, or not one per split.
    UsageError
        If the dataset has no official protocol of classification.
    """
    runs = [Run.open(path) for path in run_paths]
    what = str(run_paths[0])
    if split is not None and len(runs) > 1:
        raise UsageError("--split is for one run; several runs are each evaluated on their own split.")
    first = runs[0]
    for run in runs[1:]:
        if different := differences(_subject(first), _subject(run)):
            raise RefusedError(
                f"Runs {first.path} and {run.path} are not the same head on other splits: {different[0]} "
                "(first -> second)."
            )
    stores = [open_store(_fit_of(run), store_path) for run in runs]
    dataset = stores[0].plan.dataset
    find_protocol(dataset, what)
    for run, store in zip(runs, stores, strict=True):
        if store.plan.dataset != dataset:
            raise RefusedError(f"Runs {first.path} and {run.path} are of different datasets.")
    chosen = [split or run.identity["split"] for run in runs]
    official_splits(str(dataset), chosen, sorted(stores[0].index.splits), what)
    done = [
        _recorded(run, split) if "parts" in run.identity else evaluate(run.path, store_path, split, device=device)
        for run in runs
    ]
    number = official(str(dataset), done, sorted(stores[0].index.splits), what)
    if len(done) == 1:
        return done[0] | {"official": number}
    return {
        "run": ", ".join(result["run"] for result in done),
        "split": ", ".join(result["split"] for result in done),
        "videos": number["scored"],
        "listed": number["listed"],
        "missing": number["missing"],
        "metrics": {key: number["figures"][key] for key in done[0]["metrics"]},
        "protocol": f"means over {len(done)} runs; first run: {done[0]['protocol']}",
        "official": number,
        "runs": done,
    }


def _fit_of(run: Run) -> Run:
    """Return the run itself, or the first fit among the parts of a fusion: it knows the store.

    Raises
    ------
    MissingFileError
        If no run that was fused is where it was.
    """
    while "parts" in run.identity:
        parts = [Path(part) for part in run.config["environment"]["parts"]]
        there = next((part for part in parts if (part / CONFIG).exists()), None)
        if there is None:
            raise MissingFileError(
                f"Run {run.path} is a fusion, and none of the runs it was made of is there now, such as {parts[0]}."
            )
        run = Run.open(there)
    return run


def _subject(run: Run) -> dict[str, Any]:
    """Return what runs on different splits must have in common."""
    fingerprints = {name: stream["fingerprint"] for name, stream in run.identity["streams"].items()}
    return {key: run.identity[key] for key in ("head", "preset", "stream_names", "classes")} | {"streams": fingerprints}


def _recorded(fusion: Run, split: str | None) -> dict[str, Any]:
    """Return what a fusion measured when it was made."""
    own = fusion.identity["split"]
    if split not in (None, own):
        raise UsageError(f"Run {fusion.path} is a fusion of test scores of split {own!r}; leave out --split.")
    return fusion.metrics()["evaluations"][f"{own}-test"]


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
    with_segments: bool = False,
) -> Iterator[VideoAttention]:
    """Yield the attention of each video, computed batch by batch.

    Parameters
    ----------
    videos : positions in the store, in the order wanted; None = all usable ones of `part` of `split`
    view : which view of the cubes
    with_segments : also give `segments` and `segment_probabilities`, where the head has them
    batch_videos : None = as in the fit, and fewer where videos are long
    run_path, store_path, split, part, device : see `evaluate`

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
    longest = int(store.index.length[np.asarray(videos)].max())
    batches = Batches(
        store,
        run.identity["stream_names"],
        videos=np.asarray(videos),
        batch_videos=batch_videos or max(1, min(_batch_videos(run), SEGMENTS_AT_ONCE // longest)),
        shuffle=False,
        view=view,
        device=device_,
    )
    for batch in batches.epoch(0):
        with torch.inference_mode():
            output = head(batch.cubes, batch.valid)
            probabilities = _numpy(head.probabilities(output.logits))
            parts = output.parts if with_segments else {}
            verdicts = head.probabilities(parts["segment_logits"]) if "segment_logits" in parts else None
        temporal = _numpy(output.temporal)
        raw, spatial, segments, by_segment = (
            None if tensor is None else _numpy(tensor)
            for tensor in (output.temporal_raw, output.spatial, parts.get("segments"), verdicts)
        )
        for b, T in enumerate(batch.valid.sum(1).tolist()):
            if not (np.isfinite(probabilities[b]).all() and np.isfinite(temporal[b]).all()):
                bad = str(store.index.ids[batch.videos[b]])
                raise NotFiniteError(
                    f"What the head says of video {bad!r} is not finite; run `vidatt verify` on {store.path}."
                )
            yield VideoAttention(
                position=int(batch.videos[b]),
                id=str(store.index.ids[batch.videos[b]]),
                probabilities=probabilities[b],
                temporal=temporal[b, :T],
                temporal_raw=None if raw is None else raw[b, :T],
                spatial=None if spatial is None else spatial[b, :T],
                segments=None if segments is None else segments[b, :T],
                segment_probabilities=None if by_segment is None else by_segment[b, :T],
            )


def central_view(store: Store) -> int:
    """Return the view that shows the centre of the frame: the fifth of `10crop`, else the first there is."""
    return 4 if store.plan.view_rule == "10crop" else 0


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()


def choose_videos(run: Run, store: Store, split: str, part: str) -> tuple[int, np.ndarray]:
    """Return the number of videos that a part of a split lists, and the positions of those that can be scored.

    Raises
    ------
    RefusedError
        If a test part holds videos that the run was fitted on.
    UsageError
        If the part lists no video, or none of them has segments.
    """
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


def _clip_segments(run: Run) -> int | None:
    """Return the length of the clips that a head with clips averages over (GLKA); None = a video is one."""
    return run.identity["settings"]["config"].get("clip_segments")


def _protocol(
    head: Head, store: Store, split: str, part: str, listed: int, hot: np.ndarray, clip_segments: int | None
) -> str:
    """Say in one line how the numbers were made."""
    parts = [f"classification of {len(hot)} of {listed} {part} videos of split {split}"]
    if len(hot) < listed:
        parts.append(f"{listed - len(hot)} without usable cubes are left out of every denominator")
    if store.views > 1:
        rule = store.plan.view_rule
        parts.append(f"{head.score_kind} averaged over {store.views} views" + (f" ({rule})" if rule else ""))
    elif head.score_kind != Head.score_kind:
        parts.append(f"by {head.score_kind}")
    if clip_segments is not None:
        parts.append(f"averaged over the clips of {clip_segments} segments of each video")
    parts.append(measures_text(hot, multi_label=store.index.multi_label))
    return "; ".join(parts)
