"""Pickles of plain values and numpy arrays, read without executing anything."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MissingFileError, UsageError


def _encode(text: str, encoding: str) -> bytes:
    """Stand for `_codecs.encode`, by which the old protocols write bytes; other codecs could unpack without a limit."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin-1")


def _allowed() -> dict[tuple[str, str], Any]:
    """Return what a pickle may name: what numpy itself writes for an array, a dtype or a scalar, and plain types."""
    numpy_calls = {
        ("multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("multiarray", "scalar"): np.float64(0).__reduce__()[0],
        ("numeric", "_frombuffer"): np.empty(1).__reduce_ex__(5)[0],
    }
    names: dict[tuple[str, str], Any] = {
        (f"numpy.{core}.{module}", name): call
        for (module, name), call in numpy_calls.items()
        for core in ("core", "_core")  # numpy 1, numpy 2
    }
    names |= {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): _encode}
    plain = {"set": set, "frozenset": frozenset, "bytes": bytes}
    names |= {(module, name): kind for module in ("builtins", "__builtin__") for name, kind in plain.items()}
    return names


_ALLOWED = _allowed()


class _RefusedNameError(Exception):
    """The pickle names something to import that is not on the list."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _RefusedNameError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedNameError(f"persistent id {pid!r}")


def read_plain_pickle(path: Path) -> Any:
    """Return the content of a pickle that holds only plain types and numpy arrays; Python 2's are read as latin1.

    Raises
    ------
    MissingFileError
        If the file is not there.
    UsageError
        If it names anything else to import, which is refused before it is called, or if it is damaged.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise MissingFileError(f"{path}: this annotation file is missing.") from None
    except _RefusedNameError as refused:
        raise UsageError(
            f"{path} asks to import {refused}, which no annotation file needs; it was not executed. Fetch the "
            "official file."
        ) from None
    except Exception as error:  # noqa: BLE001 - numpy and pickle raise anything of damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} is no pickle of annotations, or damaged ({reason}); fetch it again.") from None
