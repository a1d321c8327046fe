"""The commands that say when and where: `vidatt detect`, `vidatt locate`, `vidatt window-recall`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .door import assignments, common

if TYPE_CHECKING:
    from ..pipelines.localisation.detect import DetectionResult
    from ..pipelines.localisation.locate import LocationResult
    from ..pipelines.localisation.windows import WindowRecall


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), help="Another store, or another place of its own.")
@click.option("--split", help="Another split than the run was fitted on.")
@click.option("--part", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option("--rule", metavar="NAME", help="stan, where-and-when or untrimmednet [by what the head gives].")
@click.option(
    "--smooth", metavar="N", help="Setting smooth of the rule: the mean over N segments [1; untrimmednet: 2]."
)
@click.option("--bridge", metavar="N", help="Setting bridge of the rule: gaps of N segments are closed [0].")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the rule.")
@click.option("--attention", default="head", show_default=True, help="head, random or uniform; not head: the floor.")
@click.option("--out", type=click.Path(path_type=Path), help="Submission file [in the run; needed for several].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random attention.")
@click.option("--allow-seen", is_flag=True, help="Also read videos that the run was fitted or selected on, and say so.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@common
def detect(
    runs: tuple[Path, ...], settings: tuple[str, ...], smooth: str | None, bridge: str | None, **given: Any
) -> tuple[DetectionResult, str, int]:
    """Say when: proposals from temporal attention as a THUMOS14 submission file, and mAP where the truth is known.

    Of several runs the scores of each segment are averaged, as UntrimmedNet does with its two streams.

    \b
    Example:
      vidatt detect runs/stan
      vidatt detect runs/stan --rule stan --smooth 5 --set divide_by_k=true --out submission.txt
      vidatt detect runs/rgb runs/flow --rule untrimmednet --out two-stream.txt
    """
    from ..pipelines.localisation.detect import DetectConfig
    from ..pipelines.localisation.detect import detect as run
    from .localisation_tables import detect_text

    short = tuple(f"{key}={text}" for key, text in (("smooth", smooth), ("bridge", bridge)) if text is not None)
    told = assignments("--set", (*settings, *short))
    result = run(DetectConfig(run=runs[0], others=runs[1:], settings=told, **given))
    return result, detect_text(result), 0


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), help="Another store, or another place of its own.")
@click.option("--split", help="Another split than the run was fitted on.")
@click.option("--part", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option("--rule", default="threshold", show_default=True, metavar="NAME", help="threshold, minmax or contour.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the rule.")
@click.option("--attention", default="head", show_default=True, help="head, random or uniform; not head: the floor.")
@click.option("--out", type=click.Path(path_type=Path), help="CSV file [in the run].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random attention.")
@click.option("--allow-seen", is_flag=True, help="Also read videos that the run was fitted or selected on, and say so.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@common
def locate(settings: tuple[str, ...], **given: Any) -> tuple[LocationResult, str, int]:
    """Say where: a box in each sampled frame from spatial attention, as CSV, and frame-mAP where the truth is known.

    \b
    Example:
      vidatt locate runs/stan
      vidatt locate runs/where-and-when --rule contour --out boxes.csv
    """
    from ..pipelines.localisation.locate import LocateConfig
    from ..pipelines.localisation.locate import locate as run
    from .localisation_tables import locate_text

    result = run(LocateConfig(settings=assignments("--set", settings), **given))
    return result, locate_text(result), 0


@click.command("window-recall")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), help="Another store, or another place of its own.")
@click.option("--split", help="Another split than the run was fitted on.")
@click.option("--part", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option("--window", type=int, default=50, show_default=True, metavar="N", help="Segments of a window.")
@click.option("--limit", type=float, default=0.023, show_default=True, help="Weight above which a segment is kept.")
@click.option("--single-label", is_flag=True, help="Only videos of one class.")
@click.option("--attention", default="head", show_default=True, help="head, random or uniform; not head: the floor.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random attention.")
@click.option("--allow-seen", is_flag=True, help="Also read videos that the run was fitted or selected on, and say so.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@common
def window_recall(**given: Any) -> tuple[WindowRecall, str, int]:
    """Say how much of the true intervals attention keeps in windows that are cut around them; this is no mAP.

    \b
    Example:
      vidatt window-recall runs/where-and-when
      vidatt window-recall runs/where-and-when --store thumos14-10fps.zarr --single-label
    """
    from ..pipelines.localisation.windows import WindowsConfig, measure_windows
    from .localisation_tables import windows_text

    result = measure_windows(WindowsConfig(**given))
    return result, windows_text(result), 0
