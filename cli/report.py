"""`vidatt report`, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .door import common
from .tables import duration, size

if TYPE_CHECKING:
    from ..pipelines.report.report import ReportResult


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True)
@click.option("--videos", type=click.Path(path_type=Path), help="Folder of the video files [attention without frames].")
@click.option("--store", type=click.Path(path_type=Path), help="Another place of the same store.")
@click.option("--split", help="A split that all were evaluated on [each run's own].")
@click.option("--part", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option(
    "--draw", type=click.IntRange(0), default=3, show_default=True, metavar="N",
    help="Videos to draw of the best, of the worst and at random, each run; 0 = none.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random videos.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@common
def report(**given: Any) -> tuple[ReportResult, str, int]:
    """Write runs as one page of HTML: curves, measures, confusions, attention on frames; no network, no other file.

    RUN is a run that was evaluated, or a folder of runs such as that of a sweep.

    \b
    Example:
      vidatt report runs/stan --videos UCF-101 --out report.html
      vidatt report runs/stan runs/mean --out both.html
      vidatt report runs/ucf101-stan-sweep
    """
    from ..pipelines.report.report import ReportConfig
    from ..pipelines.report.report import report as run

    result = run(ReportConfig(**given))
    return result, report_text(result), 0


def report_text(result: ReportResult) -> str:
    """Return where the page lies, what is on it, and what is not."""
    return "\n".join(
        [
            f"{result.out}: {len(result.runs)} runs, {len(result.chapters)} in full, {result.plots} plots, "
            f"{result.videos} videos with attention, {result.frames} frames; {size(result.bytes)}, "
            f"{duration(result.seconds)}",
            *(f"note: {note}" for note in result.notes),
        ]
    )
