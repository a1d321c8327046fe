"""Where annotation files are looked for, and how their lines are read."""

from __future__ import annotations

import csv
import difflib
import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import MissingFileError, UsageError


def find_annotations(dataset: str, annotations: Path | None, candidates: Iterable[Path], *markers: str) -> Path:
    """Return the folder of official files: the one the user named, else the first candidate that holds a marker.

    Parameters
    ----------
    dataset : the dataset's name, for the message
    annotations : the folder named by the user; nothing else is tried then
    candidates : folders to try in this order
    markers : names of files (or folders), one of which every copy of the annotations has

    Raises
    ------
    MissingFileError
        If no folder holds one; the message lists the places.
    """
    places = [annotations] if annotations is not None else list(candidates)
    for place in places:
        if any((place / marker).exists() for marker in markers):
            return place
    looked = f"looked in {', '.join(str(place) for place in places)}" if places else "no folder was given"
    raise MissingFileError(
        f"Dataset {dataset!r}: no {' or '.join(markers)} ({looked}); name the folder that holds it with --annotations."
    )


def usual_places(videos: Path | None) -> list[Path]:
    """Return where official files usually lie when the user names only the videos."""
    return [] if videos is None else [videos / "annotations", videos, videos.parent / "annotations"]


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the 1-based numbers and stripped texts of the lines that are not blank; BOM, CRLF and gzip are fine.

    Raises
    ------
    MissingFileError
        If the file is not there.
    UsageError
        If it is not UTF-8 text, or a damaged gzip file.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: this annotation file is missing.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is damaged ({error}); fetch it again.") from None
    # str.splitlines would also cut at form feeds and exotic separators inside a name.
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def line_error(path: Path, number: int, problem: str) -> UsageError:
    """Return the error for one line of an annotation file, in the form editors jump to."""
    return UsageError(f"{path}:{number}: {problem}")


def nearest_class(name: str, classes: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown class: the nearest known one, or a full stop."""
    near = difflib.get_close_matches(name, list(classes), n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


def read_table(
    path: Path, columns: Sequence[str], *, names: Sequence[str] | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each row of a CSV file, the cells in the order of `columns`.

    Parameters
    ----------
    columns : wanted columns; others are passed over
    names : the columns of a file without a header row, the first ones at least; None = the first row names them

    Raises
    ------
    MissingFileError
        If the file is not there.
    UsageError
        For a missing column, a row of another length, a stray quote, or text that is not UTF-8; with the line.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: this annotation file is missing.")
    reader: Any = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            found = [name.strip() for name in next(reader, [])] if names is None else list(names)
            lacking = [name for name in columns if name not in found]
            if lacking:
                raise line_error(path, 1, f"the header lacks {', '.join(lacking)}; it has {', '.join(found)}.")
            places = [found.index(name) for name in columns]
            least = len(found) if names is None else max(places) + 1
            for cells in reader:
                if len(cells) < least or (names is None and len(cells) != least):
                    if any(cell.strip() for cell in cells):
                        problem = f"{len(cells)} cells for {len(found)} columns; quote cells that contain commas."
                        raise line_error(path, reader.line_num, problem)
                    continue
                yield reader.line_num, [cells[place].strip() for place in places]
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8.") from None
    except csv.Error as error:
        raise line_error(path, reader.line_num, f"this is not CSV: {error}.") from None


def files_below(folder: Path, pattern: str) -> dict[str, Path]:
    """Return the files whose name matches the regular expression, in `folder` or up to three folders down, by name.

    Raises
    ------
    UsageError
        If two files of one name lie there: which one counts cannot be told.
    """
    found: dict[str, Path] = {}
    wanted = re.compile(pattern)
    top = os.fspath(folder)
    for place, folders, names in os.walk(top):
        if place.count(os.sep) - top.count(os.sep) >= 3:
            folders.clear()
        for name in names:
            if wanted.fullmatch(name):
                if name in found:
                    raise UsageError(f"{found[name]} and {os.path.join(place, name)} have one name; keep one of them.")
                found[name] = Path(place, name)
    return found


def read_option(dataset: str, options: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    """Return one of the choices, the first where the user chose none.

    Raises
    ------
    UsageError
        For any other text.
    """
    chosen = options.get(name, choices[0])
    if chosen not in choices:
        raise UsageError(f"Option {name}={chosen!r} of dataset {dataset!r} must be one of {', '.join(choices)}.")
    return chosen
