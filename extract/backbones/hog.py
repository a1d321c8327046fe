"""`hog`: histograms of oriented gradients on a 7x7 grid (Dalal and Triggs 2005); needs no weights."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from .blocks import part_px, to_blocks

BINS = 9  # over 180 degrees


class Hog(nn.Module):
    """Block-normalised gradient histograms, one block of 2x2 of them per grid cell.

    Each pixel votes with its gradient's magnitude for its two nearest orientation bins (unsigned, 0..180 degrees; the
    colour channel with the largest gradient counts).
    """

    def forward(self, frames: Tensor) -> Tensor:
        """(b, S, S, 3) uint8 -> (b, 36, 7, 7) float32; S a multiple of 14."""
        return self.describe(frames.permute(0, 3, 1, 2).float() / 255)

    def describe(self, pixels: Tensor) -> Tensor:
        """(b, channels, S, S) float in 0..1 -> (b, 36, 7, 7)."""
        b, _, S, _ = pixels.shape
        side = part_px(S, "hog")
        padded = functional.pad(pixels, (1, 1, 1, 1), mode="replicate")
        dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        power = dx * dx + dy * dy
        power, strongest = power.max(dim=1, keepdim=True)
        dx, dy = dx.gather(1, strongest), dy.gather(1, strongest)
        magnitude = power.sqrt()
        position = dy.atan2(dx) / math.pi % 1.0 * BINS - 0.5  # in bins; bin centres at integers
        lower = position.floor()
        share = position - lower
        lower_bin = lower.long() % BINS
        votes = pixels.new_zeros(b, BINS, S, S)
        votes.scatter_(1, lower_bin, magnitude * (1 - share))
        votes.scatter_(1, (lower_bin + 1) % BINS, magnitude * share)
        return to_blocks(functional.avg_pool2d(votes, side))
