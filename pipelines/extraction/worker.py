"""One extraction worker: a child process with one device, one thread, its own backbones and decoders."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cache.store import Store
from ...errors import VidattError, system_cause
from ...extract.decoder import DecoderSettings
from ...extract.sampling import Sampler
from ...extract.segments import ShardJob
from ...extract.streams import StreamConfig
from ...extract.video import VideoReport
from ...extract.views import Views
from .breaker import Breaker
from .reuse import Reuse
from .shard_work import Published, ShardWork

if TYPE_CHECKING:  # only the child computes: its parent knows the messages and is spared importing torch
    from ...extract.extractor import ShardArrays, StreamSetup


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
    reuse: Path | None  # another store whose cubes are copied where they are equal
    again: bool  # videos are looked at again: crashes are no surprise


@dataclass(frozen=True)
class Ready:
    """The backbones are built: cube shape and recipe of each stream."""

    streams: dict[str, tuple[tuple[int, int, int], dict[str, Any]]]


@dataclass(frozen=True)
class Want:
    """Give me a `ShardTask` (or None: there is nothing left)."""


@dataclass(frozen=True)
class VideoSeen:
    """One video is decoded."""

    report: VideoReport


@dataclass(frozen=True)
class VideosCopied:
    """So many videos of a shard come from the store that is reused."""

    count: int


@dataclass(frozen=True)
class ShardHeld:
    """One shard is made but not committed: every video so far has ended in the same crash."""

    shard: int


@dataclass(frozen=True)
class ShardDone:
    """One shard is committed."""

    shard: int
    published: Published


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


def _setups(config: WorkerConfig) -> tuple[StreamSetup, ...]:
    """Make this process a worker, and build its backbones."""
    import cv2
    import torch

    if config.device == "cpu":
        torch.set_num_threads(1)  # one process a core: faster than threads, and the bytes do not depend on the number
    cv2.setNumThreads(1)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    setups = tuple(stream.setup(config.device, views=config.views, seed=config.seed) for stream in config.streams)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc
        libc.malloc_trim(0)  # the parts of the networks that were cut away: 0.1 GB and more
    return setups


def _work(connection: Connection[Any, Any]) -> None:
    from ...extract.extractor import Extractor

    config: WorkerConfig = connection.recv()
    setups = _setups(config)
    connection.send(Ready({s.name: (s.backbone.cube_shape, s.recipe) for s in setups}))
    store = Store.open(connection.recv())
    sending = threading.Lock()

    def tell(message: object) -> None:
        with sending:
            connection.send(message)

    work = ShardWork(
        store,
        [setup.name for setup in setups],
        videos=config.videos,
        sampler=config.sampler,
        window_frames=config.window_frames,
        reuse=Reuse(config.reuse, {s.name: s.recipe for s in setups}) if config.reuse else None,
    )
    breaker = Breaker(off=config.again)

    def jobs() -> Iterator[ShardJob]:
        while True:
            tell(Want())
            task = connection.recv()
            if task is None:
                return
            job, copied = work.job(task)
            if copied:
                tell(VideosCopied(copied))
            yield job

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
            if breaker.only_crashes and not arrays.reports:  # all of it is copied
                _commit(work, [arrays], tell)
                continue
            held.append(arrays)
            if breaker.only_crashes:
                tell(ShardHeld(arrays.shard))
                continue
            _commit(work, held, tell)
        _commit(work, held, tell)


def _commit(work: ShardWork, shards: list[ShardArrays], tell: Callable[[object], None]) -> None:
    while shards:
        arrays = shards.pop(0)
        tell(ShardDone(arrays.shard, work.publish(arrays)))
