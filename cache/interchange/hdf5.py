"""Stores as HDF5: one group per video, or one packed dataset per stream; self-describing, and read back exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import UsageError
from ..fingerprint import plain
from ..index import Index
from .hdf5_file import dataset, member, open_hdf5, reading, values
from .material import (
    AXES,
    Material,
    StreamInfo,
    VideoRows,
    check_names,
    require_object,
    stated_layout,
    stated_stream,
)

FORMAT, VERSION = "vidatt-hdf5", 1
ROLES = ("unused", "train", "test")
"""Names of the roles in a split, by number."""

_ROWS = ("cubes", "frames", "seconds")
_CHUNK_BYTES = 64_000_000  # HDF5 takes chunks below 4 GB, and a reader holds a whole one
_TEXT = h5py.string_dtype()
_COLUMNS = [f.name for f in fields(Index) if f.name not in ("classes", "multi_label", "splits")]


def write_hdf5(
    path: Path, material: Material, *, packed: bool, compression: str | None, seen: Callable[[], None]
) -> None:
    """Write a new file.

    Layout: `/index/<column>` and `/index/split/<name>` (all videos, in order), `/index/class`; `/streams/<name>` with
    the recipe as JSON, the fingerprint and the outcomes; and either `/videos/<id>/<stream>/{cubes,frames,seconds}` or,
    packed, `/streams/<name>/{cubes,frames,seconds}` with the rows of all videos one after another, `/index/start`
    being the first row of each.

    Parameters
    ----------
    packed : one dataset per stream
    compression : gzip, lzf or None; all are lossless, and lzf is not in every HDF5 library
    seen : called after each video

    Raises
    ------
    UsageError
        If the ids cannot be groups.
    """
    if not packed:
        check_names((f"{id}/{s.name}" for id in material.index.ids for s in material.streams), "a group of HDF5")
    with h5py.File(path, "x") as file:
        _write_header(file, material, packed=packed)
        _write_index(file.create_group("index"), material)
        streams = file.create_group("streams", track_order=True)
        for stream in material.streams:
            group = streams.create_group(stream.name)
            group.attrs["recipe"] = json.dumps(plain(stream.recipe))
            group.attrs["fingerprint"] = stream.fingerprint or ""
            group.attrs["cube_shape"] = stream.cube_shape
            outcomes = [json.dumps(outcome.to_dict()) for outcome in stream.outcomes]
            group.create_dataset("outcomes", data=np.array(outcomes, object), dtype=_TEXT)
        for position in range(len(material.index)):
            if not packed:
                _describe(file, material, position)
            for stream in material.streams:
                rows = material.rows(stream.name, position)
                if packed:
                    _append(file[f"streams/{stream.name}"], material, position, rows, compression)
                else:
                    group = file.create_group(f"videos/{material.index.ids[position]}/{stream.name}")
                    group.attrs.update(stream.outcomes[position].to_dict())
                    rows = rows.by_view(material.views)
                    for name in _ROWS:
                        _create(group, name, getattr(rows, name), compression, views=material.views)
            seen()


def _write_header(file: h5py.File, material: Material, *, packed: bool) -> None:
    file.attrs.update(
        {
            "format": FORMAT,
            "version": VERSION,
            "layout": "packed" if packed else "video groups",
            "axes": AXES if material.views > 1 or packed else AXES.removeprefix("view, "),
            "views": material.views,
            "multi_label": material.index.multi_label,
            "attributes": json.dumps(plain(material.attributes)),
        }
    )
    if material.layout:
        for name in ("rows", "chunk_rows", "shard_rows"):
            file.attrs[name] = getattr(material.layout, name)


def _write_index(group: h5py.Group, material: Material) -> None:
    index = material.index
    for name in _COLUMNS:
        _write_column(group, name, getattr(index, name))
    _write_column(group, "class", np.array(index.classes, np.dtypes.StringDType()))
    for name, roles in index.splits.items():
        _write_column(group, f"split/{name}", roles)
        group[f"split/{name}"].attrs["roles"] = ROLES
    group.create_dataset("start", data=_starts(material))


def _write_column(group: h5py.Group, name: str, column: np.ndarray) -> None:
    if column.dtype == np.dtypes.StringDType():
        group.create_dataset(name, shape=column.shape, data=np.array(column.tolist(), object), dtype=_TEXT)
    else:
        group.create_dataset(name, data=column)


def _starts(material: Material) -> np.ndarray:
    counts = material.views * material.index.length.astype(np.int64)
    return np.cumsum(counts) - counts


def _describe(file: h5py.File, material: Material, position: int) -> None:
    """Say in the video's own attributes what the index says too, for people who open one group."""
    index = material.index
    labels = index.labels[position][index.labels[position] >= 0]
    group = file.require_group(f"videos/{index.ids[position]}")  # an id with more slashes may have made it
    group.attrs["labels"] = labels
    group.attrs.create("classes", [index.classes[label] for label in labels], dtype=_TEXT, shape=(len(labels),))
    group.attrs["group"] = str(index.groups[position])
    for name, roles in index.splits.items():
        group.attrs[f"split:{name}"] = ROLES[roles[position]]


