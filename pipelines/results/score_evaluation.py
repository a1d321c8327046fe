"""`vidatt evaluate FILE`: class scores that a run, or another program, has written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import RefusedError, UnknownNameError, UsageError
from ..metrics.classification import measured, multi_hot
from ..runs.measured import Evaluation
from ..runs.splits import PARTS
from ..truth import NOWHERE, TruthPart, TruthSource
from .protocols import find_protocol, measures_text, official
from .score_files import ScoreTable, read_scores, seen_note


def evaluate_scores(
    path: Path,
    *,
    source: TruthSource = NOWHERE,
    split: str | None = None,
    part: str = "test",
    ids: Path | None = None,
    average_clips: bool = False,
    by_official_protocol: bool = False,
    allow_seen: bool = False,
) -> Evaluation:
    """Measure a file of scores; without a source of truth by its own labels, all its videos.

    Parameters
    ----------
    path, ids, average_clips : see `read_scores`
    source : where classes, labels and lists of videos are; scores of videos that the list has not are left out
    split, part : of the source; None = its only one; "test" or "train"
    by_official_protocol : also give the official number of the dataset
    allow_seen : also take scores that a run gave to videos that it was fitted or selected on; the result says so

    Returns
    -------
    As `evaluate`, of the file; `split` and `part` None without a source.

    Raises
    ------
    MissingFileError, UsageError
        If the file cannot be read, has no labels and no source is given, or has no video of the list.
    RefusedError
        If labels of the file are not those of the source, or it is of a run that has seen videos in it.
    """
    if part not in PARTS:
        raise UnknownNameError("part", part, PARTS)
    if not source and (split is not None or by_official_protocol):
        raise UsageError(f"{path}: --split and --protocol need --store or --dataset, which know the lists.")
    require_as_written(path)
    truth = source.open()
    if truth is not None and by_official_protocol:
        find_protocol(truth.dataset, str(path))
    table = read_scores(path, truth.index.classes if truth else None, average_clips=average_clips, ids=ids)
    judged = by_itself(table) if truth is None else by_labels(table, Labels.of_part(truth.part(split, part)))
    note = seen_note(judged.seen, str(path), allow_seen=allow_seen)
    result = Evaluation(
        run=str(path),
        split=judged.split,
        part=None if truth is None else part,
        videos=len(judged.scores),
        listed=judged.listed,
        missing=judged.listed - len(judged.scores),
        unlisted=judged.unlisted,
        truth=judged.where,
        protocol=_protocol(judged) + (f"; {note}" if note else ""),
        seen=int(judged.seen.sum()) or None,
        seen_note=note,
        **vars(measured(judged.scores, judged.hot, judged.names, multi_label=judged.multi_label)),
    )
    if truth is None or not by_official_protocol:
        return result
    return replace(result, official=official(str(truth.dataset), [result], sorted(truth.index.splits), str(path)))


def require_as_written(path: Path) -> None:
    """Refuse a file in a run folder that is not what the run wrote."""
    if path.name.startswith("scores-") and all((path.parent / f"{n}.json").is_file() for n in ("config", "metrics")):
        from ..runs.run import Run  # torch comes with it, which other files of scores do not need

        Run.open(path.parent).verified(path.name)


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """Labels of listed videos, to which scores are held by id."""

    ids: np.ndarray  # [n] str
    hot: np.ndarray  # [n, N] bool
    names: tuple[str, ...]  # of the classes
    multi_label: bool
    split: str
    part: str
    where: str  # who says them

    @classmethod
    def of_part(cls, part: TruthPart) -> Labels:
        """Return those of a store or a dataset."""
        index = part.truth.index
        return cls(
            ids=part.ids,
            hot=multi_hot(index.labels[part.videos], len(index.classes)),
            names=index.classes,
            multi_label=index.multi_label,
            split=part.split,
            part=part.part,
            where=part.truth.where,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged:
    """Scores beside the labels that they are held to."""

    table: ScoreTable
    ids: np.ndarray  # [n] str
    scores: np.ndarray  # [n, N]
    hot: np.ndarray  # [n, N] bool
    seen: np.ndarray  # [n] bool, by the run that gave the scores
    names: tuple[str, ...]
    multi_label: bool
    split: str | None
    listed: int
    unlisted: int  # videos of the file that are left out
    where: str  # who says the labels
    source: str  # of which videos, in words


def by_itself(table: ScoreTable) -> Judged:
    """Hold all scores of a file to its own labels.

    Raises
    ------
    UsageError
        If it has none.
    """
    hot = table.hot
    if hot is None:
        raise UsageError(
            f"{table.path} has no labels; give --store STORE or --dataset NAME --annotations DIR, where they are found "
            "by id."
        )
    return Judged(
        table=table,
        ids=np.array(table.ids, str),
        scores=table.scores,
        hot=hot,
        seen=table.seen,
        names=table.classes or tuple(str(n) for n in range(hot.shape[1])),
        multi_label=bool((hot.sum(1) != 1).any()),
        split=None,
        listed=len(hot),
        unlisted=0,
        where="labels of the file",
        source="labels of the file",
    )


def by_labels(table: ScoreTable, labels: Labels) -> Judged:
    """Hold the scores of listed videos to labels found by id.

    Raises
    ------
    UsageError
        If the file has none of them.
    RefusedError
        If it has other labels itself.
    """
    place = {id: row for row, id in enumerate(table.ids)}
    rows = np.array([place.get(id, -1) for id in labels.ids.tolist()], np.int64)
    there = rows >= 0
    rows = rows[there]
    if not len(rows):
        raise UsageError(
            f"{table.path} has scores of none of the {len(there)} {labels.part} videos of split {labels.split!r} of "
            f"{labels.where}, such as {str(labels.ids[0])!r}."
        )
    hot = labels.hot[there]
    _require_same_labels(table, rows, hot, labels.where)
    every = len(rows) == len(table.ids) and bool((rows == np.arange(len(rows))).all())
    return Judged(
        table=table,
        ids=labels.ids[there],
        scores=table.scores if every else table.scores[rows],
        hot=hot,
        seen=table.seen[rows],
        names=labels.names,
        multi_label=labels.multi_label,
        split=labels.split,
        listed=len(there),
        unlisted=len(table.ids) - len(rows),
        where=labels.where,
        source=f"{labels.part} videos of split {labels.split}, labels of {labels.where} by id",
    )


def _require_same_labels(table: ScoreTable, rows: np.ndarray, hot: np.ndarray, where: str) -> None:
    """Refuse a file whose own labels are others: its classes stand in another order, most likely."""
    own = table.hot
    if own is None:
        return
    odd = (own[rows] != hot).any(1)
    if odd.any():
        raise RefusedError(
            f"{table.path} has other labels than {where} for {int(odd.sum())} of {len(odd)} videos, such as "
            f"{table.ids[int(rows[odd.argmax()])]!r}; are its classes in the order of {where}?"
        )


def _protocol(judged: Judged) -> str:
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
