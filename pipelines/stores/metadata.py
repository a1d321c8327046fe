"""The zarr.json files and folders of a store: written again where the truth about them stands elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.arrays import read_array
from ...cache.growth import indices, replace_metadata, replace_root, root_of_index
from ...cache.index_arrays import read_index
from ...cache.publish import ARRAYS, DONE, SCRATCH
from ...cache.root import sealed
from ...cache.scratch import make_scratch, remove_scratch, sync
from ...cache.shard_index import index_bytes, parse_index
from ...cache.store import Store
from ...cache.stream import build_stream
from ...errors import CorruptStoreError, VidattError

CubeShape = tuple[int, int, int]


def mend_root(path: Path, *, dry_run: bool) -> list[str]:
    """Write a damaged root again, from the copy that its index keeps.

    Returns
    -------
    What was mended, relative to the store

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    CorruptStoreError
        If root and index contradict each other, or the index keeps no copy: an earlier version made it.
    """
    try:
        Store.open(path)
    except CorruptStoreError as error:
        root = _root_by_index(path, error)
        if not dry_run:
            replace_root(path, root)
        return ["zarr.json"]
    return []


def _root_by_index(path: Path, damage: CorruptStoreError) -> dict[str, Any]:
    """Return the root that an undamaged index tells of.

    Raises
    ------
    CorruptStoreError
        If there is none.
    """
    for name in reversed(indices(path)):
        try:
            root = root_of_index(path / name)
            if sealed(root) == root and read_index(path / name).content_digest() == root["index_digest"]:
                return root
        except VidattError:
            continue  # that one is damaged too
    raise CorruptStoreError(damage.what, f"no index of it says what belongs there: restore {path} from a copy.")


def mend_stream(store: Store, name: str, *, built_shape: Callable[[], CubeShape], dry_run: bool) -> list[str]:
    """Make a lost folder of markers, and write the metadata of damaged arrays again.

    Parameters
    ----------
    built_shape : (K, K, D) of the stream's backbone; called if the store itself does not say it any more

    Returns
    -------
    What was mended, relative to the store

    Raises
    ------
    VidattError
        What `built_shape` raises: nothing else says what the shape was.
    """
    path = store.path / name
    mended = []
    if not (path / DONE).is_dir():
        mended.append(f"{name}/{DONE}")
        if not dry_run:
            (path / DONE).mkdir()
            sync(path)
    broken = [array for array in ARRAYS if not _fits(store, path, array)]
    if broken:
        mended += [f"{name}/{array}/zarr.json" for array in broken]
        if not dry_run:
            _rewrite(store, name, _stated_shape(store, name) or built_shape(), broken)
    return mended


def _stated_shape(store: Store, name: str) -> CubeShape | None:
    """Return (K, K, D) as the metadata of the cubes says, if the files of the cubes have as many bytes a row."""
    path = store.path / name / "cubes"
    try:
        _, K, K_, D = json.loads((path / "zarr.json").read_bytes())["shape"]
        shape = (int(K), int(K_), int(D))
    except (ValueError, LookupError, TypeError, OSError):
        return None
    stored = {size for file in path.glob("c.*") for size in _chunk_bytes(file, store.shard_rows // store.chunk_rows)}
    fits = stored <= {store.chunk_rows * K * K * D * 2 + 4}
    return shape if K == K_ and min(shape) > 0 and fits else None


def _chunk_bytes(file: Path, chunks: int) -> set[int]:
    """Return the sizes of a shard's chunks; none if its index is damaged: that shard will be made again."""
    content, footer = file.stat().st_size, index_bytes(chunks)
    if content < footer:
        return set()
    with file.open("rb") as opened:
        opened.seek(content - footer)
        entries = parse_index(np.frombuffer(opened.read(), np.uint8), content - footer)
    return set() if entries is None else {int(size) for offset, size in entries.tolist() if offset >= 0}


def _fits(store: Store, stream: Path, array: str) -> bool:
    try:
        read_array(stream, array, rows=store.rows, chunk_rows=store.chunk_rows, shard_rows=store.shard_rows)
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError):
        return False
    return True


def _rewrite(store: Store, name: str, shape: CubeShape, arrays: list[str]) -> None:
    """Write the metadata of arrays as a new stream would have it."""
    scratch = make_scratch(store.path / SCRATCH)
    try:
        build_stream(scratch / name, store, shape, {})
        for array in arrays:
            metadata = json.loads((scratch / name / array / "zarr.json").read_bytes())
            (store.path / name / array).mkdir(exist_ok=True)
            replace_metadata(store.path, store.path / name / array / "zarr.json", metadata)
    finally:
        remove_scratch(scratch)
