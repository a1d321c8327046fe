"""TV-L1 by OpenCV's contrib module, 20 times slower than the numba engine: the oracle of the tests and benchmarks."""

from __future__ import annotations

import numpy as np
from cv2 import optflow

from ...errors import UsageError
from .preset import TVL1Preset


def flow(first: np.ndarray, second: np.ndarray, preset: TVL1Preset) -> np.ndarray:
    """Flow of a batch of pairs: two (B, H, W) uint8, or float32 in 0..255 -> (B, 2, H, W) float32, pixels.

    `interpolation` has no effect: OpenCV always warps with its own remap, at positions rounded to 1/32 pixel.

    Raises
    ------
    UsageError
        If the iterations cannot be divided into OpenCV's rounds between median filterings.
    """
    early = preset.stops_early("opencv")
    limit = preset.max_iterations if early else preset.iterations
    inner = min(preset.median_every, limit) if preset.median else limit
    if limit % inner:
        raise UsageError(
            f"TV-L1: OpenCV filters after whole rounds; make {limit} iterations a multiple of median_every={inner}."
        )
    solver = optflow.DualTVL1OpticalFlow.create(
        tau=preset.tau,
        lambda_=preset.lambda_,
        theta=preset.theta,
        nscales=preset.scales,
        warps=preset.warps,
        epsilon=preset.epsilon if early else 0.0,
        innnerIterations=inner,  # the binding's own spelling; innerIterations raises
        outerIterations=limit // inner,
        scaleStep=preset.step,
        medianFiltering=preset.median or 1,
    )
    if first.dtype != np.uint8:
        first, second = first / np.float32(255), second / np.float32(255)  # OpenCV takes float frames in 0..1
    B, H, W = first.shape
    fields = np.empty((B, H, W, 2), np.float32)
    for field, one, two in zip(fields, first, second, strict=True):
        field[:] = solver.calc(np.ascontiguousarray(one), np.ascontiguousarray(two), np.empty((H, W, 2), np.float32))
    return np.ascontiguousarray(fields.transpose(0, 3, 1, 2))
