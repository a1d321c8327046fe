"""Where annotation files are looked for, and how their lines are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...errors import MissingFileError, UsageError


def find_annotations(dataset: str, annotations: Path | None, candidates: Iterable[Path], marker: str) -> Path:
    """Return the folder of official files: the one the user named, else the first candidate that holds `marker`.

    Parameters
    ----------
    dataset : the dataset's name, for the message
    annotations : the folder named by the user; nothing else is tried then
    candidates : folders to try in this order
    marker : name of a file that every copy of the annotations has

    Raises
    ------
    MissingFileError
        If no folder holds the file; the message lists the places.
    """
    places = [annotations] if annotations is not None else list(candidates)
    for place in places:
        if (place / marker).is_file():
            return place
    looked = f"looked in {', '.join(str(place) for place in places)}" if places else "no folder was given"
    raise MissingFileError(
        f"Dataset {dataset!r}: no {marker} ({looked}); name the folder that holds it with --annotations."
    )


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the 1-based numbers and stripped texts of the lines that are not blank; BOM and CRLF are fine.

    Raises
    ------
    MissingFileError
        If the file is not there.
    UsageError
        If it is not UTF-8 text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: this annotation file is missing.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8.") from None
    # str.splitlines would also cut at form feeds and exotic separators inside a name.
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def line_error(path: Path, number: int, problem: str) -> UsageError:
    """Return the error for one line of an annotation file, in the form editors jump to."""
    return UsageError(f"{path}:{number}: {problem}")
