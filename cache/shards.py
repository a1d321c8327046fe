"""Rows of one sharded array, read past zarr-python, which reaches a tenth of the page cache's speed.

A shard file is its chunks in any order, each followed by its crc32c, then the shard index. So the rows of a video are
one `preadv` with a list of buffers. The crc32c of every chunk also stands in the commit marker: a file that was swapped
with another one, or replaced, is found when its chunks are first read.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import zarr

from ..errors import CorruptStoreError
from .mending import mend
from .publish import is_replaced, marker_digest, shard_key
from .shard_index import ABSENT, CRC, WORD, index_bytes, parse_index
from .stream_files import StreamFiles

logger = logging.getLogger(__name__)

OPEN_FILES = 64
"""File descriptors that one array keeps; opening a shard again costs no measurable time."""

REPLACED_TRIES, REPLACED_SECONDS = 20, 0.05
"""How often, and after what time, a shard that is being replaced is opened again: that takes milliseconds."""

_CHUNKS_PER_CALL = 500  # two buffers each, and Linux takes 1024


@dataclass(frozen=True, eq=False)
class _Shard:
    offsets: list[int]  # per chunk, -1 = absent
    verified: bytearray  # per chunk: 1 once its crc32c was found right
    size: int  # bytes of the file; 0 = there is none, all chunks are absent
    sums: str | None  # stored crc32c of each chunk as the marker has it, in words of 8; None = an earlier version's
    marker: str | None  # SHA-256 of the marker that says so
    identity: list[int]  # device, inode and time of the file; empty until it is opened


class _ReplacedError(Exception):
    """A file is another one than when its shard was opened: by a retry or a repair."""


class ShardedArray:
    """Rows of `cubes`, `frames` or `seconds` of a stream; for one thread at a time.

    Attributes
    ----------
    dtype, row_shape : of the rows
    direct : whether the shards are read directly; else through zarr-python (another codec chain)
    """

    def __init__(self, stream: StreamFiles, name: str) -> None:
        stored = stream.arrays[name]
        self.stream, self.name, self.path = stream, name, stored.path
        self.dtype, self.row_shape, self._fill = stored.dtype, stored.row_shape, stored.fill
        self._chunk_rows, self._shard_rows = stream.store.chunk_rows, stream.store.shard_rows
        self._row_bytes = int(np.prod(self.row_shape, dtype=np.int64)) * self.dtype.itemsize
        self._chunk_bytes = self._chunk_rows * self._row_bytes
        self._shards: dict[int, _Shard] = {}
        self._files: OrderedDict[int, int] = OrderedDict()  # shard -> descriptor, the least recent first
        weakref.finalize(self, _close, self._files)
        self.direct = stored.other_codecs is None
        self._zarr = None if self.direct else zarr.open_array(self.path, mode="r")
        how = "directly from its shards" if self.direct else f"through zarr-python, {stored.other_codecs}"
        logger.log(logging.DEBUG if self.direct else logging.INFO, "Reading %s %s.", self.path, how)

    def close(self) -> None:
        """Close the files; the next read opens them again."""
        _close(self._files)

    def read(self, start: int, stop: int, out: np.ndarray) -> None:
        """Read rows [start, stop) into `out`, a C-contiguous [stop - start, *row_shape] array of `dtype`.

        Raises
        ------
        ShardMissingError
            If a row lies in a shard without commit marker.
        CorruptStoreError
            If a file is not what its marker says, or a chunk fails its crc32c; the file is named.
        """
        flat = out.reshape(-1).view(np.uint8)
        done = 0
        while start < stop:
            number, first = divmod(start, self._shard_rows)
            rows = min(self._shard_rows - first, stop - start)
            self._read_part(number, first, first + rows, flat[done : done + rows * self._row_bytes])
            done += rows * self._row_bytes
            start += rows

    def _read_part(self, number: int, first: int, last: int, part: np.ndarray) -> None:
        """Read rows [first, last) of a shard; of one that is being replaced, as soon as that is done."""
        for left in reversed(range(REPLACED_TRIES)):
            try:
                shard = self._shards.get(number) or self._open(number)
                if self._zarr is None:
                    self._read_shard(number, shard, first, last, part)
                else:
                    start = number * self._shard_rows
                    try:
                        values = self._zarr[start + first : start + last]
                    except (ValueError, LookupError, RuntimeError, OSError) as error:
                        raise self._damage(f"zarr-python cannot read {self._key(number)} ({error})") from error
                    part.view(self.dtype).reshape(last - first, *self.row_shape)[...] = values
                return
            except _ReplacedError:
                self._forget(number)
            except CorruptStoreError:
                known = self._shards.get(number)
                new = known is not None and known.marker != marker_digest(self.stream.path, number)
                if not left or not (new or is_replaced(self.stream.path, number)):
                    raise
                if not new:
                    time.sleep(REPLACED_SECONDS)
                self._forget(number)
        raise self._damage(f"{self._key(number)} is replaced again and again")

    def _forget(self, number: int) -> None:
        self._shards.pop(number, None)
        if (file := self._files.pop(number, None)) is not None:
            os.close(file)

    def will_need(self, start: int, stop: int) -> None:
        """Ask the system to read rows [start, stop) ahead."""
        while start < stop and self.direct:
            number, first = divmod(start, self._shard_rows)
            rows = min(self._shard_rows - first, stop - start)
            chunks = range(first // self._chunk_rows, -(-(first + rows) // self._chunk_rows))
            try:
                shard = self._shards.get(number) or self._open(number)
                offsets = [shard.offsets[chunk] for chunk in chunks if shard.offsets[chunk] >= 0]
                if offsets:
                    size = max(offsets) + self._chunk_bytes + CRC - min(offsets)
                    os.posix_fadvise(self._file(number, shard), min(offsets), size, os.POSIX_FADV_WILLNEED)
            except (_ReplacedError, CorruptStoreError):
                self._forget(number)  # the read that follows says what is wrong, if anything is
            start += rows

    def _read_shard(self, number: int, shard: _Shard, first: int, last: int, part: np.ndarray) -> None:
        """Read rows [first, last) of a shard into `part`, uint8."""
        chunk_rows, row_bytes = self._chunk_rows, self._row_bytes
        chunk, stop = first // chunk_rows, -(-last // chunk_rows)
        at = 0  # bytes of `part` that are filled
        while chunk < stop:
            low, high = max(first, chunk * chunk_rows), min(last, (chunk + 1) * chunk_rows)
            offset, size = shard.offsets[chunk], (high - low) * row_bytes
            if offset < 0:
                part[at : at + size].view(self.dtype)[...] = self._fill
            elif size < self._chunk_bytes or chunk + 1 == stop:
                target = part[at : at + size]
                skip = (low - chunk * chunk_rows) * row_bytes
                if shard.verified[chunk]:
                    self._pread(number, shard, [target], offset + skip)
                elif size == self._chunk_bytes:
                    self._read_chunks(number, shard, chunk, 1, target)
                else:  # a crc32c is that of the whole chunk
                    whole = np.empty(self._chunk_bytes, np.uint8)
                    self._read_chunks(number, shard, chunk, 1, whole)
                    target[...] = whole[skip : skip + size]
            else:  # whole chunks that lie one after the other
                count = 1
                most = min((last - low) // chunk_rows, _CHUNKS_PER_CALL)
                while count < most and shard.offsets[chunk + count] == offset + count * (self._chunk_bytes + CRC):
                    count += 1
                size = count * self._chunk_bytes
                self._read_chunks(number, shard, chunk, count, part[at : at + size])
                chunk += count - 1
            at += size
            chunk += 1

    def _read_chunks(self, number: int, shard: _Shard, chunk: int, count: int, part: np.ndarray) -> None:
        """Read whole adjacent chunks into `part`, checking the crc32c of those that were never checked."""
        payloads = part.reshape(count, self._chunk_bytes)
        sums = np.empty((count, CRC), np.uint8)
        buffers = [buffer for pair in zip(payloads, sums, strict=True) for buffer in pair]
        self._pread(number, shard, buffers, shard.offsets[chunk])
        for i in range(count):
            if not shard.verified[chunk + i]:
                if google_crc32c.value(payloads[i]) != int(sums[i].view("<u4")[0]):
                    raise self._damage(f"Chunk {chunk + i} of {self._key(number)} fails its crc32c")
                at = WORD * (chunk + i)
                if shard.sums is not None and shard.sums[at : at + WORD] != sums[i].tobytes().hex():
                    raise self._damage(f"Chunk {chunk + i} of {self._key(number)} is not the one that was committed")
                shard.verified[chunk + i] = 1

    def _pread(self, number: int, shard: _Shard, buffers: list[np.ndarray], offset: int) -> None:
        wanted = sum(buffer.nbytes for buffer in buffers)
        file = self._file(number, shard)
        got = os.preadv(file, [buffer.data for buffer in buffers], offset)
        if got == wanted:
            return
        for buffer in buffers:  # network file systems may give less than asked for
            filled = 0
            while filled < buffer.nbytes:
                got = os.preadv(file, [buffer[filled:].data], offset + filled)
                if not got:
                    raise self._damage(f"{self._key(number)} ended early while being read")
                filled += got
            offset += filled

    def _file(self, number: int, shard: _Shard) -> int:
        file = self._files.get(number)
        if file is not None:
            self._files.move_to_end(number)
            return file
        path = self._key(number)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._damage(f"{path} is missing though its shard is marked done") from None
        found = os.fstat(file)
        identity = [found.st_dev, found.st_ino, found.st_mtime_ns]
        if shard.identity and identity != shard.identity:
            os.close(file)
            raise _ReplacedError
        if found.st_size != shard.size:
            os.close(file)
            raise self._damage(f"{path} has {found.st_size} bytes, its commit marker says {shard.size}")
        shard.identity[:] = identity
        while len(self._files) >= OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        self._files[number] = file
        return file

    def _open(self, number: int) -> _Shard:
        """Read the marker and the shard index."""
        marker = marker_digest(self.stream.path, number)
        try:
            return self._open_as(number, marker)
        except CorruptStoreError:
            if marker_digest(self.stream.path, number) != marker:
                raise _ReplacedError from None
            raise

    def _open_as(self, number: int, marker: str | None) -> _Shard:
        chunks = self._shard_rows // self._chunk_rows
        told: dict[str, Any] | None = self.stream.marker(number)["files"].get(
            shard_key(self.name, 1 + len(self.row_shape), number)
        )
        size, sums = (told["bytes"], told.get("chunks")) if told else (0, None)
        if sums is not None and len(sums) != WORD * chunks:
            raise self._damage(f"The commit marker of {self._key(number)} does not tell {chunks} chunks")
        shard = _Shard([-1] * chunks, bytearray(chunks), size, sums, marker, [])
        if told:
            self._file(number, shard)  # checks the size
            if self.direct:
                shard.offsets[:] = self._shard_index(number, shard)
        self._shards[number] = shard
        return shard

    def _shard_index(self, number: int, shard: _Shard) -> list[int]:
        path, chunks = self._key(number), len(shard.offsets)
        footer = np.empty(index_bytes(chunks), np.uint8)
        start = shard.size - footer.size
        if start < 0:
            raise self._damage(f"{path} is too short for its shard index")
        self._pread(number, shard, [footer], start)
        entries = parse_index(footer, start)
        if entries is None:
            raise self._damage(f"The shard index of {path} fails its crc32c")
        absent = entries[:, 0] == -1
        if not (absent | ((entries[:, 0] >= 0) & (entries[:, 1] == self._chunk_bytes + CRC))).all():
            raise self._damage(f"The shard index of {path} points outside the file")
        if shard.sums is not None:
            told = np.frombuffer(shard.sums.encode(), f"S{WORD}") == ABSENT.encode()
            if not np.array_equal(told, absent):
                raise self._damage(f"{path} has other chunks than were committed")
        offsets: list[int] = entries[:, 0].tolist()
        return offsets

    def _damage(self, what: str) -> CorruptStoreError:
        """Return the error that says what is wrong with a shard, and how it is made again."""
        if "imported" in self.stream.recipe:
            return CorruptStoreError(what, "import it again into a new store with `vidatt cache import`.")
        return CorruptStoreError(what, mend(self.stream.store.path))

    def _key(self, number: int) -> str:
        return str(self.stream.path / shard_key(self.name, 1 + len(self.row_shape), number))


def _close(files: OrderedDict[int, int]) -> None:
    while files:
        os.close(files.popitem()[1])
