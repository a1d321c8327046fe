"""`vidatt extract --dry-run`: what an extraction will cost, measured on a few of its own videos; nothing is written."""

from __future__ import annotations

import time
from typing import Any

import torch

from ...errors import RefusedError
from ...extract.datasets.registry import check
from ...extract.extractor import Extractor, ShardJob
from ...extract.sampling import Sampler
from ...extract.segments import VideoJob
from ...extract.views import Views
from .extract import ExtractConfig, cpu_count, devices, free_bytes, open_catalogue
from .plan import make_index, plan_segments, shard_size

SAMPLE_VIDEOS = 8


def estimate(config: ExtractConfig) -> dict[str, Any]:
    """Plan an extraction, check files, weights and disk space, and time a sample.

    Raises
    ------
    VidattError
        For whatever would stop the extraction itself.
    RefusedError
        If the disk is too small.
    """
    catalogue = open_catalogue(config)
    sampler = Sampler.parse(config.sampler or config.default_sampler)
    length = plan_segments(catalogue, config.videos, sampler, jobs=cpu_count())
    names = [stream.name for stream in config.streams]
    views = Views.parse(config.views).count
    size = config.shard_videos or shard_size(len(catalogue.videos), names)
    _, layout = make_index(catalogue, length, views=views, shard_videos=size, seed=config.seed)
    workers = devices(config.device, config.workers)
    if workers[0] == "cpu":
        torch.set_num_threads(1)
    setups = [stream.setup(workers[0]) for stream in config.streams]
    window = config.window_frames or max(stream.window_frames for stream in config.streams)
    files = check(config.dataset, catalogue, config.videos)
    absent = {*files.missing, *(expected for _, expected in files.misnamed)}
    present = [i for i, video in enumerate(catalogue.videos) if video.path not in absent]
    sample = present[:: max(1, len(present) // SAMPLE_VIDEOS)][:SAMPLE_VIDEOS]
    jobs = tuple(
        VideoJob(
            id=catalogue.videos[i].id,
            path=config.videos / catalogue.videos[i].path,
            sampler=sampler,
            window_frames=window,
            segments=int(length[i]),
            start_seconds=catalogue.videos[i].start_seconds,
            stop_seconds=catalogue.videos[i].stop_seconds,
        )
        for i in sample
    )
    seconds = 0.0
    if jobs:
        first_rows = tuple(sum(job.segments for job in jobs[:i]) * views for i in range(len(jobs)))
        rows = sum(job.segments for job in jobs) * views
        with Extractor(setups, device=workers[0], batch_segments=config.batch_segments or 8) as extractor:
            list(extractor.run([ShardJob(0, rows, jobs, first_rows)]))  # starts the decoder, warms the backbone up
            begun = time.monotonic()
            list(extractor.run([ShardJob(0, rows, jobs, first_rows)]))
            seconds = (time.monotonic() - begun) * len(present) / len(jobs) / len(workers)
    cubes = {s.name: s.backbone.cube_shape for s in setups}
    stored = {name: layout.rows * (2 * k * k2 * d + 12 + 8) for name, (k, k2, d) in cubes.items()}
    free = free_bytes(config.store)
    if sum(stored.values()) > free:
        raise RefusedError(
            f"The store needs {sum(stored.values()) / 1e9:.1f} GB and {config.store.parent} has {free / 1e9:.1f} GB."
        )
    return {
        "store": str(config.store),
        "exists": config.store.exists(),
        "videos": len(catalogue.videos),
        "missing": sorted(absent),
        "segments": int(length.sum()) * views,
        "shards": layout.shard_count,
        "files": layout.shard_count * 4 * len(cubes),
        "streams": {name: {"cube": list(cubes[name]), "bytes": stored[name]} for name in cubes},
        "free_bytes": free,
        "workers": len(workers),
        "device": workers[0],
        "sampled_videos": len(jobs),
        "estimated_seconds": round(seconds, 1),
    }
