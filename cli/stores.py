"""The commands on a store: `vidatt cache ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .door import assignments, common

if TYPE_CHECKING:
    from ..pipelines.stores.exchange import ExportResult, ImportResult
    from ..pipelines.stores.info import StoreInfo


@click.group()
def cache() -> None:
    """Look into a store, and exchange it with other programs."""


@cache.command("info")
@click.argument("store", type=click.Path(path_type=Path))
@common
def cache_info(store: Path) -> tuple[StoreInfo, str, int]:
    """Say what a store holds: plan, streams with recipes, how much is extracted, outcomes.

    \b
    Example:
      vidatt cache info cache-store/ucf101.zarr
    """
    from ..pipelines.stores.info import store_info
    from .stores_tables import info_text

    result = store_info(store)
    return result, info_text(result), 0


@cache.command("export")
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", "form", required=True, metavar="FORMAT", help="hdf5, hdf5-packed or npy.")
@click.option("--streams", metavar="NAMES", help="Comma-separated [all streams of the store].")
@click.option("--compression", default="gzip", show_default=True, help="gzip, lzf or none: of HDF5, all lossless.")
@common
def cache_export(
    store: Path, out: Path, form: str, streams: str | None, compression: str
) -> tuple[ExportResult, str, int]:
    """Write what is extracted as HDF5, or as one .npy per video; what is not is listed, and the exit code is 1.

    \b
    Example:
      vidatt cache export ucf101.zarr ucf101.h5 --format hdf5
    """
    from ..pipelines.stores.exchange import export_store
    from .stores_tables import export_text

    result = export_store(store, out, form=form, streams=_names(streams), compression=compression)
    return result, export_text(result), 1 if result.missing else 0


@cache.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="[ROLE=]SOURCE...")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--format", "form", metavar="FORMAT", help="hdf5, npy or npz [by the source's name].")
@click.option("--streams", metavar="NAMES", help="Of an export: which [all]; else the stream's name [features].")
@click.option("--manifest", type=click.Path(path_type=Path), help="CSV: path, label, id, group, split, fps.")
@click.option("--key", metavar="NAME", help="Array of each .npz, dataset of each group; with --ids of all videos.")
@click.option("--ids", metavar="NAME", help="Array of video ids: all videos lie in one array.")
@click.option("--labels", metavar="NAME", help="Array of labels beside --ids.")
@click.option("--split", default="1", show_default=True, help="Name of the split that ROLE= (train, test) is of.")
@click.option("--group-pattern", metavar="REGEX", help="What its parentheses find in an id is the video's group.")
@click.option("--axes", default="thwc", show_default=True, help="thwc or tchw: order of 4-dimensional arrays.")
@click.option("--fps", type=float, help="Frames per second of the videos.")
@click.option("--stride-frames", type=int, help="Frames from one segment to the next.")
@click.option("--first-centre", type=int, help="Centre frame of the first segment [--window-frames // 2].")
@click.option("--window-frames", type=int, default=1, show_default=True, help="Frames that a segment was made of.")
@click.option("--recipe", multiple=True, metavar="KEY=VALUE", help="What is known of how the features were made.")
@click.option("--dataset", metavar="NAME", help="What to call the dataset.")
@click.option("--shard-videos", type=click.IntRange(1), help="Videos per shard [<= 64].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of videos in the store.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, write nothing.")
@common
def cache_import(
    sources: tuple[str, ...], store: Path, streams: str | None, recipe: tuple[str, ...],
    fps: float | None, stride_frames: int | None, first_centre: int | None, window_frames: int, **given: Any,
) -> tuple[ImportResult, str, int]:  # fmt: skip
    """Make a store, or another stream of one, from an export or from the arrays of another program.

    Everything is read and checked first; what is refused leaves nothing behind.

    \b
    Example:
      vidatt cache import ucf101.h5 copy.zarr
      vidatt cache import features/ i3d.zarr --format npy --manifest videos.csv --axes tchw
      vidatt cache import train=train.npz test=test.npz fc6.zarr --key x --ids clip --labels class_name
    """
    from ..cache.interchange.foreign import TimeMap
    from ..pipelines.stores.exchange import ROLES, ImportConfig, import_store
    from .stores_tables import import_text

    pairs = [text.partition("=") for text in sources]
    config = ImportConfig(
        sources=tuple(
            (role, Path(path)) if equals and role in ROLES else (None, Path(text))
            for text, (role, equals, path) in zip(sources, pairs, strict=True)
        ),
        store=store,
        streams=_names(streams),
        recipe=assignments("--recipe", recipe),
        time_map=TimeMap(stride_frames=stride_frames, first_centre=first_centre, window_frames=window_frames, fps=fps),
        **given,
    )
    result = import_store(config)
    return result, import_text(result), 0


def _names(text: str | None) -> tuple[str, ...] | None:
    """Read comma-separated names; None stays None."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or len(set(names)) != len(names):
        raise UsageError(f"--streams {text!r}: name each stream once.")
    return names
