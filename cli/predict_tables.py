"""Predictions as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .tables import duration

if TYPE_CHECKING:
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
