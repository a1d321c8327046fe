"""The extension of a store: more videos in new shards, a new index; killed at any moment it is the old or the new.

1. The new index is written into a folder of its own, `index-<generation>`, with a copy of the root's new attributes.
   Renaming that folder to its place is atomic and decides who is first; whoever finds it may do the rest.
2. The arrays of each stream get longer. They may be longer than their store, so a reader is not disturbed.
3. The root's zarr.json is replaced. That is when the store is the new one.
4. The old index is removed. A reader that has just read the old root reads the root again.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CorruptStoreError
from .index import Index
from .index_arrays import write_index
from .mending import mend
from .publish import ARRAYS, SCRATCH
from .root import INDEX, read_root
from .scratch import make_scratch, move, remove_scratch, sync, sync_tree, write


def next_index(root: Mapping[str, Any]) -> str:
    """Return the folder of the index that an extension of this root writes."""
    return f"{INDEX}-{_generation(root.get(INDEX, INDEX)) + 1}"


def claim(store: Path, index: Index, root: Mapping[str, Any]) -> bool:
    """Put a new index in its place; False if another process was first.

    Parameters
    ----------
    root : attributes of the new root; its `index` names the folder
    """
    scratch = make_scratch(store / SCRATCH)
    try:
        write_index(scratch / INDEX, index, root)
        sync_tree(scratch)
        return move(scratch / INDEX, store / root[INDEX])
    finally:
        remove_scratch(scratch)


def finish(store: Path) -> None:
    """Complete an extension that was begun, and remove indices that are no longer the store's.

    Raises
    ------
    CorruptStoreError
        If the root or an index is damaged.
    """
    root = read_root(store)
    newest = max(indices(store), default=INDEX, key=_generation)
    if _generation(newest) > _generation(root.get(INDEX, INDEX)):
        root = root_of_index(store / newest)
        grow_arrays(store, root["rows"])
        replace_root(store, root)
    grow_arrays(store, root["rows"])  # of streams that were added meanwhile
    for name in indices(store):
        if _generation(name) < _generation(root.get(INDEX, INDEX)):
            scratch = make_scratch(store / SCRATCH)
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                (store / name).rename(scratch / name)
            remove_scratch(scratch)


def root_of_index(index: Path) -> dict[str, Any]:
    """Read the copy of the root's attributes that an index keeps.

    Raises
    ------
    CorruptStoreError
        If there is none: indices of earlier versions have none.
    """
    try:
        root: dict[str, Any] = json.loads((index / "zarr.json").read_bytes())["attributes"]["store"]
        return root | {"rows": int(root["rows"])}
    except (ValueError, LookupError, TypeError, OSError, RecursionError) as error:
        raise CorruptStoreError(
            f"{index}/zarr.json does not tell the attributes of its store ({error!r})", "restore it from a copy."
        ) from error


def replace_root(store: Path, attributes: Mapping[str, Any]) -> None:
    """Write the root's zarr.json, atomically."""
    metadata = {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}
    replace_metadata(store, store / "zarr.json", metadata)


def grow_arrays(store: Path, rows: int) -> None:
    """Make the arrays of all streams at least so long; nothing else of them changes.

    Raises
    ------
    CorruptStoreError
        If the metadata of an array cannot be read.
    """
    for path in sorted(store.glob("[!.]*/.done")):
        for name in ARRAYS:
            file = path.parent / name / "zarr.json"
            try:
                metadata = json.loads(file.read_bytes())
                short = metadata["shape"][0] < rows
                metadata["shape"][0] = rows
            except (ValueError, LookupError, TypeError, OSError, RecursionError) as error:
                raise CorruptStoreError(f"{file} cannot be read ({error!r})", mend(store)) from error
            if short:
                replace_metadata(store, file, metadata)


def replace_metadata(store: Path, file: Path, metadata: Mapping[str, Any]) -> None:
    """Write a zarr.json of the store as zarr does, atomically."""
    scratch = make_scratch(store / SCRATCH)
    try:
        write(scratch / "zarr.json", json.dumps(metadata, indent=2).encode())
        (scratch / "zarr.json").replace(file)
        sync(file.parent)
    finally:
        remove_scratch(scratch)


def indices(store: Path) -> list[str]:
    """Return the folders of indices, the newest last: there is one, but for the time of an extension."""
    found = [path.name for path in store.glob(f"{INDEX}*/") if re.fullmatch(rf"{INDEX}(-[0-9]+)?", path.name)]
    return sorted(found, key=_generation)


def _generation(name: str) -> int:
    return int(name.rpartition("-")[2]) if "-" in name else 1
