"""Boxes from attention maps: the rule of the Where-and-When paper, its variant, and that of its authors' code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from ...heads.contract import require_choice, require_range


@dataclass(frozen=True, kw_only=True)
class BoxSettings:
    """What every rule can be told beside its own; see `locate`."""

    confidence_temporal: bool = False  # multiply confidences by the segment's weight over the video's largest


@dataclass(frozen=True, kw_only=True)
class ThresholdRule(BoxSettings):
    """The paper's rule (spec 6.4): the map enlarged to the frame, the tightest box around all that is above .5.

    A mask of 0..1 is taken literally, so that a frame may have no box; a map that sums to 1 over its cells would never
    reach the threshold and is divided by its largest value.
    """

    threshold: float = 0.5
    normalise: Literal["auto", "none", "max", "minmax"] = "auto"  # auto: none for masks, max for maps that sum to 1

    def __post_init__(self) -> None:
        require_range(self, "threshold", least=0.0, below=1.0)
        require_choice(self, "normalise", ("auto", "none", "max", "minmax"))


@dataclass(frozen=True, kw_only=True)
class MinMaxRule(ThresholdRule):
    """The same on maps whose smallest value becomes 0 and whose largest becomes 1."""

    normalise: Literal["auto", "none", "max", "minmax"] = "minmax"


@dataclass(frozen=True, kw_only=True)
class ContourRule(ThresholdRule):
    """The authors' code: maps of 256 levels, smallest to 0 and largest to 255, above 200, the largest contour's box.

    The code keeps the enlarged maps as JPEG files, which this does not.
    """

    threshold: float = 200 / 255
    normalise: Literal["auto", "none", "max", "minmax"] = "minmax"


BOX_RULES: dict[str, type[Any]] = {"threshold": ThresholdRule, "minmax": MinMaxRule, "contour": ContourRule}
"""The rules by name, with their settings."""


def scaled(maps: np.ndarray, how: str) -> np.ndarray:
    """Bring each map on a scale that a threshold can be held to.

    Parameters
    ----------
    maps : [..., K, K], 0 and up
    how : "none"; "max" divides by the largest value; "minmax" maps smallest and largest to 0 and 1. A map that is the
        same everywhere tells no place from another: "max" and "minmax" make it 1 everywhere

    Returns
    -------
    the same shape, float32
    """
    maps = maps.astype(np.float32)
    if how == "none":
        return maps
    low, high = maps.min(axis=(-2, -1), keepdims=True), maps.max(axis=(-2, -1), keepdims=True)
    base = low if how == "minmax" else np.zeros_like(low)
    return np.divide(maps - base, high - base, out=np.ones_like(maps), where=high > low)


def enlarged(grid: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a map [K, K] bilinearly enlarged to [height, width] pixels, float32; corners of cells are not aligned."""
    return cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def tight_box(kept: np.ndarray) -> np.ndarray:
    """Return the smallest box around all that is kept, (4,) float64 x1, y1, x2, y2 in pixels; NaN if nothing is.

    Parameters
    ----------
    kept : [H, W] bool; pixel i spans i to i + 1
    """
    columns, rows = np.flatnonzero(kept.any(axis=0)), np.flatnonzero(kept.any(axis=1))
    if not len(columns):
        return np.full(4, np.nan)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def contour_box(kept: np.ndarray) -> np.ndarray:
    """Return the largest of the boxes around the outer contours, as `tight_box`; of equal ones the first found."""
    contours, _ = cv2.findContours(kept.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return np.full(4, np.nan)
    x, y, width, height = max(map(cv2.boundingRect, contours), key=lambda box: box[2] * box[3])
    return np.array([x, y, x + width, y + height], np.float64)


def boxes_of(maps: np.ndarray, *, width: int, height: int, rule: ThresholdRule, sums_to_one: bool) -> np.ndarray:
    """Return a box for each map, [T, 4] float64 x1, y1, x2, y2 in fractions of what the map covers; NaN = no box.

    Parameters
    ----------
    maps : [T, K, K], 0 and up
    width, height : pixels of what the map covers
    sums_to_one : whether the maps are distributions over their cells; else masks of 0..1
    """
    how = rule.normalise
    if how == "auto":
        how = "max" if sums_to_one else "none"
    grids = scaled(maps, how)
    if isinstance(rule, ContourRule):  # as the authors' code: pictures of whole levels are enlarged and held to a level
        levels = (255 * grids).astype(np.uint8)
        size, level = (width, height), round(255 * rule.threshold)
        boxes = [contour_box(cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR) > level) for grid in levels]
    else:
        boxes = [tight_box(enlarged(grid, width, height) > rule.threshold) for grid in grids]
    return np.array(boxes, np.float64).reshape(-1, 4) / [width, height, width, height]


def out_of_region(boxes: np.ndarray, region: tuple[float, float, float, float]) -> np.ndarray:
    """Return boxes [n, 4] given in fractions of a region (a crop) as fractions of the frame that it was cut from."""
    x1, y1, x2, y2 = region
    return boxes * np.array([x2 - x1, y2 - y1] * 2) + np.array([x1, y1] * 2)
