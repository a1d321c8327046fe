"""Attention on frames as a picture: a row for the frames and one for each map, and the weights over time below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ...cache.scratch import write_atomically
from ...errors import UnknownNameError, UsageError
from ..metrics.attention import into_region
from .frames import FramesError, FrameSource, cropped
from .overlay import SAID_BOX, STYLES, TRUE_BOX, draw_boxes, layer
from .scene import WHOLE, Scene, shown_segments
from .strip import DPI, axes_at, draw_strip, new_figure, shortened, text_at, verdict, write_legend

FRAME, TIME = "frame", "time"
"""Rows that are no maps: the frames as they are; the frames as bright as their segment's weight."""
CELL_PX = 168
_LEFT, _RIGHT, _GAP = 92, 18, 4
_TITLE, _LABELS, _STRIP, _BELOW = 44, 16, 86, 40
_LEAST_WIDTH = 760


@dataclass(frozen=True, kw_only=True)
class SheetSettings:
    """What a picture shows.

    Raises
    ------
    UsageError, UnknownNameError
        If a value cannot be.
    """

    frames: int = 8  # side by side
    rows: tuple[str, ...] = ()  # in this order; () = the frames and all maps
    style: str = "heat"  # of `STYLES`
    crop: bool = False  # show what the first stream shows of the frame, instead of the whole
    seconds: tuple[float, float] | None = None  # show segments centred in this stretch only

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise UnknownNameError("style", self.style, STYLES)
        if not 1 <= self.frames <= 40:
            raise UsageError(f"--frames {self.frames}: must be 1 to 40.")
        if len(set(self.rows)) < len(self.rows):
            raise UsageError(f"--rows {','.join(self.rows)}: names a row twice.")
        if self.seconds is not None and not 0 <= self.seconds[0] < self.seconds[1]:
            start, stop = self.seconds
            raise UsageError(f"--seconds {start:g}:{stop:g}: must begin at 0 or later and end after that.")


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """A scene with the frames that are shown of it."""

    scene: Scene
    segments: tuple[int, ...]
    pictures: Mapping[int, np.ndarray]  # by frame, whole
    said_boxes: Mapping[int, np.ndarray]  # what a rule makes of the attention, by segment: (4,) as the true ones


def rows_of(scene: Scene, asked: Sequence[str]) -> list[str]:
    """Return the rows of a picture of a scene: those asked for, else the frames and all maps.

    Raises
    ------
    UnknownNameError
        If it has no such row.
    """
    known = [FRAME, *scene.maps, TIME]
    for name in asked:
        if name not in known:
            raise UnknownNameError("row of the picture", name, known)
    return list(asked) or known[:-1]


def show(
    scene: Scene, source: FrameSource, file: Path, settings: SheetSettings,
    said_boxes: Mapping[int, np.ndarray] | None = None,
) -> Shown:  # fmt: skip
    """Choose the segments of a scene that are shown, and read their frames.

    Raises
    ------
    FramesError
        If they cannot be read, or no segment is centred in the stretch asked for.
    """
    require_frames(scene)
    among = None
    if settings.seconds is not None:
        start, stop = settings.seconds
        among = np.flatnonzero((scene.times.centres >= start) & (scene.times.centres < stop))
        if scene.times.unit != "s" or not len(among):
            raise FramesError(f"--seconds {start:g}:{stop:g}: no segment of {scene.attention.id!r} is centred there.")
    segments = shown_segments(scene.attention.temporal, settings.frames, among)
    x1, y1, x2, y2 = view_of(scene, settings)
    side = min(1920, round(1.5 * CELL_PX / min(x2 - x1, y2 - y1)))
    frames = sorted({int(scene.frames[segment]) for segment in segments})
    pictures = source.stills(file, frames, side_px=side, sha256=scene.sha256)
    return Shown(scene=scene, segments=tuple(segments), pictures=pictures, said_boxes=said_boxes or {})


def require_frames(scene: Scene) -> None:
    """Refuse a scene of which it is unknown which frames its segments are.

    Raises
    ------
    FramesError
    """
    if (scene.frames < 0).any():
        raise FramesError(
            f"{scene.attention.id}: its cubes were imported without a time map, so which frames they show is unknown."
        )


def write_sheet(path: Path, shown: Sequence[Shown], settings: SheetSettings) -> None:
    """Write one PNG with all these videos, one below the other."""
    blocks = [_Block(one, settings) for one in shown]
    width = max(_LEAST_WIDTH, *(block.width for block in blocks))
    figure = new_figure(width, sum(block.height for block in blocks))
    top = 0
    for block in blocks:
        block.draw(figure, top, width)
        top += block.height
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=DPI))


