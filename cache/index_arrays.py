"""The index on disk: one plain Zarr array per column, each in one chunk, so that any Zarr library can read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from ..errors import CorruptStoreError
from .index import Index

_NAMES = {
    "ids": "id",
    "paths": "path",
    "groups": "group",
    "labels": "label",
    "length": "length",
    "span_seconds": "span_seconds",
    "offset": "offset",
    "interval_video": "interval_video",
    "interval_seconds": "interval_seconds",
    "interval_label": "interval_label",
    "box_video": "box_video",
    "box_frame": "box_frame",
    "box_xyxy": "box_xyxy",
    "box_label": "box_label",
}


def write_index(path: Path, index: Index, root: Mapping[str, Any]) -> None:
    """Write the index as a new Zarr group at `path`; it keeps a copy of the attributes of the root that names it."""
    attributes = {"multi_label": index.multi_label, "store": dict(root)}
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    for field, name in _NAMES.items():
        _write(group, name, getattr(index, field))
    _write(group, "class", np.array(index.classes, np.dtypes.StringDType()))
    splits = group.create_group("split")
    for name, roles in index.splits.items():
        _write(splits, name, roles)


def read_index(path: Path) -> Index:
    """Read the index that `write_index` wrote.

    Raises
    ------
    CorruptStoreError
        If an array is missing or damaged. (A missing chunk reads as zeros: the caller compares the digest.)
    """
    try:
        group = zarr.open_group(path, mode="r")
        columns: dict[str, Any] = {field: _read(path, group, name) for field, name in _NAMES.items()}
        return Index(
            **columns,
            classes=tuple(_read(path, group, "class")),
            multi_label=bool(group.attrs["multi_label"]),
            splits={
                name: _read(path, group, f"split/{name}") for name in sorted(p.name for p in path.glob("split/*/"))
            },
        )
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RuntimeError) as error:
        raise CorruptStoreError(f"The index {path} cannot be read ({error})", "restore it from a copy.") from error


def _write(group: zarr.Group, name: str, values: np.ndarray) -> None:
    text = values.dtype == np.dtypes.StringDType()
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="string" if text else values.dtype,
        chunks=tuple(max(1, side) for side in values.shape),
        compressors=[Crc32cCodec()],
        filters="auto" if text else None,
        chunk_key_encoding={"name": "default", "configuration": {"separator": "."}},
        config={"write_empty_chunks": True},
    )
    if values.size:
        array[...] = values


def _read(path: Path, group: zarr.Group, name: str) -> np.ndarray:
    array = group[name]
    assert isinstance(array, zarr.Array)
    if array.size:  # a shape that was edited would allocate whatever it says
        file = path / name / ".".join(["c", *"0" * array.ndim])
        if array.size > file.stat().st_size:
            raise ValueError(f"{name} states {array.size} values in {file.stat().st_size} bytes")
    try:
        return np.asarray(array[...])
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name}: {error}") from error
