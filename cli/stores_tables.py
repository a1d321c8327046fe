"""Results of `vidatt cache` as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .tables import duration, failures, size

if TYPE_CHECKING:
    from ..pipelines.stores.exchange import ExportResult, ImportResult
    from ..pipelines.stores.info import StoreInfo


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
