"""Class scores of videos in files: those of runs, and those that another program wrote."""

from __future__ import annotations

import csv
import zipfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import MissingFileError, RefusedError, UsageError

LABELS = "labels"
"""The column of a CSV that holds the true classes, by name, parted by `;`; empty = none of the classes."""


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores by video id.

    Raises
    ------
    UsageError
        If an id is there twice, a score is not finite, or shapes contradict each other; the message names the item.
    """

    path: Path
    ids: tuple[str, ...]
    scores: np.ndarray  # [n, N] float32 or float64, as the file has it
    labels: np.ndarray | None = None  # [n, L] int, padded with -1; of runs, and of files that tell
    classes: tuple[str, ...] | None = None  # N names, where the file tells them
    clips: tuple[int, int] | None = None  # fewest and most rows of a video, where rows were averaged

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or len(self.scores) != len(self.ids):
            raise UsageError(
                f"{self.path}: `scores` must be [n, N] beside {len(self.ids)} ids, and has shape {self.scores.shape}."
            )
        if len(set(self.ids)) < len(self.ids):
            seen: set[str] = set()
            twice = next(id for id in self.ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
            raise UsageError(
                f"{self.path}: video {twice!r} is there twice (`vidatt evaluate --average-clips` averages its rows)."
            )
        finite = np.isfinite(self.scores).all(1)
        if not finite.all():
            raise UsageError(f"{self.path}: a score of video {self.ids[int(finite.argmin())]!r} is not finite.")

    def of(self, ids: tuple[str, ...]) -> np.ndarray:
        """Scores [n, N] float64 of the given videos, in their order.

        Raises
        ------
        RefusedError
            If one is missing.
        """
        return self.scores[self.rows(ids)].astype(np.float64)

    def rows(self, ids: tuple[str, ...]) -> list[int]:
        """Return where the given videos stand; see `of`."""
        where = {id: row for row, id in enumerate(self.ids)}
        missing = [id for id in ids if id not in where]
        if missing:
            raise RefusedError(
                f"{self.path} has no scores of video {missing[0]!r} ({len(missing)} of {len(ids)} are missing)."
            )
        return [where[id] for id in ids]


Make = Callable[[Path, tuple[str, ...], np.ndarray, np.ndarray | None, tuple[str, ...] | None], ScoreTable]
"""What turns the rows of a file into a table: path, ids, scores, labels, classes."""


def read_scores(path: Path, classes: tuple[str, ...] | None = None, *, average_clips: bool = False) -> ScoreTable:
    """Read an `.npz` with `ids` [n] and `scores` [n, N], or a CSV with a header `id,<class>,...` in any order.

    An `.npz` may hold `labels` [n] or [n, L] (class indices, padded with -1) and `classes` [N] names as well; a CSV a
    column `labels` (see `LABELS`).

    Parameters
    ----------
    classes : N names, in the order wanted; an `.npz` without names has its columns in this order. None = the file's own
    average_clips : whether rows of the same id are clips (or views) of one video, whose scores are averaged

    Raises
    ------
    MissingFileError
        If there is no such file.
    UsageError
        If it is damaged or does not hold that; the message names file and item.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no file of scores {path}.")
    read = _read_npz if path.suffix == ".npz" else _read_csv
    table = read(path, classes, _averaged if average_clips else ScoreTable)
    if classes is not None and table.scores.shape[1] != len(classes):
        raise UsageError(f"{path}: {table.scores.shape[1]} scores per video, and there are {len(classes)} classes.")
    return table


