"""The sizes of the image pyramid and the taps of its bilinear resize, exactly as OpenCV computes them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SMALLEST_SIDE = 16
"""OpenCV adds no scale with a side below this many pixels."""


def scale_shapes(shape: tuple[int, int], *, scales: int, step: float) -> list[tuple[int, int]]:
    """Heights and widths of the pyramid in pixels, finest first; always at least the image itself."""
    shapes = [shape]
    while len(shapes) < scales:
        # round() and OpenCV's cvRound both round halves to even
        height, width = round(shapes[-1][0] * step), round(shapes[-1][1] * step)
        if min(height, width) < SMALLEST_SIDE:
            break
        shapes.append((height, width))
    return shapes


@lru_cache(maxsize=256)
def linear_taps(source: int, target: int, ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each of `target` samples lies between two of `source` samples, pixel centres at halves.

    Parameters
    ----------
    source, target : numbers of samples
    ratio : source samples per target sample. Not always source / target: OpenCV's pyramid keeps 1 / step exactly.

    Returns
    -------
    left : (target,) int64
    right : (target,) int64
    weight : (target,) float32 in 0..1, the share of `right`
    """
    position = ((np.arange(target) + 0.5) * ratio - 0.5).astype(np.float32)
    left = np.floor(position).astype(np.int64)
    weight = position - left.astype(np.float32)
    weight[(left < 0) | (left >= source - 1)] = 0
    left = left.clip(0, source - 1)
    return left, (left + 1).clip(max=source - 1), weight
