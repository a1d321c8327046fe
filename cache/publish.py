"""Commit: how the three files of a shard and its ledger appear at once, from one writer, whoever is killed when.

A writer puts everything into a private scratch folder, fsyncs it, and hard-links its *intent* (the scratch's name and
the marker) into `<stream>/.done/`. That one link decides who is first. Anybody who meets an intent completes it: put
each file at its key, then the marker at `<shard>.json`, then take the scratch away, then drop the intents.

An intent holds for one *base*: no marker (`<shard>.intent-<generation>.json`), or the marker of one SHA-256, which it
replaces (`<shard>.replace-<SHA-256>-<generation>.json`). It is void once the marker is another: then it is completed,
or somebody else was first. Of the intents that hold only that of the highest generation counts, and it is overruled by
the next generation only if its scratch is gone or damaged; only void intents are removed. So no step ever takes back
what another process may just have judged, and every check of the form "intent first, marker second" is safe against
a completer that is faster. One that is slower, and wakes up when the shard has been replaced since, finds no scratch:
all it does to files is a link or a rename out of that folder or into it, and it was renamed away before its intent
was dropped, which is before the next replacement can be intended.

What a reader sees while a shard is replaced: files that it has open stay the old ones. A file that it opens is the old
or the new one, whole, and every chunk is checked by its crc32c, so no row is ever half one and half the other. In the
moment between the first file and the marker a file may be newer than the marker: a reader that finds it so waits for
the marker, and refuses the shard if none comes. The cubes come first and the frames, which tell what rows are real,
after them. What is kept of the old shard (its marker, its frames) a reader sees anew when the store is opened again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import CorruptStoreError
from .fingerprint import sha256_of
from .marker import marker_line, parse_marker
from .mending import mend
from .scratch import abandoned, link, make_scratch, naming, remove_if_empty, remove_scratch, scratch_name, sync, write
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


def marker_digest(stream: Path, shard: int) -> str | None:
    """SHA-256 of the commit marker of a shard, whatever it holds; None if there is none."""
    try:
        return sha256_of(marker_path(stream, shard))
    except FileNotFoundError:
        return None


def is_replaced(stream: Path, shard: int) -> bool:
    """Whether a shard is being replaced at this moment: its marker stands, and an intent to replace it too."""
    current = marker_digest(stream, shard)
    return current is not None and any(intent.base == current for intent in _intents(stream, shard))


def publish_shard(
    stream: Path,
    shard: int,
    arrays: Mapping[str, np.ndarray],
    ledger: Mapping[str, Any],
    *,
    keep_zeros: bool,
    replaces: str | None = None,
) -> bool:
    """Commit one whole shard; the first writer wins.

    Parameters
    ----------
    stream : the folder of the stream, one below its store
    arrays : the shard's rows, by array name, of the arrays' dtypes
    ledger : what else the marker says; plain JSON values
    keep_zeros : write chunks of fill values too (2.7 times faster, and larger where there are many)
    replaces : SHA-256 of the marker that this content is to replace; None = there is to be none

    Returns
    -------
    True if this content stands, False if another writer's does and ours was dropped.
    """

    def fill(scratch: Path) -> bytes:
        files = {
            shard_key(name, rows.ndim, shard): _write_shard(
                stream / name, scratch / name, shard, rows, keep_zeros=keep_zeros
            )
            for name, rows in arrays.items()
        }
        written = {key: told for key, told in files.items() if told}
        return marker_line({**ledger, "shard": shard, "files": written})

    return _commit(stream, shard, fill, replaces)


def adopt_shard(stream: Path, shard: int, source: Path) -> bool:
    """Commit a shard as it stands in the same stream of another store: its files are linked, or copied, and hashed.

    Parameters
    ----------
    source : the folder of the stream that has it

    Returns
    -------
    True if this content stands, False if another writer's does.

    Raises
    ------
    CorruptStoreError
        If the files there are not what their marker says.
    """

    def fill(scratch: Path) -> bytes:
        content = marker_path(source, shard).read_bytes()
        for name in ARRAYS:
            (scratch / name).mkdir()
        for key, told in parse_marker(content)["files"].items():
            try:
                os.link(source / key, scratch / key)
            except FileNotFoundError:
                raise CorruptStoreError(f"{source / key} is missing", mend(source.parent)) from None
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(source / key, scratch / key)
            if sha256_of(scratch / key) != told["sha256"]:
                raise CorruptStoreError(f"{source / key} is not what its commit marker says", mend(source.parent))
            sync(scratch / key)
        for name in ARRAYS:
            sync(scratch / name)
        return content

    return _commit(stream, shard, fill, None)


def _commit(stream: Path, shard: int, fill: Callable[[Path], bytes], replaces: str | None) -> bool:
    """Let `fill` write the files of a shard into a new scratch and return its marker; then commit that."""
    if marker_digest(stream, shard) != replaces:
        return False
    scratch = make_scratch(stream.parent / SCRATCH)
    owned = True  # until others may be completing from it
    try:
        content = fill(scratch)
        write(scratch / "marker.json", content)
        write(scratch / "intent.json", json.dumps({"scratch": scratch.name}).encode() + b"\n" + content)
        sync(scratch)
        owned = False
        intended = _intend(stream, shard, scratch, replaces)
        if intended and not complete(stream, shard, own=scratch.name) and scratch.exists():  # else another completed it
            raise CorruptStoreError(f"{scratch} was changed while it was being committed; run `vidatt extract` again.")
        owned = True
        return marker_digest(stream, shard) == hashlib.sha256(content).hexdigest()
    finally:
        if owned:
            remove_scratch(scratch)


def sweep(store: Path, streams: list[Path]) -> int:
    """Complete all intents and remove the scratch of dead owners; the number of scratch folders removed."""
    root = store / SCRATCH
    # Listed before the intents: a writer that dies in between keeps its scratch for the next sweep.
    dead = abandoned(root) + abandoned(store.parent, prefix=f"{store.name}{SCRATCH}-")
    for stream in streams:
        for shard in _with_intents(stream):
            complete(stream, shard)
    for folder in dead:
        shutil.rmtree(folder, ignore_errors=True)  # another sweep may be at it
    if root.exists():  # a store on a read-only mount has none
        remove_if_empty(root)
    return len(dead)


def drop_garbage(stream: Path) -> int:
    """Remove intents that no writer can have made; how many."""
    garbage = [
        intent
        for shard in _with_intents(stream)
        for intent in _intents(stream, shard)
        if intent.scratch(stream) is None or _promised(intent.marker, shard) is None
    ]
    for intent in garbage:
        intent.path.unlink(missing_ok=True)
    return len(garbage)


def drop_shard(stream: Path, shard: int) -> None:
    """Remove a damaged shard, files first and its marker last, so that it is extracted again."""
    scratch = make_scratch(stream.parent / SCRATCH)
    try:
        for left in [
            path for name in ARRAYS for path in [*(stream / name).glob(f"c.{shard}.*"), stream / name / f"c.{shard}"]
        ]:
            with contextlib.suppress(FileNotFoundError):
                left.rename(scratch / scratch_name())
        marker_path(stream, shard).unlink(missing_ok=True)
        sync(stream / DONE)
    finally:
        remove_scratch(scratch)


def complete(stream: Path, shard: int, *, own: str = "") -> bool:
    """Complete the intent that counts, and drop those that are void.

    Parameters
    ----------
    own : the caller's scratch, whose files need no hashing

    Returns
    -------
    Whether no intent holds any more and the shard is done: False if there is no marker, or if an intent holds whose
    scratch is gone or damaged.
    """
    intents = _intents(stream, shard)  # before the look at the marker
    current = marker_digest(stream, shard)
    holding = [intent for intent in intents if intent.base == current]
    if holding:
        last = max(holding, key=lambda intent: intent.generation)
        placed = False
        with contextlib.suppress(FileNotFoundError):  # a faster completer took intent or scratch, or that is lost
            placed = _complete(stream, shard, last, own)
        if placed and last.promised_digest == current:
            # Damaged files got back what the marker told all along, so the intent still holds; only who takes its
            # scratch away drops it, since another one may have the same name by then.
            if _take_away(stream, last):
                last.path.unlink(missing_ok=True)
        elif marker_digest(stream, shard) == current:
            return False
    elif current is None:
        return False
    for intent in _intents(stream, shard):
        # Looked at anew for each: another replacement may have been intended meanwhile.
        if intent.base != marker_digest(stream, shard):
            _take_away(stream, intent)
            intent.path.unlink(missing_ok=True)
    return True


def _complete(stream: Path, shard: int, intent: _Intent, own: str) -> bool:
    """Put files and marker in their place; False if the scratch is damaged."""
    scratch, content = intent.scratch(stream), intent.marker
    files = _promised(content, shard)
    if files is None or scratch is None or (scratch / "marker.json").read_bytes() != content:
        return False
    for key, seal in files.items():
        path = scratch / key
        if path.stat().st_size != seal["bytes"] or not (scratch.name == own or sha256_of(path) == seal["sha256"]):
            return False
    for name in ARRAYS:
        keys = [key for key in files if key.startswith(f"{name}/")]
        for key in keys:
            if intent.base is None:
                _link_over(scratch / key, stream / key, marker_path(stream, shard))
            else:
                _rename_over(scratch / key, stream / key)
        if not keys:  # all fill values; what was there before must not show through
            for left in [*(stream / name).glob(f"c.{shard}.*"), stream / name / f"c.{shard}"]:
                with contextlib.suppress(FileNotFoundError):
                    left.rename(scratch / scratch_name())
        sync(stream / name)
    if intent.base is None:
        with contextlib.suppress(FileExistsError):
            link(scratch / "marker.json", marker_path(stream, shard))
    else:
        _rename_over(scratch / "marker.json", marker_path(stream, shard))
    sync(stream / DONE)
    return True


def _link_over(source: Path, target: Path, marker: Path) -> None:
    """Link `source` to `target`, replacing a file that no marker vouches for."""
    try:
        link(source, target)
    except FileExistsError:
        if not (target.samefile(source) or marker.exists()):
            _rename_over(source, target)


def _rename_over(source: Path, target: Path) -> None:
    """Link `source` beside itself and rename that over `target`."""
    beside = source.parent / f"{source.name}.{scratch_name()}"
    link(source, beside)
    beside.replace(target)
    # Renaming one link of a file over another does nothing: another completer had put it there meanwhile.
    beside.unlink(missing_ok=True)


def _take_away(stream: Path, intent: _Intent) -> bool:
    """Remove the scratch of an intent, at once for whoever is still completing from it; False if it was gone."""
    scratch = intent.scratch(stream)
    if scratch is None:
        return False
    mine = scratch.with_name(scratch_name())
    try:
        scratch.rename(mine)
    except FileNotFoundError:  # another process was faster
        return False
    remove_scratch(mine)
    return True


def _intend(stream: Path, shard: int, scratch: Path, base: str | None) -> bool:
    """Link our intent; False if the shard turns out to be another writer's."""
    while True:
        complete(stream, shard)
        generation = max((i.generation for i in _intents(stream, shard) if i.base == base), default=-1) + 1
        if marker_digest(stream, shard) != base:
            return False
        try:
            link(scratch / "intent.json", stream / DONE / _intent_name(shard, base, generation))
        except FileExistsError:
            continue
        sync(stream / DONE)
        return True


