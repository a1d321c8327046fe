"""The dataset `list`: a CSV file with one row per video."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ...errors import MissingFileError, UsageError
from .annotation_files import line_error, nearest_class, read_lines
from .catalogue import TEST, TRAIN, UNUSED, Catalogue, Video
from .dataset import Dataset, DatasetInfo

INFO = DatasetInfo(
    name="list",
    summary="your own videos in any folders, listed in a CSV file",
    layout="""\
VIDEOS/          --videos, any folders below it
FILE.csv         --annotations FILE.csv, UTF-8, commas, a header row and these columns:
    path         below VIDEOS
    label        class name or index; or labels, several separated by ; or |
    id           optional; default the path, with #start-stop where the row has an interval
    group        optional; videos of one source share it and never part between training and validation
    start, stop  optional; seconds, only this stretch of the file is the video
    split        optional; train, test or unused; further splits as split:NAME
classes.txt      optional, beside the CSV: class names in the wanted order; else they are sorted""",
    source="yours",
)

_ROLES = {"train": TRAIN, "test": TEST, "unused": UNUSED}
_COLUMNS = ("path", "label", "labels", "id", "group", "start", "stop", "split")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the file with its line, labels still as written."""

    line: int
    video: Video  # without labels
    labels: tuple[str, ...]
    roles: tuple[int, ...]  # one per split column


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Read the CSV file; `videos` is not looked at."""
    if annotations is None:
        raise UsageError("Dataset 'list' needs its CSV file: --annotations FILE.csv with the columns path and label.")
    if not annotations.is_file():
        raise MissingFileError(f"There is no CSV file {annotations}; name it with --annotations FILE.csv.")
    columns, rows, notes = _read_rows(annotations)
    classes, labels = _resolve_labels(annotations, rows)
    unseen = sorted(set(range(len(classes))) - {label for row_labels in labels for label in row_labels})
    if unseen:
        notes += (f"{len(unseen)} of {len(classes)} classes have no video, such as {classes[unseen[0]]}",)
    splits = _split_columns(columns)
    return Catalogue(
        name=INFO.name,
        classes=classes,
        videos=tuple(
            Video(
                id=row.video.id, path=row.video.path, labels=row_labels, group=row.video.group,
                start_seconds=row.video.start_seconds, stop_seconds=row.video.stop_seconds,
            )
            for row, row_labels in zip(rows, labels, strict=True)
        ),
        splits={
            name: np.array([row.roles[index] for row in rows], dtype=np.int8)
            for index, name in enumerate(splits.values())
        },
        multi_label="labels" in columns,
        notes=notes,
    )  # fmt: skip


def listed_videos(path: Path) -> tuple[Video, ...]:
    """Return the videos of a CSV file without their labels, which it need not have.

    Raises
    ------
    MissingFileError, UsageError
        If there is no such file, or a line cannot be read; the message names file and line.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no CSV file {path}.")
    return tuple(row.video for row in _read_rows(path, labelled=False)[1])


def _read_rows(path: Path, *, labelled: bool = True) -> tuple[list[str], list[Row], tuple[str, ...]]:
    rows: list[Row] = []
    lines: dict[str, int] = {}  # id -> line
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            notes = _check_columns(path, columns, labelled=labelled)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(columns):
                    problem = f"{len(cells)} cells for {len(columns)} columns; quote cells that contain commas."
                    raise line_error(path, reader.line_num, problem)
                row = _read_row(path, reader.line_num, dict(zip(columns, map(str.strip, cells), strict=True)))
                if row.video.id in lines:
                    problem = f"{row.video.id!r} stands in line {lines[row.video.id]} already; ids must be unique."
                    raise line_error(path, row.line, problem)
                lines[row.video.id] = row.line
                rows.append(row)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8.") from None
    except csv.Error as error:
        raise line_error(path, reader.line_num, f"this is not CSV: {error}.") from None
    if not rows:
        raise UsageError(f"{path} lists no videos; write one row per video below the header.")
    return columns, rows, notes


def _split_columns(columns: list[str]) -> dict[str, str]:
    """Return split column -> split name, in the order of the file."""
    return {c: c.partition(":")[2].strip() or "1" for c in columns if c.partition(":")[0] == "split"}


