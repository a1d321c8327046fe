"""The forms in which networks give their features, and how each becomes cubes with channels last."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

AXES = ("map", "channels_last", "tokens", "vector")


@dataclass(frozen=True, kw_only=True)
class OutputForm:
    """What the axes of a layer's output are: declared by the network's architecture, not guessed from a shape."""

    axes: str  # of AXES
    prefix_tokens: int = 0  # of tokens: class and register tokens before those of the grid
    time_steps: int = 1  # of tokens: frames or groups of frames, the outermost order of the grid's tokens

    def __str__(self) -> str:
        if self.axes == "tokens":
            steps = f"{self.time_steps} x " if self.time_steps > 1 else ""
            return f"tokens [{self.prefix_tokens} + {steps}K * K, D]"
        return {"map": "a map [D, K, K]", "channels_last": "a map [K, K, D]", "vector": "a vector [D]"}[self.axes]

    def averages_time(self, output: object) -> bool:
        """Tell whether `to_cubes` averages time steps of this output."""
        if not isinstance(output, Tensor):
            return False
        return output.dim() == 5 or (output.dim() == 3 and self.time_steps > 1)


MAP = OutputForm(axes="map")
CHANNELS_LAST = OutputForm(axes="channels_last")
VECTOR = OutputForm(axes="vector")


def tokens(*, prefix: int, time_steps: int = 1) -> OutputForm:
    """Return the form of a transformer's tokens, row by row, behind `prefix` tokens that are no part of the grid."""
    return OutputForm(axes="tokens", prefix_tokens=prefix, time_steps=time_steps)


def to_cubes(output: Tensor, form: OutputForm) -> Tensor | None:
    """Turn a layer's output into cubes; None if it is not of the declared form.

    Parameters
    ----------
    output : (b, D, K, K) or (b, D, T', K, K) of a map, (b, K, K, D) or (b, T', K, K, D) of channels last,
        (b, P + T' K K, D) of tokens, (b, D) of a vector; (b, D) is a vector where a map is declared, too: networks end
        in them. Time steps T' are averaged

    Returns
    -------
    (b, K, K, D), same dtype; a vector gives (b, 1, 1, D). Maps need not be square
    """
    axes = output.dim()
    if axes == 2:
        return output[:, None, None]
    if form.axes == "map" and axes in (4, 5):
        return (output.mean(2) if axes == 5 else output).permute(0, 2, 3, 1)
    if form.axes == "channels_last" and axes in (4, 5):
        return output.mean(1) if axes == 5 else output
    if form.axes == "tokens" and axes == 3:
        grids = output[:, form.prefix_tokens :]
        K = math.isqrt(grids.shape[1] // form.time_steps)
        if not K or form.time_steps * K * K != grids.shape[1]:
            return None
        grids = grids.unflatten(1, (form.time_steps, K, K))
        return grids.mean(1) if form.time_steps > 1 else grids[:, 0]
    return None


def pool_cubes(cubes: Tensor, side: int) -> Tensor:
    """Average the cells of a grid down to `side` x `side`: (b, K, K, D) -> (b, side, side, D).

    Adaptive: where `side` does not divide K, neighbouring windows share a row or column of cells.
    """
    pooled = functional.adaptive_avg_pool2d(cubes.permute(0, 3, 1, 2), side)
    return pooled.permute(0, 2, 3, 1)
