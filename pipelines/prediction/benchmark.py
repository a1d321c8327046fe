"""`vidatt benchmark`: frames per second from video files to scores, end to end and by part (TCLSTA, Table IX)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ...cache.store import Store
from ...errors import MissingFileError, UsageError
from ..doctor import processor_name
from ..extraction.config import default_videos
from ..fitting.fit import versions
from ..jobs.allotment import given_cores
from ..record import OPTIONAL, Record
from ..runs.measured import Sampled
from ..runs.reload import require_features
from ..runs.splits import PARTS, choose_split
from ..runs.views import choose_views, sampled
from .clip_cubes import Clip
from .clips import find_clips
from .predictor import Prediction, Predictor, PredictorConfig, open_fit

DECODING = ("decode", "inputs", "flow")
"""Parts of the decoding child, in the order of the work; flow by an engine of the device is the device's."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What `benchmark` is asked for.

    Raises
    ------
    UsageError
        Without runs, or without videos and a store; for a split of videos that are named.
    """

    runs: tuple[Path, ...]
    videos: tuple[Path, ...] = ()  # files, folders and CSV files; none = those that the store's split tests
    store: Path | None = None  # whose segments and views are taken; None = those of each run's own
    split: str | None = None  # of the store; None = the first run's
    folder: Path | None = None  # that the paths of a CSV, or of the store's videos, are relative to
    how: PredictorConfig = field(default_factory=PredictorConfig)

    def __post_init__(self) -> None:
        if not self.runs or not (self.videos or self.store):
            raise UsageError("Name runs and videos: `vidatt benchmark RUN... VIDEO...`; runs come from fit-head.")
        if self.split is not None and (self.videos or self.store is None):
            raise UsageError("--split is of the store whose videos are read: give --store, and no videos.")


@dataclass(frozen=True, kw_only=True)
class BenchmarkPart(Record):
    """One part of the way; parts overlap in time."""

    part: str  # decode, inputs (resize and crops), flow, backbone STREAM, head RUN
    seconds: float  # that it was busy
    frames_per_second: float  # of the videos, were it alone


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult(Record):
    """Speed at test on a machine."""

    runs: tuple[str, ...]
    store: str | None = field(default=None, metadata=OPTIONAL)
    videos: int  # that could be read
    failed: int  # that could not, and do not count
    frames: int  # of the videos, whether a segment has them or not
    segments: int  # that the heads looked at
    seconds: float  # from the first file to the last score, with networks loaded
    frames_per_second: float  # end to end
    parts: tuple[BenchmarkPart, ...]
    sampled: tuple[Sampled, ...]  # where each run looked
    device: str
    processor: str
    cores: int
    card: str | None = field(default=None, metadata=OPTIONAL)
    threads: int  # of PyTorch on the CPU
    decoders: int  # decoding children
    versions: Mapping[str, str]
    notes: tuple[str, ...]


def benchmark(config: BenchmarkConfig) -> BenchmarkResult:
    """Measure the predictor: once end to end, and once more with a clock on each part.

    Raises
    ------
    UsageError
        If none of the videos can be read.
    FingerprintMismatchError
        If the store has other features than a run.
    VidattError
        As `predict`.
    """
    clips = find_clips(config.videos, folder=config.folder) if config.videos else _clips_of_store(config)
    with Predictor(config.runs, _sampled_as(config)) as predictor:
        list(predictor.run(predictor.plan(clips[:1])))  # networks and the decoding child are warm
        began = time.perf_counter()
        read = [one for one in predictor.run(predictor.plan(clips)) if one.scores is not None]
        seconds = time.perf_counter() - began
        if not read:
            raise UsageError(f"None of the {len(clips)} videos can be read; see `vidatt predict`.")
        videos = {one.clip.id: one for one in read}.values()
        frames = sum(one.report.decoded_frames for one in videos)
        device = predictor.device
        return BenchmarkResult(
            runs=tuple(map(str, config.runs)),
            store=None if config.store is None else str(config.store),
            videos=len(videos),
            failed=len(clips) - len(videos),
            frames=frames,
            segments=sum(one.segments for one in read),
            seconds=round(seconds, 3),
            frames_per_second=round(frames / seconds, 2),
            parts=tuple(_parts(predictor, clips, frames)),
            sampled=predictor.about().sampled,
            device=str(device),
            processor=processor_name(),
            cores=given_cores(os.environ),
            card=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            threads=torch.get_num_threads(),
            decoders=predictor.decoders,
            versions=versions(),
            notes=predictor.about().notes,
        )


def _clips_of_store(config: BenchmarkConfig) -> list[Clip]:
    """Return the files of the test videos of the store."""
    assert config.store is not None
    store = Store.open(config.store)
    split = choose_split(store, config.split or open_fit(config.runs[0]).identity.split)
    folder = config.folder or default_videos(store.plan.dataset or "videos")
    if not folder.is_dir():
        raise MissingFileError(
            f"There is no folder {folder} with the videos of {store.path}; name it with --videos DIR, or name videos."
        )
    index = store.index
    tested = np.flatnonzero(index.splits[split] == PARTS["test"]).tolist()
    if not tested:
        raise UsageError(f"Split {split!r} of {store.path} lists no test videos; name videos.")
    spans = [[None if np.isnan(x) else float(x) for x in index.span_seconds[position]] for position in tested]
    return [
        Clip(id=str(index.ids[p]), path=folder / str(index.paths[p]), start_seconds=start, stop_seconds=stop)
        for p, (start, stop) in zip(tested, spans, strict=True)
    ]


def _sampled_as(config: BenchmarkConfig) -> PredictorConfig:
    """Return how the predictor is to sample: as a store is, if one is named."""
    if config.store is None:
        return config.how
    store = Store.open(config.store)
    for path in config.runs:
        require_features(open_fit(path), store)
    told = sampled(store, choose_views(store, config.how.choices.views).name)
    choices = replace(config.how.choices, sampler=told.sampler, views=told.views)
    return replace(config.how, choices=choices)


def _parts(predictor: Predictor, clips: Sequence[Clip], frames: int) -> Iterator[BenchmarkPart]:
    """Go the same way again with a clock on each part."""
    spent: dict[str, float] = dict.fromkeys(DECODING, 0.0)
    before = predictor.flow_seconds
    with _clocks(predictor, spent):
        seen: dict[int, Prediction] = {}
        for one in predictor.run(predictor.plan(clips)):
            seen.setdefault(id(one.report), one)  # windows that are decoded together share their report
    for one in seen.values():
        for part, seconds in one.report.spent.items():
            spent[part] += seconds
    spent["flow"] += predictor.flow_seconds - before
    for part, seconds in spent.items():
        if seconds > 0:
            yield BenchmarkPart(part=part, seconds=round(seconds, 3), frames_per_second=round(frames / seconds, 2))


@contextmanager
def _clocks(predictor: Predictor, spent: dict[str, float]) -> Iterator[None]:
    """Put a clock on every network and every head."""
    handles: list[RemovableHandle] = []

    def clock(module: nn.Module, part: str) -> None:
        began = 0.0

        def now() -> float:
            if predictor.device.type == "cuda":
                torch.cuda.synchronize(predictor.device)
            return time.perf_counter()

        def start(*_: object) -> None:
            nonlocal began
            began = now()

        def stop(*_: object) -> None:
            spent[part] = spent.get(part, 0.0) + now() - began

        handles.extend((module.register_forward_pre_hook(start), module.register_forward_hook(stop)))

    for part, module in predictor.modules():
        clock(module, part)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
