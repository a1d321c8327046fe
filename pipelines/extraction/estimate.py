"""`vidatt extract --dry-run`: what an extraction will cost, measured on a few of its own videos; nothing is written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import RefusedError
from ...extract.datasets.registry import check
from ...extract.extractor import Extractor, StreamSetup
from ...extract.segments import ShardJob
from .config import ExtractConfig
from .plan import ExtractionPlan, plan_extraction
from .retry import todo
from .reuse import Reuse
from .supervisor import CPU_BATCH_SEGMENTS, devices

SAMPLE_VIDEOS = 8


@dataclass(frozen=True, kw_only=True)
class StreamEstimate:
    """What one stream will take."""

    cube: tuple[int, int, int]  # (K, K, D)
    bytes: int  # of the whole stream


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What `extract --dry-run` found."""

    store: str
    exists: bool
    videos: int
    missing: tuple[str, ...]  # paths of videos that are not there
    segments: int  # of all videos and views
    shards: int
    shards_to_do: int  # of my slice
    added: int  # videos that the store is extended by
    retried: int  # videos that are looked at again
    longer: tuple[str, ...]  # ids of videos to retry that have no room: other segments than the store has rows
    reusable: int  # videos that can be copied from another store, if their files are the same
    files: int
    streams: dict[str, StreamEstimate]
    free_bytes: int
    workers: int
    device: str  # of the first worker
    decode_timeout_seconds: float
    decode_memory_bytes: int  # of a decoder beside its libraries; 0 = no limit
    sampled_videos: int
    estimated_seconds: float  # of what is to do

    def to_dict(self) -> dict[str, Any]:
        """Return it as `extract --dry-run --json` prints it."""
        streams = {name: asdict(stream) | {"cube": list(stream.cube)} for name, stream in self.streams.items()}
        return {**vars(self), "missing": list(self.missing), "longer": list(self.longer), "streams": streams}


def estimate(config: ExtractConfig) -> Estimate:
    """Plan an extraction, check files, weights and disk space, and time a sample.

    Raises
    ------
    VidattError
        For whatever would stop the extraction itself.
    RefusedError
        If the disk is too small.
    """
    plan = plan_extraction(config)
    workers = devices(config.device, config.workers)
    if workers[0] == "cpu":
        torch.set_num_threads(1)
    setups = [stream.setup(workers[0], views=plan.views, seed=config.seed) for stream in plan.streams]
    files = check(config.dataset, plan.catalogue, config.videos)
    absent = {*files.missing, *(expected for _, expected in files.misnamed)}
    there = np.fromiter((path not in absent for path in plan.index.paths), bool, len(plan.index))
    present = np.flatnonzero(there).tolist()
    work = todo(plan, plan.store)
    reuse = Reuse(config.reuse, {s.name: s.recipe for s in setups}) if config.reuse else ()
    wanted = sum(task.videos for task in work.tasks)
    sample = present[:: max(1, len(present) // SAMPLE_VIDEOS)][:SAMPLE_VIDEOS] if wanted else []
    seconds = 0.0
    if sample:
        videos = wanted * len(present) / len(plan.index)
        seconds = _seconds(plan, setups, sample, workers[0]) / len(sample) * videos / len(workers)
    free = free_bytes(config.store)
    row_bytes = {s.name: 2 * int(np.prod(s.backbone.cube_shape)) + 12 + 8 for s in setups}
    rows = _rows(plan, there)
    needed = sum(row_bytes[name] * int(rows[_videos_to_do(plan, name)].sum()) for name in row_bytes)
    if needed > free:
        raise RefusedError(f"The store needs {needed / 1e9:.1f} GB and {config.store.parent} has {free / 1e9:.1f} GB.")
    return Estimate(
        store=str(config.store),
        exists=plan.store is not None,
        videos=len(plan.index),
        missing=tuple(sorted(absent)),
        segments=int(plan.index.length.sum()) * plan.views.count,
        shards=plan.layout.shard_count,
        shards_to_do=len(work.tasks),
        added=len(plan.index) - len(plan.store.index) if plan.store else 0,
        retried=work.again,
        longer=work.longer,
        reusable=min(len(reuse), wanted),
        files=_files(plan, rows) * len(setups),
        streams={
            s.name: StreamEstimate(cube=s.backbone.cube_shape, bytes=row_bytes[s.name] * int(rows.sum()))
            for s in setups
        },
        free_bytes=free,
        workers=len(workers),
        device=workers[0],
        decode_timeout_seconds=config.decode_timeout_seconds,
        decode_memory_bytes=config.decode_memory_bytes,
        sampled_videos=len(sample),
        estimated_seconds=round(seconds, 1),
    )


def _seconds(plan: ExtractionPlan, setups: Sequence[StreamSetup], sample: Sequence[int], device: str) -> float:
    """Extract some videos and return how long it took."""
    jobs = tuple(plan.job(position) for position in sample)
    rows = np.cumsum([0, *(job.segments * plan.views.count for job in jobs)]).tolist()
    shard = ShardJob(0, rows[-1], jobs, tuple(rows[:-1]))
    batch = plan.config.batch_segments or CPU_BATCH_SEGMENTS
    with Extractor(setups, device=device, batch_segments=batch, settings=plan.config.decoder) as extractor:
        list(extractor.run([shard]))  # starts the decoder, warms the backbone up
        begun = time.monotonic()
        list(extractor.run([shard]))
        return time.monotonic() - begun


def _rows(plan: ExtractionPlan, there: np.ndarray) -> np.ndarray:
    """Return the rows that each video takes on disk, (N,) int64: whole chunks, and none for one that is not there."""
    chunk = plan.layout.chunk_rows
    rows = -(-plan.index.length.astype(np.int64) * plan.views.count // chunk) * chunk
    return np.where(there, rows, 0)


def _videos_to_do(plan: ExtractionPlan, stream: str) -> np.ndarray:
    """Tell which videos have rows in shards that a stream lacks, (N,) bool."""
    if plan.store is None or stream not in plan.store.stream_names:
        return np.ones(len(plan.index), bool)
    lacks = np.ones(len(plan.index), bool)  # also those that an extension adds
    lacks[: len(plan.store.index)] = ~plan.store.stream(stream).done_videos()
    return lacks


def _files(plan: ExtractionPlan, rows: np.ndarray) -> int:
    """Return the files of one stream: a marker a shard, and three arrays where any of its videos is there."""
    first = plan.layout.offset // plan.layout.shard_rows
    last = (plan.layout.offset + np.maximum(rows, 1) - 1) // plan.layout.shard_rows
    filled = {shard for a, b in zip(first[rows > 0], last[rows > 0], strict=True) for shard in range(a, b + 1)}
    return plan.layout.shard_count + 3 * len(filled)


def free_bytes(path: Path) -> int:
    """Return the free space where `path` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
