"""Results of `vidatt cache` as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..cache.mending import told
from .tables import duration, failures, size

if TYPE_CHECKING:
    from ..pipelines.stores.compare import StoreDifference
    from ..pipelines.stores.exchange import ExportResult, ImportResult
    from ..pipelines.stores.info import StoreInfo
    from ..pipelines.stores.merge import MergeResult
    from ..pipelines.stores.remove import RemovedStream
    from ..pipelines.stores.repair import RepairResult
    from ..pipelines.stores.status import StoreStatus
    from ..pipelines.stores.verify import VerifyResult

MOST = 20
"""Lines about single shards or videos; `--json` has all of them."""


def info_text(result: StoreInfo) -> str:
    """Return what a store holds."""
    attributes = result.attributes
    lines = [
        f"{result.store}: {result.videos} videos of {attributes.get('dataset')}, {result.classes} classes, "
        f"{result.rows} rows in {result.shards} shards",
        f"  sampler {attributes.get('sampler')}, views {attributes.get('view_rule')}, seed {attributes.get('seed')}",
        *(f"  split {name}: {s.train} train, {s.test} test" for name, s in result.splits.items()),
    ]
    for name, stream in result.streams.items():
        K, _, D = stream.cube
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in stream.outcomes.items()) or "none yet"
        recipe = stream.recipe
        weights = (recipe.get("weights") or {}).get("name", "none")
        lines += [
            f"  {name}: cubes {K}x{K}x{D}, {stream.shards_done} of {result.shards} shards, "
            f"{size(stream.bytes)}; videos: {outcomes}",
            f"    {recipe.get('backbone')} {recipe.get('layer')}, weights {weights}, {recipe.get('precision')}, "
            f"fingerprint {stream.fingerprint[:12]}",
            *(f"  {line}" for line in failures(stream.failed)),
        ]
    return "\n".join(lines)


def export_text(result: ExportResult) -> str:
    """Return what an export wrote, and what it could not."""
    lines = [
        f"{result.out}: {result.videos} videos as {result.format}, {size(result.bytes)}, {duration(result.seconds)}",
        *(
            f"  {name}: {s.segments} cubes {'x'.join(map(str, s.cube))}, fingerprint {(s.fingerprint or 'none')[:12]}"
            for name, s in result.streams.items()
        ),
    ]
    if result.missing:
        some = ", ".join(result.missing[:3])
        lines.append(f"  left out: {len(result.missing)} videos that are not extracted yet, such as {some}")
    return "\n".join(lines)


def import_text(result: ImportResult) -> str:
    """Return what an import made."""
    done = "could become" if result.dry_run else "is now"
    lines = [
        f"{result.store} {done} {'a store' if result.new else 'the store with these streams'}: "
        f"{result.videos} videos, {result.classes} classes, from {', '.join(result.dtypes)}; "
        f"{duration(result.seconds)}",
        *(f"  split {name}: {s.train} train, {s.test} test" for name, s in result.splits.items()),
    ]
    for name, stream in result.streams.items():
        told = f", fingerprint {stream.fingerprint[:12]}" if stream.fingerprint else ""
        lines.append(f"  {name}: {stream.segments} cubes {'x'.join(map(str, stream.cube))}{told}")
    if result.not_listed:
        lines.append(f"  {result.not_listed} arrays are not in the manifest and were left out")
    return "\n".join([*lines, *(f"  note: {note}" for note in result.notes)])


def verify_text(result: VerifyResult) -> str:
    """Return what is bad in a store, and the command that mends it."""
    rate = result.bytes / 1e6 / max(result.seconds, 1e-3)
    bad = f"{len(result.bad)} bad" if result.bad else "all good"
    lines = [f"{result.store}: {bad}; {size(result.bytes)} in {duration(result.seconds)}, {rate:.0f} MB/s"]
    lines += [
        f"  {name}: {stream.shards_done} of {result.shards} shards done, {stream.shards_bad} bad"
        for name, stream in result.streams.items()
    ]
    for bad_one in result.bad[:MOST]:
        where = bad_one.stream if bad_one.shard is None else f"{bad_one.stream} shard {bad_one.shard}"
        lines.append(f"  {where}: {bad_one.reason}{_some(bad_one.videos)}")
    lines += _more(len(result.bad))
    return "\n".join([*lines, *([f"  mend it with `{result.command}`"] if result.command else [])])


def repair_text(result: RepairResult) -> str:
    """Return what was bad in a store, and what became of it."""
    would = "would be " if result.dry_run else ""
    lines = [f"{result.store}: {len(result.bad)} bad shards, {duration(result.seconds)}"]
    lines += [f"  {name} {would}written again" for name in result.mended]
    if result.garbage:
        lines.append(f"  {result.garbage} intents of garbage removed")
    lines += [f"  {one.stream} shard {one.shard}: {one.reason}" for one in result.bad[:20]] + _more(
        len(result.bad) - 20
    )
    if result.repaired:
        told = result.identical + len(result.different)
        lines.append(f"  {result.repaired} shards made again; {result.identical} of {told} have the bytes of before")
    for name in result.different[:MOST]:
        lines.append(f"  {name} has other bytes than before: its videos, this machine or a library are not the same")
    if result.dropped:
        lines.append(f"  {result.dropped} shards removed; the `vidatt extract` that made the store makes them again")
    if result.given_up:
        lines.append(f"  given up: {', '.join(result.given_up)}")
    return "\n".join(lines + ([f"  {result.command}"] if result.command else []))


def remove_text(result: RemovedStream) -> str:
    """Return what was removed."""
    verb = "would be" if result.dry_run else "is"
    return (
        f"{result.store}: stream {result.stream} {verb} removed, {result.shards} shards, {result.files} files, "
        f"{size(result.bytes)}"
    )


def difference_text(result: StoreDifference) -> str:
    """Return in what two stores differ."""
    lines = [f"{result.first} and {result.second}: {'equal' if result.equal else 'different'}"]
    lines += [f"  {line}" for line in result.plan]
    for what, names in (
        ("videos of the first alone", result.only_first),
        ("videos of the second alone", result.only_second),
        ("videos with another path, label, split or length", result.described),
        ("streams of the first alone", result.streams_only_first),
        ("streams of the second alone", result.streams_only_second),
    ):
        if names:
            lines.append(f"  {len(names)} {what}: {', '.join(names[:3])}{', ...' if names[3:] else ''}")
    for name, stream in result.streams.items():
        lines.append(
            f"  {name}: {len(stream.different)} of {stream.compared} videos differ"
            + (f", by {stream.max_abs:g} at most" if stream.max_abs else "")
            + "".join(
                f"; {count} done in the {which} alone"
                for count, which in ((stream.only_first, "first"), (stream.only_second, "second"))
                if count
            )
        )
        lines += [f"    recipe {line}" for line in stream.recipe]
        for video in stream.different[:MOST]:
            cubes = "cubes not comparable" if video.max_abs is None else f"cubes by {video.max_abs:g}"
            outcomes = " and ".join(dict.fromkeys(video.outcomes))
            lines.append(f"    {video.id}: {cubes}{', other frames' if video.frames else ''}, {outcomes}")
        lines += _more(len(stream.different))
    return "\n".join(lines)


def merge_text(result: MergeResult) -> str:
    """Return what was gathered."""
    done = "would take" if result.dry_run else "took"
    lines = [f"{result.into} {done} {size(result.bytes)} from {len(result.sources)} stores, {duration(result.seconds)}"]
    lines += [
        f"  {name}: {stream.taken} shards, {stream.there} were there, {stream.missing} of {result.shards} are missing"
        for name, stream in result.streams.items()
    ]
    return "\n".join(lines)


def status_text(result: StoreStatus) -> str:
    """Return how far a store is."""
    state = "complete" if result.complete else "not complete"
    lines = [f"{result.store}: {state}; {result.videos} videos in {result.shards} shards"]
    for name, stream in result.streams.items():
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in stream.outcomes.items()) or "no video yet"
        lines.append(
            f"  {name}: {stream.shards_done} of {result.shards} shards, {size(stream.bytes)}; {outcomes}"
            + (f"; damaged: {', '.join(stream.damaged[:3])}" if stream.damaged else "")
        )
    if result.at_work:
        lines.append(f"  {result.at_work} writers at work")
    if result.retryable:
        how = f"`{result.retry_command}`" if result.retry_command else "repeat the `vidatt extract ...` with --retry"
        lines.append(f"  {result.retryable} videos could be retried: {how}")
    if result.command:
        mend = result.command.startswith("vidatt cache repair")
        lines.append(f"  mend it with `{result.command}`" if mend else f"  continue with {told(result.command)}")
    return "\n".join(lines)


def _some(videos: Sequence[str]) -> str:
    if not videos:
        return ""
    return f"; videos {', '.join(videos[:3])}" + (f" and {len(videos) - 3} more" if videos[3:] else "")


def _more(count: int) -> list[str]:
    return [f"  ... and {count - MOST} more (--json lists all)"] if count > MOST else []
