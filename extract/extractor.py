"""From videos to cubes: decoders ahead, batches across videos, the backbone in the middle, one shard at a time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import VidattError
from .backbones.registry import Backbone
from .child import Child
from .decoder import Decoder, DecoderSettings
from .flow.engines import tvl1
from .segments import ShardJob, VideoEnd, VideoStart
from .video import VideoReport
from .windows import Chunk, FlowCollector, GrayChunk, StreamInput

BATCHES_AHEAD = 3


@dataclass(frozen=True, eq=False)
class StreamSetup:
    """One stream ready to extract."""

    input: StreamInput
    backbone: Backbone
    recipe: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.input.name


@dataclass(frozen=True, eq=False)
class StreamArrays:
    """What the store keeps of one stream of one shard."""

    cubes: np.ndarray  # (rows, K, K, D) float16; padding is zero
    frames: np.ndarray  # (rows, 3) int32 first, centre, stop; -1 = padding
    seconds: np.ndarray  # (rows,) float64 of the centre frame; NaN = padding or unknown


@dataclass(frozen=True, eq=False)
class ShardArrays:
    """One finished shard."""

    shard: int
    streams: dict[str, StreamArrays]
    reports: tuple[VideoReport, ...]  # one a video
    segments: tuple[int, ...]  # real rows of each video


@dataclass(frozen=True, eq=False)
class _Batch:
    stream: int
    rows: np.ndarray  # (b,) rows within the shard
    inputs: np.ndarray  # (b, *kind.input_shape) uint8


@dataclass(frozen=True, eq=False)
class _VideoDone:
    video: int
    end: VideoEnd


@dataclass(frozen=True, eq=False)
class _ShardEnd:
    job: ShardJob


class Extractor:
    """Runs decoders and backbones over shards; close it (or use `with`) to end its children.

    Parameters
    ----------
    streams : what to make of each video
    batch_segments : inputs per pass through a backbone, fewer by a kind's `batch_weight`; batches cross video borders
        but never a shard's, so that a shard's bytes do not depend on its neighbours
    decoders : decoding children
    ahead : one of them, if it is started already
    """

    def __init__(
        self,
        streams: Sequence[StreamSetup],
        *,
        device: torch.device | str = "cpu",
        batch_segments: int = 8,
        decoders: int = 1,
        settings: DecoderSettings | None = None,
        ahead: Child | None = None,
    ) -> None:
        self.streams = tuple(streams)
        self.device = torch.device(device)
        self.batch_segments = batch_segments
        inputs = tuple(stream.input for stream in streams)
        how = settings or DecoderSettings()
        self._decoders = [Decoder(inputs, how, ahead=None if number else ahead) for number in range(decoders)]
        self._stop = threading.Event()
        self.flow_seconds = 0.0  # spent on flow that is computed here and not where frames are decoded

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the decoding children."""
        self._stop.set()
        for decoder in self._decoders:
            decoder.close()

    def run(
        self, jobs: Iterable[ShardJob], *, progress: Callable[[VideoReport], None] = lambda report: None
    ) -> Iterator[ShardArrays]:
        """Extract shards in order; the next one is decoded while this one is finished and committed.

        Parameters
        ----------
        jobs : pulled one ahead of the results
        progress : called after each video
        """
        outbox: queue.Queue[_Batch | _VideoDone | _ShardEnd | BaseException | None] = queue.Queue(BATCHES_AHEAD)
        feeder = threading.Thread(target=self._feed, args=(jobs, outbox), name="feeder", daemon=True)
        feeder.start()
        try:
            yield from self._collect(outbox, progress)
            feeder.join()  # it has nothing left to say: its decoders stay for the next run
        finally:
            self._stop.set()
            while feeder.is_alive():  # it may wait for a decoder, or for room in the queue
                for decoder in self._decoders:
                    decoder.interrupt()
                try:
                    outbox.get(timeout=0.05)
                except queue.Empty:
                    continue
            feeder.join()
            self._stop.clear()

    def _collect(self, outbox: queue.Queue[Any], progress: Callable[[VideoReport], None]) -> Iterator[ShardArrays]:
        cubes: list[_Cubes] = []
        ends: dict[int, VideoEnd] = {}
        waiting: list[tuple[_Batch, torch.Tensor]] = []
        while (item := outbox.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, _Batch):
                waiting.append((item, self._compute(item)))
                while len(waiting) > (1 if self.device.type == "cuda" else 0):  # on CUDA: fetch a batch behind
                    self._store(*waiting.pop(0), cubes)
            elif isinstance(item, _VideoDone):
                ends[item.video] = item.end
                progress(item.end.report)
            elif isinstance(item, ShardJob):
                cubes = [_Cubes(item.rows, s.backbone.cube_shape) for s in self.streams]
                ends = {}
            else:
                while waiting:
                    self._store(*waiting.pop(0), cubes)
                yield self._finish(item.job, cubes, ends)

    def _compute(self, batch: _Batch) -> torch.Tensor:
        backbone = self.streams[batch.stream].backbone
        inputs = torch.from_numpy(batch.inputs)
        if self.device.type == "cuda":
            inputs = inputs.pin_memory().to(self.device, non_blocking=True)
        with torch.inference_mode():
            output: torch.Tensor = backbone(inputs).to(torch.float16)
        return output

    def _store(self, batch: _Batch, output: torch.Tensor, cubes: list[_Cubes]) -> None:
        values = output.cpu()
        if not torch.isfinite(values).all():
            name = self.streams[batch.stream].name
            raise VidattError(
                f"Stream {name!r}: features beyond float16 (65,504) or NaN; the weights do not fit the preprocessing, "
                "or the layer has no normalisation."
            )
        cubes[batch.stream].put(batch.rows, values.numpy())

    def _finish(self, job: ShardJob, cubes: list[_Cubes], ends: dict[int, VideoEnd]) -> ShardArrays:
        streams = {}
        for stream, made in zip(self.streams, cubes, strict=True):
            frames = np.full((job.rows, 3), -1, np.int32)
            seconds = np.full(job.rows, np.nan)
            for video, row in enumerate(job.first_rows):
                end = ends[video]
                V, T = stream.input.views.count, len(end.first_frames)
                rows = (row + job.videos[video].segments * np.arange(V)[:, None] + np.arange(T)).ravel()
                here = (rows >= 0) & (rows < job.rows)
                first = np.tile(end.first_frames, V)[here]
                window = stream.input.kind.window_frames
                centre = np.minimum(first + window // 2, end.last_frame)
                stop = np.minimum(first + window, end.last_frame + 1)
                frames[rows[here]] = np.stack([first, centre, stop], axis=1)
                seconds[rows[here]] = end.seconds[centre]
            made.clear(frames[:, 0] < 0)  # a first pass that was void may have written there
            streams[stream.name] = StreamArrays(made.values, frames, seconds)
        videos = range(len(job.videos))
        return ShardArrays(
            job.shard, streams, tuple(ends[v].report for v in videos), tuple(len(ends[v].first_frames) for v in videos)
        )

    def _feed(self, jobs: Iterable[ShardJob], outbox: queue.Queue[Any]) -> None:
        try:
            for job in jobs:
                outbox.put(job)
                self._feed_shard(job, outbox)
                outbox.put(_ShardEnd(job))
                if self._stop.is_set():
                    break
            outbox.put(None)
        except BaseException as error:  # noqa: BLE001 - carried to the consuming thread, which raises it
            outbox.put(error)

    def _feed_shard(self, job: ShardJob, outbox: queue.Queue[Any]) -> None:
        pending = {s.name: _Pending(i, self._batch_size(s), outbox) for i, s in enumerate(self.streams)}
        decoders = self._decoders
        for video in range(min(len(decoders), len(job.videos))):
            decoders[video].submit(job.videos[video])
        for video, first_row in enumerate(job.first_rows):
            if self._stop.is_set():
                return
            decoder = decoders[video % len(decoders)]
            flows: dict[str, FlowCollector] = {}

            def take(chunk: Chunk, segments: int = job.videos[video].segments, first_row: int = first_row) -> None:
                views = np.arange(chunk.inputs.shape[1])
                rows = (first_row + segments * views + chunk.segments[:, None]).ravel()
                here = (rows >= 0) & (rows < job.rows)  # a video longer than a shard has rows in others
                pending[chunk.stream].add(rows[here], chunk.inputs.reshape(-1, *chunk.inputs.shape[2:])[here])

            for message in decoder.messages():
                if isinstance(message, VideoStart):
                    for batch in pending.values():
                        batch.drop_from(first_row)
                    flows = {
                        s.name: self._flow_of(s.input, message, take) for s in self.streams if s.input.flow_in_worker
                    }
                elif isinstance(message, Chunk):
                    take(message)
                elif isinstance(message, GrayChunk):
                    flows[message.stream].add_grays(message.frames.tolist(), message.grays)
                elif isinstance(message, VideoEnd):
                    for flow in flows.values():
                        flow.flush()
                    outbox.put(_VideoDone(video, message))
            following = video + len(decoders)
            if following < len(job.videos) and not self._stop.is_set():
                decoder.submit(job.videos[following])
        for batch in pending.values():
            batch.flush()

    def _batch_size(self, stream: StreamSetup) -> int:
        return max(1, self.batch_segments // stream.input.kind.batch_weight)

    def _flow_of(self, stream: StreamInput, start: VideoStart, emit: Callable[[Chunk], None]) -> FlowCollector:
        """Return what computes one video's flow here, on this worker's device."""

        def compute(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            began = time.perf_counter()
            pair = (torch.from_numpy(x).to(self.device) for x in (first, second))
            fields = tvl1(*pair, preset=stream.flow.preset, engine=stream.flow.engine).cpu().numpy()
            self.flow_seconds += time.perf_counter() - began
            return fields

        return FlowCollector(stream, start.first_frames, start.span, (stream.seed, *start.key), emit, compute)


class _Cubes:
    """The cubes of a shard; rows that nothing is put into take no memory."""

    def __init__(self, rows: int, cube_shape: tuple[int, int, int]) -> None:
        self.values = np.zeros((rows, *cube_shape), np.float16)
        self._written = np.zeros(rows, bool)

    def put(self, rows: np.ndarray, values: np.ndarray) -> None:
        self.values[rows] = values
        self._written[rows] = True

    def clear(self, rows: np.ndarray) -> None:
        self.values[rows & self._written] = 0


class _Pending:
    """Inputs of one stream on their way into batches of a fixed size."""

    def __init__(self, stream: int, size: int, outbox: queue.Queue[Any]) -> None:
        self._stream, self._size, self._outbox = stream, size, outbox
        self._rows = np.empty(0, np.int64)
        self._inputs: list[np.ndarray] = []

    def add(self, rows: np.ndarray, inputs: np.ndarray) -> None:
        self._rows = np.concatenate([self._rows, rows])
        self._inputs.extend(inputs)
        while len(self._inputs) >= self._size:
            self._send(self._size)

    def flush(self) -> None:
        if self._inputs:
            self._send(len(self._inputs))

    def drop_from(self, row: int) -> None:
        """Forget what waits of the rows from `row` on: they come again."""
        kept = [i for i, r in enumerate(self._rows.tolist()) if r < row]
        self._rows, self._inputs = self._rows[kept], [self._inputs[i] for i in kept]

    def _send(self, count: int) -> None:
        self._outbox.put(_Batch(self._stream, self._rows[:count], np.stack(self._inputs[:count])))
        self._rows, self._inputs = self._rows[count:], self._inputs[count:]
