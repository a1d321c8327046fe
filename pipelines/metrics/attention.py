"""How much of a head's attention lies where the truth is."""

from __future__ import annotations

import numpy as np


def cell_overlap(box: np.ndarray, K: int) -> np.ndarray:
    """Return the share of each cell of a K x K grid that a box covers.

    Parameters
    ----------
    box : (4,) x1, y1, x2, y2 in fractions of the gridded picture; may reach beyond it

    Returns
    -------
    (K, K) float64 in 0..1, rows from the top
    """
    edges = np.arange(K + 1) / K

    def covered(low: float, high: float) -> np.ndarray:
        return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) * K

    return np.outer(covered(box[1], box[3]), covered(box[0], box[2]))


def into_region(box: np.ndarray, region: tuple[float, float, float, float]) -> np.ndarray:
    """Return a box given in fractions of a frame as fractions of a region (a crop) of that frame."""
    x1, y1, x2, y2 = region
    scale = np.array([x2 - x1, y2 - y1] * 2)
    return (np.asarray(box, np.float64) - np.array([x1, y1] * 2)) / scale


def mass_in_box(spatial: np.ndarray, box: np.ndarray) -> tuple[float, float]:
    """Return (attention mass inside a box, the box's share of the area); equal for uniform attention.

    Parameters
    ----------
    spatial : (K, K) non-negative, summing to 1
    box : (4,) in fractions of the gridded picture
    """
    overlap = cell_overlap(box, spatial.shape[-1])
    return float((spatial * overlap).sum()), float(overlap.mean())
