"""`vidatt extract`: plan once, then workers turn shards of videos into shards of cubes until none is missing."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...cache.growth import finish
from ...cache.ledger import VideoOutcome
from ...cache.made_by import note_command
from ...cache.store import Store
from ...cache.stream import Stream
from ..jobs.place import find_place
from .command import extract_command, lasting_command
from .config import ExtractConfig
from .plan import plan_extraction
from .planning import planning
from .retry import can_be_retried, todo
from .reuse import Reuse
from .supervisor import Supervisor

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StreamSummary:
    """What stands in the store of one stream."""

    fingerprint: str
    cube: tuple[int, int, int]  # (K, K, D)
    segments: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class ExtractionSummary:
    """What stands in the store after an extraction, for the shards of its slice."""

    store: str
    videos: int
    outcomes: dict[str, int]  # videos by their worst outcome in any stream
    failed: tuple[VideoOutcome, ...]  # of videos that are not ok, by id
    streams: dict[str, StreamSummary]
    seconds: float
    given_up: tuple[int, ...]  # shards that no worker survived
    reused: int = 0  # videos copied from another store
    retried: int = 0  # videos that were looked at again
    changed: int = 0  # of those, how many end otherwise now
    longer: tuple[str, ...] = ()  # ids of videos to retry that have no room: other segments than the store has rows
    retryable: int = 0  # videos that are not ok and whose file is there
    retry_command: str = ""  # that looks at them again

    def to_dict(self) -> dict[str, Any]:
        """Return it as `extract --json` prints it."""
        streams = {name: asdict(stream) | {"cube": list(stream.cube)} for name, stream in self.streams.items()}
        failed = [outcome.to_dict() for outcome in self.failed]
        lists = {"given_up": list(self.given_up), "longer": list(self.longer)}
        return {**vars(self), "failed": failed, "streams": streams, **lists}


def extract(config: ExtractConfig) -> ExtractionSummary:
    """Run one extraction, or continue it.

    Raises
    ------
    VidattError
        One line for the user; what was committed stays.
    InterruptedRunError
        After SIGTERM, SIGUSR1 or Ctrl-C, when the shards in work are committed.
    """
    started = time.monotonic()
    place = find_place(config.slice, os.environ)
    if place.source:
        log.info("%s", place)
    if config.store.exists():
        finish(config.store)  # an extension that was killed
    with ExitStack() as until_planned:
        until_planned.enter_context(planning(config.store, place))
        plan = plan_extraction(config)
        with Supervisor(plan, again=bool(config.retry)) as supervisor:
            built = supervisor.start_first_worker()  # backbones before a store: no empty store on errors
            recipes = {name: recipe for name, (_, recipe) in built.streams.items()}
            if config.reuse is not None:
                log.info("%s: %d videos can be copied", config.reuse, len(Reuse(config.reuse, recipes)))
            store = plan.open_store()
            until_planned.close()
            store.sweep()
            for name, (cube_shape, recipe) in built.streams.items():
                store.add_stream(name, cube_shape=cube_shape, recipe=recipe)
            work = todo(plan, store)
            log.info(
                "%s: %d videos in %d shards; %d of my %d shards are to do",
                config.store, len(store.index.ids), store.shard_count, len(work.tasks), len(plan.shards),
            )  # fmt: skip
            if work.tasks:
                _record(config)
            if config.retry:
                log.info("%d videos are looked at again, %d are still missing", work.again, work.still_missing)
            supervisor.run(store, work.tasks)
    if plan.shards.step == 1:  # else other slices may be at work
        store.sweep()
    seconds = round(time.monotonic() - started, 3)
    names = [stream.name for stream in plan.streams]
    summary = summarise(store, names, plan.shards, seconds=seconds, given_up=tuple(supervisor.given_up))
    mendable = {o.id for o in summary.failed if can_be_retried(plan, store.index.position(o.id), o.outcome)}
    retryable = len(mendable.difference(work.longer))
    return replace(
        summary,
        reused=supervisor.reused,
        retried=work.again,
        changed=len(supervisor.changed),
        longer=work.longer,
        retryable=retryable,
        retry_command=extract_command(config, "--retry") if retryable else "",
    )


def _record(config: ExtractConfig) -> None:
    """Keep the command beside the store."""
    names = [stream.name for stream in config.streams]
    note_command(config.store, command=config.command, again=lasting_command(config), streams=names)


def summarise(
    store: Store, streams: Sequence[str], shards: Sequence[int], *, seconds: float, given_up: tuple[int, ...]
) -> ExtractionSummary:
    """Return what stands in the store for some of its shards: outcomes by video (the worst of its streams)."""
    positions = [p for shard in shards for p in store.shard_videos(shard)]
    worst: dict[str, VideoOutcome] = {}
    found: dict[str, StreamSummary] = {}
    for name in streams:
        outcomes, found[name] = _summary(store.stream(name), shards)
        for outcome in outcomes:
            if outcome.id not in worst or worst[outcome.id].outcome == "ok":
                worst[outcome.id] = outcome
    failed = [o for o in worst.values() if o.outcome != "ok"]
    return ExtractionSummary(
        store=str(store.path),
        videos=len(positions),
        outcomes=dict(sorted(Counter(o.outcome for o in worst.values()).items())),
        failed=tuple(sorted(failed, key=lambda outcome: outcome.id)),
        streams=found,
        seconds=seconds,
        given_up=given_up,
    )


def _summary(stream: Stream, shards: Sequence[int]) -> tuple[list[VideoOutcome], StreamSummary]:
    """Read the markers of some shards, each once: those of the others may be a million."""
    outcomes: dict[str, VideoOutcome] = {}
    size = 0
    for shard in shards:
        if stream.is_done(shard):
            marker = stream.marker(shard)
            size += sum(entry["bytes"] for entry in marker["files"].values())
            for values in marker["videos"]:
                outcome = VideoOutcome.from_dict(values)
                outcomes.setdefault(outcome.id, outcome)  # a long video stands in several shards
    summary = StreamSummary(
        fingerprint=stream.fingerprint,
        cube=stream.cube_shape,
        segments=sum(outcome.segments for outcome in outcomes.values()),
        bytes=size,
    )
    return list(outcomes.values()), summary
