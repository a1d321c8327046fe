"""HDF5 files that users hand in: opened, walked and read without leaving the file, and without believing its sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import MissingFileError, UsageError, VidattError
from .arrays import open_regular, require_plausible

_LINKS = 64
"""Soft links in one path, after which they are a circle."""


@contextmanager
def reading(path: Path, what: str = "it") -> Iterator[None]:
    """Turn what h5py says of a missing or damaged part into one line that names the file and the part."""
    try:
        yield
    except VidattError as error:
        if str(path) in str(error):
            raise
        raise UsageError(f"{path}: {error}; is this a whole file?") from None
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{path}: {what} cannot be read ({said}); is this a whole HDF5 file?") from None


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises
    ------
    MissingFileError, UsageError
        If it is not there, no regular file, or no HDF5.
    """
    if not path.exists():
        raise MissingFileError(f"There is no HDF5 file {path}.")
    open_regular(path).close()
    with reading(path):
        return h5py.File(path, "r")


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset whose values lie in the file itself.

    Raises
    ------
    LookupError
        If there is none of this name; `reading` makes a line of it.
    UsageError
        If a link or its storage leads to another file.
    """
    item = member(file, name)
    if not isinstance(item, h5py.Dataset):
        raise LookupError(f"there is no dataset {name!r}, but {', '.join(file) or 'nothing'}")
    if item.external or item.is_virtual:
        raise UsageError(f"{file.filename}: the values of {name!r} lie in other files; copy them into this one.")
    return item


def member(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset | None:
    """Return a group or dataset by its path, None if there is none; links out of the file are refused."""
    item: Any = file
    waiting = [part for part in name.split("/") if part][::-1]
    followed = 0
    while waiting:
        part = waiting.pop()
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise UsageError(f"{file.filename}: {name!r} is a link to the file {link.filename}; copy it into this one.")
        if isinstance(link, h5py.SoftLink):
            followed += 1
            if followed > _LINKS:
                raise UsageError(f"{file.filename}: {name!r} is a circle of links.")
            item = file if link.path.startswith("/") else item
            waiting += [step for step in link.path.split("/") if step not in ("", ".")][::-1]
        elif link is None:
            return None
        else:
            item = item[part]
    return item


def values(data: h5py.Dataset, rows: slice = slice(None)) -> np.ndarray:
    """Read a dataset, or some of its first axis; text as str.

    Raises
    ------
    UsageError
        If it states more than its bytes on disk can mean.
    """
    shape = data.shape or ()
    stored = data.id.get_storage_size()
    count = len(range(*rows.indices(shape[0]))) * math.prod(shape[1:]) if shape else 1
    for sides in (count, math.prod(data.chunks or ())):
        require_plausible(f"{data.file.filename}: {data.name!r}", stated=sides * data.dtype.itemsize, stored=stored)
    part = (rows,) if shape else ()
    return data.asstr()[part] if h5py.check_string_dtype(data.dtype) else data[part]
