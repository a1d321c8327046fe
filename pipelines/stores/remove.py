"""`vidatt cache rm`: one stream leaves its store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...cache.publish import DONE, SCRATCH
from ...cache.scratch import make_scratch, move, remove_scratch, sync
from ...cache.store import Store
from ...errors import UsageError
from ..record import Record


@dataclass(frozen=True, kw_only=True)
class RemovedStream(Record):
    """A stream that was removed, or would be."""

    store: str
    stream: str
    shards: int  # that were done
    files: int
    bytes: int
    dry_run: bool


def remove_stream(path: Path, name: str, *, dry_run: bool = False) -> RemovedStream:
    """Remove a stream: it leaves the store in one step, and its files after that. A damaged one too.

    Raises
    ------
    UsageError
        If there is none of this name; the message lists those there are.
    """
    store = Store.open(path)
    store.require_streams([name])
    files = [file for file in (path / name).rglob("*") if file.is_file()]
    result = RemovedStream(
        store=str(path),
        stream=name,
        shards=sum(file.parent.name == DONE and file.stem.isdecimal() for file in files),
        files=len(files),
        bytes=sum(file.stat().st_size for file in files),
        dry_run=dry_run,
    )
    if not dry_run:
        scratch = make_scratch(path / SCRATCH)
        try:
            if not move(path / name, scratch / name):
                raise UsageError(f"{path / name} cannot be moved out of its store; try again.")
            sync(path)
        finally:
            remove_scratch(scratch)
    return result
