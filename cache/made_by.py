"""Which commands made a store: a file of lines beside it, not in it.

A store's bytes say nothing of who made it: a single process, slices and processes that were killed leave the same ones.
So the commands stand in `<store>.commands.jsonl`, which nothing needs to read the store.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..version import __version__

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MadeBy:
    """A command that worked on a store."""

    command: str | None  # as it was typed; None = a program called vidatt
    again: str  # that continues it, from any folder; "" of an import or a merge, which have nothing to continue
    streams: tuple[str, ...]  # that `again` continues
    vidatt: str = __version__
    time: str = ""  # of its start, such as 2026-01-31 12:00:00


def commands_file(store: Path) -> Path:
    """Return where the commands of a store stand."""
    place = Path(os.path.abspath(store))  # not resolved: beside the name by which the store is known
    return place.with_name(f"{place.name}.commands.jsonl")


def made_by(store: Path) -> tuple[MadeBy, ...]:
    """Return the commands that made a store, in their order; none of a store that came without them."""
    try:
        lines = commands_file(store).read_bytes().splitlines()
    except FileNotFoundError:
        return ()
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
            one = MadeBy(**{**entry, "streams": tuple(entry["streams"])})
        except (ValueError, LookupError, TypeError):  # the half line of a writer that was killed
            continue
        texts = [one.again, one.vidatt, one.time, *one.streams, *([] if one.command is None else [one.command])]
        if all(isinstance(text, str) for text in texts):
            found.append(one)
    return tuple(found)


def note_command(store: Path, *, command: str | None, again: str = "", streams: Sequence[str] = ()) -> None:
    """Put a command behind those that made a store, unless it is there: slices of one command are one line.

    Where nothing can be written beside the store, the work goes on, and a warning says so.
    """
    told = (command, again, tuple(streams), __version__)
    if any((known.command, known.again, known.streams, known.vidatt) == told for known in made_by(store)):
        return
    entry = MadeBy(command=command, again=again, streams=tuple(streams), time=time.strftime("%Y-%m-%d %H:%M:%S"))
    try:
        with commands_file(store).open("ab") as file:
            file.write(json.dumps(asdict(entry)).encode() + b"\n")
    except OSError as error:
        log.warning("the command is not recorded: %s cannot be written (%s)", commands_file(store), error)


def continuing(store: Path, streams: Sequence[str]) -> str | None:
    """Return what continues these streams (none = the store), as recorded; None if some command is not."""
    known = {name: entry.again for entry in made_by(store) for name in entry.streams}
    if not streams:
        return list(known.values())[-1] if known else None
    if not set(streams) <= known.keys():
        return None
    return " && ".join(dict.fromkeys(known[name] for name in streams))