def _averaged(
    path: Path,
    ids: tuple[str, ...],
    scores: np.ndarray,
    labels: np.ndarray | None,
    classes: tuple[str, ...] | None,
) -> ScoreTable:
    """Make a table of videos from rows that are clips of them; videos come sorted by id."""
    if scores.ndim != 2 or len(scores) != len(ids) or not ids:
        return ScoreTable(path, ids, scores, labels, classes)  # which says what is wrong
    videos, place, rows = np.unique(np.array(ids), return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    first = np.concatenate([[0], np.cumsum(rows)[:-1]])
    means = np.add.reduceat(scores[order], first, axis=0, dtype=np.float64) / rows[:, None]
    if labels is not None and len(labels) == len(ids):
        kept = labels[order[first]]
        odd = (labels != kept[place]).any(1)
        if odd.any():
            raise UsageError(f"{path}: the rows of video {ids[int(odd.argmax())]!r} have different labels.")
        labels = kept
    clips = (int(rows.min()), int(rows.max()))
    return ScoreTable(path, tuple(videos.tolist()), means.astype(scores.dtype), labels, classes, clips)


def _read_npz(path: Path, classes: tuple[str, ...] | None, make: Make) -> ScoreTable:
    try:
        with np.load(path, allow_pickle=False) as content:
            found = {name: content[name] for name in content.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read as .npz without pickle ({error}).") from None
    if missing := [name for name in ("ids", "scores") if name not in found]:
        raise UsageError(f"{path} has no array {missing[0]!r}; it has {', '.join(found) or 'none'}.")
    ids, scores, labels = found["ids"], found["scores"], found.get("labels")
    if ids.ndim != 1 or ids.dtype.kind not in "US" or scores.dtype.kind not in "fiu":
        raise UsageError(
            f"{path}: `ids` must be [n] texts and `scores` numbers, and are {ids.shape} {ids.dtype}, {scores.dtype}."
        )
    if scores.dtype != np.float32:  # half precision is sorted slowly, and integers above 2^24 need double precision
        scores = scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)
    names = None
    if "classes" in found:
        names = tuple(str(name) for name in found["classes"].ravel())
        if scores.ndim == 2 and len(names) != scores.shape[1]:
            raise UsageError(f"{path}: `classes` has {len(names)} names beside {scores.shape[1]} scores per video.")
        if classes is not None and names != classes:
            raise UsageError(f"{path}: `classes` are not those of the task in their order; write the columns so.")
    if labels is not None and labels.ndim == 1:
        labels = labels[:, None]
    return make(path, tuple(_texts(ids)), scores, labels, names)


def _texts(ids: np.ndarray) -> Iterator[str]:
    return (id.decode() if isinstance(id, bytes) else id for id in ids.tolist())


def _read_csv(path: Path, classes: tuple[str, ...] | None, make: Make) -> ScoreTable:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return _table_of_lines(path, csv.reader(file, strict=True), classes, make)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as CSV ({error}).") from None


def _table_of_lines(path: Path, lines: Iterator[list[str]], classes: tuple[str, ...] | None, make: Make) -> ScoreTable:
    """Read line by line into one array of numbers: a big file is never held as texts."""
    header = [name.strip() for name in next(lines, [])]
    told = LABELS in header and LABELS not in (classes or ())
    place = header.index(LABELS) if told else None
    given = tuple(name for column, name in enumerate(header[1:], 1) if column != place)
    if not header or header[0] != "id" or not given:
        named = "class names" if classes is None else f"{len(classes)} class names"
        raise UsageError(f"{path}: the first line must be id and the {named}.")
    classes = given if classes is None else classes
    if len(set(classes)) < len(classes) or sorted(given) != sorted(classes):
        odd = [name for name in (*given, *classes) if (given.count(name), classes.count(name)) != (1, 1)]
        raise UsageError(f"{path}: the first line does not name each of the {len(classes)} classes once: {odd[0]!r}.")
    label_of = {name: label for label, name in enumerate(classes)}
    ids: list[str] = []
    labels: list[list[int]] = []
    numbers = array("d")
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        where = f"{path}, line {number} ({line[0]!r})"
        if len(line) != len(header):
            raise UsageError(f"{where}: {len(line)} fields, not {len(header)}.")
        if place is not None:
            own = [name.strip() for name in line.pop(place).split(";") if name.strip()]
            if odd := [name for name in own if name not in label_of]:
                raise UsageError(f"{where}: the label {odd[0]!r} is no class of the first line.")
            labels.append([label_of[name] for name in own])
        try:
            numbers.frombytes(np.array(line[1:], np.float64).tobytes())  # a third faster than float by float
        except ValueError as error:
            raise UsageError(f"{where}: {error}.") from None
        ids.append(line[0])
    scores = np.asarray(numbers).reshape(len(ids), len(classes))
    if given != classes:
        scores = scores[:, [given.index(name) for name in classes]]
    return make(path, tuple(ids), scores, _padded(labels) if told else None, classes)


def _padded(labels: Sequence[Sequence[int]]) -> np.ndarray:
    """Lists of class indices -> [n, L] int32, padded with -1."""
    padded = np.full((len(labels), max(map(len, labels), default=0) or 1), -1, np.int32)
    for row, own in zip(padded, labels, strict=True):
        row[: len(own)] = own
    return padded