@dataclass(frozen=True, kw_only=True)
class _Intent:
    path: Path
    base: str | None  # SHA-256 of the marker that it replaces; None = none
    generation: int
    content: bytes

    @property
    def marker(self) -> bytes:
        """The marker that it promises."""
        return self.content.partition(b"\n")[2]

    @property
    def promised_digest(self) -> str:
        """SHA-256 of that marker."""
        return hashlib.sha256(self.marker).hexdigest()

    def scratch(self, stream: Path) -> Path | None:
        """Return the scratch that it names; None if the file is garbage."""
        try:
            name = json.loads(self.content.partition(b"\n")[0])["scratch"]
        except (ValueError, LookupError, TypeError):
            return None
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name:
            return None
        return stream.parent / SCRATCH / name


_INTENT = re.compile(r"(\d+)\.(?:intent|replace-([0-9a-f]{64}))-(\d+)\.json")


def _intent_name(shard: int, base: str | None, generation: int) -> str:
    return f"{shard}.{'intent' if base is None else f'replace-{base}'}-{generation}.json"


def _with_intents(stream: Path) -> list[int]:
    """List the shards that have intents, ascending."""
    found = (_INTENT.fullmatch(path.name) for path in (stream / DONE).glob("*-*.json"))
    return sorted({int(match[1]) for match in found if match})


