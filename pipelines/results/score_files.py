"""Class scores of videos in files: those of runs, and those that another program wrote."""

from __future__ import annotations

import csv
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...cache.interchange.arrays import Archive, read_npy, texts
from ...errors import MissingFileError, RefusedError, UnknownNameError, UsageError
from ..metrics.classification import multi_hot

MOST_CLASSES = 100_000
"""A file with more scores per video is no task of classification."""

SUFFIXES = (".npz", ".npy", ".csv")
"""What files of scores are called; anything else is a run."""

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
    told_seen: np.ndarray | None = None  # [n] bool, of runs: videos they were fitted or selected on; None = none
    branches: Mapping[str, np.ndarray] = field(default_factory=dict)  # [n, N] each, of runs of heads that have some
    ids_path: Path | None = None  # the list that names the rows of an `.npy`

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or len(self.scores) != len(self.ids):
            raise UsageError(
                f"{self.path}: `scores` must be [n, N] beside {len(self.ids)} ids, and has shape {self.scores.shape}."
            )
        if not self.ids:
            raise UsageError(f"{self.path} has scores of no video.")
        if not 1 <= self.scores.shape[1] <= MOST_CLASSES:
            raise UsageError(f"{self.path}: {self.scores.shape[1]} scores per video; there can be 1 to {MOST_CLASSES}.")
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

    @property
    def hot(self) -> np.ndarray | None:
        """The labels of the file, [n, N] bool; None if it has none.

        Raises
        ------
        UsageError
            If they are no class indices.
        """
        labels, N = self.labels, self.scores.shape[1]
        if labels is None:
            return None
        if labels.dtype.kind not in "iu" or labels.ndim != 2 or len(labels) != len(self.ids) or labels.shape[1] > N:
            raise UsageError(
                f"{self.path}: `labels` must be [n] or [n, L] class indices of {len(self.ids)} videos, and are "
                f"{labels.shape} {labels.dtype}."
            )
        odd = ((labels < -1) | (labels >= N)).any(1)
        if odd.any():
            raise UsageError(f"{self.path}: a label of video {self.ids[int(odd.argmax())]!r} is outside 0..{N - 1}.")
        return multi_hot(labels.astype(np.int64), N)

    @property
    def seen(self) -> np.ndarray:
        """[n] bool, the videos that the run of the scores was fitted or selected on, as far as the file tells."""
        return np.zeros(len(self.ids), bool) if self.told_seen is None else self.told_seen

    def branch(self, name: str) -> ScoreTable:
        """Return the table with the scores of one branch.

        Raises
        ------
        UnknownNameError
            If there is none of this name.
        UsageError
            If there are none at all.
        """
        if not self.branches:
            raise UsageError(
                f"{self.path} has no scores of branches: its head has none, or it was evaluated by an older vidatt "
                "(`vidatt evaluate` writes them)."
            )
        if name not in self.branches:
            raise UnknownNameError(f"branch of {self.path}", name, self.branches)
        return replace(self, scores=self.branches[name], branches={})

    def rows(self, ids: tuple[str, ...]) -> list[int]:
        """Return where the given videos stand; see `of`."""
        where = {id: row for row, id in enumerate(self.ids)}
        missing = [id for id in ids if id not in where]
        if missing:
            raise RefusedError(
                f"{self.path} has no scores of video {missing[0]!r} ({len(missing)} of {len(ids)} are missing)."
            )
        return [where[id] for id in ids]


def seen_note(seen: np.ndarray, what: str, *, allow_seen: bool) -> str | None:
    """Say in one line how many of the videos of scores their run has seen, None if none; refuse them unless allowed.

    Parameters
    ----------
    seen : [n] bool
    what : the file or run

    Raises
    ------
    RefusedError
    """
    if not seen.any():
        return None
    note = f"{seen.sum()} of the {len(seen)} videos are those that the run of {what} was fitted or selected on"
    if not allow_seen:
        raise RefusedError(
            f"{note}: numbers on them say nothing about new videos. --allow-seen takes them all the same, and says so."
        )
    return note


def is_score_file(path: Path) -> bool:
    """Tell whether what a command was given is a file of scores, and no run."""
    return path.suffix in SUFFIXES