def _create(group: h5py.Group, name: str, written: np.ndarray, compression: str | None, *, views: int) -> None:
    """Write a dataset of one video in chunks of one view, or smaller where that is much."""
    if not written.size:
        group.create_dataset(name, data=written)
        return
    rows_axis = 1 if views > 1 else 0
    chunks = [*written.shape]
    chunks[0] = 1 if views > 1 else chunks[0]
    row_bytes = written.itemsize * int(np.prod(written.shape[rows_axis + 1 :], dtype=np.int64))
    chunks[rows_axis] = min(written.shape[rows_axis], max(1, _CHUNK_BYTES // row_bytes))
    group.create_dataset(name, data=written, chunks=tuple(chunks), compression=compression, fletcher32=True)


def _append(group: h5py.Group, material: Material, position: int, rows: VideoRows, compression: str | None) -> None:
    """Put the rows of a video into the stream's three datasets, which the first video makes."""
    length = material.index.length
    starts = _starts(material)
    for name in _ROWS:
        written = getattr(rows, name)
        if name not in group:
            total = int(starts[-1]) + material.views * int(length[-1])
            tail = written.shape[1:]
            row_bytes = written.itemsize * int(np.prod(tail, dtype=np.int64))
            T = int(length[0]) if (length == length[0]).all() else int(np.median(length))
            chunk = min(max(1, total), max(1, T), max(1, _CHUNK_BYTES // row_bytes))
            group.create_dataset(
                name, (total, *tail), written.dtype, chunks=(chunk, *tail), compression=compression, fletcher32=True
            )
        group[name][starts[position] : starts[position] + len(written)] = written


class Hdf5Material(Material):
    """What `write_hdf5` wrote.

    Raises
    ------
    UsageError
        If the file is no such export, or of another version, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file = open_hdf5(path)
        with reading(path):
            attributes = self._file.attrs
            if attributes.get("format") != FORMAT or attributes["version"] != VERSION:
                raise UsageError(f"{path} is no HDF5 export of this version of vidatt ({FORMAT} {VERSION}).")
            self._path, self._packed = path, attributes["layout"] == "packed"
            self.views = int(attributes["views"])
            self.attributes: Mapping[str, Any] = require_object(json.loads(attributes["attributes"]))
            self.index = self._read_index()
            told = {name: int(attributes[name]) for name in ("rows", "chunk_rows", "shard_rows") if name in attributes}
            self.layout = stated_layout(self.index, self.views, told) if told else None
            self.streams = [self._read_stream(name) for name in member(self._file, "streams") or ()]
            self._starts = self._column("start")

    def _column(self, name: str) -> np.ndarray:
        return values(dataset(self._file, f"index/{name}"))

    def _read_index(self) -> Index:
        splits = {name: self._column(f"split/{name}") for name in member(self._file, "index/split") or ()}
        return Index(
            **{name: self._column(name) for name in _COLUMNS},
            classes=tuple(self._column("class")),
            multi_label=bool(self._file.attrs["multi_label"]),
            splits=splits,
        )

    def _read_stream(self, name: str) -> StreamInfo:
        group = member(self._file, f"streams/{name}")
        if group is None:
            raise LookupError(f"there is no stream {name!r}")
        told = group.attrs
        texts = values(dataset(self._file, f"streams/{name}/outcomes"))
        outcomes = [json.loads(text) for text in texts]
        recipe, fingerprint = json.loads(told["recipe"]), told["fingerprint"] or None
        return stated_stream(self.index, name, told["cube_shape"], recipe, fingerprint, outcomes)

    def rows(self, stream: str, position: int) -> VideoRows:
        """Read one video."""
        id = str(self.index.ids[position])
        with reading(self._path, f"video {id!r} of stream {stream!r}"):
            where, part = f"videos/{id}/{stream}", slice(None)
            if self._packed:
                start = int(self._starts[position])
                where, part = f"streams/{stream}", slice(start, start + self.views * int(self.index.length[position]))
            rows = VideoRows(*(values(dataset(self._file, f"{where}/{name}"), part) for name in _ROWS))
            return rows if self._packed else rows.flat(self.views)
