"""`vidatt cache export` and `vidatt cache import`: stores to files of other programs, and back."""

from __future__ import annotations

import csv
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.interchange import npy
from ...cache.interchange.foreign import (
    AXES,
    Arrays,
    Entry,
    FolderArrays,
    ForeignMaterial,
    Hdf5Arrays,
    PackedArrays,
    TimeMap,
)
from ...cache.interchange.foreign import cube_shape as shape_of
from ...cache.interchange.hdf5 import FORMAT as HDF5_FORMAT
from ...cache.interchange.hdf5 import Hdf5Material, write_hdf5
from ...cache.interchange.hdf5_file import open_hdf5, reading
from ...cache.interchange.intake import add_streams, check_fit, imported_recipe, new_store, survey
from ...cache.interchange.material import Material, StoreMaterial, StreamInfo, refuse_existing
from ...cache.interchange.npy import NpyMaterial, write_npy
from ...cache.layout import Layout, plan_layout
from ...cache.made_by import note_command
from ...cache.scratch import abandoned, move, scratch_name, sync, sync_tree
from ...cache.store import Store
from ...errors import UnknownNameError, UsageError, nearest_key_error
from ...extract.datasets.catalogue import TEST, TRAIN, UNUSED, Catalogue, Video
from ...extract.datasets.listed import load as load_manifest
from ...version import __version__
from ..extraction.plan import make_index, shard_size
from ..record import Record
from ..runs.progress import Progress
from .info import SplitCounts, split_counts

log = logging.getLogger(__name__)

EXPORTS = ("hdf5", "hdf5-packed", "npy")
IMPORTS = ("hdf5", "npy", "npz")
COMPRESSIONS = ("gzip", "lzf", "none")
ROLES = {"train": TRAIN, "test": TEST, "unused": UNUSED}


@dataclass(frozen=True, kw_only=True)
class ExchangedStream(Record):
    """A stream that was written or read."""

    fingerprint: str | None  # None: an import that was only tried
    cube: tuple[int, ...]  # K, K, D
    segments: int


@dataclass(frozen=True, kw_only=True)
class ExportResult(Record):
    """An export."""

    store: str
    out: str
    format: str
    videos: int
    missing: tuple[str, ...]  # ids whose shards are not done in every stream; they are left out
    streams: Mapping[str, ExchangedStream]
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ImportResult(Record):
    """An import."""

    store: str
    new: bool  # whether the store is; else it got other streams
    videos: int
    classes: int
    splits: Mapping[str, SplitCounts]
    streams: Mapping[str, ExchangedStream]
    dtypes: tuple[str, ...]  # of the arrays that were read
    not_listed: int  # arrays that the manifest does not name
    notes: tuple[str, ...]
    dry_run: bool
    seconds: float


