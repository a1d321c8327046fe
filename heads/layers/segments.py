"""The valid segments of a batch as one list, so that padding costs no computation and cannot leak into a result."""

from __future__ import annotations

import torch
from torch import Tensor


class Segments:
    """Packs `[B, T, ...]` to `[S, ...]` and back, S being the number of valid segments.

    Parameters
    ----------
    valid : [B, T] bool, True = a real segment
    """

    def __init__(self, valid: Tensor) -> None:
        self.valid = valid
        self.rows = valid.flatten().nonzero().squeeze(1)  # [S] int64

    def pack(self, padded: Tensor) -> Tensor:
        """[B, T, ...] -> [S, ...] in the order of the videos; a view if nothing is padded."""
        flat = padded.flatten(0, 1)
        return flat if len(self.rows) == len(flat) else flat.index_select(0, self.rows)

    def unpack(self, packed: Tensor) -> Tensor:
        """[S, ...] -> [B, T, ...] with zeros on padding."""
        B, T = self.valid.shape
        if len(self.rows) < B * T:
            packed = packed.new_zeros(B * T, *packed.shape[1:]).index_copy(0, self.rows, packed)
        return packed.unflatten(0, (B, T))

    def mean(self, padded: Tensor) -> Tensor:
        """[B, T, ...] with zeros on padding -> [B, ...], the mean over each video's valid segments."""
        lengths = self.valid.sum(1).reshape(-1, *(1,) * (padded.ndim - 2))
        return padded.sum(1) / lengths

    def uniform(self) -> Tensor:
        """[B, T] float32 weights 1 / length on valid segments, 0 on padding: what a plain mean attends to."""
        return self.valid / self.valid.sum(1, keepdim=True, dtype=torch.float32)
