"""One function for TV-L1, whichever engine computes it."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
from functools import cache
from types import ModuleType
from typing import overload

import numpy as np
import torch
from torch import Tensor

from ...errors import UnknownNameError, UsageError
from .preset import CPU_ENGINES, TVL1Preset, find_preset

ENGINES = {
    "numba": "install it with: pip install numba",
    "opencv": "install the build that has it: pip install opencv-contrib-python-headless",
    "torch": "install it with: pip install torch",
    "triton": "install it with: pip install triton",
}
"""Engines, and the way out where one is missing."""

logger = logging.getLogger(__name__)


@overload
def tvl1(
    first: np.ndarray, second: np.ndarray, *,
    preset: str | TVL1Preset = "tsn", engine: str = "auto", device: str | torch.device | None = None,
) -> np.ndarray: ...  # fmt: skip
@overload
def tvl1(
    first: Tensor, second: Tensor, *,
    preset: str | TVL1Preset = "tsn", engine: str = "auto", device: str | torch.device | None = None,
) -> Tensor: ...  # fmt: skip
def tvl1(
    first: np.ndarray | Tensor,
    second: np.ndarray | Tensor,
    *,
    preset: str | TVL1Preset = "tsn",
    engine: str = "auto",
    device: str | torch.device | None = None,
) -> np.ndarray | Tensor:
    """Optical flow of a batch of frame pairs by TV-L1 (Zach, Pock, Bischof 2007), as OpenCV computes it.

    All engines solve the same problem. `numba` and `opencv` stop a warp when the flow has settled, `torch` and
    `triton` run a fixed number of iterations: fields differ by some 0.03 pixels on average, so a stream must stay
    with one engine. Within an engine and device the result does not depend on the batch.

    Parameters
    ----------
    first, second : (B, H, W) uint8, or float32 in 0..255: gray frames; both NumPy arrays or both tensors
    preset : a name of `PRESETS`, or a `TVL1Preset`
    engine : a name of `ENGINES`, or "auto": see `choose_engine`
    device : where to compute; None = where the frames are, the CPU for arrays

    Returns
    -------
    (B, 2, H, W) float32: x and y displacement in pixels from `first` to `second`; an array for arrays, else a tensor
    on the device of `first`

    Raises
    ------
    UsageError
        On frames of a wrong kind, shape, dtype or range (checked on the CPU only), an unknown or missing engine, or
        an engine that cannot run on the device.
    """
    chosen_preset = find_preset(preset)
    _check(first, second)
    where = torch.device(device or (first.device if isinstance(first, Tensor) else "cpu"))
    # a CPU engine asked for by name takes frames from any device, unless another device is asked for as well
    name = choose_engine(engine, "cpu" if engine in CPU_ENGINES and device is None else where)
    solver = _load(name)
    if not len(first):
        empty = torch.empty(0, 2, *first.shape[1:], device=first.device if isinstance(first, Tensor) else "cpu")
        return empty if isinstance(first, Tensor) else empty.numpy()
    if name in CPU_ENGINES:
        arrays = [frames.cpu().numpy() if isinstance(frames, Tensor) else frames for frames in (first, second)]
        field = solver.flow(*arrays, chosen_preset)
        return torch.from_numpy(field).to(first.device) if isinstance(first, Tensor) else field
    # np.array: torch neither takes reversed views nor read-only arrays without complaint
    tensors = [
        frames if isinstance(frames, Tensor) else torch.from_numpy(np.array(frames)) for frames in (first, second)
    ]
    field = solver.flow(*(frames.to(where, torch.float32) for frames in tensors), chosen_preset)
    return field.to(first.device) if isinstance(first, Tensor) else field.cpu().numpy()


def choose_engine(engine: str, device: str | torch.device) -> str:
    """The engine that `tvl1` uses for `engine` on `device`; belongs into the recipe of a flow stream.

    "auto" is, on CUDA, triton where it is installed, else torch; on the CPU, numba where it is installed, else torch.

    Raises
    ------
    UnknownNameError
        If there is no such engine.
    UsageError
        If the engine is not installed, or cannot run on the device.
    """
    kind = torch.device(device).type
    if engine == "auto":
        return _preferred(kind)
    _load(engine)
    if engine in CPU_ENGINES and kind != "cpu":
        raise UsageError(f"The TV-L1 engine {engine!r} runs on the CPU, not on {kind!r}; use 'triton' or 'torch'.")
    if engine == "triton" and os.environ.get("TRITON_INTERPRET", "0").lower() not in ("1", "true", "on", "yes", "y"):
        if kind != "cuda":
            raise UsageError(f"The TV-L1 engine 'triton' needs a CUDA device, got {kind!r}; use 'numba' or 'torch'.")
        if not any(map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))):
            raise UsageError("The TV-L1 engine 'triton' needs a C compiler at run time; install gcc, or use 'torch'.")
    return engine


@cache
def _preferred(kind: str) -> str:
    engine = "triton" if kind == "cuda" else "numba"
    try:
        return choose_engine(engine, kind)
    except UsageError as error:
        logger.warning("TV-L1 runs on the slower torch engine. %s", error)
        return "torch"


def _load(engine: str) -> ModuleType:
    if engine not in ENGINES:
        raise UnknownNameError("TV-L1 engine", engine, [*ENGINES, "auto"])
    try:
        return importlib.import_module(f".{engine}_engine", __package__)
    except ImportError as error:
        raise UsageError(f"The TV-L1 engine {engine!r} is not available ({error}); {ENGINES[engine]}") from error


def _check(first: np.ndarray | Tensor, second: np.ndarray | Tensor) -> None:
    for which, frames in (("first", first), ("second", second)):
        if not isinstance(frames, np.ndarray | Tensor):
            raise UsageError(f"TV-L1: {which} must be a NumPy array or a tensor, got {type(frames).__name__}.")
        if frames.dtype not in (np.uint8, np.float32, torch.uint8, torch.float32):
            raise UsageError(f"TV-L1: {which} must be uint8 or float32 (0..255), got {frames.dtype}.")
        if frames.ndim != 3 or min(frames.shape[1:]) < 2:
            raise UsageError(
                f"TV-L1: {which} must be (B, H, W) gray frames of at least 2x2 pixels, got {tuple(frames.shape)}."
            )
    if type(first) is not type(second) or first.dtype != second.dtype or first.shape != second.shape:
        raise UsageError(
            f"TV-L1: both frames must be of one kind, shape and dtype, got {type(first).__name__} "
            f"{tuple(first.shape)} {first.dtype} and {type(second).__name__} {tuple(second.shape)} {second.dtype}."
        )
    if isinstance(first, Tensor) and isinstance(second, Tensor) and first.device != second.device:
        raise UsageError(f"TV-L1: first is on {first.device}, second on {second.device}; move one of them.")
    for which, frames in (("first", first), ("second", second)):
        if (
            frames.dtype in (np.uint8, torch.uint8)
            or not len(frames)
            or (isinstance(frames, Tensor) and frames.is_cuda)
        ):
            continue  # a check on the GPU would make the host wait
        low, high = float(frames.min()), float(frames.max())
        if not (low >= 0 and high <= 255):  # NaN fails both
            raise UsageError(f"TV-L1: {which} must lie in 0..255, got {low:g}..{high:g}.")
