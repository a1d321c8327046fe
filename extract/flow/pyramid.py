"""The image pyramid: its sizes and the bilinear resize between its scales, exactly as OpenCV computes them."""

from __future__ import annotations

import torch
from torch import Tensor

from .scales import linear_taps


def resize(images: Tensor, shape: tuple[int, int], *, ratio: float | None = None) -> Tensor:
    """Bilinear resize as `cv2.resize` does it: (..., H, W) float32 -> (..., *shape) float32.

    `ratio` is the number of source pixels per target pixel; None = source side / target side.
    """
    for axis, target in ((-1, shape[1]), (-2, shape[0])):
        source = images.shape[axis]
        left, right, weight = (
            torch.from_numpy(tap).to(images.device) for tap in linear_taps(source, target, ratio or source / target)
        )
        low = images.index_select(axis, left)
        images = low.lerp_(images.index_select(axis, right), weight if axis == -1 else weight[:, None])
    return images


def centred_gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Half the difference of the neighbours in x and in y, border repeated: (..., H, W) -> two of the same shape."""
    x, y = torch.empty_like(images), torch.empty_like(images)
    torch.sub(images[..., 2:], images[..., :-2], out=x[..., 1:-1])
    torch.sub(images[..., 2:, :], images[..., :-2, :], out=y[..., 1:-1, :])
    for edge, inside in ((0, 1), (-1, -2)):
        sign = 1 if edge == 0 else -1
        x[..., edge] = (images[..., inside] - images[..., edge]) * sign
        y[..., edge, :] = (images[..., inside, :] - images[..., edge, :]) * sign
    return x.mul_(0.5), y.mul_(0.5)


def median_filter(fields: Tensor, side: int) -> Tensor:
    """Median of each side x side neighbourhood, border repeated: (B, C, H, W) float32 -> the same shape."""
    half, (H, W) = side // 2, fields.shape[-2:]
    padded = torch.nn.functional.pad(fields, (half, half, half, half), mode="replicate")
    values = [padded[..., i : i + H, j : j + W] for i in range(side) for j in range(side)]
    # of more than half of all values, neither the smallest nor the largest is the median: forget both, take in the next
    # (6 times faster on a CPU than torch.median, and without its 25 copies)
    count = len(values) // 2 + 2
    kept = values[:count]
    for fresh in (*values[count:], None):
        last = len(kept) - 1
        for i in range(len(kept) // 2):
            _order(kept, i, last - i)
        for i in range(1, (len(kept) + 1) // 2):
            _order(kept, 0, i)
            _order(kept, last - i, last)
        kept = kept[1:-1] if fresh is None else [*kept[1:-1], fresh]
    return kept[0]


def _order(values: list[Tensor], low: int, high: int) -> None:
    a, b = values[low], values[high]
    values[low], values[high] = torch.minimum(a, b), torch.maximum(a, b)
