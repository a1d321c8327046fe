"""TV-L1 in plain PyTorch: in place, batched, a fixed number of iterations per warp; CPU and CUDA.

Always available, and the reference that the other engines are tested against. No early stop: it would need the host
to wait for the device in every iteration, and 30 fixed iterations differ from it by 0.3 of an 8-bit level.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .preset import TVL1Preset
from .pyramid import centred_gradient, median_filter, resize
from .scales import scale_shapes

CHUNK_PIXELS = 1 << 23
"""Pixels of a CUDA batch solved at once: about 1 GiB of planes, 2 GiB with a median filter."""


@torch.no_grad()
def flow(first: Tensor, second: Tensor, preset: TVL1Preset) -> Tensor:
    """Flow of a batch of pairs: two (B, H, W) float32 in 0..255 -> (B, 2, H, W) float32, pixels, on their device."""
    preset.stops_early("torch")
    # one pair at a time on the CPU: its planes stay in the cache, a batch's would not
    together = max(1, CHUNK_PIXELS // first[0].numel()) if first.is_cuda else 1
    chunks = zip(first.split(together), second.split(together), strict=True)
    return torch.cat([_chunk(one, two, preset) for one, two in chunks])


def _chunk(first: Tensor, second: Tensor, preset: TVL1Preset) -> Tensor:
    shapes = scale_shapes((first.shape[1], first.shape[2]), scales=preset.scales, step=preset.step)
    pyramid = [torch.stack([first, second])]
    for shape in shapes[1:]:
        pyramid.append(resize(pyramid[-1], shape, ratio=1 / preset.step))
    field = first.new_zeros(len(first), 2, *shapes[-1])
    for images, shape in zip(reversed(pyramid), reversed(shapes), strict=True):
        if field.shape[2:] != shape:
            field = resize(field, shape) / preset.step
        field = _one_scale(images[0], images[1], field, preset)
    return field


def _one_scale(first: Tensor, second: Tensor, u: Tensor, preset: TVL1Preset) -> Tensor:
    B, _, H, W = u.shape
    bound, step = preset.lambda_ * preset.theta, preset.tau / preset.theta
    v = u * step  # the flow in units of the dual step: saves a multiplication per pixel and iteration
    left, right, above, below = v[..., :-1], v[..., 1:], v[..., :-1, :], v[..., 1:, :]
    # the dual, direction first, padded with zeros above and left, so that the backward differences need no border case;
    # the last column of its x part and the last row of its y part never leave zero
    p = u.new_zeros(2, B, 2, H + 1, W + 1)
    inner = p[..., 1:, 1:]
    divergence = (
        (inner[0], preset.tau), (p[0, ..., 1:, :-1], -preset.tau),
        (inner[1], preset.tau), (p[1, ..., :-1, 1:], -preset.tau),
    )  # fmt: skip
    slopes, norm, push = u.new_zeros(2, B, 2, H, W), torch.empty_like(u), torch.empty_like(first)
    slope_x, slope_y = slopes[0, ..., :-1], slopes[1, ..., :-1, :]
    planes = _padded(torch.stack([second, *centred_gradient(second)], dim=1), preset)
    for _ in range(preset.warps):
        gradient, rho, inverse = _linearise(first, planes, v / step, preset)
        # push = clamp(-(rho + gradient . u) / |gradient|^2, -bound, bound) as offset + weight . v
        offset, weight = rho.mul_(inverse.neg_()), gradient * (inverse / step)[:, None]
        gradient *= step
        (weight_x, weight_y), (v_x, v_y) = weight.unbind(1), v.unbind(1)
        for iteration in range(preset.iterations):
            if preset.median and iteration % preset.median_every == 0:
                v.copy_(median_filter(v, preset.median))
            torch.addcmul(offset, weight_x, v_x, out=push).addcmul_(weight_y, v_y).clamp_(-bound, bound)
            v.addcmul_(gradient, push[:, None])
            for part, factor in divergence:
                v.add_(part, alpha=factor)
            torch.sub(right, left, out=slope_x)
            torch.sub(below, above, out=slope_y)
            torch.mul(slopes[0], slopes[0], out=norm).addcmul_(slopes[1], slopes[1]).sqrt_().add_(1)
            inner.add_(slopes).div_(norm)
    return v.div_(step)


def _padded(planes: Tensor, preset: TVL1Preset) -> Tensor:
    """Planes continued to the right and below until each side is a power of two plus one.

    `grid_sample` scales positions to -1..1 and back. With such sides that is exact for whole pixels, so that equal
    frames have no flow; with others, rounding grows from warp to warp, at the borders to pixels if zeros lie outside.
    """
    H, W = planes.shape[-2:]
    beyond = [2 ** math.ceil(math.log2(side - 1)) + 1 - side for side in (W, H)]
    mode = "replicate" if preset.interpolation == "exact" else "constant"
    return torch.nn.functional.pad(planes, (0, beyond[0], 0, beyond[1]), mode=mode)


def _linearise(first: Tensor, planes: Tensor, u: Tensor, preset: TVL1Preset) -> tuple[Tensor, Tensor, Tensor]:
    """The data term around the flow `u`.

    Parameters
    ----------
    first : (B, H, W) float32, the first image
    planes : (B, 3, >= H, >= W) float32, the second image and its gradient in x and y, padded
    u : (B, 2, H, W) float32, pixels

    Returns
    -------
    gradient : (B, 2, H, W) float32, of the second image where the flow points
    rho : (B, H, W) float32, residual = rho + gradient . u
    inverse : (B, H, W) float32, 1 / |gradient|^2, 0 where the gradient vanishes
    """
    shift = (u * 32).round_() / 32 if preset.interpolation == "opencv4" else u
    grid = u.new_empty(*first.shape, 2)
    for axis, (side, padded) in enumerate(zip(first.shape[:0:-1], planes.shape[:1:-1], strict=True)):
        scale = 2 / (padded - 1)
        pixels = torch.arange(side, dtype=u.dtype, device=u.device).mul_(scale).sub_(1)
        torch.add(pixels if axis == 0 else pixels[:, None], shift[:, axis], alpha=scale, out=grid[..., axis])
    outside = "border" if preset.interpolation == "exact" else "zeros"
    warped = torch.nn.functional.grid_sample(planes, grid, mode="bicubic", padding_mode=outside, align_corners=True)
    gradient = warped[:, 1:].contiguous()
    rho = warped[:, 0] - (gradient * u).sum(1) - first
    square = gradient.square().sum(1)
    inverse = torch.where(square > torch.finfo(square.dtype).eps, square.reciprocal(), 0.0)
    return gradient, rho, inverse
