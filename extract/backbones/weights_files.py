"""Weights files read without executing anything in them, and without believing what they state.

Files are safetensors, NumPy archives without pickles, or PyTorch files read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ...errors import WeightsError

MOST_INFLATION = 100
"""A NumPy archive that unpacks to more than this many times its size holds no weights: they hardly compress."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex.

    Raises
    ------
    WeightsError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a weights file (.safetensors, .npz, or a PyTorch file): dense tensors of real numbers by name.

    Raises
    ------
    WeightsError
        In one line, with what is wrong.
    """
    try:
        content = _content(path)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds pickled Python objects beside tensors, which are never executed; save its state_dict alone."
        ) from error
    except Exception as error:  # readers of damaged files raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise WeightsError(
            f"{path} cannot be read as weights ({reason}): damaged or cut off; copy it again."
        ) from error
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(x, Tensor) for x in content.values()):
        raise WeightsError(f"{path} holds no state_dict: expected a mapping of names to tensors.")
    for name, tensor in content.items():
        if not isinstance(name, str):
            raise WeightsError(f"{path} holds no state_dict: {name!r} is no name of a tensor.")
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized or tensor.is_meta:
            raise WeightsError(f"{path}: tensor {name!r} is not one of real numbers, all there; save it as float32.")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        _check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            return {key: torch.from_numpy(archive[key]) for key in archive.files}
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != b"\x80":  # a zip archive, or the older form: a pickle
        raise WeightsError(
            f"{path} cannot be read as weights: give a .safetensors or .npz file, or one that torch.save wrote."
        )
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_archive(path: Path) -> None:
    """Compare what a NumPy archive states with what it holds, before anything of that size is made."""
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path} cannot be read as weights: no NumPy archive, or cut off; copy it again.")
    with zipfile.ZipFile(path) as archive:
        times = sum(entry.file_size for entry in archive.infolist()) / path.stat().st_size
        if times > MOST_INFLATION:
            raise WeightsError(f"{path} unpacks to {times:.0f} times its size, as no weights do; give another file.")
        for entry in archive.infolist():
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                if dtype.hasobject or dtype.kind not in "biuf":
                    raise WeightsError(f"{path}: {entry.filename} holds {dtype} and no numbers; save tensors alone.")
                if math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
                    raise WeightsError(f"{path}: {entry.filename} states another shape than it holds; copy it again.")
