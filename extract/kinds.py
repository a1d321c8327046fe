"""The kinds of streams as data: what a segment is, how many frames it spans, how its pictures become an input."""

from __future__ import annotations

import numpy as np

from ..registry import Registry
from .windows import FrameCollector, StreamKind, collect_flow

FIELDS = 10
"""Flow fields of a segment: TSN's script takes 5, the two-stream papers and STAN 10."""


def single(views: np.ndarray) -> np.ndarray:
    """Take the one picture of each view: (V, 1, S, S, C) -> (V, S, S, C)."""
    return views[:, 0]


def in_time(views: np.ndarray) -> np.ndarray:
    """Leave the pictures in time: (V, w, S, S, C)."""
    return views


def stacked(views: np.ndarray) -> np.ndarray:
    """Put the channels of all pictures beside each other, x0 y0 x1 y1 ...: (V, w, S, S, C) -> (V, S, S, w * C)."""
    V, w, S, _, C = views.shape
    return views.transpose(0, 2, 3, 1, 4).reshape(V, S, S, w * C)


KINDS: Registry[StreamKind] = Registry("stream")
"""By name, in the order in which streams are named; `register_kind` adds one."""


def register_kind(kind: StreamKind) -> StreamKind:
    """Add a kind; a stream of its name can be extracted from then on.

    Raises
    ------
    UsageError
        If there is one of this name.
    """
    KINDS[kind.name] = kind
    return kind


def find_kind(name: str | StreamKind) -> StreamKind:
    """Return a kind by name; a kind itself is returned as it is.

    Raises
    ------
    UnknownNameError
    """
    return name if isinstance(name, StreamKind) else KINDS[name]


RGB = register_kind(
    StreamKind(name="rgb", window_frames=1, channels=3, collect=FrameCollector, assemble=single, seen_as="rgb")
)
FLOW = register_kind(
    StreamKind(
        name="flow",
        window_frames=FIELDS + 1,
        channels=2 * FIELDS,
        collect=collect_flow,
        assemble=stacked,
        seen_as="flow",
        flow_fields=FIELDS,
        displacement=True,
        shard_videos=16,
    )
)
CLIP = register_kind(
    StreamKind(
        name="clip",
        window_frames=16,
        channels=3,
        input_frames=16,
        collect=FrameCollector,
        assemble=in_time,
        seen_as="clip",
        batch_weight=16,  # activations are those of 16 frames: 16 clips of C3D at 224 pixels would take 4 GB
    )
)