def export_store(
    store_path: Path, out: Path, *, form: str, streams: Sequence[str] | None = None, compression: str = "gzip"
) -> ExportResult:
    """Write what is extracted to `out`, which appears when it is whole.

    Parameters
    ----------
    form : one of `EXPORTS`
    streams : None = all
    compression : of HDF5, one of `COMPRESSIONS`

    Raises
    ------
    UsageError
        If something stands at `out`, or an id cannot be a file or group.
    ShardMissingError
        If no video is done.
    """
    for kind, name, known in (("format", form, EXPORTS), ("compression", compression, COMPRESSIONS)):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    started = time.monotonic()
    refuse_existing(out)
    store = Store.open(store_path)
    material = StoreMaterial(store, tuple(streams or store.stream_names))
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.parent / f"{out.name}.tmp-{scratch_name()}"
    for left in abandoned(out.parent, prefix=f"{out.name}.tmp-"):
        _remove(left)
    try:
        with Progress("export", len(material.index), unit="video") as progress:
            if form == "npy":
                write_npy(scratch, material, seen=progress.advance)
                sync_tree(scratch)
            else:
                chosen = None if compression == "none" else compression
                write_hdf5(
                    scratch, material, packed=form == "hdf5-packed", compression=chosen, seen=progress.advance
                )  # fmt: skip
                sync(scratch)
        refuse_existing(out)
        move(scratch, out)
    finally:
        _remove(scratch)
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
    return ExportResult(
        store=str(store_path),
        out=str(out),
        format=form,
        videos=len(material.index),
        missing=tuple(material.missing),
        streams={stream.name: _described(stream, stream.fingerprint) for stream in material.streams},
        bytes=sum(path.stat().st_size for path in files),
        seconds=round(time.monotonic() - started, 3),
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _described(stream: StreamInfo, fingerprint: str | None) -> ExchangedStream:
    return ExchangedStream(
        fingerprint=fingerprint,
        cube=stream.cube_shape,
        segments=sum(outcome.segments for outcome in stream.outcomes),
    )


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What one import is asked to do; all but the first four say how to read foreign material.

    Raises
    ------
    UsageError
        If choices contradict each other.
    """

    sources: tuple[tuple[str | None, Path], ...]  # role in the split (train, test, unused; None = none), file or folder
    store: Path  # a new one, or one that gets another stream
    form: str | None = None  # one of IMPORTS; None = by the name of the first source
    streams: tuple[str, ...] | None = None  # of our own exports: which; else the one name of the stream
    manifest: Path | None = None  # CSV as of the dataset `list`, its `path` inside the source; `fps` may be a column
    key: str | None = None  # the array of each .npz, the dataset of each group; of packed material: of all videos
    ids: str | None = None  # the array with the ids: all videos lie in one array, `key`
    labels: str | None = None  # the array with their labels
    split: str = "1"  # name of the split that the roles are of
    group_pattern: str | None = None  # regular expression; what its parentheses find in an id is the video's group
    axes: str = "thwc"
    time_map: TimeMap = field(default_factory=TimeMap)
    recipe: Mapping[str, str] = field(default_factory=dict)  # what is known of how the features were made
    dataset: str | None = None
    seed: int = 0  # of the order of videos
    shard_videos: int | None = None
    dry_run: bool = False  # read and check everything, write nothing
    command: str | None = None  # as it was typed, to be recorded

    def __post_init__(self) -> None:
        if not self.sources:
            raise UsageError("Name what to import, and then the store.")
        nearest_key_error("role of a source", [role for role, _ in self.sources if role is not None], ROLES)
        if self.axes not in AXES:
            raise UnknownNameError("order of axes", self.axes, AXES)
        if self.form is not None and self.form not in IMPORTS:
            raise UnknownNameError("format", self.form, IMPORTS)
        if self.manifest and (self.labels or any(role for role, _ in self.sources)):
            raise UsageError("--manifest says labels and splits itself; leave out --labels and ROLE=.")
        if self.labels and not self.ids:
            raise UsageError("--labels names an array beside --ids; of one array per video, labels come by --manifest.")
        if self.ids and not self.key:
            raise UsageError("--ids needs --key too: the array that holds the features of all videos.")

    @property
    def only_foreign(self) -> list[str]:
        """The options given that say nothing about our own exports."""
        given = {
            "ROLE=": any(role for role, _ in self.sources), "--manifest": self.manifest, "--key": self.key,
            "--ids": self.ids, "--labels": self.labels, "--group-pattern": self.group_pattern,
            "--axes": self.axes != "thwc", "--stride-frames": self.time_map != TimeMap(), "--recipe": self.recipe,
            "--dataset": self.dataset,
        }  # fmt: skip
        return [name for name, value in given.items() if value]


def import_store(config: ImportConfig) -> ImportResult:
    """Read and check all of the material, then make a store of it, or add it to one as a stream.

    Raises
    ------
    UsageError
        If something is missing, there twice, misshaped, not finite or too large; the item is named.
    RefusedError
        If the store has other videos, or a stream of that name of another origin.
    """
    started = time.monotonic()
    form = config.form or _form(config.sources[0][1])
    material, notes, not_listed = _open(config, form)
    names = config.streams if config.streams and material.streams[0].fingerprint else None
    names = tuple(names or [stream.name for stream in material.streams])
    for name in names:
        material.stream(name)
    store = Store.open(config.store) if config.store.exists() else None
    new = store is None
    if store:
        check_fit(store, material)
    with Progress("check", len(material.index), unit="video") as progress:
        digests = survey(material, names, seen=progress.advance)
    dtypes = sorted(material.dtypes) if isinstance(material, ForeignMaterial) else ["float16"]
    came = f"{form}: {', '.join(path.name for _, path in config.sources)}"
    origin = {"from": came, "dtypes": dtypes}
    recipes = {name: imported_recipe(material, name, origin=origin, digest=digests[name]) for name in names}
    if not config.dry_run:
        with Progress("import", len(material.index), unit="video") as progress:
            if store:
                add_streams(store, material, recipes, seen=progress.advance)
            else:
                store = _new(config, material, recipes, came, progress.advance)
        if config.command is not None:
            note_command(config.store, command=config.command)
    index = (store or material).index
    return ImportResult(
        store=str(config.store),
        new=new,
        videos=len(index),
        classes=len(index.classes),
        splits=split_counts(index),
        streams={
            name: _described(
                material.stream(name), None if config.dry_run or not store else store.stream(name).fingerprint
            )
            for name in names
        },
        dtypes=tuple(dtypes),
        not_listed=not_listed,
        notes=tuple(notes),
        dry_run=config.dry_run,
        seconds=round(time.monotonic() - started, 3),
    )


def _form(source: Path) -> str:
    if source.suffix in (".h5", ".hdf5", ".hdf"):
        return "hdf5"
    return "npz" if source.suffix == ".npz" else "npy"


def _new(
    config: ImportConfig, material: Material, recipes: Mapping[str, Mapping[str, Any]], origin: str,
    seen: Callable[[], None],
) -> Store:  # fmt: skip
    attributes = dict(material.attributes) | {"imported": origin, "imported_by": f"vidatt {__version__}"}
    layout = material.layout
    if layout is None:
        # A part of a plan must not pass for the plan: extraction would take the videos for all there are.
        attributes.pop("catalogue_sha256", None)
        layout = _layout(config, material)
    return new_store(config.store, material, recipes, layout=layout, attributes=attributes, seen=seen)


def _layout(config: ImportConfig, material: Material) -> Layout:
    size = config.shard_videos or shard_size(len(material.index), [])
    return plan_layout(material.index.length, material.views, size)


def _open(config: ImportConfig, form: str) -> tuple[Material, list[str], int]:
    """Return the material, remarks, and how many arrays the manifest does not name."""
    own = [path for _, path in config.sources if _is_ours(path, form)]
    if own:
        if len(config.sources) > 1 or config.only_foreign:
            raise UsageError(
                f"{own[0]} is an export of vidatt, which says everything itself; leave out "
                f"{', '.join(config.only_foreign) or 'the other sources'}."
            )
        return (Hdf5Material(own[0]) if form == "hdf5" else NpyMaterial(own[0])), [], 0
    if config.streams and len(config.streams) > 1:
        raise UsageError(f"--streams {','.join(config.streams)}: foreign material is one stream; name one.")
    arrays = [(role, _arrays(config, path, form)) for role, path in config.sources]
    catalogue, entries = (_by_manifest if config.manifest else _by_themselves)(config, arrays)
    catalogue = _with_groups(config, catalogue)
    length = np.array([shape_of(entries[video.id], config.axes)[0] for video in catalogue.videos])
    size = config.shard_videos or shard_size(len(catalogue.videos), [])
    index, _ = make_index(catalogue, length, views=1, shard_videos=size, seed=config.seed)
    name = ", ".join(path.name for _, path in config.sources)
    material = ForeignMaterial(
        name, index, entries, stream=(config.streams or ("features",))[0], axes=config.axes, time_map=config.time_map,
        recipe=config.recipe,
    )  # fmt: skip
    material.attributes = {
        "dataset": catalogue.name, "catalogue_sha256": catalogue.digest(), "seed": config.seed, "shard_videos": size,
    }  # fmt: skip
    return material, list(catalogue.notes), sum(len(a.paths) for _, a in arrays) - len(entries)


def _is_ours(path: Path, form: str) -> bool:
    if form == "npy" and (path / npy.INDEX).is_file():
        try:
            return json.loads((path / npy.INDEX).read_bytes())["format"] == npy.FORMAT
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return False
    if form == "hdf5":
        with reading(path), open_hdf5(path) as file:
            return file.attrs.get("format") == HDF5_FORMAT
    return False


def _arrays(config: ImportConfig, path: Path, form: str) -> Arrays:
    if config.ids and config.key:
        return PackedArrays(path, config.key, config.ids, config.labels)
    if form == "hdf5":
        return Hdf5Arrays(path, config.key)
    if path.is_file():
        raise UsageError(
            f"{path} is one file: name the array of all videos by --key and that of their ids by --ids; or a folder."
        )
    return FolderArrays(path, f".{form}", config.key)


def _by_manifest(
    config: ImportConfig, arrays: Sequence[tuple[str | None, Arrays]]
) -> tuple[Catalogue, dict[str, Entry]]:
    manifest = config.manifest or Path()
    catalogue = load_manifest(annotations=manifest, videos=None, options={})
    rates = _rates(manifest)
    entries: dict[str, Entry] = {}
    taken: dict[tuple[int, str], str] = {}
    for row, video in enumerate(catalogue.videos):
        found = [(n, path) for n, (_, a) in enumerate(arrays) if (path := a.find(video.path)) is not None]
        if len(found) != 1:
            where = ", ".join(str(a.path) for _, a in arrays)
            problem = "is not in" if not found else "is in more than one of"
            raise UsageError(f"{manifest}: video {video.id!r}: {video.path!r} {problem} {where}. Nothing was imported.")
        if (first := taken.setdefault(found[0], video.id)) != video.id:
            raise UsageError(f"{manifest}: {video.path!r} is both video {first!r} and video {video.id!r}; keep one.")
        entries[video.id] = Entry(arrays[found[0][0]][1], found[0][1], rates[row] if rates else None)
    if rates and config.time_map.stride_frames is None:
        raise UsageError(f"{manifest} has a column fps; a time map needs --stride-frames beside it.")
    name = config.dataset or manifest.stem
    notes = tuple(note for note in catalogue.notes if note != "columns that are not used: fps")
    return replace(catalogue, name=name, notes=notes), entries


def _rates(manifest: Path) -> list[float | None]:
    """Return the cells of the column `fps` in the order of the rows; empty if there is no such column."""
    with manifest.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if "fps" not in [name.strip() for name in reader.fieldnames or []]:
            return []
        rates: list[float | None] = []
        for row in reader:
            text = next(str(value or "").strip() for name, value in row.items() if str(name).strip() == "fps")
            if not any(str(cell or "").strip() for cell in row.values()):
                continue
            try:
                rates.append(TimeMap(stride_frames=1, fps=float(text)).fps if text else None)
            except ValueError:
                raise UsageError(f"{manifest}:{reader.line_num}: fps {text!r} must be more than 0.") from None
    return rates


def _by_themselves(
    config: ImportConfig, arrays: Sequence[tuple[str | None, Arrays]]
) -> tuple[Catalogue, dict[str, Entry]]:
    entries: dict[str, Entry] = {}
    videos: list[tuple[str, str, str | None]] = []  # id, label as written, role
    for role, source in arrays:
        labels = source.labels if isinstance(source, PackedArrays) and source.labels else [""] * len(source.paths)
        for path, label in zip(source.paths, labels, strict=True):
            id = source.id(path)
            if id in entries:
                raise UsageError(
                    f"The video {id!r} is in {entries[id].arrays.path} and in {source.path}; ids must be unique. "
                    "Nothing was imported."
                )
            entries[id] = Entry(source, path)
            videos.append((id, label, role))
    written = {label for _, label, _ in videos if label}
    numeric = all(re.fullmatch(r"-?\d+", label) for label in written)
    classes = sorted(written, key=(lambda text: (int(text), text)) if numeric else None)
    catalogue = Catalogue(
        name=config.dataset or config.store.name.removesuffix(".zarr"),
        classes=tuple(classes),
        videos=tuple(Video(id=id, path=id, labels=(classes.index(label),) if label else ()) for id, label, _ in videos),
        splits={config.split: np.array([ROLES[role or "unused"] for *_, role in videos], np.int8)}
        if any(role for *_, role in videos)
        else {},
    )
    return catalogue, entries


def _with_groups(config: ImportConfig, catalogue: Catalogue) -> Catalogue:
    if config.group_pattern is None:
        return catalogue
    try:
        pattern = re.compile(config.group_pattern)
    except re.error as error:
        raise UsageError(f"--group-pattern {config.group_pattern!r} is no regular expression: {error}.") from None
    videos = []
    for video in catalogue.videos:
        found = pattern.search(video.id)
        if found is None:
            raise UsageError(f"--group-pattern {config.group_pattern!r} finds nothing in the id {video.id!r}.")
        group = "_".join(part or "" for part in found.groups()) or found[0]
        videos.append(replace(video, group=video.group or group))
    return replace(catalogue, videos=tuple(videos))
