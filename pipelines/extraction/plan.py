"""The plan of an extraction: which videos, in which order, in which rows; made before anything is decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from ...cache.index import Index
from ...cache.layout import Layout, plan_layout
from ...cache.store import Store
from ...errors import MissingFileError, UsageError
from ...extract.datasets.catalogue import Catalogue
from ...extract.sampling import Sampler
from ...extract.segments import VideoJob
from ...extract.video import VideoProblemError, VideoReader, expected_frames


def plan_segments(catalogue: Catalogue, videos: Path, sampler: Sampler, *, jobs: int) -> np.ndarray:
    """Return the planned number of segments of each video, (N,) int32.

    Only a sampler whose number of segments follows the length looks into the files: packets are counted in parallel,
    nothing is decoded. What cannot be read gets one row, so that it can be retried when it is mended.
    """
    if sampler.fixed_segments is not None:
        return np.full(len(catalogue.videos), sampler.fixed_segments, np.int32)
    probes = Parallel(n_jobs=jobs, prefer="threads")(
        delayed(_probe)(videos / video.path, sampler, video.start_seconds, video.stop_seconds)
        for video in catalogue.videos
    )
    return np.asarray(probes, np.int32)


def _probe(path: Path, sampler: Sampler, start: float | None, stop: float | None) -> int:
    try:
        frames = expected_frames(path)
        with VideoReader(path) as reader:
            fps = reader.fps
    except VideoProblemError:
        return 1
    if (start is not None or stop is not None) and fps > 0:
        length = frames / fps
        frames = max(1, round((min(stop or length, length) - (start or 0.0)) * fps) + 1)  # one spare for rounding
    if sampler.needs_rate and fps <= 0:
        return 1  # an outcome of this video, when it is read
    return sampler.segments(max(1, frames), fps)


def make_index(
    catalogue: Catalogue, length: np.ndarray, *, views: int, shard_videos: int, seed: int
) -> tuple[Index, Layout]:
    """Return the store's index in a seeded random order, and the layout of its rows.

    The order is shuffled so that neighbours in a shard are not one class: training reads whole blocks of shards.
    """
    order = np.random.default_rng(seed).permutation(len(catalogue.videos))
    videos = [catalogue.videos[i] for i in order]
    layout = plan_layout(length[order], views=views, videos_per_shard=shard_videos)
    labels = np.full((len(videos), max([1, *(len(v.labels) for v in videos)])), -1, np.int32)
    for row, video in enumerate(videos):
        labels[row, : len(video.labels)] = video.labels
    intervals = [(i, x) for i, video in enumerate(videos) for x in video.intervals]
    boxes = [(i, x) for i, video in enumerate(videos) for x in video.boxes]
    index = Index(
        ids=np.array([v.id for v in videos], dtype=object),
        paths=np.array([v.path for v in videos], dtype=object),
        groups=np.array([v.group for v in videos], dtype=object),
        labels=labels,
        classes=catalogue.classes,
        multi_label=catalogue.multi_label,
        splits={name: roles[order].astype(np.int8) for name, roles in catalogue.splits.items()},
        length=length[order].astype(np.int32),
        offset=layout.offset,
        span_seconds=np.array([[_nan(v.start_seconds), _nan(v.stop_seconds)] for v in videos], np.float64).reshape(
            -1, 2
        ),
        interval_video=np.array([i for i, _ in intervals], np.int32),
        interval_seconds=np.array([[x.start_seconds, x.stop_seconds] for _, x in intervals], np.float64).reshape(-1, 2),
        interval_label=np.array([x.label for _, x in intervals], np.int32),
        box_video=np.array([i for i, _ in boxes], np.int32),
        box_frame=np.array([x.frame for _, x in boxes], np.int32),
        box_xyxy=np.array([[x.x1, x.y1, x.x2, x.y2] for _, x in boxes], np.float32).reshape(-1, 4),
        box_label=np.array([x.label for _, x in boxes], np.int32),
    )
    return index, layout


def _nan(value: float | None) -> float:
    return np.nan if value is None else value


def shard_size(videos: int, streams: Sequence[str]) -> int:
    """Return the videos per shard: 64, 16 where flow makes extraction slow, fewer for few videos."""
    return max(1, min(16 if "flow" in streams else 64, videos // 32))


def video_jobs(store: Store, videos: Path, shard: int) -> tuple[VideoJob, ...]:
    """Return what a worker has to read for one shard."""
    index = store.index
    sampler = Sampler.parse(store.attributes["sampler"])
    jobs = []
    for position in store.shard_videos(shard):
        start, stop = (None if np.isnan(x) else float(x) for x in index.span_seconds[position])
        jobs.append(
            VideoJob(
                id=str(index.ids[position]),
                path=videos / str(index.paths[position]),
                sampler=sampler,
                window_frames=store.attributes["window_frames"],
                segments=int(index.length[position]),
                start_seconds=start,
                stop_seconds=stop,
            )
        )
    return tuple(jobs)


def check_videos_folder(videos: Path, dataset: str) -> None:
    """Refuse a video folder that is not there.

    Raises
    ------
    MissingFileError
    """
    if not videos.is_dir():
        raise MissingFileError(
            f"There is no folder {videos} with the videos of {dataset!r}; name it with --videos DIR "
            f"(`vidatt datasets {dataset}` says what belongs there)."
        )


def default_videos(dataset: str) -> Path:
    """Return `$VIDATT_DATA/<dataset>`, else `./data/<dataset>`."""
    return Path(os.environ.get("VIDATT_DATA", "data")) / dataset


def default_store(dataset: str) -> Path:
    """Return `$VIDATT_CACHE/<dataset>.zarr`, else `./cache-store/<dataset>.zarr`."""
    return Path(os.environ.get("VIDATT_CACHE", "cache-store")) / f"{dataset}.zarr"


def parse_slice(text: str | None) -> tuple[int, int]:
    """Return (index, count) of the static slice: `--shard I/N`, else Slurm's array variables, else (0, 1).

    Raises
    ------
    UsageError
    """
    environment = os.environ
    if text is None and "SLURM_ARRAY_TASK_COUNT" in environment:
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
        text = f"{int(environment['SLURM_ARRAY_TASK_ID']) - first}/{environment['SLURM_ARRAY_TASK_COUNT']}"
    if text is None:
        return 0, 1
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UsageError(f"--shard {text!r}: write I/N with 0 <= I < N, such as 0/4.")
    return int(index), int(count)
