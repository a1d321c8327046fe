"""Results as text for people; the same results as JSON need none of this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..cache.memory import size_text as size
from ..pipelines.durations import duration_text as duration

if TYPE_CHECKING:
    from ..pipelines.metrics.classification import Measures


def listing(entries: Mapping[str, str]) -> str:
    """Return `name  what it is` lines, aligned."""
    width = max(len(name) for name in entries)
    return "\n".join(f"{name:<{width}}  {what}" for name, what in entries.items())


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under a header; numbers to the right, floats with three decimals."""
    cells = [[f"{x:.3f}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        pairs = zip(row, widths, numeric, strict=True)
        return "  ".join(x.rjust(w) if right else x.ljust(w) for x, w, right in pairs).rstrip()

    return "\n".join([line(header), *(line(row) for row in cells)])


def measures_text(measures: Measures, classes: int | None, *, digits: int = 3) -> str:
    """Return the measures that say something: five guesses at up to five classes are always right."""
    return ", ".join(f"{key} {value:.{digits}f}" for key, value in shown(measures, classes).items())


def shown(measures: Measures, classes: int | None) -> dict[str, float]:
    """Return the defined measures by name, without top-5 where there are at most five classes; None = nobody knows."""
    told = {key: value for key, value in measures.to_dict().items() if value is not None}
    return {key: value for key, value in told.items() if key != "top5" or classes is None or classes > 5}


def failures(failed: Sequence[Mapping[str, Any]], *, most: int = 20) -> list[str]:
    """Return a line for each of the first failed videos."""
    lines = [f"  {o['outcome']:<15} {o['id']}: {o['detail']}" for o in failed[:most]]
    if len(failed) > most:
        lines.append(f"  ... and {len(failed) - most} more (--json lists all)")
    return lines


def summary_text(result: Mapping[str, Any]) -> str:
    """Return the end of an extraction."""
    outcomes = ", ".join(f"{count} {name}" for name, count in result["outcomes"].items()) or "nothing done"
    lines = [f"{result['store']}: {result['videos']} videos, {outcomes}, {duration(result['seconds'])}"]
    for name, stream in result["streams"].items():
        K, _, D = stream["cube"]
        lines.append(
            f"  {name}: {stream['segments']} cubes {K}x{K}x{D}, {size(stream['bytes'])}, "
            f"fingerprint {stream['fingerprint'][:12]}"
        )
    if result["given_up"]:
        lines.append(f"  given up: shards {result['given_up']}; run the same command again to retry them")
    if result["reused"]:
        lines.append(f"  {result['reused']} videos were copied from another store")
    if result["retried"]:
        lines.append(f"  {result['retried']} videos were looked at again, {result['changed']} end otherwise now")
    lines += _longer(result["longer"])
    lines += failures(result["failed"])
    if result["retryable"]:
        lines.append(f"  when {result['retryable']} of them are mended, look again: {result['retry_command']}")
    return "\n".join(lines)


def _longer(ids: Sequence[str]) -> list[str]:
    """Say what becomes of videos to retry that a store has no room for."""
    if not ids:
        return []
    return [
        f"  {len(ids)} videos, such as {ids[0]}, have other segments now than the store has rows for: they stay as "
        "they are; give a new --store, and this one as --reuse"
    ]


def plan_text(plan: Mapping[str, Any]) -> str:
    """Return what `--dry-run` found."""
    lines = [
        f"{plan['store']}{' (exists)' if plan['exists'] else ''}: {plan['videos']} videos, {plan['segments']} "
        f"segments, {plan['shards']} shards, {plan['files']} files",
        *(
            f"  {name}: cubes {s['cube'][0]}x{s['cube'][1]}x{s['cube'][2]}, {size(s['bytes'])}"
            for name, s in plan["streams"].items()
        ),
        f"  free disk: {size(plan['free_bytes'])}",
        f"  about {duration(plan['estimated_seconds'])} with {plan['workers']} workers on {plan['device']}, measured "
        f"on {plan['sampled_videos']} videos",
        f"  a decoder is stopped after {plan['decode_timeout_seconds']:g} s without a sign of life, and may take "
        + (size(plan["decode_memory_bytes"]) if plan["decode_memory_bytes"] else "any memory"),
    ]
    if plan["added"]:
        lines.append(f"  the store is extended by {plan['added']} videos")
    if plan["retried"]:
        lines.append(f"  {plan['retried']} videos are looked at again")
    lines += _longer(plan["longer"])
    if plan["reusable"]:
        lines.append(f"  up to {plan['reusable']} videos are copied from another store")
    if plan["missing"]:
        some = ", ".join(plan["missing"][:3])
        lines.append(f"  {len(plan['missing'])} videos are not there, such as {some}")
    return "\n".join(lines)


def seen_mark(seen: int | None) -> str:
    """Return what stands behind a figure on videos that a run was fitted or selected on."""
    return " (SEEN)" if seen else ""


def seen_lines(seen: int | None, note: str | None) -> list[str]:
    """Return the line that says what a run has seen of the videos, if there is anything to say."""
    if note is None:
        return []
    return [f"SEEN: {note}; these figures say nothing about new videos" if seen else f"note: {note}"]


def figure(value: float | None, *, digits: int = 3) -> str:
    """Return a number as text, `-` where it is undefined."""
    return "-" if value is None else f"{value:.{digits}f}"
