"""A kind of stream as somebody may add it: the difference of neighbouring frames. Child processes import it too."""

from __future__ import annotations

import numpy as np

from vidatt.extract.windows import FrameCollector, StreamKind


def difference(views: np.ndarray) -> np.ndarray:
    """(V, 2, S, S, 3) -> (V, S, S, 3): 128 where nothing changes."""
    first, second = views[:, 0].astype(np.int16), views[:, 1].astype(np.int16)
    return ((second - first + 256) // 2).astype(np.uint8)


DIFFERENCE = StreamKind(
    name="difference", window_frames=2, channels=3, collect=FrameCollector, assemble=difference, seen_as="rgb"
)
