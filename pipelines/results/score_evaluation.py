"""`vidatt evaluate FILE`: class scores that a run, or another program, has written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...cache.store import Store
from ...errors import RefusedError, UnknownNameError, UsageError
from ..metrics.classification import measured, multi_hot
from ..runs.measured import Evaluation
from ..runs.splits import PARTS, choose_split
from .protocols import find_protocol, measures_text, official
from .score_files import ScoreTable, read_scores, seen_note


def evaluate_scores(
    path: Path,
    *,
    store_path: Path | None = None,
    split: str | None = None,
    part: str = "test",
    average_clips: bool = False,
    by_official_protocol: bool = False,
    allow_seen: bool = False,
) -> Evaluation:
    """Measure a file of scores; without a store by its own labels, all its videos.

    Parameters
    ----------
    path : `.npz` or `.csv`, see `read_scores`
    store_path : where classes, labels and lists of videos are; scores of videos that the list has not are left out
    split : of the store; None = its only or first one
    part : "test" or "train"
    average_clips : see `read_scores`
    by_official_protocol : also give the official number of the store's dataset
    allow_seen : also take scores that a run gave to videos that it was fitted or selected on; the result says so

    Returns
    -------
    As `evaluate`; `run` is the file, `unlisted` the number of videos left out, `split` and `part` None without a store.

    Raises
    ------
    MissingFileError, UsageError
        If the file cannot be read, has no labels and no store is given, or has no video of the list.
    RefusedError
        If labels of the file are not those of the store, or it is of a run that has seen videos in it.
    """
    if part not in PARTS:
        raise UnknownNameError("part", part, PARTS)
    if store_path is None and (split is not None or by_official_protocol):
        raise UsageError(f"{path}: --split and --protocol need --store, which knows the dataset.")
    _require_as_written(path)
    if store_path is None:
        judged = _by_itself(path, average_clips=average_clips)
    else:
        store = Store.open(store_path)
        if by_official_protocol:
            find_protocol(store.plan.dataset, str(path))
        judged = _by_store(path, store, split, part, average_clips=average_clips)
    scored, listed = len(judged.scores), judged.listed
    note = seen_note(judged.seen, str(path), allow_seen=allow_seen)
    result = Evaluation(
        run=str(path),
        split=judged.split,
        part=None if store_path is None else part,
        videos=scored,
        listed=listed,
        missing=listed - scored,
        unlisted=judged.unlisted,
        protocol=_protocol(judged) + (f"; {note}" if note else ""),
        seen=int(judged.seen.sum()) or None,
        seen_note=note,
        **vars(measured(judged.scores, judged.hot, judged.names, multi_label=judged.multi_label)),
    )
    if by_official_protocol:
        number = official(str(store.plan.dataset), [result], sorted(store.index.splits), str(path))
        return replace(result, official=number)
    return result


def _require_as_written(path: Path) -> None:
    """Refuse a file in a run folder that is not what the run wrote."""
    if path.name.startswith("scores-") and all((path.parent / f"{n}.json").is_file() for n in ("config", "metrics")):
        from ..runs.run import Run  # torch comes with it, which other files of scores do not need

        Run.open(path.parent).verified(path.name)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Judged:
    """Scores beside the labels that they are held to."""

    table: ScoreTable
    scores: np.ndarray  # [n, N]
    hot: np.ndarray  # [n, N] bool
    seen: np.ndarray  # [n] bool, by the run that gave the scores
    names: tuple[str, ...]
    multi_label: bool
    split: str | None
    listed: int
    unlisted: int  # videos of the file that are left out
    source: str  # where labels come from, in words


def _by_itself(path: Path, *, average_clips: bool) -> _Judged:
    table = read_scores(path, average_clips=average_clips)
    hot = table.hot
    if hot is None:
        raise UsageError(f"{path} has no labels; give --store STORE, whose labels are found by id.")
    return _Judged(
        table=table,
        scores=table.scores,
        hot=hot,
        seen=table.seen,
        names=table.classes or tuple(str(n) for n in range(hot.shape[1])),
        multi_label=bool((hot.sum(1) != 1).any()),
        split=None,
        listed=len(hot),
        unlisted=0,
        source="labels of the file",
    )


def _by_store(path: Path, store: Store, split: str | None, part: str, *, average_clips: bool) -> _Judged:
    index = store.index
    table = read_scores(path, index.classes, average_clips=average_clips)
    split = choose_split(store, split, guess=False)
    videos = np.flatnonzero(index.split(split) == PARTS[part])
    listed = len(videos)
    place = {id: row for row, id in enumerate(table.ids)}
    rows = np.array([place.get(str(id), -1) for id in index.ids[videos]], np.int64)
    videos, rows = videos[rows >= 0], rows[rows >= 0]
    if not len(rows):
        raise UsageError(
            f"{path} has scores of none of the {listed} {part} videos of split {split!r} of {store.path}, such as "
            f"{index.ids[0]!r}."
        )
    hot = multi_hot(index.labels[videos], len(index.classes))
    _require_same_labels(table, rows, hot, store.path)
    every = len(rows) == len(table.ids) and bool((rows == np.arange(len(rows))).all())
    return _Judged(
        table=table,
        scores=table.scores if every else table.scores[rows],
        hot=hot,
        seen=table.seen[rows],
        names=index.classes,
        multi_label=index.multi_label,
        split=split,
        listed=listed,
        unlisted=len(table.ids) - len(rows),
        source=f"{part} videos of split {split}, labels of {store.path} by id",
    )


def _require_same_labels(table: ScoreTable, rows: np.ndarray, hot: np.ndarray, store_path: Path) -> None:
    """Refuse a file whose own labels are others: its classes stand in another order, most likely."""
    own = table.hot
    if own is None:
        return
    odd = (own[rows] != hot).any(1)
    if odd.any():
        raise RefusedError(
            f"{table.path} has other labels than {store_path} for {int(odd.sum())} of {len(odd)} videos, such as "
            f"{table.ids[int(rows[odd.argmax()])]!r}; are its classes in the store's order?"
        )


def _protocol(judged: _Judged) -> str:
    """Say in one line how the numbers were made."""
    scored, clips = len(judged.scores), judged.table.clips
    parts = [f"classification of {scored} of {judged.listed} videos ({judged.source})"]
    if scored < judged.listed:
        parts.append(f"{judged.listed - scored} without scores are left out of every denominator")
    if judged.unlisted:
        parts.append(f"{judged.unlisted} videos of the file that are not listed are left out")
    if clips is not None:
        parts.append(f"averaged over the rows of each video ({clips[0]} to {clips[1]})")
    parts.append(measures_text(judged.hot, multi_label=judged.multi_label))
    return "; ".join(parts)
