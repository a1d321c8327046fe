"""`vidatt cache repair`: what `verify` finds bad is made again from the videos, and nothing else is touched."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...cache.fingerprint import fingerprint
from ...cache.growth import finish
from ...cache.marker import parse_marker
from ...cache.mending import repair_command
from ...cache.publish import drop_garbage, drop_shard, marker_path
from ...cache.store import Store
from ...errors import CorruptStoreError, MissingFileError, RefusedError, UsageError
from ...extract.decoder import MEMORY_BYTES
from ...extract.views import Views
from ..extraction.config import ExtractConfig, default_videos
from ..extraction.plan import WorkPlan
from ..extraction.remake import stream_of
from ..extraction.shard_work import ShardTask
from ..extraction.supervisor import Supervisor
from ..placing import stored_sampler
from ..record import Record
from .metadata import CubeShape, mend_root, mend_stream
from .verify import BadShard, verify_store

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RepairConfig:
    """What is to be repaired, and with what.

    Raises
    ------
    UsageError
        If weights are named for a stream that is not repaired.
    """

    store: Path
    streams: tuple[str, ...] | None = None  # None = all
    videos: Path | None = None  # folder of the videos; None = the default of the store's dataset
    weights: Mapping[str, Path] = field(default_factory=dict)  # by stream, where vidatt knows them by no name
    drop: bool = False  # remove what is bad instead of making it again
    dry_run: bool = False
    device: str = "auto"
    workers: int | None = None
    decoders: int | None = None
    batch_segments: int | None = None
    decode_timeout_seconds: float = 60.0
    decode_memory_bytes: int = MEMORY_BYTES

    def __post_init__(self) -> None:
        if self.streams is not None and (odd := sorted(set(self.weights) - set(self.streams))):
            raise UsageError(f"--weights names the stream {odd[0]!r}, which --streams does not.")


@dataclass(frozen=True, kw_only=True)
class RepairResult(Record):
    """What was bad in a store, and what became of it."""

    store: str
    mended: tuple[str, ...]  # metadata that was written again, folders that were made, relative to the store
    garbage: int  # intents that no writer made, removed
    bad: tuple[BadShard, ...]
    repaired: int  # shards made again, counted by stream
    identical: int  # of those, how many have the very bytes that their marker told of before
    different: tuple[str, ...]  # STREAM/SHARD of those that have others: the video, the machine or a library changed
    dropped: int  # shards removed
    given_up: tuple[str, ...]  # STREAM/SHARD of those that no worker survived
    dry_run: bool
    command: str | None  # that mends what is still bad; None = nothing is
    seconds: float


def repair_store(config: RepairConfig) -> RepairResult:
    """Verify a store, and make each bad shard again, with the bytes it had if videos and machine are the same.

    Raises
    ------
    StoreNotFoundError, UsageError
        If there is no such store or stream, or videos or weights are needed that are not named.
    CorruptStoreError
        If what is lost stands nowhere else: the index, a recipe, the root of a store of an earlier version.
    RefusedError
        If a bad stream was imported.
    """
    started = time.monotonic()
    path = config.store
    mended = mend_root(path, dry_run=config.dry_run)
    store = Store.open(path) if not (mended and config.dry_run) else None
    bad: tuple[BadShard, ...] = ()
    garbage = 0
    told: dict[tuple[str, int], Any] = {}
    if store is not None:
        names = _streams(store, config)
        for name in names:
            built = partial(_built_shape, config, store, name)
            mended += mend_stream(store, name, built_shape=built, dry_run=config.dry_run)
        if not config.dry_run:
            finish(path)  # an extension that was killed
            store = Store.open(path)
            garbage = sum(drop_garbage(path / name) for name in names)
            store.sweep()
        bad = verify_store(path, names).bad
        if lost := [one for one in bad if one.shard is None and not config.dry_run]:
            raise CorruptStoreError(lost[0].reason, "restore it from a copy, or remove the stream: `vidatt cache rm`.")
        told = {(one.stream, one.shard): _files(path, one) for one in bad if one.shard is not None}
    done = _Done()
    if told and not config.dry_run:
        assert store is not None
        done = _drop(store, told) if config.drop else _remake(config, store, told)
    return RepairResult(
        store=str(path),
        mended=tuple(mended),
        garbage=garbage,
        bad=bad,
        repaired=done.repaired,
        identical=done.identical,
        different=done.different,
        dropped=done.dropped,
        given_up=done.given_up,
        dry_run=config.dry_run,
        command=_command(config, done, bool(mended or bad)),
        seconds=round(time.monotonic() - started, 3),
    )


@dataclass(frozen=True, kw_only=True)
class _Done:
    repaired: int = 0
    identical: int = 0
    different: tuple[str, ...] = ()
    dropped: int = 0
    given_up: tuple[str, ...] = ()


def _command(config: RepairConfig, done: _Done, damaged: bool) -> str | None:
    """Return the command that mends what is still bad, None if nothing is."""
    return repair_command(config.store) if done.given_up or (config.dry_run and damaged) else None


def _streams(store: Store, config: RepairConfig) -> list[str]:
    store.require_streams((*(config.streams or ()), *config.weights))
    return list(config.streams or store.stream_names)


def _files(path: Path, one: BadShard) -> Any:
    """Return what the marker of a bad shard tells of its files, None if it is lost or damaged."""
    assert one.shard is not None
    try:
        return parse_marker(marker_path(path / one.stream, one.shard).read_bytes())["files"]
    except (ValueError, OSError):
        return None


def _drop(store: Store, told: Mapping[tuple[str, int], Any]) -> _Done:
    for name, shard in told:
        drop_shard(store.path / name, shard)
    return _Done(dropped=len(told))


def _remake(config: RepairConfig, store: Store, told: Mapping[tuple[str, int], Any]) -> _Done:
    """Make shards again: those that are bad in the same streams together, since a video is decoded once for all."""
    streams: dict[int, list[str]] = {}
    for name, shard in told:
        streams.setdefault(shard, []).append(name)
    groups: dict[tuple[str, ...], list[int]] = {}
    for shard, names in sorted(streams.items()):
        groups.setdefault(tuple(sorted(names)), []).append(shard)
    given_up: list[str] = []
    for together, shards in groups.items():
        with Supervisor(_plan(config, store, together), again=True) as supervisor:
            built = supervisor.start_first_worker()
            for name, (cube_shape, recipe) in built.streams.items():
                store.add_stream(name, cube_shape=cube_shape, recipe=recipe)  # is there, and is compared
            tasks = []
            for shard in shards:
                videos = tuple(store.shard_videos(shard))
                tasks.append(ShardTask(shard, len(videos), again=videos, rewrite=True))
            supervisor.run(store, tasks)
            given_up += [f"{name}/{shard}" for name in together for shard in supervisor.given_up]
    made = {key: was for key, was in told.items() if f"{key[0]}/{key[1]}" not in given_up}
    now = {key: store.stream(key[0]).marker(key[1])["files"] for key in made}
    different = [f"{n}/{s}" for (n, s), was in made.items() if was is not None and not _same(was, now[n, s])]
    return _Done(
        repaired=len(made),
        identical=sum(was is not None and _same(was, now[key]) for key, was in made.items()),
        different=tuple(different),
        given_up=tuple(given_up),
    )


def _same(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return {key: told["sha256"] for key, told in was.items()} == {key: told["sha256"] for key, told in now.items()}


def _plan(config: RepairConfig, store: Store, names: Sequence[str]) -> WorkPlan:
    """Return how the streams were made, by what the store says."""
    plan = store.plan
    sampler = stored_sampler(plan)
    if sampler is None or plan.window_frames is None or plan.view_rule is None or plan.seed is None:
        raise RefusedError(
            f"The store {store.path} does not say how its segments were placed, so no extraction can make them again; "
            "restore what is bad from a copy."
        )
    videos = config.videos or default_videos(plan.dataset or "videos")
    if not videos.is_dir():
        raise MissingFileError(
            f"There is no folder {videos} with the videos of {store.path}; name it with --videos DIR, or remove "
            f"what is bad with `{repair_command(store.path)} --drop` and extract it later."
        )
    streams = tuple(stream_of(name, store.stream(name).recipe, weights=config.weights.get(name)) for name in names)
    return WorkPlan(
        config=ExtractConfig(
            dataset=plan.dataset or "",
            videos=videos,
            store=store.path,
            streams=streams,
            views=plan.view_rule,
            seed=plan.seed,
            device=config.device,
            workers=config.workers,
            decoders=config.decoders,
            batch_segments=config.batch_segments,
            decode_timeout_seconds=config.decode_timeout_seconds,
            decode_memory_bytes=config.decode_memory_bytes,
        ),
        streams=streams,
        sampler=sampler,
        window_frames=plan.window_frames,
        views=Views.parse(plan.view_rule),
    )


def _built_shape(config: RepairConfig, store: Store, name: str) -> CubeShape:
    """Return (K, K, D) as the stream's backbone gives it: the metadata of its cubes is lost.

    Raises
    ------
    CorruptStoreError
        If its recipe is lost too.
    """
    try:
        attributes = json.loads((store.path / name / "zarr.json").read_bytes())["attributes"]
        if fingerprint(attributes["recipe"]) != attributes["fingerprint"]:
            raise ValueError("its recipe does not match its fingerprint")
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise CorruptStoreError(
            f"{store.path}/{name}/zarr.json is not that of a stream ({error})",
            f"restore it from a copy, or remove the stream with `vidatt cache rm {store.quoted} {name}`.",
        ) from error
    plan = store.plan
    stream = stream_of(name, attributes["recipe"], weights=config.weights.get(name))
    views = Views.parse(plan.view_rule or "center")
    return stream.setup("cpu", views=views, seed=plan.seed or 0).backbone.cube_shape
