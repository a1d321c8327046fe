"""`vidatt demo`, and what it says."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .door import common
from .tables import duration, figure, table

if TYPE_CHECKING:
    from ..pipelines.demo import DemoResult


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True)
@click.option("--train-videos", type=click.IntRange(30), default=144, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@click.option("--seed", type=int, default=0, show_default=True)
@common
def demo(out: Path, train_videos: int, device: str, seed: int) -> tuple[DemoResult, str, int]:
    """Generate real encoded videos, extract, fit, evaluate, and write a report; no data, no network.

    \b
    Example:
      vidatt demo --out demo-out
    """
    from ..pipelines.demo import demo as run

    result = run(out, train_videos=train_videos, device=device, seed=seed)
    return result, demo_text(result), 0


def demo_text(result: DemoResult) -> str:
    """Return the demo's one table and where its picture lies."""
    rows = [
        [
            r.head,
            "+".join(r.streams),
            r.top1,
            r.chance,
            figure(r.mass_in_box),
            figure(r.box_share),
            r.seconds,
        ]
        for r in result.heads
    ]
    header = ["head", "streams", "test top-1", "chance", "attention in box", "box area share", "fit s"]
    return "\n".join(
        [
            f"{result.videos} generated videos, {result.classes} classes; features: {result.features}",
            "",
            table(header, rows),
            "",
            *textwrap.wrap(result.reading, 110),
            f"picture: {result.picture}",
            f"report, for a browser: {result.report}",
            f"total: {duration(result.seconds)}",
        ]
    )
