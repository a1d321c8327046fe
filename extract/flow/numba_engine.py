# mypy: allow-untyped-defs, allow-incomplete-defs
# numba infers the kernels' types from the call
"""TV-L1 compiled by numba: one fused float32 sweep per iteration, one thread per call, the GIL released.

Row y's primal update and row y-1's dual update share one pass over the image, in place: the primal update of a row
needs the dual of the row above *before* its update, the dual update of a row needs the flow of the row below *after*
its own. One row and one column of padding keep the borders free of branches. Stops early as OpenCV does, unless the
preset says stop="fixed".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from .preset import TVL1Preset
from .scales import linear_taps, scale_shapes

# No kernel calls another compiled one: what LLVM makes of a callee differs between a fresh compilation and numba's
# cache, and with `fastmath` so do the last bits of the flow.
_jit = njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
_inline = njit(nogil=True, fastmath=True, error_model="numpy", cache=True, inline="always")
# float32 constants: a Python float would promote whole loops to float64
_ONE, _HALF, _ZERO, _EPSILON = np.float32(1), np.float32(0.5), np.float32(0), np.float32(np.finfo(np.float32).eps)
_A, _GRID = np.float32(-0.75), np.float32(32)
_BEFORE, _AFTER = 5, 7  # pixels that the taps of a position in -4..size + 4 reach beyond an image


def flow(first: np.ndarray, second: np.ndarray, preset: TVL1Preset) -> np.ndarray:
    """Flow of a batch of pairs: two (B, H, W) uint8, or float32 in 0..255 -> (B, 2, H, W) float32, pixels."""
    fields = np.empty((len(first), 2, *first.shape[1:]), np.float32)
    for field, one, two in zip(fields, first, second, strict=True):
        images = [np.ascontiguousarray(frame, dtype=np.float32) for frame in (one, two)]
        field[:] = _pair(images[0], images[1], preset)
    return fields


def _pair(first: np.ndarray, second: np.ndarray, preset: TVL1Preset) -> np.ndarray:
    shapes = scale_shapes((first.shape[0], first.shape[1]), scales=preset.scales, step=preset.step)
    pyramid = [(first, second)]
    for shape in shapes[1:]:
        one, two = pyramid[-1]
        pyramid.append((_resize(one, shape, 1 / preset.step), _resize(two, shape, 1 / preset.step)))
    field: np.ndarray = np.zeros((2, *shapes[-1]), np.float32)
    for (one, two), shape in zip(reversed(pyramid), reversed(shapes), strict=True):
        if field.shape[1:] != shape:
            field = np.stack([_resize(component, shape) for component in field]) / np.float32(preset.step)
        field = _one_scale(one, two, field, preset)
    return field


def _resize(image: np.ndarray, shape: tuple[int, int], ratio: float | None = None) -> np.ndarray:
    rows = linear_taps(image.shape[0], shape[0], ratio or image.shape[0] / shape[0])
    columns = linear_taps(image.shape[1], shape[1], ratio or image.shape[1] / shape[1])
    return _interpolate(image, *rows, *columns)


def _one_scale(first: np.ndarray, second: np.ndarray, field: np.ndarray, preset: TVL1Preset) -> np.ndarray:
    height, width = first.shape
    u = np.zeros((2, height + 1, width + 1), np.float32)  # padded below and right
    u[:, :height, :width] = field
    p = np.zeros((2, 2, height + 1, width + 1), np.float32)  # component, direction; padded above and left, with zeros
    gx, gy = np.empty_like(first), np.empty_like(first)
    _centred_gradient(second, gx, gy)
    wx, wy, rho, inverse = (np.empty_like(first) for _ in range(4))
    early = preset.stops_early("numba")
    limit = preset.max_iterations if early else preset.iterations
    threshold = preset.epsilon**2 * height * width if early else -1.0
    planes = (u[0], u[1], p[0, 0], p[0, 1], p[1, 0], p[1, 1])
    constants = (
        np.float32(preset.lambda_ * preset.theta), np.float32(preset.theta), np.float32(preset.tau / preset.theta),
    )  # fmt: skip
    outside: Any = "edge" if preset.interpolation == "exact" else "constant"
    second, gx, gy = (np.pad(plane, (_BEFORE, _AFTER), mode=outside) for plane in (second, gx, gy))
    rounded = preset.interpolation == "opencv4"
    for _ in range(preset.warps):
        _warp(first, second, gx, gy, u[0], u[1], rounded, wx, wy, rho, inverse)
        if not preset.median:
            _iterate(*planes, wx, wy, rho, inverse, limit, threshold, *constants)
            continue
        change = math.inf
        for start in range(0, limit, preset.median_every):
            if change <= threshold:
                break
            _filter_median(u[:, :height, :width], preset.median)
            rounds = min(preset.median_every, limit - start)
            change = _iterate(*planes, wx, wy, rho, inverse, rounds, threshold, *constants)
    return np.ascontiguousarray(u[:, :height, :width])


def _filter_median(field: np.ndarray, side: int) -> None:
    import cv2

    for component in field:
        component[:] = cv2.medianBlur(np.ascontiguousarray(component), side)


@_jit
def _interpolate(image, top, bottom, row_weight, left, right, column_weight):
    out = np.empty((top.size, left.size), np.float32)
    row = np.empty(image.shape[1], np.float32)
    for y in range(top.size):
        upper, lower, weight = top[y], bottom[y], row_weight[y]
        for x in range(row.size):
            row[x] = image[upper, x] + (image[lower, x] - image[upper, x]) * weight
        for x in range(left.size):
            out[y, x] = row[left[x]] + (row[right[x]] - row[left[x]]) * column_weight[x]
    return out


@_jit
def _centred_gradient(image, gx, gy):
    height, width = image.shape
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            gy[y, x] = _HALF * (image[below, x] - image[above, x])
        for x in range(1, width - 1):
            gx[y, x] = _HALF * (image[y, x + 1] - image[y, x - 1])
        gx[y, 0] = _HALF * (image[y, 1] - image[y, 0])
        gx[y, width - 1] = _HALF * (image[y, width - 1] - image[y, width - 2])


@_inline
def _cubic(t):
    s = _ONE - t
    before, after = _A * t * s * s, _A * s * t * t
    here = ((_A + np.float32(2)) * t - (_A + np.float32(3))) * t * t + _ONE
    return before, here, _ONE - before - here - after, after


@_inline
def _taps(plane, y, x, a, b):
    value = _ZERO
    for j in range(np.uintp(4)):
        value += b[j] * (
            a[0] * plane[y + j, x]
            + a[1] * plane[y + j, x + np.uintp(1)]
            + a[2] * plane[y + j, x + np.uintp(2)]
            + a[3] * plane[y + j, x + np.uintp(3)]
        )
    return value


@_jit
def _warp(first, second, gx, gy, u0, u1, rounded, wx, wy, rho, inverse):
    """Sample `second` and its gradient where the flow points; linearise the data term there.

    `second`, `gx` and `gy` are padded by _BEFORE and _AFTER: no tap of a clipped position lies outside of them.
    Three loops per row: only the middle one, which gathers, cannot be vectorised.
    """
    height, width = first.shape
    weights, corners = np.empty((8, width), np.float32), np.empty((2, width), np.int32)
    for y in range(height):
        for x in range(width):
            # far outside all taps are border anyway
            px = min(max(np.float32(x) + u0[y, x], np.float32(-4)), np.float32(width + 4))
            py = min(max(np.float32(y) + u1[y, x], np.float32(-4)), np.float32(height + 4))
            if rounded:
                px, py = np.rint(px * _GRID) / _GRID, np.rint(py * _GRID) / _GRID
            fx, fy = np.floor(px), np.floor(py)
            weights[0, x], weights[1, x], weights[2, x], weights[3, x] = _cubic(px - fx)
            weights[4, x], weights[5, x], weights[6, x], weights[7, x] = _cubic(py - fy)
            corners[0, x], corners[1, x] = np.int32(fx) - 1 + _BEFORE, np.int32(fy) - 1 + _BEFORE
        for x in range(width):
            a = (weights[0, x], weights[1, x], weights[2, x], weights[3, x])
            b = (weights[4, x], weights[5, x], weights[6, x], weights[7, x])
            ix, iy = np.uintp(corners[0, x]), np.uintp(corners[1, x])  # unsigned: no wrapping of negative indices
            rho[y, x] = _taps(second, iy, ix, a, b)
            wx[y, x] = _taps(gx, iy, ix, a, b)
            wy[y, x] = _taps(gy, iy, ix, a, b)
        for x in range(width):
            vx, vy = wx[y, x], wy[y, x]
            rho[y, x] -= vx * u0[y, x] + vy * u1[y, x] + first[y, x]
            square = vx * vx + vy * vy
            inverse[y, x] = _ONE / square if square > _EPSILON else _ZERO


@_jit
def _iterate(u0, u1, p00, p01, p10, p11, wx, wy, rho, inverse, limit, threshold, bound, theta, step):
    """At most `limit` iterations, until the summed squared change is not above `threshold`; the last change."""
    # planes as separate 2-D arguments: LLVM vectorises these loops only when it can tell the arrays apart
    height, width = rho.shape
    change = np.float32(np.inf)
    for _ in range(limit):
        change = _ZERO
        for y in range(height + 1):
            if y < height:
                for x in range(width):  # primal update of row y; its dual lies in padded row y + 1
                    a, b = u0[y, x], u1[y, x]
                    push = -(rho[y, x] + wx[y, x] * a + wy[y, x] * b) * inverse[y, x]
                    push = min(max(push, -bound), bound)
                    d0 = push * wx[y, x] + theta * (
                        p00[y + 1, x + 1] - p00[y + 1, x] + p01[y + 1, x + 1] - p01[y, x + 1]
                    )  # fmt: skip
                    d1 = push * wy[y, x] + theta * (
                        p10[y + 1, x + 1] - p10[y + 1, x] + p11[y + 1, x + 1] - p11[y, x + 1]
                    )  # fmt: skip
                    u0[y, x] = a + d0
                    u1[y, x] = b + d1
                    change += d0 * d0 + d1 * d1
                u0[y, width], u1[y, width] = u0[y, width - 1], u1[y, width - 1]
            else:
                for x in range(width):
                    u0[y, x], u1[y, x] = u0[y - 1, x], u1[y - 1, x]
            if y > 0:
                for x in range(width):  # dual update of row y - 1
                    a, b = u0[y - 1, x + 1] - u0[y - 1, x], u0[y, x] - u0[y - 1, x]
                    scale = _ONE / (_ONE + step * np.sqrt(a * a + b * b))
                    p00[y, x + 1] = (p00[y, x + 1] + step * a) * scale
                    p01[y, x + 1] = (p01[y, x + 1] + step * b) * scale
                    a, b = u1[y - 1, x + 1] - u1[y - 1, x], u1[y, x] - u1[y - 1, x]
                    scale = _ONE / (_ONE + step * np.sqrt(a * a + b * b))
                    p10[y, x + 1] = (p10[y, x + 1] + step * a) * scale
                    p11[y, x + 1] = (p11[y, x + 1] + step * b) * scale
        if change <= threshold:
            break
    return change
