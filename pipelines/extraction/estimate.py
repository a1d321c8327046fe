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
        return {**vars(self), "missing": list(self.missing), "streams": streams}


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
    present = [position for position, path in enumerate(plan.index.paths) if path not in absent]
    to_do = plan.shards_to_do(plan.store)
    sample = present[:: max(1, len(present) // SAMPLE_VIDEOS)][:SAMPLE_VIDEOS] if to_do else []
    seconds = 0.0
    if sample:
        videos = len(present) * len(to_do) / plan.layout.shard_count
        seconds = _seconds(plan, setups, sample, workers[0]) / len(sample) * videos / len(workers)
    free = free_bytes(config.store)
    row_bytes = {s.name: 2 * int(np.prod(s.backbone.cube_shape)) + 12 + 8 for s in setups}
    needed = sum(row_bytes[name] * _rows_to_do(plan, name) for name in row_bytes)
    if needed > free:
        raise RefusedError(f"The store needs {needed / 1e9:.1f} GB and {config.store.parent} has {free / 1e9:.1f} GB.")
    return Estimate(
        store=str(config.store),
        exists=plan.store is not None,
        videos=len(plan.index),
        missing=tuple(sorted(absent)),
        segments=int(plan.index.length.sum()) * plan.views.count,
        shards=plan.layout.shard_count,
        shards_to_do=len(to_do),
        files=plan.layout.shard_count * 4 * len(setups),
        streams={
            s.name: StreamEstimate(cube=s.backbone.cube_shape, bytes=row_bytes[s.name] * plan.layout.rows)
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


def _rows_to_do(plan: ExtractionPlan, stream: str) -> int:
    if plan.store is None or stream not in plan.store.stream_names:
        return plan.layout.rows
    ranges = (plan.store.shard_row_range(shard) for shard in plan.store.stream(stream).missing_shards())
    return sum(stop - start for start, stop in ranges)


def free_bytes(path: Path) -> int:
    """Return the free space where `path` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
