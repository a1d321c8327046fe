"""The parameters of TV-L1 and the three named sets of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ...errors import UnknownNameError, UsageError

CPU_ENGINES = ("numba", "opencv")
"""Engines that run on the CPU, where frames are decoded; the others run in the worker, on its device."""
EARLY_STOPPING = frozenset({"numba", "opencv"})
"""Engines that can end a warp when the flow has settled; the others run a fixed number of iterations."""


@dataclass(frozen=True, kw_only=True)
class TVL1Preset:
    """Parameters of TV-L1 (Zach, Pock, Bischof 2007), named as in OpenCV.

    Raises
    ------
    UsageError
        If a value is outside its range.
    """

    tau: float = 0.25  # step of the dual update; converges up to 0.25
    lambda_: float = 0.15  # weight of the data term: smaller is smoother
    theta: float = 0.3  # coupling of the two sub-problems
    scales: int = 5  # of the pyramid at most; it ends before an image side falls below 16 pixels
    step: float = 0.8  # size of a scale relative to the next finer one
    warps: int = 5  # linearisations per scale
    stop: Literal["auto", "early", "fixed"] = "auto"  # auto: early where the engine can (numba, opencv), else fixed
    epsilon: float = 0.01  # early stop: root mean square change of the flow in one iteration, pixels
    max_iterations: int = 300  # early stop: iterations per warp at most
    iterations: int = 30  # fixed: iterations per warp; 0.3 of an 8-bit level from early stopping on real pairs
    median: Literal[0, 3, 5] = 0  # side of the median filter on the flow; 0 = none
    median_every: int = 30  # iterations between two median filterings, the first before iteration 0
    interpolation: Literal["exact", "opencv5", "opencv4"] = "exact"  # of the warp, always bicubic with a = -0.75
    # exact: at the exact position, the frame's border repeated outside, as OpenCV's CUDA code does
    # opencv5: as cv2.remap since OpenCV 5: at the exact position, zero outside
    # opencv4: as cv2.remap before: at positions rounded to 1/32 pixel, zero outside

    def __post_init__(self) -> None:
        for name in ("tau", "lambda_", "theta", "epsilon"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"TV-L1: {name} must be a positive number, got {value!r}.")
        for name in ("scales", "warps", "max_iterations", "iterations", "median_every"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1):
                raise UsageError(f"TV-L1: {name} must be a whole number of at least 1, got {value!r}.")
        if not 0 < self.step < 1:
            raise UsageError(f"TV-L1: step must lie between 0 and 1, got {self.step!r}; TSN uses 0.8.")
        for name, choices in (
            ("stop", ("auto", "early", "fixed")),
            ("median", (0, 3, 5)),
            ("interpolation", ("exact", "opencv5", "opencv4")),
        ):
            if getattr(self, name) not in choices:
                raise UsageError(f"TV-L1: {name} must be one of {choices}, got {getattr(self, name)!r}.")

    def stops_early(self, engine: str) -> bool:
        """Whether `engine` ends a warp early under this preset.

        Raises
        ------
        UsageError
            If the preset demands early stopping and the engine has none.
        """
        if self.stop == "early" and engine not in EARLY_STOPPING:
            raise UsageError(
                f"TV-L1: the engine {engine!r} runs a fixed number of iterations; "
                f"use stop='auto' or 'fixed', or an engine of {sorted(EARLY_STOPPING)}."
            )
        return self.stop != "fixed" and engine in EARLY_STOPPING


PRESETS = {
    "tsn": TVL1Preset(),
    "opencv": TVL1Preset(median=5, interpolation="opencv5"),
    "fast": TVL1Preset(step=0.5, scales=4),
}
"""tsn: what TSN's extraction tools run (OpenCV's CUDA defaults); 0.03 pixels from OpenCV's CPU code on typical pairs,
more at the borders when the camera jerks, where that code warps in zeros and this preset the frame's border.
opencv: OpenCV's CPU defaults. fast: half the time of tsn and closer to the truth, by far on motions above 5 pixels, but
not the flow that published temporal networks were trained on."""


def find_preset(preset: str | TVL1Preset) -> TVL1Preset:
    """The preset of that name, or `preset` itself if it is one already.

    Raises
    ------
    UnknownNameError
        If there is no preset of that name.
    """
    if isinstance(preset, TVL1Preset):
        return preset
    if preset not in PRESETS:
        raise UnknownNameError("TV-L1 preset", str(preset), PRESETS)
    return PRESETS[preset]
