"""What one extraction is asked to do: checked when it is made, wherever it is made."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.ledger import OUTCOMES
from ...errors import UnknownNameError, UsageError
from ...extract.decoder import MEMORY_BYTES, DecoderSettings
from ...extract.sampling import Sampler
from ...extract.streams import StreamConfig
from ...extract.views import Views
from ..jobs.place import parse_slice

RETRYABLE = tuple(outcome for outcome in OUTCOMES if outcome != "ok")
"""Outcomes of videos that a retry looks at again."""
COUNTS = ("window_frames", "shard_videos", "workers", "decoders", "batch_segments")


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """What one extraction is asked to do; None means what the store says, else the default.

    Raises
    ------
    UsageError
        For no streams, one named twice, another spelling of a rule, and numbers out of range.
    """

    dataset: str
    videos: Path
    store: Path
    streams: tuple[StreamConfig, ...]
    annotations: Path | None = None
    dataset_options: Mapping[str, str] = field(default_factory=dict)
    sampler: str | None = None
    default_sampler: str = "uniform:25"  # the recipe's
    window_frames: int | None = None  # the longest stream's
    views: str | None = None  # such as train:5+10crop; None = those of the store, else center
    shard_videos: int | None = None
    slice: str | None = None  # I/N; else what the scheduler says, see `find_place`
    seed: int = 0  # of the order of videos, random views and segments, and random weights
    device: str = "auto"
    workers: int | None = None  # one per GPU, or one per CPU core
    decoders: int | None = None  # per worker
    batch_segments: int | None = None
    decode_timeout_seconds: float = 60.0
    decode_memory_bytes: int = MEMORY_BYTES  # of a decoder beside its libraries; 0 = no limit
    follow_links: bool = False  # out of the video folder
    retry: tuple[str, ...] = ()  # look again at videos of these outcomes
    extend: bool = False  # take the catalogue's new videos and labels into a store of other ones
    reuse: Path | None = None  # another store: copy its cubes where recipe, sampling and file are equal
    command: str | None = None  # as it was typed, to be recorded

    def __post_init__(self) -> None:
        if not self.streams:
            raise UsageError("An extraction needs a stream: name one or more, such as rgb.")
        if twice := [name for name, count in Counter(s.name for s in self.streams).items() if count > 1]:
            raise UsageError(f"Stream {twice[0]!r} is named twice; name each stream once.")
        Sampler.parse(self.default_sampler)
        if self.sampler is not None:
            Sampler.parse(self.sampler)
        if self.views is not None:
            Views.parse(self.views)
        if self.slice is not None:
            parse_slice(self.slice)
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} of an extraction is {value}: must be 1 or more.")
        if self.seed < 0:
            raise UsageError(f"Seed {self.seed}: must be 0 or more.")
        if not self.decode_timeout_seconds > 0:
            raise UsageError(f"Decoding timeout {self.decode_timeout_seconds} s: must be above 0.")
        if self.decode_memory_bytes < 0:
            raise UsageError(f"Memory of a decoder {self.decode_memory_bytes} bytes: must be 0 (no limit) or more.")
        for outcome in self.retry:
            if outcome not in RETRYABLE:
                raise UnknownNameError("outcome to retry", outcome, RETRYABLE)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UsageError(f"Unknown device {self.device!r}; write auto, cpu, cuda or cuda:I.")

    @property
    def decoder(self) -> DecoderSettings:
        """How decoders are run."""
        return DecoderSettings(timeout_seconds=self.decode_timeout_seconds, memory_bytes=self.decode_memory_bytes)


def default_videos(dataset: str) -> Path:
    """Return `$VIDATT_DATA/<dataset>`, else `./data/<dataset>`."""
    return Path(os.environ.get("VIDATT_DATA", "data")) / dataset


def default_store(dataset: str) -> Path:
    """Return `$VIDATT_CACHE/<dataset>.zarr`, else `./cache-store/<dataset>.zarr`."""
    return Path(os.environ.get("VIDATT_CACHE", "cache-store")) / f"{dataset}.zarr"
