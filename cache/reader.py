"""The reader of a stream: rows and videos straight from the shards into the caller's buffers."""

from __future__ import annotations

import numpy as np

from ..errors import UsageError
from .shards import ShardedArray
from .stream_files import StreamFiles


class Reader:
    """Reads a stream's rows; for one thread at a time. Rows whose shard has no commit marker are refused.

    Shards are read with `preadv` at the offsets of their indices; a chunk's crc32c is checked when it is first read.
    Arrays with another codec chain go through zarr-python; which way is used is logged.

    Raises
    ------
    ShardMissingError
        From every read, if rows were never extracted.
    CorruptStoreError
        From every read, if a file is not what its marker says; the file is named.
    """

    def __init__(self, stream: StreamFiles) -> None:
        self.stream = stream
        self._offset, self._length = stream.store.index.offset, stream.store.index.length
        self._cubes = ShardedArray(stream, "cubes")
        self._frames: ShardedArray | None = None
        self._seconds: ShardedArray | None = None

    def __repr__(self) -> str:
        return f"Reader({self.stream!r}, {'direct' if self.direct else 'zarr-python'})"

    @property
    def direct(self) -> bool:
        """Whether cubes are read directly from the shards."""
        return self._cubes.direct

    def read_rows(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read the cubes of rows [start, stop).

        Parameters
        ----------
        out : [stop - start, K, K, D] float16, C-contiguous, to read into; a new array costs five times the reading

        Returns
        -------
        [stop - start, K, K, D] float16: `out`, or a new array
        """
        return self._read(self._cubes, start, stop, out)

    def read_video(self, position: int, *, view: int = 0, out: np.ndarray | None = None) -> np.ndarray:
        """Read the cubes of a video, [T, K, K, D] float16, T being the length planned for it."""
        return self._read(self._cubes, *self.row_range(position, view), out)

    def frames(self, position: int, view: int = 0) -> np.ndarray:
        """Read a video's frames, [T, 3] int32: first, centre, stop in decode order; -1 = padding."""
        self._frames = self._frames or ShardedArray(self.stream, "frames")
        return self._read(self._frames, *self.row_range(position, view), None)

    def seconds(self, position: int, view: int = 0) -> np.ndarray:
        """Read a video's presentation times, [T] float64 seconds of the centre frames."""
        self._seconds = self._seconds or ShardedArray(self.stream, "seconds")
        return self._read(self._seconds, *self.row_range(position, view), None)

    def will_need(self, position: int, view: int = 0) -> None:
        """Ask the system to read a video's cubes ahead."""
        self._cubes.will_need(*self.row_range(position, view))

    def row_range(self, position: int, view: int = 0) -> tuple[int, int]:
        """Return the rows [start, stop) of one view of a video."""
        views = self.stream.store.views
        if not (0 <= position < len(self._offset) and 0 <= view < views):
            raise UsageError(
                f"The store {self.stream.store.path} has videos 0..{len(self._offset) - 1} and views 0..{views - 1}, "
                f"not video {position}, view {view}."
            )
        T = int(self._length[position])
        start = int(self._offset[position]) + view * T
        return start, start + T

    def close(self) -> None:
        """Close the files that are kept open."""
        for array in (self._cubes, self._frames, self._seconds):
            if array is not None:
                array.close()

    def _read(self, array: ShardedArray, start: int, stop: int, out: np.ndarray | None) -> np.ndarray:
        if not 0 <= start <= stop <= self.stream.store.rows:
            raise UsageError(
                f"The store {self.stream.store.path} has rows 0..{self.stream.store.rows}, not {start}..{stop}."
            )
        shape = (stop - start, *array.row_shape)
        if out is None:
            out = np.empty(shape, array.dtype)
        elif out.shape != shape or out.dtype != array.dtype or not out.flags.c_contiguous:
            raise UsageError(
                f"Rows {start}..{stop} need a contiguous {array.dtype} buffer {shape}, not {out.dtype} {out.shape}."
            )
        array.read(start, stop, out)
        return out
