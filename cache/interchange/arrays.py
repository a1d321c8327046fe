"""Arrays in files that users hand in: `.npy` and `.npz`, read without pickle and without believing what they state.

What a header states is held against the bytes that are there before any memory is asked for, an archive may inflate to
a multiple of its size only, and nothing but a regular file is opened: a pipe would wait for ever.
"""

from __future__ import annotations

import lzma
import math
import os
import stat
import struct
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from ...errors import MissingFileError, UsageError
from ..memory import size_text

FREE_BYTES = 256 << 20
"""What any file may hold, however small it is itself."""
INFLATION = 100
"""Beyond that, how many times its own size: features deflate to a half or a third, a bomb to a thousandth."""
_READ_BYTES = 16 << 20

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_BROKEN = (
    ValueError, TypeError, LookupError, OSError, EOFError, RuntimeError, SyntaxError, OverflowError, struct.error,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What zipfile, zlib and NumPy's parser of headers raise on damage."""


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading.

    Raises
    ------
    MissingFileError
        If it is not there.
    UsageError
        If it is a folder, a pipe, a device, or cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{path} is missing; the material is not whole.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be opened ({error}).") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path} is no regular file.")
    return os.fdopen(descriptor, "rb")


def require_inside(folder: Path, path: Path) -> Path:
    """Return a path below a folder that somebody handed over; refuse one that a link or `..` leads out of it.

    Raises
    ------
    UsageError
    """
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name too long
        raise UsageError(f"{path} cannot be opened ({error}).") from None
    if not inside:
        raise UsageError(f"{path} leads out of {folder}, by a link or by '..'; put the file itself there.")
    return path


def require_plausible(what: str, *, stated: int, stored: int) -> None:
    """Refuse content that states more bytes than a file of its size can mean.

    Parameters
    ----------
    what : of which file, for the message
    stated : bytes that it would have in memory
    stored : bytes that it has on disk

    Raises
    ------
    UsageError
    """
    if stated > max(FREE_BYTES, INFLATION * stored):
        raise UsageError(
            f"{what} would be {size_text(stated)} in memory and has {size_text(stored)} on disk, which is no features "
            "or scores; if it is meant so, write it without compression."
        )


def read_npy(path: Path) -> np.ndarray:
    """Read a `.npy` file of numbers or texts.

    Raises
    ------
    MissingFileError
        If it is not there.
    UsageError
        If it is damaged, or holds objects.
    """
    with open_regular(path) as file, _said(f"{path} is no array of numbers"):
        return _array(file, os.fstat(file.fileno()).st_size)


def npy_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of a `.npy` file by its header; raises as `read_npy`."""
    with open_regular(path) as file, _said(f"{path} is no array of numbers"):
        return _header(file)[0]


def texts(array: np.ndarray, where: str) -> list[str]:
    """Return an array of texts (of UTF-8 bytes, of whole numbers) as a list of str.

    Parameters
    ----------
    where : what it is called in messages

    Raises
    ------
    UsageError
        If a value is no text that can be written.
    """
    try:
        if array.dtype.kind == "U" and array.size:
            codes = np.frombuffer(array.tobytes(), np.dtype("u4").newbyteorder(array.dtype.byteorder))
            if codes.max() > sys.maxunicode:
                raise ValueError(f"there is no character {codes.max():#x}")
        found = [value.decode() if isinstance(value, bytes) else str(value) for value in array.ravel().tolist()]
        "".join(found).encode()
    except ValueError as error:
        raise UsageError(f"{where} holds what is no text ({error}).") from None
    return found


class Archive:
    """A `.npz` file, a context manager.

    Attributes
    ----------
    path : the file
    names : of its arrays

    Raises
    ------
    MissingFileError
        If it is not there.
    UsageError
        If it is no such archive, or would inflate beyond measure.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_regular(path)
        try:
            with _said(f"{path} cannot be read as .npz without pickle"):
                self._zip = zipfile.ZipFile(self._file)
            self._members = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}
            total = sum(info.file_size for info in self._members.values())
            require_plausible(str(path), stated=total, stored=os.fstat(self._file.fileno()).st_size)
        except BaseException:
            self._file.close()
            raise
        self.names = tuple(self._members)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._zip.close()
        self._file.close()

    def read(self, name: str) -> np.ndarray:
        """Read one array of numbers or texts.

        Raises
        ------
        UsageError
            If there is none of this name (those there are are listed), or it is damaged, or holds objects.
        """
        info = self._info(name)
        with _said(f"{self.path}: the array {name!r} cannot be read"), self._zip.open(info) as file:
            return _array(file, info.file_size)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one array by its header; raises as `read`."""
        with _said(f"{self.path}: the array {name!r} cannot be read"), self._zip.open(self._info(name)) as file:
            return _header(file)[0]

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise UsageError(f"{self.path} has no array {name!r}; it has {', '.join(self.names) or 'none'}.")
        return self._members[name]


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn what the parsers say of damage into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # headers of Python 2 are read all the same
            yield
    except UsageError:
        raise
    except _BROKEN as error:
        raise UsageError(f"{what} ({' '.join(str(error).split()) or type(error).__name__}).") from None


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the order is Fortran's, and dtype; the file stands at the first value then."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"format {version[0]}.{version[1]}")
    try:
        shape, fortran, dtype = _HEADERS[version](file)
    except MemoryError:  # what Python's parser says of deeply nested text
        raise ValueError("the header is no header") from None
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    if dtype.kind not in "biufcSU" or any(side < 0 for side in shape):
        raise ValueError(f"{dtype} of shape {shape} is no array of numbers or texts")
    return shape, fortran, dtype


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """Read an array from the start of a file of so many bytes."""
    shape, fortran, dtype = _header(file)
    stated, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if stated > there:
        raise ValueError(f"its header states {stated} bytes of values, and {there} are there")
    values = np.empty(stated, np.uint8)
    for at in range(0, stated, _READ_BYTES):
        part = file.read(min(_READ_BYTES, stated - at))
        values[at : at + len(part)] = np.frombuffer(part, np.uint8)
        if len(part) < min(_READ_BYTES, stated - at):
            raise EOFError("it ends early")
    if file.read(1):  # of an archive, this is also what checks the sum of the whole
        raise ValueError("it goes on behind its values")
    if not stated:
        return np.zeros(shape, dtype)
    flat = values.view(dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
