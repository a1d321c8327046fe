"""The commands on a store: `vidatt cache ...` and `vidatt status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .door import assignments, common, typed_command

if TYPE_CHECKING:
    from ..pipelines.stores.compare import StoreDifference
    from ..pipelines.stores.exchange import ExportResult, ImportResult
    from ..pipelines.stores.info import StoreInfo
    from ..pipelines.stores.merge import MergeResult
    from ..pipelines.stores.remove import RemovedStream
    from ..pipelines.stores.repair import RepairResult
    from ..pipelines.stores.status import StoreStatus
    from ..pipelines.stores.verify import VerifyResult


@click.group()
def cache() -> None:
    """Look into a store, check it, and exchange it with other programs."""


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


@cache.command("verify")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--streams", metavar="NAMES", help="Comma-separated [all streams of the store].")
@common
def cache_verify(store: Path, streams: str | None) -> tuple[VerifyResult, str, int]:
    """Read every byte of a store and compare it with markers, recipes and sampler; exit code 1 if anything is bad.

    \b
    Example:
      vidatt cache verify ucf101.zarr
    """
    from ..pipelines.stores.verify import verify_store
    from .stores_tables import verify_text

    result = verify_store(store, _names(streams))
    return result, verify_text(result), 1 if result.bad else 0


@cache.command("rm")
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("stream")
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@common
def cache_rm(store: Path, stream: str, dry_run: bool) -> tuple[RemovedStream, str, int]:
    """Remove a stream from a store, with its shards and outcomes.

    \b
    Example:
      vidatt cache rm ucf101.zarr flow --dry-run
    """
    from ..pipelines.stores.remove import remove_stream
    from .stores_tables import remove_text

    result = remove_stream(store, stream, dry_run=dry_run)
    return result, remove_text(result), 0


@cache.command("diff")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@common
def cache_diff(first: Path, second: Path) -> tuple[StoreDifference, str, int]:
    """Say in what two stores differ: plan, videos, recipes, cubes; exit code 0 if in nothing, else 1.

    \b
    Example:
      vidatt cache diff cpu.zarr gpu.zarr
    """
    from ..pipelines.stores.compare import compare_stores
    from .stores_tables import difference_text

    result = compare_stores(first, second)
    return result, difference_text(result), 0 if result.equal else 1


@cache.command("repair")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--streams", metavar="NAMES", help="Comma-separated [all streams of the store].")
@click.option("--videos", type=click.Path(path_type=Path), help="Video folder [$VIDATT_DATA/NAME, else ./data/NAME].")
@click.option(
    "--weights", multiple=True, metavar="STREAM=PATH", help="A file, where vidatt knows the weights by no name."
)
@click.option("--drop", is_flag=True, help="Remove what is bad, to be extracted later, instead of making it again.")
@click.option("--workers", type=click.IntRange(1), help="Processes [one per GPU, or one per core].")
@click.option("--decoders", type=click.IntRange(1), help="Decoding children per worker.")
@click.option("--batch", "batch_segments", type=click.IntRange(1), help="Segments per pass [CPU 8, CUDA 64].")
@click.option("--decode-timeout", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, metavar="S")
@click.option("--decode-memory", type=click.FloatRange(0), metavar="GB", help="Limit of a decoder, 0 for none [2].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:I.")
@click.option("--dry-run", is_flag=True, help="Say what is bad, write nothing.")
@common
def cache_repair(
    store: Path, streams: str | None, weights: tuple[str, ...], decode_timeout: float, decode_memory: float | None,
    **given: Any,
) -> tuple[RepairResult, str, int]:  # fmt: skip
    """Read a store to the last byte, and make again what is bad: those shards, and nothing else.

    \b
    Example:
      vidatt cache repair ucf101.zarr --videos /data/UCF-101
    """
    from ..extract.decoder import MEMORY_BYTES
    from ..pipelines.stores.repair import RepairConfig, repair_store
    from .stores_tables import repair_text

    config = RepairConfig(
        store=store,
        streams=_names(streams),
        weights={name: Path(path) for name, path in assignments("--weights", weights).items()},
        decode_timeout_seconds=decode_timeout,
        decode_memory_bytes=MEMORY_BYTES if decode_memory is None else int(decode_memory * 1e9),
        **given,
    )
    result = repair_store(config)
    damaged = result.given_up or (result.dry_run and (result.bad or result.mended))
    return result, repair_text(result), 1 if damaged else 0


@cache.command("merge")
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--into", required=True, type=click.Path(path_type=Path), help="The store that gets their shards.")
@click.option("--dry-run", is_flag=True, help="Compare everything, write nothing.")
@common
def cache_merge(stores: tuple[Path, ...], into: Path, dry_run: bool) -> tuple[MergeResult, str, int]:
    """Gather the shards of stores of one plan, such as slices extracted on machines without a shared folder.

    \b
    Example:
      vidatt cache merge slice-0.zarr slice-1.zarr --into ucf101.zarr
    """
    from ..pipelines.stores.merge import merge_stores
    from .stores_tables import merge_text

    result = merge_stores(stores, into, dry_run=dry_run, command=typed_command())
    return result, merge_text(result), 0


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Exit code 1 unless every stream is complete.")
@common
def status(store: Path, check: bool) -> tuple[StoreStatus, str, int]:
    """Say how far a store is: shards done, outcomes, what could be retried, size.

    \b
    Example:
      vidatt status ucf101.zarr --check
    """
    from ..pipelines.stores.status import store_status
    from .stores_tables import status_text

    result = store_status(store)
    return result, status_text(result), 1 if check and not result.complete else 0


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
        command=typed_command(),
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
