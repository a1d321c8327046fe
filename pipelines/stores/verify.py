"""`vidatt cache verify`: every byte of a store against its markers, and every time map against what made it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from joblib import cpu_count

from ...cache.examine import examine_shard
from ...cache.mending import mend, repair_command
from ...cache.publish import ARRAYS, DONE, marker_digest
from ...cache.store import Store
from ...cache.stream import Stream
from ...errors import CorruptStoreError, VidattError
from ...extract.views import Views
from ..placing import stored_sampler
from ..record import Record
from ..runs.progress import Progress
from .times import check_times

MOST_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class BadShard(Record):
    """A shard that is not what it should be."""

    stream: str
    shard: int | None  # None: the stream as a whole, its metadata or the folder of its markers
    reason: str  # the first thing that is wrong with it; the others are like it
    files: tuple[str, ...]  # that are concerned, relative to the store
    videos: tuple[str, ...]  # ids of those whose rows are concerned


@dataclass(frozen=True, kw_only=True)
class VerifiedStream(Record):
    """What was looked at of a stream."""

    shards_done: int  # all of them were read
    shards_bad: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class VerifyResult(Record):
    """A store, read to the last byte."""

    store: str
    shards: int  # of each stream, done or not
    streams: Mapping[str, VerifiedStream]
    bad: tuple[BadShard, ...]
    bytes: int
    seconds: float
    command: str | None  # that mends what is bad; None = nothing is


def verify_store(path: Path, streams: Sequence[str] | None = None) -> VerifyResult:
    """Read everything: markers, the SHA-256 of each file, the crc32c of each chunk, index, frames and seconds.

    Shards that are not done are no damage; a file of a shard without its marker is.

    Parameters
    ----------
    streams : None = all

    Raises
    ------
    StoreNotFoundError, UsageError
        If there is no such store or stream.
    CorruptStoreError
        If root or index are damaged: nothing else can be judged then.
    """
    started = time.monotonic()
    store = Store.open(path)
    _check_plan(store)
    store.require_streams(streams or [])
    bad: list[BadShard] = []
    opened: list[Stream] = []
    for name in streams or store.stream_names:
        try:
            opened.append(store.stream(name))
        except CorruptStoreError as error:
            bad.append(BadShard(stream=name, shard=None, reason=error.what, files=(name,), videos=()))
    done: dict[str, list[int]] = {}
    for stream in opened:
        done[stream.name] = stream.done_shards()
        bad += _without_marker(stream, set(range(store.shard_count)) - set(done[stream.name]))
    jobs = [(stream, shard) for stream in opened for shard in done[stream.name]]
    sizes = dict.fromkeys(done, 0)
    pool = ThreadPoolExecutor(min(MOST_THREADS, cpu_count()))
    try:
        with Progress("verify", len(jobs), unit="shard") as progress:
            for (stream, _), (wrong, size) in zip(jobs, pool.map(_verify_shard, jobs), strict=True):
                sizes[stream.name] += size
                bad += wrong
                progress.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    return VerifyResult(
        store=str(path),
        shards=store.shard_count,
        streams={
            name: VerifiedStream(
                shards_done=len(shards),
                shards_bad=sum(b.stream == name for b in bad),
                bytes=sizes[name],
            )
            for name, shards in done.items()
        },
        bad=tuple(bad),
        bytes=sum(sizes.values()),
        seconds=round(time.monotonic() - started, 3),
        command=repair_command(path) if bad else None,
    )


def _check_plan(store: Store) -> None:
    """Refuse a root whose statements contradict each other; that of an earlier version has no digest."""
    rule = store.plan.view_rule
    try:
        sampler = stored_sampler(store.plan)
        views = store.views if rule is None else Views.parse(rule).count
        segments = None if sampler is None else sampler.fixed_segments
    except VidattError as error:
        raise CorruptStoreError(f"{store.path}/zarr.json: {error}", mend(store.path)) from error
    if store.index.digest() != store.attributes["plan_digest"]:
        raise CorruptStoreError(f"{store.path}/zarr.json has another plan_digest than its index", mend(store.path))
    if views != store.views or (segments is not None and (store.index.length != segments).any()):
        raise CorruptStoreError(
            f"{store.path}/zarr.json states {store.views} views and lengths from {store.index.length.min()} to "
            f"{store.index.length.max()}, which {rule} and {sampler} do not give",
            mend(store.path),
        )


def _without_marker(stream: Stream, missing: set[int]) -> list[BadShard]:
    """Find the files of shards that have neither a marker nor an intent; those of other names are nobody's."""
    intents = {int(p.name.split(".")[0]) for p in (stream.path / DONE).glob("[0-9]*.intent-*.json")}
    left: dict[int, list[str]] = {}
    for array in ARRAYS:
        for path in (stream.path / array).glob("c.*"):
            number = path.name.split(".")[1]
            if number.isdecimal() and int(number) in missing - intents and not stream.is_done(int(number)):
                left.setdefault(int(number), []).append(f"{stream.name}/{array}/{path.name}")
    return [
        BadShard(
            stream=stream.name,
            shard=shard,
            reason=f"{stream.path / DONE}/{shard}.json, the commit marker of files that are there, is gone",
            files=tuple(sorted(files)),
            videos=tuple(stream.store.index.ids[list(stream.store.shard_videos(shard))].tolist()),
        )
        for shard, files in sorted(left.items())
    ]


def _verify_shard(job: tuple[Stream, int]) -> tuple[list[BadShard], int]:
    stream, shard = job
    while True:
        before = marker_digest(stream.path, shard)
        bad, size = _look_at(stream, shard) if before else ([], 0)
        if not bad or marker_digest(stream.path, shard) == before:
            return bad, size  # else it was replaced meanwhile, and files were newer than the marker


def _look_at(stream: Stream, shard: int) -> tuple[list[BadShard], int]:
    examined = examine_shard(stream, shard)
    findings = list(examined.findings)
    if examined.outcomes and examined.frames is not None and examined.seconds is not None:
        findings += check_times(stream, shard, examined.outcomes, examined.frames, examined.seconds)
    if not findings:
        return [], examined.read_bytes
    # Where chunks can tell whose rows they are, the whole file need not.
    narrow = [finding for finding in findings if len(finding.videos) < len(stream.store.shard_videos(shard))]
    telling = narrow or findings
    positions = sorted({p for finding in telling for p in finding.videos})
    one = BadShard(
        stream=stream.name,
        shard=shard,
        reason=telling[0].reason + (f" (and {len(findings) - 1} more)" if findings[1:] else ""),
        files=tuple(sorted({f"{stream.name}/{finding.file}" for finding in findings})),
        videos=tuple(stream.store.index.ids[positions].tolist()),
    )
    return [one], examined.read_bytes
