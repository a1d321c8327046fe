"""Frames in, inputs of segments out: what a kind of stream is, and collectors that hold no more than their window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np

from ..errors import UsageError
from .flow.levels import quantise
from .flow.preset import CPU_ENGINES, find_preset
from .views import Geometry, Views

CHUNK_BYTES = 4 << 20
"""Inputs are handed on in pieces of about this size, so that memory follows the window and not the video."""


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """How optical flow is computed and kept."""

    preset: str = "tsn"
    engine: str = "numba"  # never "auto": the engine is part of the recipe
    bound: float = 20.0  # pixels that levels 0 and 255 stand for


@dataclass(frozen=True, kw_only=True)
class StreamKind:
    """What a segment of a stream is, and how it becomes a backbone's input; `kinds.KINDS` lists them.

    It travels to the decoding children: its functions must be found by name in a module that can be imported there.

    Raises
    ------
    UsageError
        If a number is below 1, or the flow fields are not those of the window.
    """

    name: str  # of its stream too
    window_frames: int  # frames that a segment spans
    channels: int  # of the input, S = side of the crop: (S, S, channels)
    input_frames: int | None = None  # time steps of the input, (input_frames, S, S, channels); None = without time
    collect: CollectorFactory  # called in the decoding child, once a video
    assemble: Callable[[np.ndarray], np.ndarray]  # all views of a segment (V, pictures, S, S, C) -> (V, *input)
    seen_as: str  # rgb, flow or clip: backbones of that kind take it
    flow_fields: int = 0  # TV-L1 fields that are computed for it
    displacement: bool = False  # its values are quantised displacements, whose x turns its sign in a mirror
    batch_weight: int = 1  # inputs that one of it stands for in a batch
    shard_videos: int = 64  # most videos in a shard, unless told otherwise: fewer where extraction is slow

    def __post_init__(self) -> None:
        for name in ("window_frames", "channels", "batch_weight", "shard_videos"):
            if getattr(self, name) < 1:
                raise UsageError(f"Kind of stream {self.name!r}: {name} is {getattr(self, name)}, must be 1 or more.")
        if self.flow_fields and self.window_frames != self.flow_fields + 1:
            raise UsageError(
                f"Kind of stream {self.name!r}: {self.flow_fields} flow fields lie between {self.flow_fields + 1} "
                f"frames, not in a window of {self.window_frames}."
            )

    @property
    def memory_format(self) -> str:
        """Name of PyTorch's layout in memory for its inputs."""
        return "channels_last" if self.input_frames is None else "channels_last_3d"

    def input_shape(self, crop_px: int) -> tuple[int, ...]:
        """Return the shape of one segment's input: (S, S, channels), or (frames, S, S, channels)."""
        time = () if self.input_frames is None else (self.input_frames,)
        return *time, crop_px, crop_px, self.channels


@dataclass(frozen=True, kw_only=True)
class StreamInput:
    """What one stream takes of a segment."""

    name: str
    kind: StreamKind
    geometry: Geometry
    views: Views
    flow: FlowSettings = FlowSettings()
    seed: int = 0  # of random views

    @property
    def flow_in_worker(self) -> bool:
        """Whether flow is computed by the worker, on its device, and not where frames are decoded."""
        return self.kind.flow_fields > 0 and self.flow.engine not in CPU_ENGINES


@dataclass(frozen=True, eq=False)
class Chunk:
    """Inputs of some segments of one stream."""

    stream: str
    segments: np.ndarray  # (n,) int64
    inputs: np.ndarray  # (n, V, *kind.input_shape) uint8


@dataclass(frozen=True, eq=False)
class GrayChunk:
    """Frames of a flow stream whose flow is computed elsewhere."""

    stream: str
    frames: np.ndarray  # (n,) int64, decode order
    grays: np.ndarray  # (n, H, W) uint8


class FrameStore:
    """The forms of one decoded frame that several streams share.

    Parameters
    ----------
    rgb : (H, W, 3) uint8
    first : (width, height) of the video's first frame, pixels; this one may have another size
    """

    def __init__(self, rgb: np.ndarray, first: tuple[int, int]) -> None:
        self._rgb, self._first = rgb, first
        self._forms: dict[tuple[int | bool, ...], np.ndarray] = {}

    def get(self, geometry: Geometry, *, gray: bool) -> np.ndarray:
        """Return the frame resized, (H, W, 3) or gray (H, W), made once per size."""
        key = (*geometry.part_px(*self._first), *geometry.target_px(*self._first), gray)
        if key not in self._forms:
            form = geometry.resized(self._rgb, first=self._first)
            self._forms[key] = cv2.cvtColor(form, cv2.COLOR_RGB2GRAY) if gray else np.ascontiguousarray(form)
        return self._forms[key]


