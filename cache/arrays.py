"""What the three arrays of a stream state in their zarr.json: how they are made, and what is read of them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DTYPES: dict[str, np.dtype[Any]] = {
    "cubes": np.dtype("float16"),
    "frames": np.dtype("int32"),
    "seconds": np.dtype("float64"),
}
FILLS: dict[str, float] = {"cubes": 0.0, "frames": -1, "seconds": float("nan")}
"""What rows without content read as, also for plain Zarr readers."""

_FILLS_TOLD: dict[str, tuple[float | str, ...]] = {"cubes": (0.0,), "frames": (-1,), "seconds": ("NaN", 0.0)}
# 0.0 seconds: of stores made before absent chunks meant something
_BYTES, _CRC32C = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
_LOSSLESS = ("zstd", "gzip", "blosc", "crc32c")
"""What may follow the bytes: another tool may have packed a store again, and a codec that fails says so."""


@dataclass(frozen=True, eq=False)
class StoredArray:
    """One array of a stream, as its zarr.json says."""

    path: Path
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    fill: np.ndarray  # [] of dtype, what absent chunks read as
    other_codecs: str | None  # in what its chunks are not what the direct reader reads; None = they are


def read_array(stream: Path, name: str, *, rows: int, chunk_rows: int, shard_rows: int) -> StoredArray:
    """Read the metadata of `cubes`, `frames` or `seconds`, which must be those of the store.

    Raises
    ------
    ValueError, LookupError, TypeError, OSError
        If they are not; the message says in what.
    """
    metadata = json.loads((stream / name / "zarr.json").read_bytes())
    count, *tail = metadata["shape"]
    if len(tail) != {"cubes": 3, "frames": 1, "seconds": 0}[name] or (name == "frames" and tail != [3]):
        raise ValueError(f"rows of shape {tail}")
    if not all(type(side) is int and side > 0 for side in tail) or (name == "cubes" and tail[0] != tail[1]):
        raise ValueError(f"cubes of shape {tail}, which should be K, K, D")
    if type(count) is not int or count < rows:  # more: an extension was stopped before it was entered in the root
        raise ValueError(f"{count} rows, where the store has {rows}")
    if metadata["data_type"] != DTYPES[name].name or metadata["fill_value"] not in _FILLS_TOLD[name]:
        raise ValueError(f"{metadata['data_type']} filled with {metadata['fill_value']!r}")
    if len(metadata["codecs"]) != 1 or metadata["codecs"][0]["name"] != "sharding_indexed":
        raise ValueError("it has no shards")
    sharding = metadata["codecs"][0]["configuration"]
    layout: list[tuple[dict[str, Any], str, object]] = [
        (metadata, "chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [shard_rows, *tail]}}),
        (metadata, "chunk_key_encoding", {"name": "default", "configuration": {"separator": "."}}),
        (sharding, "chunk_shape", [chunk_rows, *tail]),
        (sharding, "index_codecs", [_BYTES, _CRC32C]),
        (sharding, "index_location", "end"),
    ]
    for stated, key, value in layout:
        if stated[key] != value:
            raise ValueError(f"its {key} is {json.dumps(stated[key])}, where the store's is {json.dumps(value)}")
    first, *others = sharding["codecs"]
    if first != _BYTES or any(codec["name"] not in _LOSSLESS for codec in others):
        raise ValueError(f"its chunks are written by {json.dumps(sharding['codecs'])}")
    odd = ["codecs"] if others != [_CRC32C] else []
    if sys.byteorder != "little":
        odd.append("the byte order of this machine")
    return StoredArray(
        path=stream / name,
        dtype=DTYPES[name],
        row_shape=tuple(tail),
        fill=np.full((), metadata["fill_value"], DTYPES[name]),
        other_codecs=f"for its {' and '.join(odd)} are others" if odd else None,
    )
