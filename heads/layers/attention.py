"""Attention in its parts: the scoring cell of STAN, the masked softmax, the weighted sum, and maps on another grid."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttCell(nn.Module):
    """STAN eq. (2): one linear score per descriptor, `s_n = w . f_n`.

    The paper's bias b shifts all scores of one softmax alike, so it never changes a weight and never gets a gradient;
    a detector that thresholds the raw scores needs it fixed. It is frozen at 0, that is, left out.

    Parameters
    ----------
    channels : D of the descriptors
    init : "normal" draws w from N(0, 0.01^2); "zeros" starts as plain averaging
    """

    def __init__(self, channels: int, *, init: str = "normal") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        if init == "normal":
            nn.init.normal_(self.weight, std=0.01)

    def forward(self, descriptors: Tensor) -> Tensor:
        """[..., L, D] -> [..., L], unnormalised."""
        return descriptors @ self.weight


def attention_weights(scores: Tensor, valid: Tensor | None = None) -> Tensor:
    """Softmax over the last axis: STAN eqs. (1), (4) and (7).

    Parameters
    ----------
    scores : [..., L] floating
    valid : [..., L] bool; padding is False and gets weight exactly 0. None = all valid

    Returns
    -------
    [..., L], same dtype as `scores`

    Raises
    ------
    ValueError
        If a row has no valid position: its softmax would be NaN.
    """
    if valid is None:
        return scores.softmax(-1)
    if not bool(valid.any(-1).all().item()):
        raise ValueError("attention over nothing: a row has no valid position")
    return scores.masked_fill(~valid, -torch.inf).softmax(-1)


def attention_pool(descriptors: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of descriptors: STAN eqs. (5) and (8).

    Parameters
    ----------
    descriptors : [B, L, D] floating; must be finite even where the weight is 0
    weights : [B, L], same dtype

    Returns
    -------
    [B, D]
    """
    return torch.bmm(weights.unsqueeze(1), descriptors).squeeze(1)  # [B, 1, L] x [B, L, D]


def resample_maps(maps: Tensor, *, grid: int) -> Tensor:
    """Lay maps on another grid over the same picture; every cell's mass is shared out by overlapping area.

    Parameters
    ----------
    maps : [..., k, k] floating
    grid : K, the new number of cells a side

    Returns
    -------
    [..., K, K] with the same sum as `maps`
    """
    k = maps.shape[-1]
    if k == grid:
        return maps
    target = torch.arange(grid, device=maps.device, dtype=maps.dtype).unsqueeze(1) / grid  # left edges, [K, 1]
    source = torch.arange(k, device=maps.device, dtype=maps.dtype) / k  # [k]
    overlap = torch.minimum(target + 1 / grid, source + 1 / k) - torch.maximum(target, source)
    share = overlap.clamp_min(0) * k  # [K, k], each column sums to 1
    return share @ maps @ share.T
