"""The stretches of time that the segments of a store's videos stand for."""

from __future__ import annotations

import numpy as np

from ...cache.store import Store
from ...errors import UsageError
from .proposals import segment_bounds


class Times:
    """The stretches of a store's videos, by the time map of one stream."""

    def __init__(self, store: Store, stream: str) -> None:
        self._store, self._stream = store, store.stream(stream)
        self._reader = self._stream.reader()

    def bounds(self, position: int, segments: int) -> np.ndarray:
        """Return start and stop of each of the first `segments` segments of a video, [T, 2] float64 seconds.

        Raises
        ------
        UsageError
            As `segment_bounds`; names the video.
        """
        outcome = self._stream.outcome(position)
        try:
            return segment_bounds(
                self._reader.frames(position)[:segments],
                self._reader.seconds(position)[:segments],
                fps=outcome.fps,
                frame_count=outcome.decoded_frames,
                stop=float(self._store.index.span_seconds[position, 1]),
            )
        except UsageError as error:
            raise UsageError(f"Video {self._store.index.ids[position]!r} of {self._store.path} {error}.") from None
