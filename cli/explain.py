"""`vidatt explain`, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .door import assignments, common
from .tables import duration

if TYPE_CHECKING:
    from ..pipelines.explanation.explain import ExplainResult


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("clips", nargs=-1, metavar="[VIDEO]...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for what is made.")
@click.option("--id", "ids", multiple=True, metavar="VIDEO_ID", help="A video of the store; may be repeated.")
@click.option("--pick", default="random", show_default=True, help="Without --id: random, right or wrong (the surest).")
@click.option("--count", type=int, default=4, show_default=True, help="How many of these.")
@click.option("--videos", type=click.Path(path_type=Path), help="Folder of the video files [where they were].")
@click.option("--store", type=click.Path(path_type=Path), help="Another store, or another place of its own.")
@click.option("--split", help="Another split than the run was fitted on.")
@click.option("--part", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option("--png/--no-png", "pictures", default=True, help="A picture of each video [yes].")
@click.option("--mp4/--no-mp4", "films", default=True, help="A film of each video [yes].")
@click.option("--npz", "arrays", is_flag=True, help="The arrays of each video.")
@click.option("--together", is_flag=True, help="All pictures in one, attention.png.")
@click.option("--rows", default="", metavar="NAME,...", help="frame, mean, a stream, a kind, time [frame, all maps].")
@click.option("--frames", type=int, default=8, show_default=True, help="Frames side by side in a picture.")
@click.option("--style", default="heat", show_default=True, help="heat, light or blend.")
@click.option("--crop", is_flag=True, help="Show the part of the frame that the network saw, not the whole.")
@click.option("--seconds", metavar="A:B", help="Show this stretch of the videos only.")
@click.option("--boxes", metavar="RULE", help="Draw what `vidatt locate` would find: threshold, minmax or contour.")
@click.option("--weights", multiple=True, metavar="STREAM=FILE", help="For VIDEO: weights of a stream [by digest].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random videos.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@common
def explain(
    rows: str, frames: int, style: str, crop: bool, seconds: str | None, weights: tuple[str, ...], **given: Any
) -> tuple[ExplainResult, str, int]:
    """Show when and where a fitted head looks: attention on the frames of videos, as pictures, films and arrays.

    The videos are those of the run's store, or new ones: VIDEO is a file, a folder or a CSV, as of `vidatt predict`.

    \b
    Example:
      vidatt explain runs/stan --videos UCF-101 --out looks
      vidatt explain runs/stan clip.mp4 --out looks
      vidatt explain runs/stan --id Archery/v_Archery_g01_c01.avi --out looks --npz
      vidatt explain runs/stan --pick wrong --count 6 --together --no-mp4 --out mistakes
    """
    from ..pipelines.explanation.explain import ExplainConfig
    from ..pipelines.explanation.explain import explain as run
    from ..pipelines.pictures.sheet import SheetSettings

    names = tuple(name for name in rows.split(",") if name)
    look = SheetSettings(frames=frames, rows=names, style=style, crop=crop, seconds=_stretch(seconds))
    files = {name: Path(file) for name, file in assignments("--weights", weights).items()}
    result = run(ExplainConfig(look=look, weights=files, **given))
    return result, explain_text(result), 1 if result.failed else 0


def _stretch(text: str | None) -> tuple[float, float] | None:
    """Read `A:B`.

    Raises
    ------
    UsageError
    """
    if text is None:
        return None
    start, _, stop = text.partition(":")
    try:
        return float(start), float(stop)
    except ValueError:
        raise UsageError(f"--seconds {text!r}: write A:B, such as 2.5:10.") from None


def explain_text(result: ExplainResult) -> str:
    """Return a line for each video, and what is not shown."""
    lines = []
    for video in result.videos:
        when = "" if video.seconds is None else f" at {video.seconds:.1f} s"
        truth = f", truth {', '.join(video.truth)}" if video.truth else ""
        files = [path for path in (video.picture, video.film, video.arrays) if path]
        if video.said:
            lines.append(f"{video.id}: {video.said[0]} {video.probabilities[0]:.3f}{truth}; most weight{when}")
        else:
            lines.append(f"{video.id}:")
        lines += [f"  {path}" for path in files]
        lines += [f"  not shown: {video.problem}"] if video.problem else []
    lines += [result.together] if result.together else []
    lines += [f"note: {note}" for note in result.notes]
    made = f"{len(result.videos)} videos in {duration(result.seconds)}"
    return "\n".join([*lines, f"{made}, {result.failed} of them not shown" if result.failed else made])
