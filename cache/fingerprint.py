"""Fingerprints: the canonical JSON of a recipe, its SHA-256, and what differs between two recipes; digests of files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError

_ABSENT = object()


def canonical_json(recipe: Mapping[str, Any]) -> str:
    """Write a recipe in the one form that is hashed: keys sorted, no spaces, floats as `repr`.

    Parameters
    ----------
    recipe : nested mappings and sequences of str, int, finite float, bool and None; tuples count as lists

    Raises
    ------
    UsageError
        On NaN, infinity, keys that are not str, and values that JSON does not know; the dotted key is named.
    """
    return json.dumps(_plain(recipe, ""), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """SHA-256 of `canonical_json(recipe)` as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(recipe).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe as JSON gives it back: plain dicts with sorted keys, and lists."""
    return json.loads(canonical_json(recipe))


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, places: tuple[str, str] = ("here", "in the store")
) -> list[str]:
    """List the keys in which two recipes differ, one line each, nested keys dotted and sorted.

    Returns
    -------
    Lines such as `backbone: 'hog' here, 'vgg16' in the store`; empty when the recipes are equal.
    """
    return _differences(plain(ours), plain(theirs), "", places)


def _differences(ours: dict[str, Any], theirs: dict[str, Any], prefix: str, places: tuple[str, str]) -> list[str]:
    lines: list[str] = []
    for key in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
        if isinstance(here, dict) and isinstance(there, dict):
            lines += _differences(here, there, f"{prefix}{key}.", places)
        elif type(here) is not type(there) or here != there:  # 1, 1.0 and True have different canonical JSON
            lines.append(f"{prefix}{key}: {_shown(here)} {places[0]}, {_shown(there)} {places[1]}")
    return lines


def _shown(value: object) -> str:
    return "absent" if value is _ABSENT else repr(value)


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UsageError(f"The recipe's {where or 'value'} is {value!r}; a recipe takes finite numbers only.")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UsageError(f"The recipe's {where or 'top level'} has the key {key!r}; keys must be text.")
        return {key: _plain(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise UsageError(
        f"The recipe's {where or 'value'} is of type {type(value).__name__}, which JSON does not know; "
        "use text, numbers, true/false, null, lists and mappings."
    )