def view_of(scene: Scene, settings: SheetSettings) -> np.ndarray:
    """Return the part of the frame that is shown, (4,) x1, y1, x2, y2 in fractions."""
    return scene.regions[0] if settings.crop and scene.regions is not None else WHOLE


class _Block:
    """One video of a sheet."""

    def __init__(self, shown: Shown, settings: SheetSettings) -> None:
        self._shown, self._settings = shown, settings
        self._rows = rows_of(shown.scene, settings.rows)
        self._view = view_of(shown.scene, settings)
        H, W, _ = next(iter(shown.pictures.values())).shape
        x1, y1, x2, y2 = self._view
        aspect = (x2 - x1) * W / ((y2 - y1) * H)
        self._cell = max(24, round(CELL_PX * min(1.0, aspect))), max(24, round(CELL_PX / max(1.0, aspect)))
        self.width = _LEFT + len(shown.segments) * (self._cell[0] + _GAP) - _GAP + _RIGHT
        self.height = _TITLE + _LABELS + len(self._rows) * (self._cell[1] + _GAP) + _STRIP + _BELOW

    def draw(self, figure: Figure, top: int, width: int) -> None:
        scene, (cell_width, cell_height) = self._shown.scene, self._cell
        letters = width // 8
        words, colour = verdict(scene)
        text_at(figure, 10, top + 8, shortened(scene.attention.id, letters), fontsize=9, fontweight="bold")
        text_at(figure, 10, top + 25, shortened(words, letters), fontsize=8.5, color=colour)
        shown = [int(scene.frames[segment]) in scene.boxes for segment in self._shown.segments]
        write_legend(figure, width - _RIGHT, top + 8, true=any(shown), said=bool(self._shown.said_boxes))
        for column, segment in enumerate(self._shown.segments):
            centre = _LEFT + column * (cell_width + _GAP) + cell_width / 2
            weight = f"{scene.attention.temporal[segment]:.2g}"
            when = f"{scene.times.centres[segment]:.1f} s" if scene.times.unit == "s" else f"no. {segment}"
            text_at(figure, centre, top + _TITLE + 2, f"{when}  weight {weight}", fontsize=7, ha="center")
        at = top + _TITLE + _LABELS
        for name in self._rows:
            self._draw_row(figure, at, name)
            at += cell_height + _GAP
        below = axes_at(figure, _LEFT, at + 8, width - _LEFT - _RIGHT, _STRIP - 8)
        draw_strip(below, scene, marks=self._shown.segments)

    def _draw_row(self, figure: Figure, top: int, name: str) -> None:
        cell_width, cell_height = self._cell
        count = len(self._shown.segments)
        axes = axes_at(figure, _LEFT, top, count * (cell_width + _GAP) - _GAP, cell_height)
        canvas = np.full((cell_height, count * (cell_width + _GAP) - _GAP, 3), 255, np.uint8)
        for column, segment in enumerate(self._shown.segments):
            left = column * (cell_width + _GAP)
            cell = self._cell_picture(name, segment)
            if name != TIME:
                true, said = self._boxes(segment)
                draw_boxes(cell, true, view=self._view, colour=TRUE_BOX)
                draw_boxes(cell, said, view=self._view, colour=SAID_BOX, dash_px=6)
            canvas[:, left : left + cell_width] = cell
        axes.imshow(canvas, interpolation="none", aspect="auto", extent=(0, canvas.shape[1], cell_height, 0))
        axes.axis("off")
        text_at(figure, _LEFT - 8, top + cell_height / 2, shortened(name, 14), fontsize=8, ha="right", va="center")

    def _boxes(self, segment: int) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
        """Return the true boxes of a segment's frame, and what a rule says."""
        said, scene = self._shown.said_boxes, self._shown.scene
        return list(scene.boxes.get(int(scene.frames[segment]), ())), [said[segment]] if segment in said else []

    def _cell_picture(self, name: str, segment: int) -> np.ndarray:
        scene, (width, height) = self._shown.scene, self._cell
        grey = np.full((height, width, 3), 200, np.uint8)
        whole = self._shown.pictures.get(int(scene.frames[segment]))  # None: beyond the place where the file breaks off
        picture = grey if whole is None else cropped(whole, self._view, width=width, height=height)
        if name == FRAME:
            return picture
        if name == TIME:
            weights = scene.attention.temporal
            return (picture * float(weights[segment] / max(float(weights.max()), 1e-12))).round().astype(np.uint8)
        maps, place = scene.maps[name], WHOLE
        if scene.regions is None:  # where they lie in the frame is unknown: they stand alone
            picture = grey // 4
        else:
            place = into_region(maps.region, tuple(self._view))
        return layer(maps.cells[segment], place, width=width, height=height, style=self._settings.style).over(picture)
