"""Class scores of videos in files: those of runs, and those that another program wrote."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import MissingFileError, RefusedError, UsageError


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
    scores: np.ndarray  # [n, N] float64
    labels: np.ndarray | None = None  # [n, L] int, padded with -1; of runs

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or len(self.scores) != len(self.ids):
            raise UsageError(
                f"{self.path}: `scores` must be [n, N] beside {len(self.ids)} ids, and has shape {self.scores.shape}."
            )
        seen: set[str] = set()
        for id, row in zip(self.ids, self.scores, strict=True):
            if id in seen:
                raise UsageError(f"{self.path}: video {id!r} is there twice.")
            if not np.isfinite(row).all():
                raise UsageError(f"{self.path}: a score of video {id!r} is not finite.")
            seen.add(id)

    def of(self, ids: tuple[str, ...]) -> np.ndarray:
        """Scores [n, N] of the given videos, in their order.

        Raises
        ------
        RefusedError
            If one is missing.
        """
        return self.scores[self.rows(ids)]

    def rows(self, ids: tuple[str, ...]) -> list[int]:
        """Return where the given videos stand; see `of`."""
        where = {id: row for row, id in enumerate(self.ids)}
        missing = [id for id in ids if id not in where]
        if missing:
            raise RefusedError(
                f"{self.path} has no scores of video {missing[0]!r} ({len(missing)} of {len(ids)} are missing)."
            )
        return [where[id] for id in ids]


def read_scores(path: Path, classes: tuple[str, ...]) -> ScoreTable:
    """Read an `.npz` with `ids` [n] and `scores` [n, N], or a CSV with a header `id,<class>,...` in any order.

    Parameters
    ----------
    classes : N names, in the order wanted; an `.npz` has its columns in this order

    Raises
    ------
    MissingFileError
        If there is no such file.
    UsageError
        If it is damaged or does not hold that; the message names file and item.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no file of scores {path}.")
    table = _read_npz(path) if path.suffix == ".npz" else _read_csv(path, classes)
    if table.scores.shape[1] != len(classes):
        raise UsageError(f"{path}: {table.scores.shape[1]} scores per video, and there are {len(classes)} classes.")
    return table


def _read_npz(path: Path) -> ScoreTable:
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
    names = tuple(id.decode() if isinstance(id, bytes) else str(id) for id in ids)
    return ScoreTable(path, names, scores.astype(np.float64), labels)


def _read_csv(path: Path, classes: tuple[str, ...]) -> ScoreTable:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as CSV ({error}).") from None
    header = [name.strip() for name in lines[0]] if lines else []
    if not header or header[0] != "id":
        raise UsageError(f"{path}: the first line must be id and the {len(classes)} class names.")
    if sorted(header[1:]) != sorted(classes):
        odd = [name for name in (*header[1:], *classes) if (header[1:].count(name), classes.count(name)) != (1, 1)]
        raise UsageError(f"{path}: the first line does not name each of the {len(classes)} classes once: {odd[0]!r}.")
    order = [header[1:].index(name) for name in classes]
    ids, rows = [], []
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        if len(line) != len(header):
            raise UsageError(f"{path}, line {number} ({line[0]!r}): {len(line)} fields, not {len(header)}.")
        try:
            values = [float(text) for text in line[1:]]
        except ValueError as error:
            raise UsageError(f"{path}, line {number} ({line[0]!r}): {error}.") from None
        ids.append(line[0])
        rows.append([values[column] for column in order])
    return ScoreTable(path, tuple(ids), np.array(rows, np.float64).reshape(len(rows), len(classes)))