def _intents(stream: Path, shard: int) -> list[_Intent]:
    """Return the intents of a shard with what they say: read before the look at the marker, since names come again."""
    found = []
    for path in (stream / DONE).glob(f"{shard}.*-*.json"):
        if match := _INTENT.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
                content = path.read_bytes()
                found.append(_Intent(path=path, base=match[2], generation=int(match[3]), content=content))
    return found


def _promised(content: bytes, shard: int) -> dict[str, dict[str, Any]] | None:
    """Return the files of the marker that an intent promises; None if it is garbage."""
    try:
        files: dict[str, dict[str, Any]] = parse_marker(content)["files"]
    except ValueError:
        return None
    ours = re.compile(rf"({'|'.join(ARRAYS)})/c\.{shard}(\.0)*")
    return files if all(map(ours.fullmatch, files)) else None


def _write_shard(
    array: Path, scratch: Path, shard: int, rows: np.ndarray, *, keep_zeros: bool
) -> dict[str, int | str] | None:
    """Write one file, and return what the marker says of it; None if all is fill and there is none."""
    scratch.mkdir()
    metadata = json.loads((array / "zarr.json").read_bytes())
    shard_rows = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
    # The array ends with the shard: the bytes of one that was the last stay the same when the store is extended.
    metadata["shape"][0] = shard * shard_rows + len(rows)
    (scratch / "zarr.json").write_text(json.dumps(metadata))
    # The setting is not stored; zarr 3.1.6 ignores it in open_array, and 3.1.3 has no Array.with_config.
    with zarr.config.set({"array.write_empty_chunks": keep_zeros}):
        private = zarr.open_array(scratch, mode="r+")
    shards, chunks = private.shards, private.chunks
    assert shards is not None
    # That all is fill is seen at memory speed; zarr would encode each chunk to see it.
    if keep_zeros or not _is_fill(rows, private.fill_value, chunks[0]):
        start = shard * shards[0]
        with naming(scratch):
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
