"""`hof`: histograms of optical flow on a 7x7 grid (Laptev et al. 2008); needs no weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import UsageError
from ..flow.levels import dequantise
from .blocks import part_px, to_blocks

DIRECTIONS = 8  # over 360 degrees; bin 0 is motion to the right, bin 2 downwards
HALVES = 2


class Hof(nn.Module):
    """Block-normalised histograms of flow directions, one block of 2x2 of them per grid cell.

    Each vector votes with its length in pixels for its two nearest of eight directions; a vector shorter than
    `still_px` votes with 1 for a ninth bin instead, as in Wang et al. 2013. The first and the second half of the
    stack have histograms of their own, each the mean over its fields and pixels; the block of 2 x 2 x 2 x 9 values is
    normalised by L2-Hys, as HOG's are, so that the ninth bin also tells how fast the rest is.

    There are only 256 x 256 different vectors on 8 bits: their votes are a table, and the histograms sums of its rows.

    Parameters
    ----------
    bound_px : velocity, in pixels a frame, that the values 0 and 255 stand for
    still_px : the default lies above TV-L1's noise, the 8-bit step (0.16 pixels) and most of a hand's shaking
    """

    votes: Tensor

    def __init__(self, *, bound_px: float = 20.0, still_px: float = 1.0) -> None:
        super().__init__()
        self.settings = {"flow_bound_px": bound_px, "still_px": still_px}
        self.register_buffer("votes", _table(bound_px, still_px), persistent=False)

    def forward(self, flow: Tensor) -> Tensor:
        """(b, S, S, 2L) uint8 x0, y0, x1, y1, ... -> (b, 72, 7, 7) float32; S a multiple of 14, L even."""
        b, S, _, channels = flow.shape
        side = part_px(S, "hof")
        if channels % (2 * HALVES):
            raise UsageError(f"Backbone 'hof' halves the stack in time: {channels} channels are no whole halves.")
        parts, fields = S // side, channels // 2 // HALVES
        vectors = (
            flow.contiguous().view(torch.int16).to(torch.int32) & 0xFFFF
        )  # x and y beside each other are one row's number
        vectors = vectors.view(b, parts, side, parts, side, HALVES, fields).permute(0, 1, 3, 5, 2, 4, 6)
        vectors = vectors.reshape(b * parts * parts * HALVES, side * side * fields)
        cells = functional.embedding_bag(vectors, self.votes, mode="sum") / vectors.shape[1]
        cells = cells.view(b, parts, parts, HALVES * (DIRECTIONS + 1)).permute(0, 3, 1, 2)
        return to_blocks(cells)


def _table(bound_px: float, still_px: float) -> Tensor:
    """Return the votes [65536, 9] of every pair of bytes, by the 16-bit number that the pair is in memory."""
    number = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.uint8).view(-1, 2)
    x, y = dequantise(number, bound=bound_px).double().unbind(1)
    length = torch.hypot(x, y)
    position = torch.atan2(y, x) / (2 * math.pi) % 1.0 * DIRECTIONS  # in bins; bin centres at integers
    lower = position.floor()
    share = position - lower
    lower_bin = lower.long()[:, None] % DIRECTIONS
    votes = torch.zeros(1 << 16, DIRECTIONS + 1, dtype=torch.float64)
    votes.scatter_(1, lower_bin, (length * (1 - share))[:, None])
    votes.scatter_(1, (lower_bin + 1) % DIRECTIONS, (length * share)[:, None])
    still = length < still_px
    votes[still] = 0
    votes[still, DIRECTIONS] = 1
    return votes.float()
