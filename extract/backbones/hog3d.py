"""`hog3d`: histograms of space-time gradients on a 7x7 grid, after Klaeser et al. 2008; needs no weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import GRID, PARTS, part_px, to_blocks

HALVES = 2
STEPS = 2  # sub-blocks a side of a histogram cell
LUMA = (0.299, 0.587, 0.114)


class Hog3d(nn.Module):
    """Block-normalised histograms of gradients in x, y and time, one block of 2x2 of them per grid cell.

    As in the paper, gradients are those of means over sub-blocks: here 28x28 squares a frame (8 pixels at 224), every
    frame for itself, brightness only, in units of one sub-block and one frame: a contrast that moves a sub-block a
    frame lies at 45 degrees. Each gradient is quantised on the axes of an icosahedron's faces: its projections on them
    less the cosine between neighbouring axes, negative ones dropped, scaled back to the gradient's length. Opposite
    faces are one axis (10 bins): a bright thing on dark ground and a dark one on bright ground that move alike vote
    alike, which is what tells motions apart; the direction of motion survives, the sign of the contrast does not. The
    halves of the clip have histograms of their own: 2 x 2 x 2 x 10 values, normalised by L2-Hys.
    """

    axes: Tensor

    def __init__(self) -> None:
        super().__init__()
        axes = icosahedron_axes()
        self.register_buffer("axes", axes, persistent=False)
        cosines = (axes @ axes.T).abs()
        self._threshold = float(cosines[~torch.eye(len(axes), dtype=torch.bool)].max())

    def forward(self, clips: Tensor) -> Tensor:
        """(b, T, S, S, 3) uint8 RGB -> (b, 80, 7, 7) float32; S a multiple of 28, T even."""
        # clip by clip: a batch of floats does not fit a CPU's cache and takes nearly three times as long
        return to_blocks(torch.stack([self._histograms(clip) for clip in clips]))

    def _histograms(self, clip: Tensor) -> Tensor:
        """(T, S, S, 3) uint8 -> (2 * 10, 14, 14)."""
        T, S, _, _ = clip.shape
        side = part_px(S, "hog3d", steps=STEPS)
        n = S // side
        weights = torch.tensor(LUMA, device=clip.device).repeat(side) / (255 * side * side)
        rows = clip.reshape(T * n * side * n, side * 3).float() @ weights  # sums along x and over the colours
        means = rows.view(1, T, n, side, n).sum(3)
        padded = functional.pad(means[None], (1,) * 6, mode="replicate")[0, 0]
        dx = padded[1:-1, 1:-1, 2:] - padded[1:-1, 1:-1, :-2]
        dy = padded[1:-1, 2:, 1:-1] - padded[1:-1, :-2, 1:-1]
        dt = padded[2:, 1:-1, 1:-1] - padded[:-2, 1:-1, 1:-1]
        gradients = torch.stack([dx, dy, dt], dim=-1)  # [T, n, n, 3]
        length = gradients.norm(dim=-1, keepdim=True)
        votes = ((gradients @ self.axes.T).abs() - self._threshold * length).clamp(min=0)
        votes = votes * (length / votes.norm(dim=-1, keepdim=True).clamp(min=1e-12))
        parts, N = GRID * PARTS, len(self.axes)
        cells = votes.view(HALVES, T // HALVES, parts, STEPS, parts, STEPS, N).mean((1, 3, 5))  # [2, 14, 14, N]
        return cells.permute(0, 3, 1, 2).reshape(HALVES * N, parts, parts)


def icosahedron_axes() -> Tensor:
    """Return the unit vectors [10, 3] through opposite faces of an icosahedron, which are a dodecahedron's corners."""
    golden = (1 + 5**0.5) / 2
    corners = [(1.0, y, t) for y in (1.0, -1.0) for t in (1.0, -1.0)]
    for sign in (1, -1):
        a, c = 1 / golden, sign * golden
        corners += [(0.0, a, c), (a, c, 0.0), (c, 0.0, a)]
    axes = torch.tensor(corners)
    return axes / axes.norm(dim=1, keepdim=True)
