"""Structures in MATLAB files, as annotation authors of the time published them."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MissingFileError, UsageError
from ..child import Child


def serve(connection: Connection[Any, Any]) -> None:
    """Read one variable in a process of its own: scipy's reader crashes on some damaged files."""
    from scipy.io import loadmat

    path, variable = connection.recv()
    try:
        connection.send(loadmat(str(path), squeeze_me=True, variable_names=[variable]).get(variable, np.empty(0)))
    except NotImplementedError:
        connection.send(UsageError(f"{path} is a MATLAB 7.3 file; save it with -v7."))
    except Exception as error:  # noqa: BLE001 - the reader raises anything of damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        connection.send(UsageError(f"{path} is no MATLAB file, or damaged ({reason}); fetch it again."))


def read_structures(path: Path, variable: str, fields: tuple[str, ...]) -> np.ndarray:
    """Return the structure array `variable` as a flat record array, its cells squeezed.

    Raises
    ------
    MissingFileError
        If the file is not there.
    UsageError
        If it is damaged, of MATLAB's HDF5 form, or lacks the variable or a field.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: this annotation file is missing.")
    child = Child("vidatt.extract.datasets.matlab_files:serve")
    try:
        child.connection.send((path, variable))
        content = child.receive()
    except EOFError:
        raise UsageError(f"{path} is damaged (its reader was {child.died_of()}); fetch it again.") from None
    finally:
        child.kill()
    if isinstance(content, UsageError):
        raise content
    found = np.atleast_1d(content)
    lacking = [field for field in fields if field not in (found.dtype.names or ())]
    if lacking:
        raise UsageError(f"{path} holds no structure {variable!r} with {', '.join(lacking)}; is it the official file?")
    return found


def cells(value: Any) -> list[Any]:
    """Return the items of a squeezed cell: none, one, or several."""
    return np.atleast_1d(np.asarray(value, dtype=object)).tolist() if np.size(value) else []
