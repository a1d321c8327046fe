"""What the hand-made descriptors share: histograms of a frame's parts become the normalised blocks of a 7x7 grid."""

from __future__ import annotations

from torch import Tensor

from ...errors import UsageError

GRID = 7
"""K, cells a side of the cube."""
PARTS = 2
"""Histogram cells a side of one block."""
CLIP = 0.2  # of Dalal and Triggs' L2-Hys
EPSILON = 1e-2  # gradients are on a 0..1 scale; keeps flat blocks near zero instead of amplifying noise


def part_px(side_px: int, name: str, *, steps: int = 1) -> int:
    """Return the side of one histogram cell in units of which it has `steps`, in pixels.

    Raises
    ------
    UsageError
        If the input cannot be cut evenly.
    """
    parts = GRID * PARTS * steps
    if side_px % parts:
        raise UsageError(
            f"Backbone {name!r} cuts its input into {parts}x{parts} squares: a crop of {side_px} pixels is no multiple "
            f"of {parts}; use --crop 224."
        )
    return side_px // parts


def to_blocks(cells: Tensor) -> Tensor:
    """Gather the 2x2 histograms of each grid cell into one block and normalise it by L2-Hys (Dalal and Triggs 2005).

    Parameters
    ----------
    cells : (b, N, K * 2, K * 2) floating, non-negative

    Returns
    -------
    (b, 4 * N, K, K): upper left, upper right, lower left, lower right histogram
    """
    b, N = cells.shape[:2]
    blocks = cells.reshape(b, N, GRID, PARTS, GRID, PARTS).permute(0, 3, 5, 1, 2, 4)
    blocks = blocks.reshape(b, PARTS * PARTS * N, GRID, GRID)
    blocks = blocks / (blocks.square().sum(1, keepdim=True) + EPSILON**2).sqrt()
    blocks = blocks.clamp(max=CLIP)
    return blocks / (blocks.square().sum(1, keepdim=True) + EPSILON**2).sqrt()
