"""The root of a store: what its zarr.json states of layout and plan, under a digest of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CorruptStoreError, RefusedError, StoreNotFoundError
from .fingerprint import fingerprint, plain
from .mending import mend

SCHEMA, EXTENDED = 1, 2
"""Versions of the format: of a store as it was made, and of one that was extended; a reader refuses others."""
INDEX = "index"
"""Folder of the index, unless the attribute of this name tells another: each extension writes one of its own."""

COUNTS = ("views", "rows", "chunk_rows", "shard_rows")
DIGEST = "layout_digest"
OWN = ("schema", *COUNTS, "plan_digest", "index_digest", INDEX, "earlier_rows", DIGEST)
"""The attributes that a store gives itself; the others are the planner's."""


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a root with the digest of all the others: whoever writes a root writes this."""
    rest = {key: value for key, value in attributes.items() if key != DIGEST}
    return plain({**rest, DIGEST: fingerprint(rest)})


def read_root(store: Path) -> dict[str, Any]:
    """Read the attributes of a store. One made by a vidatt before `layout_digest` has none, and is taken as it is.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    RefusedError
        If it is of another schema version.
    CorruptStoreError
        If its zarr.json is damaged, edited, or states what cannot be.
    """
    path = store / "zarr.json"
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if any(store.glob("*/.done")):
            raise CorruptStoreError(f"{path} is missing", mend(store)) from None
        raise StoreNotFoundError(f"No vidatt store at {store}; make one with `vidatt extract`.") from None
    try:
        attributes: dict[str, Any] = json.loads(text)["attributes"]
        schema = attributes["schema"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CorruptStoreError(f"{path} is not that of a vidatt store ({error!r})", mend(store)) from error
    if schema not in (SCHEMA, EXTENDED):
        raise RefusedError(
            f"The store {store} has schema version {schema}, this vidatt reads {SCHEMA} and {EXTENDED}; install the "
            "vidatt that made it."
        )
    if odd := _odd(attributes):
        raise CorruptStoreError(f"{path} {odd}", mend(store))
    return attributes


def _odd(attributes: dict[str, Any]) -> str | None:
    """Say in what a root cannot be one, or None."""
    for key in COUNTS:
        if type(attributes.get(key)) is not int or attributes[key] < 1:
            return f"states {key} {attributes.get(key)!r}"
    for key in ("plan_digest", "index_digest"):
        if type(attributes.get(key)) is not str:
            return f"states {key} {attributes.get(key)!r}"
    if not re.fullmatch(rf"{INDEX}(-[0-9]+)?", str(attributes.get(INDEX, INDEX))):
        return f"states index {attributes[INDEX]!r}"
    earlier = attributes.get("earlier_rows", [])
    if not isinstance(earlier, list) or not all(type(rows) is int and rows > 0 for rows in earlier):
        return f"states earlier_rows {earlier!r}"
    ends: list[int] = [*earlier, attributes["rows"]]
    if ends != sorted(set(ends)):
        return f"states earlier_rows {earlier!r}"
    if attributes["shard_rows"] % attributes["chunk_rows"]:
        return f"states shards of {attributes['shard_rows']} rows and chunks of {attributes['chunk_rows']}"
    if DIGEST in attributes and sealed(attributes)[DIGEST] != attributes[DIGEST]:
        return f"was edited or damaged: its attributes do not match their {DIGEST}"
    return None
