"""Attention laid over a frame, exactly where the cells of the cube come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import matplotlib
import numpy as np

from ..metrics.attention import into_region

STYLES = ("heat", "light", "blend")
"""heat: in colours; light: the frame is as bright as the attention; blend: half frame, half attention in white."""
TRUE_BOX, SAID_BOX = (54, 224, 90), (255, 90, 74)
"""Colours of boxes, RGB: the true ones, and those that a rule makes of the attention."""
_UNSEEN = 0.45
"""Brightness of what lies outside of all cells: the network did not see it."""
_DARK = 0.12


def shares(cells: np.ndarray) -> np.ndarray:
    """Return a map [..., K, K] as shares of its own largest value, float64 0..1."""
    highest = cells.max(axis=(-2, -1), keepdims=True)
    return cells.astype(np.float64) / np.maximum(highest, 1e-12)


def heat_colours(share: np.ndarray) -> np.ndarray:
    """Return the colours of attention, [...] in 0..1 -> [..., 4] RGBA in 0..1; the opacity dims what has none."""
    colours = matplotlib.colormaps["inferno"](share)
    colours[..., 3] = 0.5 + 0.3 * share
    return colours


def enlarged_into(cells: np.ndarray, place: Sequence[float] | np.ndarray, *, width: int, height: int) -> np.ndarray:
    """Return a map [K, K] enlarged bilinearly to where it lies in a picture, [height, width] float32; NaN outside.

    Parameters
    ----------
    place : x1, y1, x2, y2 in fractions of the picture; may reach beyond it
    """
    K = cells.shape[-1]
    x1, y1, x2, y2 = place
    u = ((np.arange(width) + 0.5) / width - x1) / (x2 - x1)  # of the centres of pixels, 0..1 across the cells
    v = ((np.arange(height) + 0.5) / height - y1) / (y2 - y1)
    columns, rows = np.meshgrid(u * K - 0.5, v * K - 0.5)  # the centre of cell i lies at i
    map_ = cv2.remap(
        cells.astype(np.float32), columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    inside = np.outer((v >= 0) & (v < 1), (u >= 0) & (u < 1))
    return np.where(inside, map_, np.float32(np.nan))


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """A map ready to be laid over pictures of one size: `factor` times the picture and `add`."""

    factor: np.ndarray  # (H, W, 1) float32
    add: np.ndarray  # (H, W, 3) float32

    def over(self, picture: np.ndarray) -> np.ndarray:
        """Return a picture (H, W, 3) uint8 with the map on it."""
        return (self.factor * picture + self.add).round().astype(np.uint8)


def layer(
    cells: np.ndarray, place: Sequence[float] | np.ndarray, *, width: int, height: int, style: str = "heat"
) -> Layer:
    """Make a map [K, K] ready to be laid over pictures.

    Parameters
    ----------
    place : where the map lies in them, see `enlarged_into`
    style : of `STYLES`
    """
    share = enlarged_into(shares(cells), place, width=width, height=height)
    inside = np.isfinite(share)[..., None]
    share = np.nan_to_num(share)[..., None]
    factor, add = np.full_like(share, 0.5), 127.5 * share
    if style == "light":
        factor, add = _DARK + (1 - _DARK) * share, np.zeros_like(share)
    elif style == "heat":
        colours = heat_colours(share[..., 0]).astype(np.float32)
        factor, add = 1 - colours[..., 3:], 255 * colours[..., 3:] * colours[..., :3]
    add = np.broadcast_to(add, (height, width, 3))
    return Layer(factor=np.where(inside, factor, np.float32(_UNSEEN)), add=np.where(inside, add, np.float32(0)))


def draw_boxes(
    picture: np.ndarray, boxes: Sequence[np.ndarray] | np.ndarray, *, view: np.ndarray, colour: tuple[int, int, int],
    dash_px: int = 0,
) -> None:  # fmt: skip
    """Draw boxes into a picture (H, W, 3) uint8.

    Parameters
    ----------
    boxes : [n, 4] x1, y1, x2, y2 in fractions of the frame
    view : (4,) the part of the frame that the picture shows, likewise
    dash_px : length of dashes; 0 = full lines
    """
    H, W, _ = picture.shape
    for box in boxes:
        x1, y1, x2, y2 = (round(float(edge)) for edge in into_region(box, tuple(view)) * [W, H, W, H])
        corners = [(x1, y1), (x2 - 1, y1), (x2 - 1, y2 - 1), (x1, y2 - 1), (x1, y1)]
        for start, stop in pairwise(corners):
            cv2.line(picture, start, stop, (0, 0, 0), 4)
        for start, stop in pairwise(corners):
            _dashed(picture, start, stop, colour, dash_px)


def _dashed(
    picture: np.ndarray, start: tuple[int, int], stop: tuple[int, int], colour: tuple[int, int, int], dash_px: int
) -> None:
    length = max(abs(stop[0] - start[0]), abs(stop[1] - start[1]))
    pieces = length // dash_px | 1 if dash_px else 1  # an odd number: both ends are drawn
    ends = np.linspace(start, stop, pieces + 1).round().astype(int).tolist()
    for (x1, y1), (x2, y2) in list(pairwise(ends))[::2]:
        cv2.line(picture, (x1, y1), (x2, y2), colour, 2)