def _check_columns(path: Path, columns: list[str], *, labelled: bool) -> tuple[str, ...]:
    """Refuse a header that cannot be meant; return a note on the columns that are not used."""
    if not labelled and "path" not in columns:
        raise line_error(path, 1, f"the header needs the column path, found {', '.join(columns)}.")
    if labelled and ("path" not in columns or not {"label", "labels"} & set(columns)):
        raise line_error(
            path, 1, f"the header needs the columns path and label (or labels), found {', '.join(columns)}."
        )
    if {"label", "labels"} <= set(columns):
        raise line_error(path, 1, "the header has both label and labels; keep one.")
    splits = _split_columns(columns)
    names = [*columns, *(f"split:{name}" for column, name in splits.items() if column != f"split:{name}")]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise line_error(path, 1, f"the column {double[0]!r} stands there twice; keep one.")
    others = [name for name in columns if name not in _COLUMNS and name not in splits]
    for name in others:
        near = difflib.get_close_matches(name.lower(), _COLUMNS, n=1, cutoff=0.8)
        if near:
            raise line_error(path, 1, f"unknown column {name!r}; did you mean {near[0]!r}?")
    return (f"columns that are not used: {', '.join(others)}",) if others else ()


def _read_row(path: Path, line: int, cells: dict[str, str]) -> Row:
    if not cells["path"]:
        raise line_error(path, line, "the cell path is empty.")
    file = PurePosixPath(cells["path"])
    if file.is_absolute() or ".." in file.parts:
        raise line_error(path, line, f"the path {cells['path']!r} leaves the video folder; use paths below it.")
    start, stop = (_seconds(path, line, name, cells.get(name, "")) for name in ("start", "stop"))
    if stop is not None and stop <= (start or 0.0):
        raise line_error(path, line, f"stop {stop:g} s is not after start {start or 0.0:g} s.")
    whole = start is None and stop is None
    default_id = str(file) if whole else f"{file}#{_brief(start or 0.0)}-{'end' if stop is None else _brief(stop)}"
    roles = []
    for column in _split_columns(list(cells)):
        role = cells[column].lower()
        if role not in _ROLES:
            hint = " (a validation part is cut from train by the fit)" if role.startswith("val") else ""
            raise line_error(path, line, f"{column} must be train, test or unused, found {cells[column]!r}{hint}.")
        roles.append(_ROLES[role])
    text = cells["labels"].replace("|", ";").split(";") if "labels" in cells else [cells.get("label", "")]
    return Row(
        line=line,
        video=Video(
            id=cells.get("id") or default_id, path=str(file), labels=(), group=cells.get("group", ""),
            start_seconds=start, stop_seconds=stop,
        ),
        labels=tuple(dict.fromkeys(label.strip() for label in text if label.strip())),
        roles=tuple(roles),
    )  # fmt: skip


def _seconds(path: Path, line: int, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise line_error(path, line, f"{name} must be seconds from the file's start, 0 or more, found {text!r}.")
    return seconds


def _brief(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _resolve_labels(path: Path, rows: list[Row]) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
    """Turn the labels as written into indices: names by `classes.txt` or sorted, or whole numbers as they are."""
    class_file = path.parent / "classes.txt"
    written = {label for row in rows for label in row.labels}
    numeric = bool(written) and all(label.removeprefix("-").isdecimal() for label in written)
    if class_file.is_file():
        names = [name for _, name in read_lines(class_file)]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise UsageError(f"{class_file} names the class {double[0]!r} twice; keep one.")
        numeric = numeric and not written <= set(names)
    else:
        names = [str(index) for index in range(max(map(int, written)) + 1)] if numeric else sorted(written)
    indices = {name: index for index, name in enumerate(names)}
    resolved = []
    for row in rows:
        for label in row.labels:
            if numeric and int(label) < 0:
                raise line_error(path, row.line, f"label {label} is negative; class indices count from 0.")
            if numeric and int(label) >= len(names):
                raise line_error(
                    path, row.line, f"label {label} is too high: {class_file} has {len(names)} classes, from 0."
                )
            if not numeric and label not in indices:
                hint = nearest_class(label, names)
                raise line_error(path, row.line, f"label {label!r} is not in {class_file}{hint}")
        resolved.append(tuple(int(label) if numeric else indices[label] for label in row.labels))
    return tuple(names), resolved


DATASET = Dataset(info=INFO, load=load)
