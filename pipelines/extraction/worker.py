"""One extraction worker: a child process with one device, one thread, its own backbones and decoders."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cache.ledger import VideoOutcome
from ...cache.store import Store
from ...errors import VidattError, system_cause
from ...extract.decoder import DecoderSettings
from ...extract.sampling import Sampler
from ...extract.segments import ShardJob
from ...extract.streams import StreamConfig
from ...extract.video import VideoReport
from ...extract.views import Views
from .breaker import Breaker
from .plan import video_job

if TYPE_CHECKING:  # only the child computes: its parent knows the messages and is spared importing torch
    from ...extract.extractor import ShardArrays


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Everything a worker needs to know; sent to it first."""

    videos: Path
    streams: tuple[StreamConfig, ...]
    sampler: Sampler
    window_frames: int
    views: Views
    seed: int
    device: str
    decoders: int
    batch_segments: int
    decode_timeout_seconds: float
    decode_memory_bytes: int


@dataclass(frozen=True)
class Ready:
    """The backbones are built: cube shape and recipe of each stream."""

    streams: dict[str, tuple[tuple[int, int, int], dict[str, Any]]]


@dataclass(frozen=True)
class Want:
    """Give me a shard (or None: there is nothing left)."""


@dataclass(frozen=True)
class VideoSeen:
    """One video is decoded."""

    report: VideoReport


@dataclass(frozen=True)
class ShardHeld:
    """One shard is made but not committed: every video so far has ended in the same crash."""

    shard: int


@dataclass(frozen=True)
class ShardDone:
    """One shard is committed."""

    shard: int
    ours: bool  # False: another writer was first


@dataclass(frozen=True)
class Failed:
    """The worker ends with an error that the user can mend."""

    message: str
    exit_code: int


def serve(connection: Connection[Any, Any]) -> None:
    """Be a worker until there is nothing left; the child's entry point."""
    try:
        _work(connection)
    except VidattError as error:
        connection.send(Failed(str(error), error.exit_code))
    except OSError as error:
        if (cause := system_cause(error)) is None:
            raise
        connection.send(Failed(cause, VidattError.exit_code))


def _work(connection: Connection[Any, Any]) -> None:
    import cv2
    import torch

    from ...extract.extractor import Extractor

    config: WorkerConfig = connection.recv()
    if config.device == "cpu":
        torch.set_num_threads(1)  # one process a core: faster than threads, and the bytes do not depend on the number
    cv2.setNumThreads(1)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    setups = tuple(stream.setup(config.device, views=config.views, seed=config.seed) for stream in config.streams)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc
        libc.malloc_trim(0)  # the parts of the networks that were cut away: 0.1 GB and more
    connection.send(Ready({s.name: (s.backbone.cube_shape, s.recipe) for s in setups}))
    store = Store.open(connection.recv())
    sending = threading.Lock()

    def tell(message: object) -> None:
        with sending:
            connection.send(message)

    def jobs() -> Iterator[ShardJob]:
        while True:
            tell(Want())
            shard = connection.recv()
            if shard is None:
                return
            yield _shard_job(store, shard, config)

    breaker = Breaker()

    def seen(report: VideoReport) -> None:
        tell(VideoSeen(report))
        breaker.count(report)

    settings = DecoderSettings(timeout_seconds=config.decode_timeout_seconds, memory_bytes=config.decode_memory_bytes)
    extractor = Extractor(
        setups,
        device=config.device,
        batch_segments=config.batch_segments,
        decoders=config.decoders,
        settings=settings,
    )
    with extractor:
        held: list[ShardArrays] = []
        for arrays in extractor.run(jobs(), progress=seen):
            held.append(arrays)
            if breaker.only_crashes:
                tell(ShardHeld(arrays.shard))
                continue
            _commit(store, held, tell)
        _commit(store, held, tell)


def _shard_job(store: Store, shard: int, config: WorkerConfig) -> ShardJob:
    first, stop = store.shard_row_range(shard)
    videos = store.shard_videos(shard)
    jobs = tuple(
        video_job(store.index, p, videos=config.videos, sampler=config.sampler, window_frames=config.window_frames)
        for p in videos
    )
    return ShardJob(shard, stop - first, jobs, tuple(int(store.index.offset[p]) - first for p in videos))


def _commit(store: Store, shards: list[ShardArrays], tell: Callable[[object], None]) -> None:
    while shards:
        arrays = shards.pop(0)
        tell(ShardDone(arrays.shard, publish(store, arrays)))


def publish(store: Store, arrays: ShardArrays) -> bool:
    """Commit one shard of every stream; return True if all of it is ours."""
    outcomes = [
        VideoOutcome(
            id=str(store.index.ids[position]),
            outcome=report.outcome,
            detail=report.detail,
            decoded_frames=report.decoded_frames,
            header_frames=report.header_frames,
            fps=report.fps,
            width=report.width,
            height=report.height,
            segments=segments,
        )
        for position, report, segments in zip(
            store.shard_videos(arrays.shard), arrays.reports, arrays.segments, strict=True
        )
    ]
    ours = [
        store.stream(name).publish(arrays.shard, cubes=a.cubes, frames=a.frames, seconds=a.seconds, outcomes=outcomes)
        for name, a in arrays.streams.items()
    ]
    return all(ours)
