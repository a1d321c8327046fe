"""The index at the end of a shard file: where each chunk lies, and the crc32c that follows it.

Offset and stored size of every chunk as little-endian uint64 (both 2^64-1 = absent), then the index's own crc32c.
"""

from __future__ import annotations

import os
from pathlib import Path

import google_crc32c
import numpy as np

CRC = 4
"""Bytes of a crc32c."""

WORD = 8
ABSENT = "-" * WORD
"""What stands for an absent chunk where the others have the 8 hexadecimal digits of their stored crc32c."""

_NONE = np.uint64(2**64 - 1)


def index_bytes(chunks: int) -> int:
    """Return the size of an index."""
    return chunks * 16 + CRC


def parse_index(footer: np.ndarray, end: int) -> np.ndarray | None:
    """Read an index.

    Parameters
    ----------
    footer : [index_bytes] uint8
    end : bytes of the file before the index, where all chunks lie

    Returns
    -------
    [chunks, 2] int64: offset and stored bytes, (-1, 0) where a chunk is absent; None if its crc32c is wrong. An
    entry that points outside the file has the offset -2.
    """
    if google_crc32c.value(footer[:-CRC]) != int(footer[-CRC:].view("<u4")[0]):
        return None
    raw = footer[:-CRC].view("<u8").reshape(-1, 2)
    absent = (raw == _NONE).all(axis=1)
    small = np.minimum(raw, np.uint64(end + 1)).astype(np.int64)  # whose sum cannot overflow
    inside = small.sum(axis=1) <= end
    entries = np.where(inside[:, None], small, 0)
    entries[~inside, 0] = -2
    entries[absent, 0] = -1
    return entries


def stored_sums(path: Path, chunks: int) -> str:
    """Return the stored crc32c of every chunk of a shard file that was just written: 8 digits each, or `ABSENT`."""
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        footer = np.frombuffer(os.pread(file.fileno(), index_bytes(chunks), size - index_bytes(chunks)), np.uint8)
        entries = parse_index(footer, size - footer.size)
        if entries is None or (entries[:, 0] < -1).any():
            raise RuntimeError(f"{path} was written with a shard index that cannot be read")
        return "".join(
            ABSENT if offset < 0 else os.pread(file.fileno(), CRC, offset + stored - CRC).hex()
            for offset, stored in entries.tolist()
        )
