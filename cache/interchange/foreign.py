"""Foreign material: arrays that other programs left in folders of `.npy` or `.npz`, in archives, or in HDF5."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import MissingFileError, UsageError
from ..index import Index
from ..ledger import VideoOutcome
from .arrays import Archive, npy_shape, read_npy, require_inside, texts
from .hdf5_file import dataset, open_hdf5, reading, values
from .material import Material, StreamInfo, VideoRows

AXES = ("thwc", "tchw")
LARGEST = float(np.finfo(np.float16).max)


class Arrays(ABC):
    """One file or folder with an array per video.

    Attributes
    ----------
    path : where it is
    paths : of the arrays inside, unique, sorted or in the order of the file
    """

    path: Path
    paths: Sequence[str]
    suffix = ""

    @abstractmethod
    def read(self, path: str) -> np.ndarray:
        """Read one array."""

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the shape of one array, without reading it where that is possible."""
        return self.read(path).shape

    def find(self, path: str) -> str | None:
        """Return the array that a manifest means: by its whole path, with or without the suffix."""
        known = set(self.paths)
        return next((name for name in (path, path + self.suffix) if name in known), None)

    def id(self, path: str) -> str:
        """Return the video id of an array that no manifest names: its path without the suffix."""
        return path.removesuffix(self.suffix)


class FolderArrays(Arrays):
    """`.npy` or `.npz` files anywhere below a folder.

    Parameters
    ----------
    suffix : ".npy" or ".npz"
    key : the array of each `.npz`; None = the only one
    """

    def __init__(self, folder: Path, suffix: str, key: str | None) -> None:
        if not folder.is_dir():
            raise MissingFileError(f"There is no folder {folder} with {suffix} files.")
        self.path, self.suffix, self._key = folder, suffix, key
        self.paths = sorted(file.relative_to(folder).as_posix() for file in folder.rglob(f"*{suffix}"))
        if not self.paths:
            raise UsageError(f"The folder {folder} holds no {suffix} file.")

    def read(self, path: str) -> np.ndarray:
        """Read one file."""
        file = require_inside(self.path, self.path / path)
        if self.suffix == ".npy":
            return read_npy(file)
        with Archive(file) as archive:
            return archive.read(self._key or _only(file, archive.names))

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the shape; only headers are read."""
        file = require_inside(self.path, self.path / path)
        if self.suffix == ".npy":
            return npy_shape(file)
        with Archive(file) as archive:
            return archive.shape(self._key or _only(file, archive.names))


class Hdf5Arrays(Arrays):
    """The datasets of an HDF5 file.

    Parameters
    ----------
    key : the dataset of each group: a group is a video; None = every dataset is a video
    """

    def __init__(self, file: Path, key: str | None) -> None:
        self.path, self._key = file, key
        found: list[str] = []
        self._file = open_hdf5(file)
        with reading(file):
            self._file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        if key is not None:
            found = [name.removesuffix(f"/{key}") for name in found if name.endswith(f"/{key}")]
        if not found:
            raise UsageError(f"{file} holds no dataset" + (f" {key!r} in a group." if key else "."))
        self.paths = sorted(found)

    def _dataset(self, path: str) -> h5py.Dataset:
        return dataset(self._file, f"{path}/{self._key}" if self._key else path)

    def read(self, path: str) -> np.ndarray:
        """Read one dataset."""
        with reading(self.path, f"dataset {path!r}"):
            return values(self._dataset(path))

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the shape; nothing is read."""
        with reading(self.path, f"dataset {path!r}"):
            return tuple(self._dataset(path).shape)


