"""From a decoded frame to a network's input: resize, then one or more crops; and back, from a crop to the frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import cv2
import numpy as np

from ..errors import UsageError

AREA_SHARE = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
"""Random-resized crops of `train:k`, as GLKA trains."""
MOST_ASPECT = 16
"""A longer picture that the resize would enlarge is cut to its middle first: `short:256` would make 2,048,000 x 256
pixels of 16000 x 2."""


def _resize(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear, by area where a side shrinks by more than half: bilinear would skip pixels there."""
    H, W = picture.shape[:2]
    if (width, height) == (W, H):
        return picture
    shrinks = width * 2 < W or height * 2 < H
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How frames become inputs: `resize` first, then squares of `crop_px`.

    `resize` is `short:S` (short side to S, aspect kept), `WxH` (exact, aspect not kept) or `none`. Of a frame that is
    more than `MOST_ASPECT` times as long as it is wide, and is to be enlarged, only the middle is looked at.

    Raises
    ------
    UsageError
        For another spelling, or a resize below the crop.
    """

    resize: str
    crop_px: int

    def __post_init__(self) -> None:
        if self.crop_px < 1:
            raise UsageError(f"Crop of {self.crop_px} pixels: must be positive.")
        if self.resize != "none":
            self.target_px(64, 48)

    def part_px(self, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """Return (left, top, width, height) of the part of a frame that is looked at: all, unless it is absurd."""
        short = max(1, min(width_px, height_px))
        longest = short * MOST_ASPECT
        if max(width_px, height_px) > longest and "x" not in self.resize and self._resized_px(short, short)[0] > short:
            width, height = min(width_px, longest), min(height_px, longest)
            return (width_px - width) // 2, (height_px - height) // 2, width, height
        return 0, 0, width_px, height_px

    def target_px(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Return (width, height) after the resize, before the crop; never smaller than the crop."""
        _, _, width, height = self.part_px(width_px, height_px)
        return self._resized_px(width, height)

    def _resized_px(self, width_px: int, height_px: int) -> tuple[int, int]:
        if self.resize == "none":
            width, height = width_px, height_px
        elif self.resize.startswith("short:") and self.resize[6:].isdigit() and int(self.resize[6:]) > 0:
            short = int(self.resize[6:])
            scale = short / min(width_px, height_px)
            width = short if width_px <= height_px else round(width_px * scale)
            height = short if height_px <= width_px else round(height_px * scale)
        else:
            sides = self.resize.split("x")
            if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
                raise UsageError(f"Resize {self.resize!r}: write short:256, 340x256 or none.")
            width, height = int(sides[0]), int(sides[1])
        if min(width, height) < self.crop_px:
            if self.resize != "none":
                raise UsageError(f"Resize {self.resize!r} is smaller than the crop of {self.crop_px} pixels.")
            scale = self.crop_px / min(width, height)
            width, height = max(self.crop_px, round(width * scale)), max(self.crop_px, round(height * scale))
        return width, height

    def resized(self, frame: np.ndarray, *, first: tuple[int, int] | None = None) -> np.ndarray:
        """Return a frame (H, W, 3) or (H, W) uint8 at its size before the crop.

        Parameters
        ----------
        first : (width, height) of the video's first frame. One that is of another size, and would not get the size
            that the first gets, is stretched to it, as players do: a segment has frames of one size.
        """
        if first is not None and (size := self.target_px(*first)) != self.target_px(frame.shape[1], frame.shape[0]):
            return _resize(frame, *size)
        left, top, width, height = self.part_px(frame.shape[1], frame.shape[0])
        return _resize(frame[top : top + height, left : left + width], *self._resized_px(width, height))

    def center(self, width: int, height: int) -> tuple[int, int]:
        """Return (left, top) of the centred crop of a picture of that size, pixels."""
        return (width - self.crop_px) // 2, (height - self.crop_px) // 2

    def region(self, width_px: int, height_px: int) -> tuple[float, float, float, float]:
        """Return the centred crop as (x1, y1, x2, y2) in fractions of the upright frame, each in 0..1."""
        x, y, part_width, part_height = self.part_px(width_px, height_px)
        width, height = self._resized_px(part_width, part_height)
        left, top = self.center(width, height)
        x1, y1, x2, y2 = left / width, top / height, (left + self.crop_px) / width, (top + self.crop_px) / height
        if (part_width, part_height) == (width_px, height_px):
            return x1, y1, x2, y2
        x1, x2 = ((x + share * part_width) / width_px for share in (x1, x2))
        y1, y2 = ((y + share * part_height) / height_px for share in (y1, y2))
        return x1, y1, x2, y2


@dataclass(frozen=True)
class _Crop:
    left: int
    top: int
    width: int
    height: int
    mirrored: bool


