"""Boxes in frames as files: the CSV that `vidatt locate` writes, and AVA's."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import MissingFileError, UsageError

COLUMNS = ("video", "frame", "x1", "y1", "x2", "y2", "class", "confidence")
"""The header of our own files; a column `seen` may follow."""
AVA = ("video_id", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score")
"""What the columns of AVA's files are, which have no header."""
_FRACTIONS = (-1.0, 2.0)
"""Detectors reach a little beyond the frame; what is farther out is pixels."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BoxFile:
    """The boxes of a file, in its order."""

    path: Path
    ava: bool  # else our own form
    videos: np.ndarray  # [n] str, ids
    moments: np.ndarray  # [n] float64: frame in decode order from 0; of AVA's form seconds from the first frame
    boxes: np.ndarray  # [n, 4] float64 x1, y1, x2, y2 in pixels of the upright frame; of AVA's form fractions of it
    labels: np.ndarray  # [n] int64
    scores: np.ndarray  # [n] float64
    seen: np.ndarray  # [n] bool, in a video that the run of the boxes was fitted or selected on


def read_boxes(path: Path, classes: Sequence[str]) -> BoxFile:
    """Read boxes in either form; the first line tells which it is.

    Parameters
    ----------
    classes : names; our own files name the class, AVA's count from 1 in this order

    Raises
    ------
    MissingFileError
        If there is no such file.
    UsageError
        If a line is something else or of another class, with file and line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            first = [cell.strip() for cell in next(lines, [])]
            ours = tuple(first[: len(COLUMNS)]) == COLUMNS and first[len(COLUMNS) :] in ([], ["seen"])
            if not ours and len(first) != len(AVA):
                raise UsageError(
                    f"{path}, line 1: must be the header {','.join(COLUMNS)}, or without one AVA's {','.join(AVA)}."
                )
            rows = lines if ours else _and(first, lines)
            found = [
                _row(f"{path}, line {number}", line, len(first), classes, ava=not ours)
                for number, line in enumerate(rows, 2 if ours else 1)
                if line
            ]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise MissingFileError(f"There is no file of boxes {path}.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as CSV ({error}).") from None
    return BoxFile(
        path=path,
        ava=not ours,
        videos=np.array([row[0] for row in found], dtype=str),
        moments=np.array([row[1] for row in found], np.float64),
        boxes=np.array([row[2:6] for row in found], np.float64).reshape(-1, 4),
        labels=np.array([row[6] for row in found], np.int64),
        scores=np.array([row[7] for row in found], np.float64),
        seen=np.array([row[8] for row in found], bool),
    )


def _and(first: list[str], lines: Iterator[list[str]]) -> Iterator[list[str]]:
    yield first
    yield from lines


def _row(
    where: str, line: list[str], width: int, classes: Sequence[str], *, ava: bool
) -> tuple[str, float, float, float, float, float, int, float, bool]:
    cells = [cell.strip() for cell in line]
    if len(cells) != width or not cells[0]:
        raise UsageError(f"{where}: {len(cells)} fields, not {','.join(AVA if ava else COLUMNS)}.")
    moment, x1, y1, x2, y2, score = (_number(where, cells[n]) for n in (1, 2, 3, 4, 5, 7))
    if moment < 0 or not (ava or moment.is_integer()):
        raise UsageError(f"{where}: {cells[1]!r} is no {'time in seconds' if ava else 'frame number'} from 0 on.")
    if x2 < x1 or y2 < y1:
        raise UsageError(f"{where}: the box {', '.join(cells[2:6])} ends before it starts; corners are x1, y1, x2, y2.")
    if ava and not all(_FRACTIONS[0] <= x <= _FRACTIONS[1] for x in (x1, y1, x2, y2)):
        raise UsageError(f"{where}: {', '.join(cells[2:6])} are no fractions of the frame; AVA's files have no pixels.")
    label = _action(where, cells[6], classes) if ava else _class(where, cells[6], classes)
    seen = cells[8] if len(cells) > len(COLUMNS) else "False"
    if seen not in ("True", "False"):
        raise UsageError(f"{where}: seen must be True or False, and is {seen!r}.")
    return cells[0], moment, x1, y1, x2, y2, label, score, seen == "True"


def _number(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{where}: {text!r} is no number.") from None
    if not np.isfinite(value):
        raise UsageError(f"{where}: {text!r} is not finite.")
    return value


def _class(where: str, name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise UsageError(f"{where}: {name!r} is none of the {len(classes)} classes, such as {classes[0]!r}.")
    return classes.index(name)


def _action(where: str, text: str, classes: Sequence[str]) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= len(classes):
        raise UsageError(f"{where}: {text!r} is no action_id; they count the {len(classes)} classes from 1.")
    return int(text) - 1
