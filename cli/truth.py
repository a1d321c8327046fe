"""What commands share that measure results of other programs: where the truth is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .door import assignments

if TYPE_CHECKING:
    from ..pipelines.truth import TruthSource

    Command = Callable[..., None]


def truth_options(store: str) -> Callable[[Command], Command]:
    """Give a command --store, --dataset, --annotations, --option and --videos, of which `truth_source` makes one thing.

    Parameters
    ----------
    store : what its help says of --store
    """
    options = (
        click.option("--store", type=click.Path(path_type=Path), help=store),
        click.option("--dataset", metavar="NAME", help="Instead of a store: a dataset, whose annotations are read."),
        click.option("--annotations", type=click.Path(path_type=Path), help="Its folder, or the CSV of `list`."),
        click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="A setting of the dataset."),
        click.option("--videos", type=click.Path(path_type=Path), help="Of a dataset that is a folder of videos."),
    )

    def give(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return give


def truth_source(given: dict[str, Any]) -> TruthSource:
    """Return what the options of `truth_options` name, and take them out of those given to a command."""
    from ..pipelines.truth import TruthSource

    named = {name: given.pop(name) for name in ("store", "dataset", "annotations", "videos")}
    return TruthSource(**named, options=assignments("--option", given.pop("options")))


def overlaps(text: str | None) -> tuple[float, ...] | None:
    """Read `--thresholds .1,.2,.5`; None = those that the rule has.

    Raises
    ------
    UsageError
        If one is no overlap in 0..1, above 0, or stands there twice.
    """
    if text is None:
        return None
    found: list[float] = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0 < value <= 1 or value in found:
            raise UsageError(
                f"--thresholds {text!r}: {part.strip()!r} is no overlap, or twice; write such as .1,.2,.5."
            )
        found.append(value)
    return tuple(found)


def pixels(text: str | None) -> tuple[int, int] | None:
    """Read `--frame-px 320x240`, width and height.

    Raises
    ------
    UsageError
        If it is something else.
    """
    if text is None:
        return None
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"--frame-px {text!r}: write WIDTHxHEIGHT in pixels, such as 320x240.")
    return int(width), int(height)