@dataclass(frozen=True, kw_only=True)
class ViewSet:
    """One set of views: which crops are made of every segment; `str(views)` is the canonical spelling.

    `center`
        One centred crop.
    `10crop`
        Top left, top right, bottom left, bottom right, centre, then the same five mirrored.
    `train:k`
        k random-resized crops (8-100 % of the area, aspect 3/4 to 4/3), half of them mirrored. Drawn from the seed,
        the video's id, the segment and the view only: the same for all frames of a segment and for all streams,
        whatever worker makes them.
    """

    rule: str  # center, 10crop or train: its name among the sets of a store
    count: int

    @classmethod
    def parse(cls, text: str) -> ViewSet:
        """Read `center`, `10crop` or `train:k`.

        Raises
        ------
        UsageError
        """
        rule, _, number = text.partition(":")
        if text == "center":
            return cls(rule="center", count=1)
        if text == "10crop":
            return cls(rule="10crop", count=10)
        if rule == "train" and number.isdigit() and int(number) > 0:
            return cls(rule="train", count=int(number))
        raise UsageError(
            f"Unknown views {text!r}; write center, 10crop or train:K with K >= 1, or several joined by +, such as "
            "train:5+10crop."
        )

    @property
    def random(self) -> bool:
        """Whether the crops are drawn from a seed."""
        return self.rule == "train"

    @property
    def central(self) -> int | None:
        """Which of them is the centred crop; None if none is."""
        return {"center": 0, "10crop": 4}.get(self.rule)

    def __str__(self) -> str:
        return f"train:{self.count}" if self.rule == "train" else self.rule

    def crops(self, W: int, H: int, geometry: Geometry, key: tuple[int, ...]) -> list[_Crop]:
        """Return where the crops of one segment lie in a picture of that size."""
        S = geometry.crop_px
        left, top = geometry.center(W, H)
        if self.rule == "center":
            return [_Crop(left, top, S, S, False)]
        if self.rule == "10crop":
            places = [(0, 0), (W - S, 0), (0, H - S), (W - S, H - S), (left, top)]
            return [_Crop(x, y, S, S, mirrored) for mirrored in (False, True) for x, y in places]
        return [_random_crop(W, H, np.random.default_rng([*key, view])) for view in range(self.count)]


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views that a store has of every segment: one `ViewSet`, or several one after the other.

    `str(views)` is the canonical spelling: `center`, or `train:5+10crop`, whose views 0..4 are random crops to train on
    and whose views 5..14 are ten crops to test on. What several sets show alike, such as the centre, is made twice.

    Raises
    ------
    UsageError
        For no set, or two sets of one rule: sets go by their rule.
    """

    sets: tuple[ViewSet, ...]

    def __post_init__(self) -> None:
        rules = [one.rule for one in self.sets]
        if not rules or len(set(rules)) < len(rules):
            raise UsageError(f"Views {str(self)!r}: name each of center, 10crop and train:K once at most.")

    @classmethod
    def parse(cls, text: str) -> Views:
        """Read sets joined by `+`."""
        return cls(sets=tuple(ViewSet.parse(part) for part in text.split("+")))

    @property
    def count(self) -> int:
        """Views of a segment, V."""
        return sum(one.count for one in self.sets)

    @property
    def ranges(self) -> dict[ViewSet, range]:
        """Which of the views each set has, in order."""
        stops = accumulate(one.count for one in self.sets)
        return {one: range(stop - one.count, stop) for one, stop in zip(self.sets, stops, strict=True)}

    def recipe(self, seed: int) -> dict[str, str | int]:
        """Return what a stream's recipe says of its views: the keys of `SAMPLED`, which `feature` leaves out."""
        return {"views": str(self), **({"view_seed": seed} if any(one.random for one in self.sets) else {})}

    def __str__(self) -> str:
        return "+".join(map(str, self.sets))

    def cut(
        self, pictures: np.ndarray, geometry: Geometry, *, key: tuple[int, ...], displacement: bool = False
    ) -> np.ndarray:
        """Make all views of one segment.

        Parameters
        ----------
        pictures : (w, H, W, C) uint8, resized; of a flow field C = 2, x then y
        key : of the random draws: seed, video, segment
        displacement : the channels are a quantised displacement: mirroring turns x into 255 - x. Magnitudes are not
            rescaled when a random crop is resized, as TSN's training does it.

        Returns
        -------
        (V, w, S, S, C) uint8
        """
        w, H, W, C = pictures.shape
        S = geometry.crop_px
        views = np.empty((self.count, w, S, S, C), np.uint8)
        crops = [crop for one in self.sets for crop in one.crops(W, H, geometry, key)]
        for view, crop in enumerate(crops):
            part = pictures[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
            if (crop.width, crop.height) != (S, S):
                part = np.stack([_resize(np.ascontiguousarray(p), S, S) for p in part])
            if crop.mirrored:
                part = part[:, :, ::-1]
            views[view] = part
            if crop.mirrored and displacement:
                views[view, ..., 0] = 255 - views[view, ..., 0]
        return views


CENTER = Views.parse("center")
"""One view, which shows the centre."""
SAMPLED = ("views", "view_seed")
"""Keys of a stream's recipe that say where in the pictures it was sampled; all the others make the feature."""


def feature(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a stream's recipe makes the feature: backbone, weights, layer, resize, crop, flow, precision, ...

    Two streams of equal features are read alike, whichever views and segments each has.
    """
    return {key: value for key, value in recipe.items() if key not in SAMPLED}


def _random_crop(W: int, H: int, random: np.random.Generator) -> _Crop:
    """Draw as torchvision's RandomResizedCrop does: ten tries, then the largest centred crop of an allowed aspect."""
    mirrored = bool(random.random() < 0.5)
    for _ in range(10):
        area = W * H * random.uniform(*AREA_SHARE)
        aspect = math.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= W and 0 < height <= H:
            left, top = int(random.integers(0, W - width + 1)), int(random.integers(0, H - height + 1))
            return _Crop(left, top, width, height, mirrored)
    width, height = min(W, round(H * ASPECT[1])), min(H, round(W / ASPECT[0]))
    return _Crop((W - width) // 2, (H - height) // 2, width, height, mirrored)
