"""Streams with different grids laid over one another, cell means kept."""

from __future__ import annotations

from torch import Tensor

from .attention import resample_maps


def on_grid(maps: Tensor, *, grid: int) -> Tensor:
    """Lay feature maps or masks on another grid over the same picture: each new cell is the mean of what it covers.

    `resample_maps` keeps a map's sum, as attention needs; this keeps its values, as features and masks need.

    Parameters
    ----------
    maps : [..., k, k] floating
    grid : K, the new number of cells a side

    Returns
    -------
    [..., K, K] with the same mean as `maps`
    """
    k = maps.shape[-1]
    return maps if k == grid else resample_maps(maps, grid=grid) * (grid / k) ** 2
