# mypy: allow-untyped-defs, allow-incomplete-defs
# kernel arguments have Triton's types
"""TV-L1 as two Triton kernels for CUDA: one launch per warp, one per iteration, no host synchronisation.

The iteration kernel recomputes the primal update of the right and the lower neighbour, which the dual update of a
pixel needs; reading one buffer and writing another, it has no race. Iterations are fixed, as in the torch engine.

Its arithmetic is tested against the torch engine in Triton's interpreter, and the kernels compile for compute
capability 9.0. Its speed has not been measured on a GPU; `CHUNK_BYTES`, `BLOCK` and the number of warps are untuned.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .preset import TVL1Preset
from .pyramid import centred_gradient, median_filter, resize
from .scales import scale_shapes

BLOCK = 512
"""Pixels per program."""

CHUNK_BYTES = 48 << 20
"""Working set of the pairs that are iterated together: 64 bytes per pixel and pair should stay in the L2 cache."""


@triton.jit
def _primal(u, p, gradient, rho, inverse, i, x, y, W, plane, inside, bound, theta):
    """Flow after the primal update at flat pixel `i` = (y, x), from the state before the iteration."""
    u0 = tl.load(u + i, mask=inside, other=0.0)
    u1 = tl.load(u + plane + i, mask=inside, other=0.0)
    wx = tl.load(gradient + i, mask=inside, other=0.0)
    wy = tl.load(gradient + plane + i, mask=inside, other=0.0)
    push = -(tl.load(rho + i, mask=inside, other=0.0) + wx * u0 + wy * u1)
    push = push * tl.load(inverse + i, mask=inside, other=0.0)
    push = tl.minimum(tl.maximum(push, -bound), bound)
    left, above = inside & (x > 0), inside & (y > 0)
    d0 = tl.load(p + i, mask=inside, other=0.0) - tl.load(p + i - 1, mask=left, other=0.0)
    d0 += tl.load(p + plane + i, mask=inside, other=0.0) - tl.load(p + plane + i - W, mask=above, other=0.0)
    p += 2 * plane
    d1 = tl.load(p + i, mask=inside, other=0.0) - tl.load(p + i - 1, mask=left, other=0.0)
    d1 += tl.load(p + plane + i, mask=inside, other=0.0) - tl.load(p + plane + i - W, mask=above, other=0.0)
    return u0 + push * wx + theta * d0, u1 + push * wy + theta * d1


@triton.jit
def _dual(p, p_out, i, plane, inside, gx, gy, step):
    scale = 1.0 / (1.0 + step * tl.sqrt(gx * gx + gy * gy))
    tl.store(p_out + i, (tl.load(p + i, mask=inside, other=0.0) + step * gx) * scale, mask=inside)
    tl.store(p_out + plane + i, (tl.load(p + plane + i, mask=inside, other=0.0) + step * gy) * scale, mask=inside)


@triton.jit
def _iteration_kernel(
    u, p, u_out, p_out, gradient, rho, inverse, H, W, bound, theta, step, BLOCK: tl.constexpr
):  # fmt: skip
    # u (B, 2, H, W); p (B, component, direction, H, W); gradient (B, 2, H, W); rho, inverse (B, H, W)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    plane = H * W
    pair = tl.program_id(1).to(tl.int64) * plane
    u, u_out, gradient = u + 2 * pair, u_out + 2 * pair, gradient + 2 * pair
    p, p_out, rho, inverse = p + 4 * pair, p_out + 4 * pair, rho + pair, inverse + pair
    inside = i < plane
    y = i // W
    x = i - y * W
    right, below = inside & (x + 1 < W), inside & (y + 1 < H)
    u0, u1 = _primal(u, p, gradient, rho, inverse, i, x, y, W, plane, inside, bound, theta)
    r0, r1 = _primal(u, p, gradient, rho, inverse, i + 1, x + 1, y, W, plane, right, bound, theta)
    b0, b1 = _primal(u, p, gradient, rho, inverse, i + W, x, y + 1, W, plane, below, bound, theta)
    tl.store(u_out + i, u0, mask=inside)
    tl.store(u_out + plane + i, u1, mask=inside)
    _dual(p, p_out, i, plane, inside, tl.where(right, r0 - u0, 0.0), tl.where(below, b0 - u0, 0.0), step)
    p += 2 * plane
    p_out += 2 * plane
    _dual(p, p_out, i, plane, inside, tl.where(right, r1 - u1, 0.0), tl.where(below, b1 - u1, 0.0), step)


@triton.jit
def _cubic(t, k: tl.constexpr):
    """Weight of tap k of 4 (a = -0.75) at the fraction t past tap 1."""
    s = 1.0 - t
    if k == 0:
        weight = -0.75 * t * s * s
    elif k == 1:
        weight = (1.25 * t - 2.25) * t * t + 1.0
    elif k == 2:
        weight = (1.25 * s - 2.25) * s * s + 1.0
    else:
        weight = -0.75 * s * t * t
    return weight


@triton.jit
def _warp_kernel(
    first, planes, u, gradient, rho, inverse, H, W,
    ZERO_OUTSIDE: tl.constexpr, ROUNDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # first (B, H, W); planes (B, 3, H, W): second image, its gradient in x, in y; the rest as in _iteration_kernel
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    plane = H * W
    pair = tl.program_id(1).to(tl.int64) * plane
    first, planes, u, gradient = first + pair, planes + 3 * pair, u + 2 * pair, gradient + 2 * pair
    rho, inverse = rho + pair, inverse + pair
    inside = i < plane
    y = i // W
    x = i - y * W
    u0 = tl.load(u + i, mask=inside, other=0.0)
    u1 = tl.load(u + plane + i, mask=inside, other=0.0)
    # far outside all taps are border anyway; the clip keeps the conversion to int defined
    px = tl.minimum(tl.maximum(x + u0, -4.0), W + 4.0)
    py = tl.minimum(tl.maximum(y + u1, -4.0), H + 4.0)
    if ROUNDED:
        px = tl.floor(px * 32.0 + 0.5) * 0.03125
        py = tl.floor(py * 32.0 + 0.5) * 0.03125
    fx, fy = tl.floor(px), tl.floor(py)
    value = tl.zeros([BLOCK], tl.float32)
    wx = tl.zeros([BLOCK], tl.float32)
    wy = tl.zeros([BLOCK], tl.float32)
    for j in tl.static_range(4):
        row = fy.to(tl.int32) + (j - 1)
        near_row = tl.minimum(tl.maximum(row, 0), H - 1)
        for k in tl.static_range(4):
            column = fx.to(tl.int32) + (k - 1)
            near_column = tl.minimum(tl.maximum(column, 0), W - 1)
            weight = _cubic(py - fy, j) * _cubic(px - fx, k)
            if ZERO_OUTSIDE:
                weight = tl.where((row == near_row) & (column == near_column), weight, 0.0)
            at = planes + near_row * W + near_column
            value += weight * tl.load(at, mask=inside, other=0.0)
            wx += weight * tl.load(at + plane, mask=inside, other=0.0)
            wy += weight * tl.load(at + 2 * plane, mask=inside, other=0.0)
    square = wx * wx + wy * wy
    usable = square > 1.1920929e-07
    residual = value - wx * u0 - wy * u1 - tl.load(first + i, mask=inside, other=0.0)
    tl.store(gradient + i, wx, mask=inside)
    tl.store(gradient + plane + i, wy, mask=inside)
    tl.store(rho + i, residual, mask=inside)
    tl.store(inverse + i, tl.where(usable, 1.0 / tl.where(usable, square, 1.0), 0.0), mask=inside)


@torch.no_grad()
def flow(first: Tensor, second: Tensor, preset: TVL1Preset) -> Tensor:
    """Flow of a batch of pairs: two (B, H, W) float32 in 0..255 -> (B, 2, H, W) float32, pixels, on their device."""
    preset.stops_early("triton")
    shapes = scale_shapes((first.shape[1], first.shape[2]), scales=preset.scales, step=preset.step)
    pyramid = [torch.stack([first, second])]
    for shape in shapes[1:]:
        pyramid.append(resize(pyramid[-1], shape, ratio=1 / preset.step))
    field = first.new_zeros(len(first), 2, *shapes[-1])
    for images, shape in zip(reversed(pyramid), reversed(shapes), strict=True):
        if field.shape[2:] != shape:
            field = resize(field, shape) / preset.step
        # scale by scale, so that a chunk holds more pairs where they are small and no launch is tiny
        together = min(max(1, CHUNK_BYTES // (64 * shape[0] * shape[1])), 65535)  # CUDA's limit of a grid in y
        chunks = zip(images[0].split(together), images[1].split(together), field.split(together), strict=True)
        with torch.cuda.device_of(first):  # Triton launches on the current device, not on its arguments'
            field = torch.cat([_one_scale(one, two, u, preset) for one, two, u in chunks])
    return field


def _one_scale(first: Tensor, second: Tensor, u: Tensor, preset: TVL1Preset) -> Tensor:
    B, H, W = first.shape
    u, first = u.clone(memory_format=torch.contiguous_format), first.contiguous()
    p = u.new_zeros(B, 2, 2, H, W)
    u_next, p_next = torch.empty_like(u), torch.empty_like(p)
    planes = torch.stack([second, *centred_gradient(second)], dim=1)
    gradient, rho, inverse = torch.empty_like(u), torch.empty_like(first), torch.empty_like(first)
    grid = (triton.cdiv(H * W, BLOCK), B)
    constants = (preset.lambda_ * preset.theta, preset.theta, preset.tau / preset.theta)
    zero_outside, rounded = preset.interpolation != "exact", preset.interpolation == "opencv4"
    for _ in range(preset.warps):
        _warp_kernel[grid](
            first, planes, u, gradient, rho, inverse, H, W, ZERO_OUTSIDE=zero_outside, ROUNDED=rounded, BLOCK=BLOCK,
            enable_fp_fusion=True,
        )  # fmt: skip
        for iteration in range(preset.iterations):
            if preset.median and iteration % preset.median_every == 0:
                u = median_filter(u, preset.median)
            _iteration_kernel[grid](
                u, p, u_next, p_next, gradient, rho, inverse, H, W, *constants, BLOCK=BLOCK, enable_fp_fusion=True
            )
            u, u_next, p, p_next = u_next, u, p_next, p
    return u
