"""The commit marker of a shard: its files, the outcome of each of its videos, and the proof that they are these.

A marker is one line of canonical JSON. `seal` is the SHA-256 of that line without the seal itself; `stream`,
`fingerprint` and `plan` say of which stream and which videos it is. A marker of an earlier version has none of the
four, and is compared with its file's name and with the ids of its shard alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .fingerprint import canonical_json

_SEAL = "seal"
_NEEDED = {"shard", "rows", "files", "videos"}
_PROOFS = {"stream", "fingerprint", "plan"}


def marker_line(marker: Mapping[str, Any]) -> bytes:
    """Return the content of a marker's file, sealed."""
    seal = hashlib.sha256(canonical_json(marker).encode()).hexdigest()
    return canonical_json({**marker, _SEAL: seal}).encode() + b"\n"


def parse_marker(content: bytes) -> dict[str, Any]:
    """Read a marker's file.

    Raises
    ------
    ValueError
        If it is no marker, or does not match its seal.
    """
    try:
        marker = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(marker, dict) or not marker.keys() >= _NEEDED:
        raise ValueError("keys are missing")
    files, videos = marker["files"], marker["videos"]
    if not isinstance(files, dict) or not all(map(_is_file, files.values())):
        raise ValueError("its files are not told by bytes and SHA-256")
    if not isinstance(videos, list) or not all(isinstance(v, dict) and isinstance(v.get("id"), str) for v in videos):
        raise ValueError("its videos are not told by their ids")
    if _SEAL not in marker and marker.keys() & _PROOFS:
        raise ValueError("it has no seal")
    if _SEAL in marker:
        # The keys are sorted and others follow, so cutting it out leaves what was sealed; parsing again costs 40 times.
        seal = f'"{_SEAL}":{json.dumps(marker[_SEAL])},'.encode()
        if hashlib.sha256(content.strip().replace(seal, b"", 1)).hexdigest() != marker[_SEAL]:
            raise ValueError("it was edited or damaged: it does not match its seal")
    return marker


def _is_file(told: object) -> bool:
    if not isinstance(told, dict) or type(told.get("bytes")) is not int or told["bytes"] < 1:
        return False
    return isinstance(told.get("sha256"), str) and isinstance(told.get("chunks", ""), str)