class PackedArrays(Arrays):
    """One array of all videos along its first axis, with their ids in a second one.

    Parameters
    ----------
    file : `.npz` or HDF5
    key, ids : names of the two arrays
    labels : name of a third one: text, or whole numbers; None = no labels

    Attributes
    ----------
    labels : [n] list of text, "" = none; or None
    """

    def __init__(self, file: Path, key: str, ids: str, labels: str | None) -> None:
        self.path = file
        if not file.is_file():
            raise MissingFileError(f"There is no file {file}.")
        if file.suffix == ".npz":
            with Archive(file) as archive:
                # Every access to an archive unpacks the whole array, so it is kept.
                self._values, names = (archive.read(name) for name in (key, ids))
                given = None if labels is None else archive.read(labels)
        else:
            self._file = open_hdf5(file)
            with reading(file):
                self._values, names = dataset(self._file, key), values(dataset(self._file, ids))
                given = None if labels is None else values(dataset(self._file, labels))
        self.paths = _text_list(file, ids, names)
        self.labels = None if given is None else _text_list(file, labels or "", given)
        for name, count in ((ids, len(self.paths)), (labels, len(self.labels or self.paths))):
            if not self._values.shape or count != self._values.shape[0]:
                raise UsageError(
                    f"{file}: {key!r} has shape {self._values.shape}, but {name!r} names {count} videos; the first "
                    "axis must be the videos."
                )
        self._place = {path: place for place, path in enumerate(self.paths)}
        if len(self._place) != len(self.paths):
            twice = next(path for place, path in enumerate(self.paths) if self._place[path] != place)
            raise UsageError(f"{file}: {ids!r} names the video {twice!r} twice; ids must be unique.")

    def read(self, path: str) -> np.ndarray:
        """Read one video."""
        with reading(self.path, f"video {path!r}"):
            place = self._place[path]
            if isinstance(self._values, h5py.Dataset):
                return values(self._values, slice(place, place + 1))[0]
            return np.asarray(self._values[place])

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the shape, the same for all videos."""
        return tuple(self._values.shape[1:])


def _text_list(file: Path, name: str, given: np.ndarray) -> list[str]:
    if given.ndim != 1 or given.dtype.kind not in "iuSUTO":
        raise UsageError(f"{file}: {name!r} should be one text or whole number per video, not {given.shape}.")
    return texts(given, f"{file}: {name!r}")


def _only(file: Path, names: Sequence[str]) -> str:
    if len(names) != 1:
        raise UsageError(f"{file} holds the arrays {', '.join(names) or 'none'}; say which one by --key.")
    return names[0]


@dataclass(frozen=True, kw_only=True)
class TimeMap:
    """Which frames the segments of foreign material were made of, as far as it is known.

    Raises
    ------
    UsageError
        If it contradicts itself.
    """

    stride_frames: int | None = None  # between the centres of neighbours; None = unknown: frames are the places 0..T-1
    first_centre: int | None = None  # frame, 0-based; None = the middle of the first window
    window_frames: int = 1  # frames that one segment was made of
    fps: float | None = None  # frames per second; None = seconds are unknown

    def __post_init__(self) -> None:
        if self.stride_frames is None and (self.first_centre is not None or self.window_frames != 1 or self.fps):
            raise UsageError("A time map needs --stride-frames beside --fps, --first-centre or --window-frames.")
        if self.window_frames < 1 or (self.stride_frames is not None and self.stride_frames < 1):
            raise UsageError("--stride-frames and --window-frames must be 1 or more.")
        if self.first_centre is not None and self.first_centre < self.window_frames // 2:
            raise UsageError(
                f"--first-centre {self.first_centre}: a window of {self.window_frames} frames begins before frame 0."
            )
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"--fps {self.fps}: must be frames per second, more than 0.")

    def frames(self, segments: int) -> np.ndarray:
        """Return first, centre and stop frame of each segment, [T, 3] int32."""
        half = self.window_frames // 2
        start = half if self.first_centre is None else self.first_centre
        centre = start + np.arange(segments) * (self.stride_frames or 1)
        return np.stack([centre - half, centre, centre - half + self.window_frames], 1).astype(np.int32)

    def seconds(self, frames: np.ndarray, fps: float | None) -> np.ndarray:
        """Return the times of the centre frames, [T] float64; NaN where they are unknown."""
        known = self.stride_frames is not None and fps
        return frames[:, 1] / fps if known else np.full(len(frames), np.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return what a recipe says of it."""
        if self.stride_frames is None:
            return {"known": False, "rule": "frames are the places 0..T-1 of the segments, seconds are unknown"}
        return {"known": True, **asdict(self)}