class Collector(Protocol):
    """Takes the frames of one video in order."""

    def wants(self, index: int) -> bool:
        """Whether this frame is needed."""
        ...

    def add(self, index: int, frame: FrameStore) -> None:
        """Take a wanted frame."""
        ...

    def flush(self) -> None:
        """Emit what is ready."""
        ...


class CollectorFactory(Protocol):
    """Makes what collects one stream of one video; `FrameCollector` is one."""

    def __call__(
        self, stream: StreamInput, firsts: np.ndarray, span: tuple[int, int], key: tuple[int, ...],
        emit: Callable[[Chunk | GrayChunk], None], /,
    ) -> Collector:  # fmt: skip
        """Make the collector, in the decoding child.

        Parameters
        ----------
        firsts : (T,) first frame of each segment
        span : first and last frame of the video, decode order of the whole file
        key : of the video's random views, the stream's seed first
        emit : takes the chunks
        """
        ...


class Assembler:
    """Builds segments from consecutive items (frames, or flow fields) that come in order.

    Parameters
    ----------
    firsts : (T,) first item of each segment
    length : items of a segment
    last : the last item there is; segments are clamped there
    key : of the random views, without the segment
    """

    def __init__(
        self, stream: StreamInput, firsts: np.ndarray, *, length: int, last: int, key: tuple[int, ...],
        emit: Callable[[Chunk], None],
    ) -> None:  # fmt: skip
        self._stream, self._length, self._last, self._key, self._emit = stream, length, last, key, emit
        self._order = np.argsort(firsts, kind="stable")  # overlapping windows step back
        self._firsts = firsts[self._order].tolist()
        self._items: dict[int, np.ndarray] = {}
        self._next = 0
        self._ready: list[np.ndarray] = []
        self._segments: list[int] = []
        self.wanted = set(np.minimum(firsts[:, None] + np.arange(length), last).ravel().tolist())

    def put(self, index: int, item: np.ndarray) -> None:
        """Take one wanted item, (H, W, C) uint8."""
        self._items[index] = item
        while self._next < len(self._firsts):
            first = self._firsts[self._next]
            indices = [min(i, self._last) for i in range(first, first + self._length)]
            if indices[-1] > index:
                break
            segment = int(self._order[self._next])
            self._finish(segment, np.stack([self._items[i] for i in indices]))
            self._next += 1
        needed = min(self._firsts[self._next], self._last) if self._next < len(self._firsts) else index + 1
        for old in [i for i in self._items if i < needed]:
            del self._items[old]

    def _finish(self, segment: int, pictures: np.ndarray) -> None:
        stream = self._stream
        views = stream.views.cut(
            pictures, stream.geometry, key=(*self._key, segment), displacement=stream.kind.displacement
        )
        inputs = stream.kind.assemble(views)
        self._ready.append(inputs)
        self._segments.append(segment)
        if len(self._ready) * inputs.nbytes >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Emit what is ready."""
        if self._ready:
            self._emit(Chunk(self._stream.name, np.array(self._segments, np.int64), np.stack(self._ready)))
            self._ready, self._segments = [], []


class FrameCollector:
    """Segments of the frames of a window."""

    def __init__(
        self, stream: StreamInput, firsts: np.ndarray, span: tuple[int, int], key: tuple[int, ...],
        emit: Callable[[Chunk], None],
    ) -> None:  # fmt: skip
        self._geometry = stream.geometry
        self._segments = Assembler(stream, firsts, length=stream.kind.window_frames, last=span[1], key=key, emit=emit)

    def wants(self, index: int) -> bool:
        """Whether this frame is needed."""
        return index in self._segments.wanted

    def add(self, index: int, frame: FrameStore) -> None:
        """Take a wanted frame."""
        self._segments.put(index, frame.get(self._geometry, gray=False))

    def flush(self) -> None:
        """Emit what is ready."""
        self._segments.flush()


class FlowCollector:
    """Segments of flow fields; each distinct pair of frames is computed once and shared by the segments it is in.

    Field p leads from frame p to frame p + 1. A segment at frame f has the kind's number of fields from f on,
    clamped at the last field; a video of one frame has one field without motion.

    Parameters
    ----------
    compute : (n, H, W) uint8 first and second frames -> (n, 2, H, W) float32 pixels
    """

    def __init__(
        self, stream: StreamInput, firsts: np.ndarray, span: tuple[int, int], key: tuple[int, ...],
        emit: Callable[[Chunk], None], compute: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> None:  # fmt: skip
        self._stream, self._compute, self._single = stream, compute, span[0] == span[1]
        last = span[1] if self._single else span[1] - 1
        self._segments = Assembler(stream, firsts, length=stream.kind.flow_fields, last=last, key=key, emit=emit)
        self._before: tuple[int, np.ndarray] | None = None
        self.wanted_frames = {p + d for p in self._segments.wanted for d in ((0,) if self._single else (0, 1))}

    def wants(self, index: int) -> bool:
        """Whether this frame is needed."""
        return index in self.wanted_frames

    def add(self, index: int, frame: FrameStore) -> None:
        """Take a wanted frame."""
        self.add_grays([index], frame.get(self._stream.geometry, gray=True)[None])

    def add_grays(self, indices: Sequence[int], grays: np.ndarray) -> None:
        """Take wanted frames, (n, H, W) uint8 gray, in order; all pairs that they complete are computed at once."""
        frames = list(zip(indices, grays, strict=True))
        chain = [self._before, *frames] if self._before is not None else frames
        self._before = frames[-1]
        pairs = [(a, b) for a, b in pairwise(chain) if b[0] == a[0] + 1]
        pairs = [(a, b) for a, b in pairs if a[0] in self._segments.wanted]
        if self._single:
            pairs = [(chain[0], chain[0])]
        if not pairs:
            return
        fields = self._compute(np.stack([a[1] for a, _ in pairs]), np.stack([b[1] for _, b in pairs]))
        levels = quantise(fields, bound=self._stream.flow.bound).transpose(0, 2, 3, 1)
        for (a, _), field in zip(pairs, levels, strict=True):
            self._segments.put(a[0], np.ascontiguousarray(field))

    def flush(self) -> None:
        """Emit what is ready."""
        self._segments.flush()


class GrayCollector:
    """Hands on gray frames, for a worker whose device computes the flow."""

    def __init__(
        self, stream: StreamInput, firsts: np.ndarray, span: tuple[int, int], emit: Callable[[GrayChunk], None]
    ) -> None:
        # only asked which frames it wants: it never computes
        plan = FlowCollector(stream, firsts, span, (), emit=_never, compute=_no_flow)
        self._stream, self._wanted, self._emit = stream, plan.wanted_frames, emit
        self._frames: list[int] = []
        self._grays: list[np.ndarray] = []

    def wants(self, index: int) -> bool:
        """Whether this frame is needed."""
        return index in self._wanted

    def add(self, index: int, frame: FrameStore) -> None:
        """Take a wanted frame."""
        self._frames.append(index)
        self._grays.append(frame.get(self._stream.geometry, gray=True))
        if len(self._grays) * self._grays[0].nbytes >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Emit what is ready."""
        if self._frames:
            self._emit(GrayChunk(self._stream.name, np.array(self._frames, np.int64), np.stack(self._grays)))
            self._frames, self._grays = [], []


def _never(chunk: Chunk) -> None:
    raise RuntimeError(f"no chunk of {chunk.stream!r} was asked for")


def _no_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    raise RuntimeError("no flow was asked for")


@cache
def child_flow(settings: FlowSettings) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the flow function of an engine that needs no torch."""
    import importlib

    engine = importlib.import_module(f".flow.{settings.engine}_engine", __package__)
    preset = find_preset(settings.preset)

    def compute(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        field: np.ndarray = engine.flow(first, second, preset)
        return field

    return compute


def load_engines(streams: Sequence[StreamInput]) -> None:
    """Import what computes flow where frames are decoded."""
    for stream in streams:
        if stream.kind.flow_fields and not stream.flow_in_worker:
            child_flow(stream.flow)


def collect_flow(
    stream: StreamInput, firsts: np.ndarray, span: tuple[int, int], key: tuple[int, ...],
    emit: Callable[[Chunk | GrayChunk], None],
) -> Collector:  # fmt: skip
    """Return what collects a stream of flow: fields, or gray frames if the worker computes the flow."""
    if stream.flow_in_worker:
        return GrayCollector(stream, firsts, span, emit)
    return FlowCollector(stream, firsts, span, key, emit, child_flow(stream.flow))