def pair_ids(paths: Sequence[Path], lists: Sequence[Path]) -> dict[Path, Path]:
    """Return the list of ids of each `.npy` among what a command was given: one for all, or one each in their order.

    Raises
    ------
    UsageError
        If there are lists and no `.npy`, or another number of them.
    """
    arrays = [path for path in paths if path.suffix == ".npy"]
    if len(lists) == 1 and arrays:
        return dict.fromkeys(arrays, lists[0])
    if len(lists) != len(arrays) and lists:
        raise UsageError(
            f"--ids names the rows of .npy files: give one list for all of them, or one for each; there are "
            f"{len(lists)} lists and {len(arrays)} .npy files."
        )
    return dict(zip(arrays, lists, strict=False))


def read_scores(
    path: Path, classes: tuple[str, ...] | None = None, *, average_clips: bool = False, ids: Path | None = None
) -> ScoreTable:
    """Read a file of scores.

    An `.npz` has `ids` [n] and `scores` [n, N], and may have `labels` [n] or [n, L] (class indices, padded with -1) and
    `classes` [N] names; a CSV a header `id,<class>,...` in any order, and maybe a column `labels` (see `LABELS`); an
    `.npy` scores [n, N] alone, whose rows a list of ids names.

    Parameters
    ----------
    classes : N names, in the order wanted; an array without names has its columns in this order. None = the file's own
    average_clips : whether rows of the same id are clips (or views) of one video, whose scores are averaged
    ids : text file with an id per line, in the order of the rows; of an `.npy`, and only of one

    Raises
    ------
    MissingFileError
        If there is no such file.
    UsageError
        If it is damaged or does not hold that; the message names file and item.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no file of scores {path}.")
    if path.suffix == ".npy":
        rows = _read_npy(path, ids)
    elif ids is not None:
        raise UsageError(f"{path} has ids of its own; leave out --ids {ids}.")
    else:
        rows = _read_npz(path, classes) if path.suffix == ".npz" else _read_csv(path, classes)
    table = _averaged(rows) if average_clips else ScoreTable(**vars(rows))
    if classes is not None and table.scores.shape[1] != len(classes):
        raise UsageError(f"{path}: {table.scores.shape[1]} scores per video, and there are {len(classes)} classes.")
    return table


@dataclass(frozen=True, eq=False, kw_only=True)
class _Rows:
    """The rows of a file as they stand; see `ScoreTable`, which checks them."""

    path: Path
    ids: tuple[str, ...]
    scores: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    told_seen: np.ndarray | None = None
    branches: Mapping[str, np.ndarray] = field(default_factory=dict)
    ids_path: Path | None = None


def _averaged(given: _Rows) -> ScoreTable:
    """Make a table of videos from rows that are clips of them; videos come sorted by id."""
    ids, scores, labels = given.ids, given.scores, given.labels
    if scores.ndim != 2 or len(scores) != len(ids) or not ids:
        return ScoreTable(**vars(given))  # which says what is wrong
    videos, place, rows = np.unique(np.array(ids), return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    first = np.concatenate([[0], np.cumsum(rows)[:-1]])
    means = np.add.reduceat(scores[order], first, axis=0, dtype=np.float64) / rows[:, None]
    if labels is not None and labels.ndim == 2 and len(labels) == len(ids):
        kept = labels[order[first]]
        odd = (labels != kept[place]).any(1)
        if odd.any():
            raise UsageError(f"{given.path}: the rows of video {ids[int(odd.argmax())]!r} have different labels.")
        labels = kept
    return ScoreTable(
        path=given.path,
        ids=tuple(videos.tolist()),
        scores=means.astype(scores.dtype),
        labels=labels,
        classes=given.classes,
        clips=(int(rows.min()), int(rows.max())),
        told_seen=None if given.told_seen is None else given.told_seen[order[first]],
        ids_path=given.ids_path,
    )


def _read_npy(path: Path, ids: Path | None) -> _Rows:
    if ids is None:
        raise UsageError(f"{path} has scores without ids; give --ids FILE.txt, one id per line in the order of rows.")
    names, scores = _read_ids(ids), _numbers(path, read_npy(path))
    if scores.ndim != 2 or len(scores) != len(names):
        raise UsageError(f"{path} must be [n, N] scores of the {len(names)} ids of {ids}, and is {scores.shape}.")
    return _Rows(path=path, ids=names, scores=scores, labels=None, classes=None, ids_path=ids)


def _read_ids(path: Path) -> tuple[str, ...]:
    """Read a list of ids; what stands in a line is the id, blanks inside it too."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise MissingFileError(f"There is no list of ids {path}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no list of ids, one per line ({error}).") from None
    names = tuple(line.strip() for line in lines)
    names = names[:-1] if not names[-1] else names
    if "" in names:
        raise UsageError(f"{path}, line {names.index('') + 1}: an empty line names no row of scores; remove it.")
    return names