@dataclass(frozen=True, eq=False)
class Entry:
    """Where a video's array is."""

    arrays: Arrays
    path: str
    fps: float | None = None  # of this video; None = that of the time map

    @property
    def where(self) -> str:
        """What to call it in messages."""
        return f"{self.arrays.path}: {self.path!r}"


class ForeignMaterial(Material):
    """Arrays of other programs as one stream, checked and brought into our form as they are read.

    Parameters
    ----------
    name : of the material
    index : the videos; `length` as of `segments`
    entries : by video id
    stream : its name in the store
    axes : of 4-dimensional arrays, see `AXES`; arrays of 2 dimensions are [T, D] and become [T, 1, 1, D]

    Attributes
    ----------
    dtypes : names of the types that were met while reading
    """

    def __init__(
        self, name: str, index: Index, entries: Mapping[str, Entry], *,
        stream: str, axes: str, time_map: TimeMap, recipe: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.name, self.index, self.views, self.attributes, self.layout = name, index, 1, {}, None
        self._entries, self._axes, self._time_map = entries, axes, time_map
        self.dtypes: set[str] = set()
        first = next(iter(entries.values()))
        self.streams = [
            StreamInfo(
                name=stream,
                cube_shape=cube_shape(first, axes)[1:],
                recipe={**recipe, "time_map": time_map.to_dict()},
                fingerprint=None,
                outcomes=[
                    VideoOutcome(
                        id=str(id), outcome="ok", detail=f"imported from {name}", segments=int(length),
                        fps=float(entries[id].fps or time_map.fps or 0.0),
                    )
                    for id, length in zip(index.ids, index.length, strict=True)
                ],
            )
        ]  # fmt: skip

    def rows(self, stream: str, position: int) -> VideoRows:
        """Read one video."""
        entry = self._entries[str(self.index.ids[position])]
        array = entry.arrays.read(entry.path)
        wanted, found = self.streams[0].cube_shape, cube_shape(entry, self._axes, array.shape)[1:]
        if found != wanted:
            raise UsageError(
                f"{entry.where} holds cubes {_by(found)}, the first video has {_by(wanted)}; all must be alike."
            )
        self.dtypes.add(array.dtype.name)
        cubes = _cubes(array, entry, self._axes)
        frames = self._time_map.frames(len(cubes))
        return VideoRows(cubes, frames, self._time_map.seconds(frames, entry.fps or self._time_map.fps))


def cube_shape(entry: Entry, axes: str, shape: tuple[int, ...] | None = None) -> tuple[int, int, int, int]:
    """Return T, K, K, D of an array.

    Raises
    ------
    UsageError
        If it cannot be cubes.
    """
    shape = entry.arrays.shape(entry.path) if shape is None else shape
    if len(shape) == 2:
        T, D, K, K_ = *shape, 1, 1
    elif len(shape) == 4:
        T, K, K_, D = shape if axes == "thwc" else (shape[0], shape[2], shape[3], shape[1])
    else:
        raise UsageError(f"{entry.where} has shape {shape}; it should be [T, D], or 4-dimensional with --axes {axes}.")
    if K != K_:
        hint = "tchw" if axes == "thwc" else "thwc"
        raise UsageError(f"{entry.where} has shape {shape}: a grid of {K} x {K_} cells is not square; --axes {hint}?")
    if min(shape) < 1:
        raise UsageError(f"{entry.where} has shape {shape}: it holds nothing.")
    return T, K, K_, D


def _cubes(array: np.ndarray, entry: Entry, axes: str) -> np.ndarray:
    """[T, K, K, D] float16, checked."""
    if array.dtype.kind != "f":
        raise UsageError(f"{entry.where} has dtype {array.dtype}; features are float16, float32 or float64.")
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise UsageError(f"{entry.where} holds {array[place]} at {place}; mend it, or leave it out.")
    with np.errstate(over="ignore"):
        small = array.astype(np.float16)
    if not np.isfinite(small).all():
        raise UsageError(
            f"{entry.where} holds {np.abs(array).max():.6g}, more than float16 can ({LARGEST:g}); scale the features."
        )
    if small.ndim == 2:
        return np.ascontiguousarray(small[:, None, None, :])
    return np.ascontiguousarray(small if axes == "thwc" else small.transpose(0, 2, 3, 1))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
