"""`vidatt evaluate FILE`: class scores that a run, or another program, has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...cache.store import Store
from ...errors import RefusedError, UnknownNameError, UsageError
from ..metrics.classification import measured, multi_hot
from ..runs.splits import PARTS, choose_split
from .protocols import find_protocol, measures_text, official
from .score_files import ScoreTable, read_scores


def evaluate_scores(
    path: Path,
    *,
    store_path: Path | None = None,
    split: str | None = None,
    part: str = "test",
    average_clips: bool = False,
    by_official_protocol: bool = False,
) -> dict[str, Any]:
    """Measure a file of scores; without a store by its own labels, all its videos.

    Parameters
    ----------
    path : `.npz` or `.csv`, see `read_scores`
    store_path : where classes, labels and lists of videos are; scores of videos that the list has not are left out
    split : of the store; None = its only or first one
    part : "test" or "train"
    average_clips : see `read_scores`
    by_official_protocol : also give the official number of the store's dataset

    Returns
    -------
    As `evaluate`; `run` is the file, `unlisted` the number of videos left out, `split` and `part` None without a store.

    Raises
    ------
    MissingFileError, UsageError
        If the file cannot be read, has no labels and no store is given, or has no video of the list.
    RefusedError
        If labels of the file are not those of the store.
    """
    if part not in PARTS:
        raise UnknownNameError("part", part, PARTS)
    if store_path is None:
        if split is not None or by_official_protocol:
            raise UsageError(f"{path}: --split and --protocol need --store, which knows the dataset.")
        table = read_scores(path, average_clips=average_clips)
        hot = _own_labels(table)
        if hot is None:
            raise UsageError(f"{path} has no labels; give --store STORE, whose labels are found by id.")
        multi_label = bool((hot.sum(1) != 1).any())
        names = table.classes or tuple(str(n) for n in range(hot.shape[1]))
        source, listed, unlisted = "labels of the file", len(hot), 0
        scores = table.scores
    else:
        store = Store.open(store_path)
        index = store.index
        if by_official_protocol:
            find_protocol(store.plan.dataset, str(path))
        names, multi_label = index.classes, index.multi_label
        table = read_scores(path, names, average_clips=average_clips)
        split = choose_split(store, split, guess=False)
        videos = np.flatnonzero(index.split(split) == PARTS[part])
        listed = len(videos)
        place = {id: row for row, id in enumerate(table.ids)}
        rows = np.array([place.get(str(id), -1) for id in index.ids[videos]], np.int64)
        videos, rows = videos[rows >= 0], rows[rows >= 0]
        if not len(rows):
            raise UsageError(
                f"{path} has scores of none of the {listed} {part} videos of split {split!r} of {store_path}, such as "
                f"{index.ids[0]!r}."
            )
        unlisted = len(table.ids) - len(rows)
        hot = multi_hot(index.labels[videos], len(names))
        _require_same_labels(table, rows, hot, store_path)
        every = len(rows) == len(table.ids) and bool((rows == np.arange(len(rows))).all())
        scores = table.scores if every else table.scores[rows]
        source = f"{part} videos of split {split}, labels of {store_path} by id"
    if not len(scores):
        raise UsageError(f"{path} has scores of no video.")
    result = {
        "run": str(path),
        "split": split,
        "part": None if store_path is None else part,
        "videos": len(scores),
        "listed": listed,
        "missing": listed - len(scores),
        "unlisted": unlisted,
        "protocol": _protocol(source, table, hot, listed, unlisted, multi_label=multi_label),
        **measured(scores, hot, names, multi_label=multi_label),
    }
    if by_official_protocol:
        result["official"] = official(str(store.plan.dataset), [result], sorted(index.splits), str(path))
    return result


def _own_labels(table: ScoreTable) -> np.ndarray | None:
    """[n, N] bool of the labels in the file, or None."""
    labels, N = table.labels, table.scores.shape[1]
    if labels is None:
        return None
    if labels.dtype.kind not in "iu" or labels.ndim != 2 or len(labels) != len(table.ids):
        raise UsageError(
            f"{table.path}: `labels` must be [n] or [n, L] class indices of {len(table.ids)} videos, and are "
            f"{labels.shape} {labels.dtype}."
        )
    odd = ((labels < -1) | (labels >= N)).any(1)
    if odd.any():
        raise UsageError(f"{table.path}: a label of video {table.ids[int(odd.argmax())]!r} is outside 0..{N - 1}.")
    return multi_hot(labels, N)


def _require_same_labels(table: ScoreTable, rows: np.ndarray, hot: np.ndarray, store_path: Path) -> None:
    """Refuse a file whose own labels are others: its classes stand in another order, most likely."""
    own = _own_labels(table)
    if own is None:
        return
    odd = (own[rows] != hot).any(1)
    if odd.any():
        raise RefusedError(
            f"{table.path} has other labels than {store_path} for {int(odd.sum())} of {len(odd)} videos, such as "
            f"{table.ids[int(rows[odd.argmax()])]!r}; are its classes in the store's order?"
        )


def _protocol(source: str, table: ScoreTable, hot: np.ndarray, listed: int, unlisted: int, *, multi_label: bool) -> str:
    """Say in one line how the numbers were made."""
    parts = [f"classification of {len(hot)} of {listed} videos ({source})"]
    if len(hot) < listed:
        parts.append(f"{listed - len(hot)} without scores are left out of every denominator")
    if unlisted:
        parts.append(f"{unlisted} videos of the file that are not listed are left out")
    if table.clips is not None:
        parts.append(f"averaged over the rows of each video ({table.clips[0]} to {table.clips[1]})")
    parts.append(measures_text(hot, multi_label=multi_label))
    return "; ".join(parts)
