"""Attention of one video as arrays, for figures of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...cache.scratch import write_atomically
from ..pictures.scene import Scene


def arrays_of(scene: Scene) -> dict[str, Any]:
    """Return what is known of a scene by name; T segments, M streams, N classes, K cells a side.

    Returns
    -------
    Text: `id` (), `classes` [N], `truth` [labels], `streams` [M], `interval_names` [n]. float32: `probabilities` [N],
    `temporal` [T], `temporal_raw` [T] (before the softmax), `spatial` [T, M, K, K], `spatial_KIND` likewise. int64:
    `frames` [T] (centres, in decode order), `box_frames` [m]. float64: `seconds` [T], `bounds` [T, 2] (start and stop
    of what each segment stands for), `intervals` [n, 2], in seconds; `regions` [M, 4] (x1, y1, x2, y2 of what the maps
    cover) and `boxes` [m, 4], in fractions of the upright frame. What is unknown is left out.
    """
    seen, timed = scene.attention, scene.times.unit == "s"
    boxes = [(frame, box) for frame, several in scene.boxes.items() for box in several]
    found = {
        "id": np.array(seen.id),
        "classes": np.array(scene.classes),
        "truth": np.array(scene.truth, dtype=str),
        "streams": np.array(scene.streams),
        "probabilities": seen.probabilities,
        "temporal": seen.temporal,
        "temporal_raw": seen.temporal_raw,
        "spatial": seen.spatial,
        **{f"spatial_{kind}": maps for kind, maps in seen.kinds.items()},
        "frames": scene.frames.astype(np.int64),
        "seconds": scene.times.centres if timed else None,
        "bounds": scene.times.bounds if timed else None,
        "regions": scene.regions,
        "intervals": np.array([(i.start, i.stop) for i in scene.intervals], np.float64).reshape(-1, 2),
        "interval_names": np.array([i.name for i in scene.intervals], dtype=str),
        "boxes": np.array([box for _, box in boxes], np.float64).reshape(-1, 4),
        "box_frames": np.array([frame for frame, _ in boxes], np.int64),
    }
    return {name: values for name, values in found.items() if values is not None}


def write_arrays(path: Path, scene: Scene) -> None:
    """Write `arrays_of` as .npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays_of(scene)))
