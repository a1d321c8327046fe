"""Commit: how the three files of a shard and its ledger appear at once, from one writer, whoever is killed when.

A writer puts everything into a private scratch folder, fsyncs it, and hard-links its *intent* (the scratch's name and
the marker) to `<stream>/.done/<shard>.intent-<generation>.json`. That one link decides who is first. Anybody who meets
an intent completes it: link each file to its key, then the marker to `<shard>.json`, then drop the intents. Only the
intent of the highest generation counts, and it is overruled by the next generation only if its scratch is gone or
damaged; intents are removed only after the marker is there. So no step ever takes back what another process may just
have judged, and every check of the form "intent first, marker second" is safe against a completer that is faster.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import CorruptStoreError
from .marker import marker_line, parse_marker
from .mending import mend
from .scratch import abandoned, link, make_scratch, remove_if_empty, remove_scratch, scratch_name, sync, write
from .shard_index import stored_sums

ARRAYS = ("cubes", "frames", "seconds")
"""The arrays of a stream; all have the same rows, shards and chunks."""

DONE, SCRATCH = ".done", ".tmp"


def shard_key(array: str, dimensions: int, shard: int) -> str:
    """Return the file of a shard relative to its stream: `cubes/c.7.0.0.0`."""
    return f"{array}/" + ".".join(["c", str(shard), *["0"] * (dimensions - 1)])


def marker_path(stream: Path, shard: int) -> Path:
    """Return the commit marker of a shard."""
    return stream / DONE / f"{shard}.json"


def publish_shard(
    stream: Path, shard: int, arrays: Mapping[str, np.ndarray], ledger: Mapping[str, Any], *, keep_zeros: bool
) -> bool:
    """Commit one whole shard; the first writer wins.

    Parameters
    ----------
    stream : the folder of the stream, one below its store
    arrays : the shard's rows, by array name, of the arrays' dtypes
    ledger : what else the marker says; plain JSON values
    keep_zeros : write chunks of fill values too (2.7 times faster, and larger where there are many)

    Returns
    -------
    True if this content stands, False if another writer's does and ours was dropped.
    """
    marker = marker_path(stream, shard)
    if marker.exists():
        return False
    scratch = make_scratch(stream.parent / SCRATCH)
    owned = True  # until others may be completing from it
    try:
        files = {
            shard_key(name, rows.ndim, shard): _write_shard(
                stream / name, scratch / name, shard, rows, keep_zeros=keep_zeros
            )
            for name, rows in arrays.items()
        }
        written = {key: told for key, told in files.items() if told}
        content = marker_line({**ledger, "shard": shard, "files": written})
        write(scratch / "marker.json", content)
        write(scratch / "intent.json", json.dumps({"scratch": scratch.name}).encode() + b"\n" + content)
        sync(scratch)
        owned = False
        if _intend(stream, shard, scratch) and not complete(stream, shard, own=scratch.name):
            raise CorruptStoreError(f"{scratch} was changed while it was being committed; run `vidatt extract` again.")
        owned = True
        return marker.samefile(scratch / "marker.json")
    finally:
        if owned:
            remove_scratch(scratch)


def sweep(store: Path, streams: list[Path]) -> int:
    """Complete all intents and remove the scratch of dead owners; the number of scratch folders removed."""
    root = store / SCRATCH
    # Listed before the intents: a writer that dies in between keeps its scratch for the next sweep.
    dead = abandoned(root) + abandoned(store.parent, prefix=f"{store.name}{SCRATCH}-")
    for stream in streams:
        for shard in sorted({int(path.name.split(".")[0]) for path in (stream / DONE).glob("*.intent-*.json")}):
            complete(stream, shard)
    for folder in dead:
        shutil.rmtree(folder, ignore_errors=True)  # another sweep may be at it
    remove_if_empty(root)
    return len(dead)


def complete(stream: Path, shard: int, *, own: str = "") -> bool:
    """Complete the intent that counts.

    Parameters
    ----------
    own : the caller's scratch, whose files need no hashing

    Returns
    -------
    Whether the shard is done: False if there is no intent, or its scratch is gone or damaged.
    """
    marker = marker_path(stream, shard)
    intents = _intents(stream, shard)  # before the look at the marker
    if not marker.exists():
        if not intents:
            return False
        try:
            if not _complete(stream, shard, intents[max(intents)], own):
                return marker.exists()
        except FileNotFoundError:  # a faster completer has removed the intent or the scratch, or the scratch is lost
            return marker.exists()
    for path in _intents(stream, shard).values():
        path.unlink(missing_ok=True)
    return True


def _complete(stream: Path, shard: int, intent: Path, own: str) -> bool:
    head, _, content = intent.read_bytes().partition(b"\n")
    try:
        scratch = stream.parent / SCRATCH / json.loads(head)["scratch"]
        files: dict[str, dict[str, Any]] = parse_marker(content)["files"]
    except (ValueError, LookupError, TypeError) as error:
        raise CorruptStoreError(f"{intent} is no intent of a commit ({error})", mend(stream.parent)) from error
    if (scratch / "marker.json").read_bytes() != content:
        return False
    for key, seal in files.items():
        path = scratch / key
        if path.stat().st_size != seal["bytes"] or not (scratch.name == own or sha256_of(path) == seal["sha256"]):
            return False
    for name in ARRAYS:
        keys = [key for key in files if key.startswith(f"{name}/")]
        for key in keys:
            _link_over(scratch / key, stream / key, marker_path(stream, shard))
        if not keys:  # all fill values; a leftover of an overruled intent must not show through
            for left in (stream / name).glob(f"c.{shard}.*"):
                left.unlink(missing_ok=True)
            (stream / name / f"c.{shard}").unlink(missing_ok=True)
        sync(stream / name)
    try:
        link(scratch / "marker.json", marker_path(stream, shard))
    except FileExistsError:
        return True
    sync(stream / DONE)
    return True


def _link_over(source: Path, target: Path, marker: Path) -> None:
    """Link `source` to `target`, replacing a file that no marker vouches for."""
    try:
        link(source, target)
    except FileExistsError:
        if target.samefile(source) or marker.exists():
            return
        beside = source.parent / f"{source.name}.{scratch_name()}"
        link(source, beside)
        beside.replace(target)
        # Renaming one link of a file over another does nothing: another completer had put it there meanwhile.
        beside.unlink(missing_ok=True)


def _intend(stream: Path, shard: int, scratch: Path) -> bool:
    """Link our intent; False if the shard turns out to be another writer's."""
    while not complete(stream, shard):
        generation = max(_intents(stream, shard), default=-1) + 1
        try:
            link(scratch / "intent.json", stream / DONE / f"{shard}.intent-{generation}.json")
        except FileExistsError:
            continue
        sync(stream / DONE)
        return True
    return False


