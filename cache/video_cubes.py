"""One video as it lies in a stream: cubes, and the moments they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False, kw_only=True)
class VideoCubes:
    """The cubes of one view of a video; T is the length planned for it, padding comes last.

    Raises
    ------
    ValueError
        If the arrays are not of one length.
    """

    id: str  # in the dataset
    cubes: np.ndarray  # [T, K, K, D] float16; padding is 0
    frames: np.ndarray  # [T, 3] int32: first, centre, stop frame ([first, stop)), in decode order; padding is -1
    seconds: np.ndarray  # [T] float64, presentation time of the centre frame; NaN = padding or unknown
    valid: np.ndarray  # [T] bool, True = a real segment

    def __post_init__(self) -> None:
        if len({len(array) for array in (self.cubes, self.frames, self.seconds, self.valid)}) > 1:
            raise ValueError(f"the arrays contradict each other: {self!r}")

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{name}={list(getattr(self, name).shape)}" for name in ("cubes", "frames", "seconds", "valid")
        )
        return f"VideoCubes({self.id!r}, {shapes})"
