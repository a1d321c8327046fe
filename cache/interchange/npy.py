"""Stores as one `.npy` per video, beside an index that says everything else; read back exactly."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UsageError, VidattError
from ..fingerprint import plain
from ..index import Index
from .arrays import Archive, open_regular, read_npy, require_inside
from .hdf5 import ROLES
from .material import (
    AXES,
    Material,
    VideoRows,
    check_names,
    require_object,
    stated_layout,
    stated_stream,
)

FORMAT, VERSION = "vidatt-npy", 1
INDEX, MANIFEST, CLASSES = "index.json", "videos.csv", "classes.txt"
TIMES = ".times"
"""Behind a stream's name: the folder of its frames and seconds."""

_BROKEN = (VidattError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
_COLUMNS = [f.name for f in fields(Index) if f.name not in ("classes", "multi_label", "splits")]


def write_npy(folder: Path, material: Material, *, seen: Callable[[], None]) -> None:
    """Fill a new folder.

    `<stream>/<id>.npy` are the cubes [T, K, K, D] float16 ([V, T, K, K, D] where there are several views),
    `<stream>.times/<id>.npz` their `frames` and `seconds`; `index.json` holds the recipes, the outcomes and every
    column of the index; `videos.csv` and `classes.txt` say the labels, groups and splits once more, in the form of the
    dataset `list`.

    Parameters
    ----------
    folder : does not exist yet
    seen : called after each video

    Raises
    ------
    UsageError
        If the ids cannot be paths.
    """
    check_names((f"{id}.npy" for id in material.index.ids), "a file")
    folder.mkdir()
    for position, id in enumerate(material.index.ids):
        for stream in material.streams:
            rows = material.rows(stream.name, position).by_view(material.views)
            path, times = (folder / f"{stream.name}{kind}" / id for kind in ("", TIMES))
            path.parent.mkdir(parents=True, exist_ok=True)
            times.parent.mkdir(parents=True, exist_ok=True)
            np.save(f"{path}.npy", rows.cubes)
            np.savez(f"{times}.npz", frames=rows.frames, seconds=rows.seconds)
        seen()
    _write_manifest(folder, material.index)
    (folder / INDEX).write_text(json.dumps(_described(material), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _described(material: Material) -> dict[str, Any]:
    index, layout = material.index, material.layout
    return {
        "format": FORMAT,
        "version": VERSION,
        "axes": AXES if material.views > 1 else AXES.removeprefix("view, "),
        "views": material.views,
        "attributes": plain(material.attributes),
        "layout": {name: getattr(layout, name) for name in ("rows", "chunk_rows", "shard_rows")} if layout else None,
        "classes": index.classes,
        "multi_label": index.multi_label,
        "roles": ROLES,
        "splits": {name: roles.tolist() for name, roles in index.splits.items()},
        "streams": {
            stream.name: {
                "recipe": plain(stream.recipe),
                "fingerprint": stream.fingerprint,
                "cube_shape": stream.cube_shape,
                "outcomes": [outcome.to_dict() for outcome in stream.outcomes],
            }
            for stream in material.streams
        },
        "videos": {name: _without_nan(getattr(index, name).tolist()) for name in _COLUMNS},
    }


def _without_nan(value: Any) -> Any:
    """JSON has no NaN; null stands for it."""
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _write_manifest(folder: Path, index: Index) -> None:
    (folder / CLASSES).write_text("".join(f"{name}\n" for name in index.classes), encoding="utf-8")
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"split:{name}" for name in index.splits]
        writer.writerow(["id", "path", "labels" if index.multi_label else "label", "group", *columns])
        for position, id in enumerate(index.ids):
            names = [index.classes[label] for label in index.labels[position] if label >= 0]
            roles = [ROLES[roles[position]] for roles in index.splits.values()]
            writer.writerow([id, f"{id}.npy", ";".join(names), index.groups[position], *roles])


class NpyMaterial(Material):
    """What `write_npy` wrote.

    Raises
    ------
    UsageError
        If the folder is no such export, or of another version, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.name, self._folder = folder.name, folder
        try:
            with open_regular(require_inside(folder, folder / INDEX)) as file:
                told = json.load(file)
            if (told["format"], told["version"]) != (FORMAT, VERSION):
                raise UsageError(f"{folder} is no .npy export of this version of vidatt ({FORMAT} {VERSION}).")
            self.views = int(told["views"])
            self.attributes: Mapping[str, Any] = require_object(told["attributes"])
            self.index = Index(
                **{name: _column(name, values) for name, values in told["videos"].items()},
                classes=tuple(told["classes"]),
                multi_label=bool(told["multi_label"]),
                splits={name: np.array(roles) for name, roles in told["splits"].items()},
            )
            self.layout = stated_layout(self.index, self.views, told["layout"]) if told["layout"] else None
            self.streams = [
                stated_stream(
                    self.index, name, entry["cube_shape"], entry["recipe"], entry["fingerprint"], entry["outcomes"]
                )
                for name, entry in told["streams"].items()
            ]
            check_names((f"{id}.npy" for id in self.index.ids), "a file")
        except (
            VidattError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            if isinstance(error, VidattError) and str(folder) in str(error):
                raise
            raise UsageError(f"{folder / INDEX} cannot be read ({error}); is this a whole export?") from None

    def rows(self, stream: str, position: int) -> VideoRows:
        """Read one video."""
        id = str(self.index.ids[position])
        cubes = read_npy(require_inside(self._folder, self._folder / stream / f"{id}.npy"))
        times = require_inside(self._folder, self._folder / f"{stream}{TIMES}" / f"{id}.npz")
        with Archive(times) as archive:
            return VideoRows(cubes, *(archive.read(key) for key in ("frames", "seconds"))).flat(self.views)


def _column(name: str, values: list[Any]) -> np.ndarray:
    """Turn a column back into an array of the right number of axes, also where it is empty."""
    if name in ("ids", "paths", "groups"):
        return np.array(values, object)
    array = np.array(values, np.float64 if name in ("span_seconds", "interval_seconds", "box_xyxy") else np.int64)
    sides = {"span_seconds": 2, "interval_seconds": 2, "box_xyxy": 4}
    return array.reshape(-1, sides[name]) if name in sides else array
