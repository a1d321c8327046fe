"""Predictions as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .tables import duration, table

if TYPE_CHECKING:
    from ..pipelines.prediction.benchmark import BenchmarkResult
    from ..pipelines.prediction.predict import PredictedVideo, PredictionResult


def prediction_text(result: PredictionResult) -> str:
    """Return the classes of each video, and how they were made."""
    lines = [line for video in result.predictions for line in _video(video)]
    outcomes = ", ".join(f"{count} {name}" for name, count in result.outcomes.items())
    noun = "video" if result.videos == 1 else "videos"
    lines.append(f"{result.videos} {noun}, {outcomes}, {duration(result.seconds)}")
    places = dict.fromkeys(
        f"views {one.views or 'unknown'}, segments {one.sampler or 'unknown'}" for one in result.sampled
    )
    how = result.fusion or result.scores
    lines.append(f"  {how}; {'; '.join(places)}; {', '.join(result.runs)}")
    lines += [f"  note: {note}" for note in result.notes]
    if result.csv is not None:
        lines.append(f"  scores in {result.csv}")
    return "\n".join(lines)


def _video(video: PredictedVideo) -> Iterator[str]:
    if not video.classes:
        yield f"{video.id}: {video.outcome}: {video.detail}"
        return
    flaw = "" if video.outcome == "ok" else f" ({video.outcome}: {video.detail})"
    yield f"{video.id}: {video.segments} segments{flaw}"
    for one in video.classes:
        yield f"  {one.score:.3f}  {one.name}"
    for window in video.windows or ():
        best = window.classes[0]
        yield f"  {window.start:.1f}-{window.stop:.1f} s: {best.score:.3f}  {best.name}"
    for interval in video.intervals or ():
        yield f"  {interval.start:.1f}-{interval.stop:.1f} s: {interval.name} ({interval.score:.3f})"


def benchmark_text(result: BenchmarkResult) -> str:
    """Return the speed of each part, and the machine."""
    rows = [(part.part, part.seconds, f"{part.frames_per_second:.1f}") for part in result.parts]
    rows.append(("end to end", result.seconds, f"{result.frames_per_second:.1f}"))
    places = dict.fromkeys(
        f"views {one.views or 'unknown'}, segments {one.sampler or 'unknown'}" for one in result.sampled
    )
    where = result.card or f"{result.threads} threads"
    lines = [
        f"{result.videos} videos, {result.frames} frames, {result.segments} segments; {'; '.join(places)}",
        table(("part", "seconds", "frames/s"), rows),
        "parts overlap in time; decode, inputs (resize and crops) and flow on a CPU are of the decoding child",
        f"{result.processor}, {result.cores} cores; {result.device} ({where}), {result.decoders} decoders; "
        f"PyTorch {result.versions['torch']}",
    ]
    if result.failed:
        lines.append(f"{result.failed} videos could not be read and do not count")
    return "\n".join([*lines, *(f"note: {note}" for note in result.notes)])