def _numbers(path: Path, scores: np.ndarray) -> np.ndarray:
    """Return scores as float32 or float64."""
    if scores.dtype.kind not in "fiu":
        raise UsageError(f"{path}: scores must be numbers, and are {scores.dtype}.")
    if scores.dtype == np.float32:
        return scores
    # half precision is sorted slowly, and integers above 2^24 need double precision
    with np.errstate(over="ignore"):
        return scores.astype(np.float32 if scores.dtype.itemsize <= 2 else np.float64)


def _read_npz(path: Path, classes: tuple[str, ...] | None) -> _Rows:
    with Archive(path) as archive:
        told = ("labels", "classes", "seen", "branches", "branch_scores")
        wanted = ("ids", "scores", *(name for name in told if name in archive.names))
        found = {name: archive.read(name) for name in wanted}
    ids, scores, labels = found["ids"], found["scores"], found.get("labels")
    if ids.ndim != 1 or ids.dtype.kind not in "US" or scores.dtype.kind not in "fiu":
        raise UsageError(
            f"{path}: `ids` must be [n] texts and `scores` numbers, and are {ids.shape} {ids.dtype}, {scores.dtype}."
        )
    scores = _numbers(path, scores)
    names = None
    if "classes" in found:
        names = tuple(texts(found["classes"], f"{path}: `classes`"))
        if scores.ndim == 2 and len(names) != scores.shape[1]:
            raise UsageError(f"{path}: `classes` has {len(names)} names beside {scores.shape[1]} scores per video.")
        if classes is not None and names != classes:
            raise UsageError(f"{path}: `classes` are not those of the task in their order; write the columns so.")
    if labels is not None and labels.ndim == 1:
        labels = labels[:, None]
    named, seen = tuple(texts(ids, f"{path}: `ids`")), found.get("seen")
    if seen is not None and (seen.shape != ids.shape or seen.dtype != np.bool_):
        raise UsageError(f"{path}: `seen` must be {len(ids)} booleans, and is {seen.shape} {seen.dtype}.")
    return _Rows(
        path=path, ids=named, scores=scores, labels=labels, classes=names, told_seen=seen,
        branches=_branches(path, scores, found.get("branches"), found.get("branch_scores")),
    )  # fmt: skip


def _branches(
    path: Path, scores: np.ndarray, names: np.ndarray | None, values: np.ndarray | None
) -> dict[str, np.ndarray]:
    if names is None or values is None:
        return {}
    told = texts(names, f"{path}: `branches`")
    if values.dtype.kind != "f" or values.shape != (len(scores), len(told), *scores.shape[1:]):
        raise UsageError(
            f"{path}: `branch_scores` must be [n, {len(told)}, N] numbers beside scores {scores.shape}, and are "
            f"{values.shape} {values.dtype}."
        )
    return {name: values[:, place] for place, name in enumerate(told)}


def _read_csv(path: Path, classes: tuple[str, ...] | None) -> _Rows:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _rows_of_lines(path, csv.reader(file, strict=True), classes)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as CSV ({error}).") from None


def _rows_of_lines(path: Path, lines: Iterator[list[str]], classes: tuple[str, ...] | None) -> _Rows:
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
        counts = Counter(given), Counter(classes)
        odd = [name for name in (*given, *classes) if (counts[0][name], counts[1][name]) != (1, 1)]
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
            labels.append([label_of[name] for name in dict.fromkeys(own)])
        try:
            numbers.frombytes(np.array(line[1:], np.float64).tobytes())  # a third faster than float by float
        except ValueError as error:
            raise UsageError(f"{where}: {error}.") from None
        ids.append(line[0])
    scores = np.asarray(numbers).reshape(len(ids), len(classes))
    if given != classes:
        column_of = {name: column for column, name in enumerate(given)}
        scores = scores[:, [column_of[name] for name in classes]]
    padded = _padded(labels) if told else None
    return _Rows(path=path, ids=tuple(ids), scores=scores, labels=padded, classes=classes)


def _padded(labels: Sequence[Sequence[int]]) -> np.ndarray:
    """Lists of class indices -> [n, L] int32, padded with -1."""
    padded = np.full((len(labels), max(map(len, labels), default=0) or 1), -1, np.int32)
    for row, own in zip(padded, labels, strict=True):
        row[: len(own)] = own
    return padded
