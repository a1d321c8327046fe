"""What `detect` and `locate` share: the run and videos they read, and attention that knows nothing as a floor."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...cache.scratch import write_atomically
from ...cache.store import Store
from ...errors import UnknownNameError, UsageError
from ..record import OPTIONAL, Record
from ..runs.attention import VideoAttention
from ..runs.identity import FitIdentity
from ..runs.measured import Sampled
from ..runs.places import place_of
from ..runs.reload import require_fit, store_for
from ..runs.run import Run
from ..runs.splits import PARTS, choose_split
from ..runs.videos import ChosenVideos, choose_videos
from ..runs.views import central_name, sampled

log = logging.getLogger(__name__)

ATTENTIONS = ("head", "random", "uniform")
"""What can be looked at: the head's attention, numbers from a seed, or the same everywhere."""


class Substitute:
    """Puts random or uniform attention in the place of a head's; what it says of classes stays.

    Parameters
    ----------
    kind : one of `ATTENTIONS`. "random": raw scores from a standard normal distribution and their softmax, maps from
        0..1 evenly; each video's depend on the seed and its id only. "uniform": raw scores and maps of 1
    seed : of "random"

    Raises
    ------
    UnknownNameError
        For another kind.
    """

    def __init__(self, kind: str, *, seed: int, streams: Sequence[str], store: Store) -> None:
        if kind not in ATTENTIONS:
            raise UnknownNameError("attention", kind, ATTENTIONS)
        self.kind, self.seed = kind, seed
        K = max(store.stream(name).cube_shape[0] for name in streams)
        self._map_shape = (len(streams), K, K)

    def __call__(self, attention: VideoAttention) -> VideoAttention:
        """Return the attention to look at."""
        T = len(attention.temporal)
        shape = (T, *self._map_shape)
        if self.kind == "head":
            return attention
        if self.kind == "uniform":
            return replace(
                attention,
                temporal=np.full(T, 1 / T, np.float32),
                temporal_raw=np.ones(T, np.float32),
                spatial=np.ones(shape, np.float32),
            )
        random = np.random.default_rng([self.seed, zlib.crc32(attention.id.encode())])
        raw = random.standard_normal(T).astype(np.float32)
        weights = np.exp(raw - raw.max())
        spatial = random.random(shape, np.float32)
        return replace(attention, temporal=weights / weights.sum(), temporal_raw=raw, spatial=spatial)


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """What every reading of a run's attention can be asked for."""

    run: Path
    store: Path | None = None  # None = the one that the run was fitted on
    split: str | None = None  # None = the run's
    part: str = "test"
    settings: Mapping[str, str] = field(default_factory=dict)  # texts by field of the rule
    attention: str = "head"  # or random, uniform
    out: Path | None = None  # None = in the run
    seed: int = 0  # of random attention
    device: str = "auto"
    allow_seen: bool = False  # also read videos that the run was fitted or selected on; the result says so


@dataclass(frozen=True, kw_only=True)
class ReadingResult(Record):
    """What was read."""

    run: str
    store: str
    split: str
    part: str
    listed: int  # videos of the part
    videos: int  # that were read
    attention: str  # the head's, or what stood in its place
    seen: int | None = field(
        default=None, metadata=OPTIONAL
    )  # with `--allow-seen`: read videos that the run was fitted or selected on
    seen_note: str | None = field(default=None, metadata=OPTIONAL)  # the same in words, or why nobody knows
    sampled: Sampled | None = field(default=None, metadata=OPTIONAL)


Result = TypeVar("Result", bound=ReadingResult)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """A finished run, and the videos whose attention is read."""

    run: Run
    identity: FitIdentity
    store: Store
    split: str
    chosen: ChosenVideos
    substitute: Substitute
    config: ReadingConfig

    def out(self, what: str, rule: str, suffix: str) -> Path:
        """Return the file to write, its folder made: as asked, else in the run, named by what is read and how."""
        path = self.config.out or self._in_run(what, rule, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def is_seen(self, position: int) -> bool:
        """Tell whether the run was fitted or selected on a video."""
        return bool(self.chosen.seen[self.chosen.videos == position].any())

    def keep(self, what: str, rule: str, result: Result) -> Result:
        """Keep a result as JSON in the run, for `kept_results`, if the run can be written; the result again."""
        if not os.access(self.run.path, os.W_OK):
            log.warning("run %s cannot be written: what was measured is not kept in it", self.run.path)
            return result
        content = json.dumps(result.to_dict(), indent=1, allow_nan=False)
        write_atomically(self._in_run(what, rule, ".json"), content.encode())
        return result

    def _in_run(self, what: str, rule: str, suffix: str) -> Path:
        kind = "" if self.substitute.kind == "head" else f"-{self.substitute.kind}"
        place = place_of(self.run, self.store, self.split, self.config.part)
        return self.run.path / f"{what}-{place.name}-{rule}{kind}{suffix}"

    def said(self, videos: int) -> ReadingResult:
        """Return what was read, of so many videos."""
        return ReadingResult(
            run=str(self.config.run),
            store=str(self.store.path),
            split=self.split,
            part=self.config.part,
            listed=self.chosen.listed,
            videos=videos,
            attention=self.substitute.kind,
            seen=self.chosen.seen_count,
            seen_note=self.chosen.note,
            sampled=sampled(self.store, central_name(self.store)),
        )


def kept_results(run: Run, what: str, split: str, part: str, kind: type[Result]) -> tuple[Result, ...]:
    """Return the results on its own store that `Reading.keep` left in a run, in the order of their names.

    Parameters
    ----------
    what : "detections" or "boxes"

    Raises
    ------
    UsageError
        If one of them is damaged.
    """
    found = []
    for path in sorted(run.path.glob(f"{what}-*.json")):
        if "@" in path.name:  # of another store
            continue
        try:
            values = json.loads(path.read_text())
        except ValueError as error:
            raise UsageError(f"{path} is damaged ({error}); remove it, and measure again.") from None
        found.append(kind.from_dict(values, str(path)))
    return tuple(result for result in found if (result.split, result.part) == (split, part))


def open_reading(config: ReadingConfig) -> Reading:
    """Find the run, the store and the videos.

    Raises
    ------
    UnknownNameError
        For a part, a split or a kind of attention that there is not.
    UsageError, RefusedError
        As `evaluate`; if the run is unfinished.
    """
    if config.part not in PARTS:
        raise UnknownNameError("part", config.part, PARTS)
    run = Run.open(config.run)
    store = store_for(run, config.store)
    identity = require_fit(run)
    run.require_finished()
    split = choose_split(store, config.split or identity.split)
    chosen = choose_videos(run, store, split, config.part, allow_seen=config.allow_seen)
    substitute = Substitute(config.attention, seed=config.seed, streams=identity.stream_names, store=store)
    return Reading(
        run=run,
        identity=identity,
        store=store,
        split=split,
        chosen=chosen,
        substitute=substitute,
        config=config,
    )
