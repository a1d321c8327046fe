"""The datasets by name. A new one is a file with a `DATASET` beside this one and its line in `_MODULES`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ...errors import UsageError, nearest_key_error
from ...registry import Registry
from . import actionshapes, ccv, folder, hmdb51, kinetics, listed, moments, sports1m, thumos14, ucf50, ucf101, ucf101_24
from .catalogue import Catalogue
from .dataset import Dataset, DatasetInfo
from .video_files import is_walked, links_outside, spelling_key, walk_videos

_MODULES = (
    actionshapes,
    ccv,
    folder,
    hmdb51,
    listed,
    moments,
    sports1m,
    thumos14,
    ucf50,
    ucf101,
    ucf101_24,
)

DATASETS: Registry[Dataset] = Registry("dataset")
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


def register(dataset: Dataset) -> None:
    """Add a dataset under its own name.

    Raises
    ------
    UsageError
        If the name is taken.
    """
    DATASETS[dataset.info.name] = dataset


for _dataset_of_module in (*(module.DATASET for module in _MODULES), *kinetics.DATASETS):
    register(_dataset_of_module)


def dataset_names() -> tuple[str, ...]:
    """Return the known names, sorted."""
    return tuple(DATASETS.names())


def describe(name: str) -> DatasetInfo:
    """Return what a user has to know about a dataset.

    Raises
    ------
    UnknownNameError
        For a name that is not registered.
    """
    return DATASETS[name].info


def load_catalogue(
    name: str,
    *,
    annotations: Path | None = None,
    videos: Path | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
    follow_links: bool = False,
) -> Catalogue:
    """Read the catalogue of a dataset.

    Parameters
    ----------
    name : a registered name
    annotations : the folder of official files (the CSV file of `list`); None = where the dataset looks by default
    videos : the video folder; needed by datasets whose catalogue is the folder itself
    options : settings of the dataset, see `describe(name).options`
    follow_links : let links lead out of the video folder, where the dataset is what lies there

    Raises
    ------
    UnknownNameError
        For an unknown dataset or option.
    MissingFileError, UsageError
        For files that are not there or cannot be what they should be, with the file and the line.
    """
    dataset = DATASETS[name]
    if options and not dataset.info.options:
        raise UsageError(f"Dataset {name!r} takes no options; leave out {', '.join(sorted(options))}.")
    nearest_key_error(f"option of dataset {name!r}:", options, dataset.info.options)
    load = dataset.load_with_links if follow_links and dataset.load_with_links else dataset.load
    return load(annotations=annotations, videos=videos, options=options)


@dataclass(frozen=True, kw_only=True)
class DatasetCheck:
    """How the files on disk differ from a catalogue; every path is relative to the video folder and sorted."""

    missing: tuple[str, ...]  # listed, and not on disk in any spelling
    surplus: tuple[str, ...]  # video files on disk that the catalogue does not list
    misnamed: tuple[tuple[str, str], ...]  # (found, expected): the same name up to case or accents
    outside: tuple[tuple[str, str], ...] = ()  # (listed, target): a link leads out of the folder; extraction refuses it


def check(name: str, catalogue: Catalogue, videos_dir: Path) -> DatasetCheck:
    """Compare the video folder with the catalogue by listing folders; no file is opened or measured.

    Raises
    ------
    UnknownNameError
        For a name that is not registered.
    MissingFileError
        If there is no video folder.
    """
    describe(name)
    on_disk = set(walk_videos(videos_dir, allow_links_outside=True))
    listed_paths = {video.path for video in catalogue.videos}
    # A listed file may have a suffix or a hidden name that the walk does not take for a video: those are looked up.
    absent = {path for path in listed_paths - on_disk if is_walked(path) or not os.path.isfile(videos_dir / path)}
    surplus = on_disk - listed_paths
    by_key = {spelling_key(path): path for path in sorted(surplus)}
    misnamed = tuple((by_key[spelling_key(path)], path) for path in sorted(absent) if spelling_key(path) in by_key)
    present = [video.path for video in catalogue.videos if video.path not in absent]
    return DatasetCheck(
        missing=tuple(sorted(absent - {expected for _, expected in misnamed})),
        surplus=tuple(sorted(surplus - {found for found, _ in misnamed})),
        misnamed=misnamed,
        outside=tuple(links_outside(videos_dir, present)),
    )
