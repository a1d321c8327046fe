"""The commands for videos that no store has: `vidatt predict`, `vidatt benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .door import assignments, common

if TYPE_CHECKING:
    from ..pipelines.prediction.benchmark import BenchmarkResult
    from ..pipelines.prediction.predict import PredictionResult


@click.command()
@click.argument("named", nargs=-1, metavar="RUN... VIDEO...", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), help="Instead of videos: a store whose cubes are read.")
@click.option("--videos", "folder", type=click.Path(path_type=Path), help="Folder of a CSV's paths [the CSV's own].")
@click.option("--top", type=int, default=5, show_default=True, help="Classes that are told of each video.")
@click.option("--csv", type=click.Path(path_type=Path), help="File for the scores of all classes, as `fuse` reads it.")
@click.option("--window", type=float, metavar="SECONDS", help="Look at windows of each video, and at their mean.")
@click.option("--stride", type=float, metavar="SECONDS", help="From one window to the next [half a window].")
@click.option("--rule", metavar="NAME", help="Of intervals: stan, where-and-when or untrimmednet [by the head].")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the rule.")
@click.option("--weights", multiple=True, metavar="STREAM=FILE", help="Weights of a stream [by digest, see docs].")
@click.option("--sampler", metavar="RULE", help="Where segments lie [as in the run's store].")
@click.option("--views", metavar="SET", help="center, 10crop or train:K [as in the run's store].")
@click.option("--follow-links", is_flag=True, help="Read videos that links lead to outside a folder.")
@click.option("--batch", type=click.IntRange(1), help="Segments per pass through a network [CPU 8, CUDA 64].")
@click.option("--decoders", type=click.IntRange(1), help="Decoding children [CPU 1, CUDA one per core].")
@click.option("--decode-timeout", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, metavar="S")
@click.option("--decode-memory", type=click.FloatRange(0), metavar="GB", help="Limit of a decoder, 0 for none [2].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@common
def predict(named: tuple[Path, ...], **given: Any) -> tuple[PredictionResult, str, int]:
    """Say what new videos show: files, folders or a CSV through one or more fitted heads.

    \b
    Example:
      vidatt predict runs/stan clip.mp4
      vidatt predict runs/rgb runs/flow holiday/ --top 3 --csv scores.csv
    """
    from ..extract.decoder import MEMORY_BYTES, DecoderSettings
    from ..pipelines.prediction.making import Choices
    from ..pipelines.prediction.predict import PredictConfig, split_arguments
    from ..pipelines.prediction.predict import predict as run
    from ..pipelines.prediction.predictor import IntervalRule, PredictorConfig
    from .predict_tables import prediction_text

    runs, videos = split_arguments(named)
    weights = {name: Path(file) for name, file in assignments("--weights", given["weights"]).items()}
    settings = assignments("--set", given["settings"])
    gigabytes = given["decode_memory"]
    decoder = DecoderSettings(
        timeout_seconds=given["decode_timeout"],
        memory_bytes=MEMORY_BYTES if gigabytes is None else int(gigabytes * 1e9),
    )
    how = PredictorConfig(
        choices=Choices(sampler=given["sampler"], views=given["views"], weights=weights),
        window_seconds=given["window"],
        stride_seconds=given["stride"],
        intervals=IntervalRule(name=given["rule"], settings=settings) if given["rule"] or settings else None,
        device=given["device"],
        batch_segments=given["batch"],
        decoders=given["decoders"],
        decoder=decoder,
    )
    same = {key: given[key] for key in ("store", "folder", "follow_links", "top", "csv")}
    result = run(PredictConfig(runs=runs, videos=videos, how=how, **same))
    return result, prediction_text(result), int(set(result.outcomes) != {"ok"})


@click.command()
@click.argument("named", nargs=-1, metavar="RUN... VIDEO...", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), help="Segments and views as there; without VIDEO its videos.")
@click.option(
    "--videos", "folder", type=click.Path(path_type=Path), help="Folder of the paths of a CSV, or of the store."
)
@click.option("--split", help="Without VIDEO: whose test videos of the store are read [the run's].")
@click.option("--weights", multiple=True, metavar="STREAM=FILE", help="Weights of a stream [by digest, see docs].")
@click.option("--batch", type=click.IntRange(1), help="Segments per pass through a network [CPU 8, CUDA 64].")
@click.option("--decoders", type=click.IntRange(1), help="Decoding children [CPU 1, CUDA one per core].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@common
def benchmark(named: tuple[Path, ...], **given: Any) -> tuple[BenchmarkResult, str, int]:
    """Measure frames per second from video files to scores, end to end and by part, and print the machine.

    Without VIDEO the test videos of the store are read.

    \b
    Example:
      vidatt benchmark runs/tclsta videos/
      vidatt benchmark --store hmdb51.zarr runs/tclsta videos/brush_hair
    """
    from ..pipelines.prediction.benchmark import BenchmarkConfig
    from ..pipelines.prediction.benchmark import benchmark as run
    from ..pipelines.prediction.making import Choices
    from ..pipelines.prediction.predict import split_arguments
    from ..pipelines.prediction.predictor import PredictorConfig
    from .predict_tables import benchmark_text

    runs, videos = split_arguments(named)
    weights = {name: Path(file) for name, file in assignments("--weights", given["weights"]).items()}
    how = PredictorConfig(
        choices=Choices(weights=weights),
        device=given["device"],
        batch_segments=given["batch"],
        decoders=given["decoders"],
    )
    same = {key: given[key] for key in ("store", "split", "folder")}
    result = run(BenchmarkConfig(runs=runs, videos=videos, how=how, **same))
    return result, benchmark_text(result), int(result.failed > 0)