def _intents(stream: Path, shard: int) -> dict[int, Path]:
    """Return the intents of a shard by generation."""
    return {
        int(match[1]): path
        for path in (stream / DONE).glob(f"{shard}.intent-*.json")
        if (match := re.fullmatch(r"\d+\.intent-(\d+)\.json", path.name))
    }


def _write_shard(
    array: Path, scratch: Path, shard: int, rows: np.ndarray, *, keep_zeros: bool
) -> dict[str, int | str] | None:
    """Write one file, and return what the marker says of it; None if all is fill and there is none."""
    scratch.mkdir()
    shutil.copyfile(array / "zarr.json", scratch / "zarr.json")
    # The setting is not stored; zarr 3.1.6 ignores it in open_array, and 3.1.3 has no Array.with_config.
    with zarr.config.set({"array.write_empty_chunks": keep_zeros}):
        private = zarr.open_array(scratch, mode="r+")
    shards, chunks = private.shards, private.chunks
    assert shards is not None
    # That all is fill is seen at memory speed; zarr would encode each chunk to see it.
    if keep_zeros or not _is_fill(rows, private.fill_value, chunks[0]):
        start = shard * shards[0]
        private[start : start + len(rows)] = rows  # one aligned assignment = one file
    path = scratch.parent / shard_key(scratch.name, rows.ndim, shard)
    if path.exists():
        sync(path)
    sync(scratch)
    if not path.exists():
        return None
    told: dict[str, int | str] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    inner = json.loads((scratch / "zarr.json").read_bytes())["codecs"][0]["configuration"]["codecs"]
    if inner[-1]["name"] == "crc32c":  # else another tool has packed the store again
        told["chunks"] = stored_sums(path, shards[0] // chunks[0])
    return told


def _is_fill(rows: np.ndarray, fill: object, block_rows: int) -> bool:
    bits = np.dtype(f"u{rows.dtype.itemsize}")
    wanted = np.asarray(fill, rows.dtype).view(bits)
    blocks = (rows[start : start + block_rows] for start in range(0, len(rows), block_rows))
    return all((block.view(bits) == wanted).all() for block in blocks)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
