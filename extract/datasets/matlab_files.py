"""Structures in MATLAB files, as annotation authors of the time published them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MissingFileError, UsageError


def read_structures(path: Path, variable: str, fields: tuple[str, ...]) -> np.ndarray:
    """Return the structure array `variable` as a flat record array, its cells squeezed.

    Raises
    ------
    MissingFileError
        If the file is not there.
    UsageError
        If it is damaged, of MATLAB's HDF5 form, or lacks the variable or a field.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise MissingFileError(f"{path}: this annotation file is missing.")
    try:
        content = loadmat(str(path), squeeze_me=True, variable_names=[variable])
    except NotImplementedError:
        raise UsageError(f"{path} is a MATLAB 7.3 file; save it with -v7.") from None
    except (MatReadError, ValueError, TypeError, KeyError, EOFError, OSError, zlib.error) as error:
        raise UsageError(f"{path} is no MATLAB file, or damaged ({error}); fetch it again.") from None
    found = np.atleast_1d(content.get(variable, np.empty(0)))
    lacking = [field for field in fields if field not in (found.dtype.names or ())]
    if lacking:
        raise UsageError(f"{path} holds no structure {variable!r} with {', '.join(lacking)}; is it the official file?")
    return found


def cells(value: Any) -> list[Any]:
    """Return the items of a squeezed cell: none, one, or several."""
    return np.atleast_1d(np.asarray(value, dtype=object)).tolist() if np.size(value) else []
