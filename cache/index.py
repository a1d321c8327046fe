"""The index: everything the plan says about the videos, as flat arrays in store order."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..errors import UsageError

_TEXT = np.dtypes.StringDType()
_FORMS: dict[str, tuple[object, tuple[int | None, ...]]] = {
    # name: dtype, shape after the first axis (None = any)
    "ids": (_TEXT, ()),
    "paths": (_TEXT, ()),
    "groups": (_TEXT, ()),
    "labels": (np.int32, (None,)),
    "length": (np.int32, ()),
    "span_seconds": (np.float64, (2,)),
    "offset": (np.int64, ()),
    "interval_video": (np.int32, ()),
    "interval_seconds": (np.float64, (2,)),
    "interval_label": (np.int32, ()),
    "box_video": (np.int32, ()),
    "box_frame": (np.int32, ()),
    "box_xyxy": (np.float32, (4,)),
    "box_label": (np.int32, ()),
}
_PER_VIDEO = ("paths", "groups", "labels", "length", "span_seconds")


@dataclass(frozen=True, eq=False, kw_only=True)
class Index:
    """The videos of a store in store order, which the planner draws as a seeded permutation.

    Arrays are converted to the dtypes below and made read-only.

    Raises
    ------
    UsageError
        If shapes do not fit each other, ids are not unique, or labels lie outside the classes.
    """

    ids: np.ndarray  # [N] str, unique
    paths: np.ndarray  # [N] str, relative to the video folder
    groups: np.ndarray  # [N] str, "" = none
    labels: np.ndarray  # [N, L] int32, the primary one first, padded with -1
    classes: tuple[str, ...]
    multi_label: bool = False
    splits: dict[str, np.ndarray] = field(default_factory=dict)  # [N] int8: 0 unused, 1 train, 2 test
    length: np.ndarray  # [N] int32, segments T per view planned for the video
    span_seconds: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 2), np.float64)
    )  # [N, 2] stretch of the file; NaN = to its end
    offset: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.int64))  # [N] first row; empty until laid out
    interval_video: np.ndarray = field(
        default_factory=lambda: np.zeros((0,), np.int32)
    )  # [n] int32, position of the video
    interval_seconds: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 2), np.float64)
    )  # [n, 2] float64, [start, stop)
    interval_label: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.int32))  # [n] int32
    box_video: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.int32))  # [m] int32, position of the video
    box_frame: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.int32))  # [m] int32, decode order
    box_xyxy: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 4), np.float32)
    )  # [m, 4] float32, fractions of the upright frame
    box_label: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.int32))  # [m] int32

    def __post_init__(self) -> None:
        N = len(self.ids)
        if not N:
            raise UsageError("The plan holds no videos; check the annotations and the split.")
        if not len(self.span_seconds):
            object.__setattr__(self, "span_seconds", np.full((N, 2), np.nan))
        for name, (dtype, shape) in _FORMS.items():
            array = _converted(name, getattr(self, name), dtype)
            if array.ndim != 1 + len(shape) or any(
                w not in (None, g) for g, w in zip(array.shape[1:], shape, strict=True)
            ):
                raise UsageError(f"The index has {name} of shape {array.shape}; it should be [n, {shape}].")
            object.__setattr__(self, name, array)
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        splits = {name: _converted(f"split {name}", roles, np.int8) for name, roles in sorted(self.splits.items())}
        object.__setattr__(self, "splits", splits)
        self._check(N)

    def _check(self, N: int) -> None:
        lengths = {name: len(getattr(self, name)) for name in _PER_VIDEO}
        lengths |= {f"split {name}": len(roles) for name, roles in self.splits.items()}
        lengths |= {"offset": len(self.offset)} if len(self.offset) else {}
        for name, count in lengths.items():
            if count != N:
                raise UsageError(f"The index has {N} videos but {count} rows of {name}.")
        for kind in ("interval", "box"):
            names = [name for name in _FORMS if name.startswith(f"{kind}_")]
            if len({len(getattr(self, name)) for name in names}) > 1:
                raise UsageError(f"The index has {', '.join(names)} of different lengths.")
            video = getattr(self, f"{kind}_video")
            if video.size and (video.min() < 0 or video.max() >= N):
                raise UsageError(f"The index has {kind}_video outside 0..{N - 1}.")
        if len(self._positions) != N:
            seen: set[str] = set()
            twice = next(name for name in self.ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise UsageError(f"The plan lists the video {twice!r} twice; ids must be unique.")
        for name, low in (("labels", -1), ("interval_label", -1), ("box_label", -1)):
            array = getattr(self, name)
            if array.size and (array.min() < low or array.max() >= len(self.classes)):
                raise UsageError(f"The index has {name} outside the {len(self.classes)} classes.")
        if self.length.min() < 0:
            raise UsageError("The index has a length below 0.")
        for name, roles in self.splits.items():
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
                raise UsageError(f"The split {name!r} cannot be a file name; use letters, digits, '_', '.', '+', '-'.")
            if roles.min() < 0 or roles.max() > 2:
                raise UsageError(f"The split {name!r} has roles other than 0 unused, 1 train, 2 test.")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Index({len(self)} videos, {len(self.classes)} classes, splits {', '.join(self.splits) or 'none'})"

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.ids)}

    def position(self, id: str) -> int:
        """Return the place of a video in store order.

        Raises
        ------
        UsageError
            If no video has this id.
        """
        try:
            return self._positions[id]
        except KeyError:
            raise UsageError(f"The store has no video {id!r}; its ids are like {self.ids[0]!r}.") from None

    def split(self, name: str) -> np.ndarray:
        """Return the roles [N] int8 of the videos in a split: 0 unused, 1 train, 2 test.

        Raises
        ------
        UsageError
            If there is no such split; the message lists those there are.
        """
        if name not in self.splits:
            raise UsageError(f"The store has no split {name!r}; it has {', '.join(self.splits) or 'none'}.")
        return self.splits[name]

    def boxes(self, position: int) -> np.ndarray:
        """Return the places of a video's boxes in the `box_*` arrays, int64."""
        return np.flatnonzero(self.box_video == position)

    def digest(self, videos: slice = slice(None)) -> str:
        """SHA-256 of what the rows depend on: ids, paths, spans, lengths and offsets. Of all: the plan digest."""
        names = ("ids", "paths", "span_seconds", "length", "offset")
        return _digest((name, getattr(self, name)[videos]) for name in names)

    def content_digest(self) -> str:
        """SHA-256 of the whole index, labels, splits, intervals and boxes included."""
        arrays = [(name, getattr(self, name)) for name in _FORMS]
        arrays += [(f"split/{name}", roles) for name, roles in self.splits.items()]
        arrays += [("classes", np.array(self.classes, _TEXT)), ("multi_label", np.array([self.multi_label]))]
        return _digest(arrays)


def _converted(name: str, values: object, dtype: object) -> np.ndarray:
    if dtype is _TEXT:
        return np.array([str(value) for value in values], _TEXT)  # type: ignore[attr-defined]
    array = np.asarray(values)
    with np.errstate(invalid="ignore"):
        converted = array.astype(dtype)  # type: ignore[call-overload]
    if array.dtype.kind in "biu" and not np.array_equal(array, converted):
        raise UsageError(f"The index has {name} that do not fit {np.dtype(dtype).name}.")  # type: ignore[call-overload]
    converted.flags.writeable = False
    return converted


def _digest(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    sha = hashlib.sha256()
    for name, array in arrays:
        sha.update(json.dumps([name, array.shape]).encode())
        if array.dtype == _TEXT:
            sha.update(json.dumps(array.tolist()).encode())
        elif array.dtype.kind == "f":
            # NaN has many bit patterns; one stands for all.
            sha.update(np.where(np.isnan(array), array.dtype.type(np.nan), array).astype(array.dtype).tobytes())
        else:
            sha.update(array.tobytes())
    return sha.hexdigest()
