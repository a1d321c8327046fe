"""Flow in 8-bit levels: how temporal networks read it and how it is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, overload

import numpy as np

from ...errors import UsageError

if TYPE_CHECKING:  # decoding children quantise arrays and are spared importing torch
    from torch import Tensor


@overload
def quantise(flow: np.ndarray, *, bound: float = 20.0) -> np.ndarray: ...
@overload
def quantise(flow: Tensor, *, bound: float = 20.0) -> Tensor: ...
def quantise(flow: np.ndarray | Tensor, *, bound: float = 20.0) -> np.ndarray | Tensor:
    """Map displacements to levels: round(255 (clip(v, -bound, bound) + bound) / (2 bound)), halves to even.

    Parameters
    ----------
    flow : any shape, floating, pixels; NaN is refused on the CPU and undefined on the GPU, where a check would wait
    bound : pixels that level 0 and level 255 stand for; 20 in TSN's scripts and in I3D's description

    Returns
    -------
    the same shape and kind, uint8; no motion is level 128

    Raises
    ------
    UsageError
        If `flow` is not floating or has NaN, or `bound` is not a positive number.
    """
    _check_bound(bound)
    if "float" not in str(flow.dtype):
        raise UsageError(f"quantise takes a flow in pixels (floating), got {flow.dtype}: is it quantised already?")
    if isinstance(flow, np.ndarray):
        if np.isnan(flow).any():
            raise UsageError("quantise got NaN; no level stands for it.")
        return np.rint((flow.astype(np.float32).clip(-bound, bound) + bound) * (255 / (2 * bound))).astype(np.uint8)
    if not flow.is_cuda and bool(flow.isnan().any()):
        raise UsageError("quantise got NaN; no level stands for it.")
    return flow.float().clamp(-bound, bound).add_(bound).mul_(255 / (2 * bound)).round_().byte()


@overload
def dequantise(levels: np.ndarray, *, bound: float = 20.0) -> np.ndarray: ...
@overload
def dequantise(levels: Tensor, *, bound: float = 20.0) -> Tensor: ...
def dequantise(levels: np.ndarray | Tensor, *, bound: float = 20.0) -> np.ndarray | Tensor:
    """Map levels back to pixels: 2 bound level / 255 - bound; at most bound / 255 from what `quantise` was given.

    Parameters
    ----------
    levels : any shape, uint8
    bound : pixels, as given to `quantise`

    Returns
    -------
    the same shape and kind, float32, pixels

    Raises
    ------
    UsageError
        If `levels` are not uint8, or `bound` is not a positive number.
    """
    _check_bound(bound)
    _check_levels("dequantise", levels)
    if isinstance(levels, np.ndarray):
        return levels.astype(np.float32) * np.float32(2 * bound / 255) - np.float32(bound)
    return levels.float().mul_(2 * bound / 255).sub_(bound)


def _check_bound(bound: float) -> None:
    if not (math.isfinite(bound) and bound > 0):
        raise UsageError(f"The flow bound must be a positive number of pixels, got {bound!r}; TSN uses 20.")


def _check_levels(function: str, levels: np.ndarray | Tensor) -> None:
    if str(levels.dtype).removeprefix("torch.") != "uint8":
        raise UsageError(f"{function} takes quantised flow (uint8), got {levels.dtype}; call quantise first.")
