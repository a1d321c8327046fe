"""Attention on a whole video as an mp4: the frames with the maps on them, the weights over time, the class scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...cache.scratch import write_atomically
from ..metrics.attention import into_region
from ..pictures.frames import FramesError, FrameSource, Picture, cropped
from ..pictures.overlay import SAID_BOX, TRUE_BOX, Layer, draw_boxes, layer
from ..pictures.scene import WHOLE, Scene
from ..pictures.sheet import FRAME, TIME, SheetSettings, require_frames, rows_of, view_of
from ..pictures.strip import (
    WEIGHT,
    axes_at,
    draw_strip,
    new_figure,
    shortened,
    text_at,
    verdict,
    write_legend,
)
from ..runs.progress import Progress

CLOCK = 90_000
"""Ticks a second in the file, as MPEG has them."""
UNKNOWN_FPS = 25
_X264 = {"flags": "+bitexact", "preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}
_GAP, _MARGIN, _LEFT = 6, 10, 52
_TITLE, _NAMES, _NOW, _STRIP, _BELOW = 42, 18, 22, 84, 38
_CLASSES, _CLASS = 5, 17
_LEAST_WIDTH = 560
_MOST_PX = {1: 512, 2: 400, 3: 340, 4: 360}
"""Longer side of a panel by the number of panels; of more 300."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Filmed:
    """A film that was written."""

    path: Path
    frames: int
    seconds: float  # that it lasts


def write_film(
    path: Path, scene: Scene, source: FrameSource, file: Path, settings: SheetSettings, *,
    said_boxes: Mapping[int, np.ndarray] | None = None,
) -> Filmed:  # fmt: skip
    """Write all frames of a video with the attention on them, those of one panel after another, as mp4 (H.264).

    Parameters
    ----------
    file : the video
    settings : rows are panels; those of a picture without `frame` if none are asked for
    said_boxes : what a rule makes of the attention, by segment

    Raises
    ------
    FramesError
        If the file cannot be read or is another one, or has no frame in the stretch asked for.
    """
    require_frames(scene)
    names = rows_of(scene, settings.rows)
    panels = names if settings.rows or names == [FRAME] else names[1:]
    start, stop = settings.seconds or scene.span
    side = _side(scene, settings, len(panels))
    pictures = source.film(file, side_px=side, start=start, stop=stop, sha256=scene.sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    written: list[float] = []

    def encode(out: BinaryIO) -> None:
        first = next(pictures, None)
        if first is None:
            raise FramesError(f"{file} has no frame between {start or 0:g} and {stop or np.inf:g} s.")
        stage = _Stage(scene, panels, settings, first.rgb.shape, said_boxes or {})
        with (
            Progress(f"film of {scene.attention.id}", _expected(scene, start, stop), unit="frame") as progress,
            av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container,
        ):
            rate = Fraction(scene.fps or UNKNOWN_FPS).limit_denominator(1001)
            stream = container.add_stream("libx264", rate=rate, options=_X264)
            stream.width, stream.height, stream.pix_fmt = stage.width, stage.height, "yuv420p"
            stream.codec_context.time_base = Fraction(1, CLOCK)
            picture: Picture | None = first
            while picture is not None:
                written.append(picture.seconds if np.isfinite(picture.seconds) else picture.frame / UNKNOWN_FPS)
                frame = av.VideoFrame.from_ndarray(stage.compose(picture), format="rgb24")
                frame.pts, frame.time_base = round((written[-1] - written[0]) * CLOCK), Fraction(1, CLOCK)
                container.mux(stream.encode(frame))
                progress.advance()
                picture = next(pictures, None)
            container.mux(stream.encode(None))

    write_atomically(path, encode)
    return Filmed(path=path, frames=len(written), seconds=written[-1] - written[0] + 1 / (scene.fps or UNKNOWN_FPS))


def _expected(scene: Scene, start: float | None, stop: float | None) -> int:
    """Return about how many frames there are, for the progress."""
    if scene.times.unit != "s" or not scene.fps:
        return int(scene.frames.max()) + 1
    return max(1, round((min(stop or np.inf, scene.times.end) - (start or 0)) * scene.fps))


def _side(scene: Scene, settings: SheetSettings, panels: int) -> int:
    x1, y1, x2, y2 = view_of(scene, settings)
    return min(1920, round(_MOST_PX.get(panels, 300) / min(x2 - x1, y2 - y1)))


class _Stage:
    """What all frames of a film share, drawn once, and where the rest comes."""

    def __init__(
        self, scene: Scene, panels: list[str], settings: SheetSettings, shape: tuple[int, ...],
        said_boxes: Mapping[int, np.ndarray],
    ) -> None:  # fmt: skip
        self._scene, self._panels, self._style, self._said = scene, panels, settings.style, said_boxes
        self._view = view_of(scene, settings)
        H, W, _ = shape
        x1, y1, x2, y2 = self._view
        most = _MOST_PX.get(len(panels), 300)
        scale = most / max((x2 - x1) * W, (y2 - y1) * H)
        self._panel = max(16, round((x2 - x1) * W * scale)), max(16, round((y2 - y1) * H * scale))
        columns = {1: 1, 2: 2, 4: 2}.get(len(panels), 3)
        rows = -(-len(panels) // columns)
        width, height = self._panel
        block = columns * (width + _GAP) - _GAP
        self.width = _even(max(_LEAST_WIDTH, block + 2 * _MARGIN))
        left = (self.width - block) // 2
        self._places = [
            (left + n % columns * (width + _GAP), _TITLE + _NAMES + n // columns * (height + _NAMES + _GAP))
            for n in range(len(panels))
        ]
        self._now = _TITLE + rows * (height + _NAMES + _GAP)
        self._strip_top = self._now + _NOW
        classes = min(_CLASSES, len(scene.classes))
        self.height = _even(self._strip_top + _STRIP + _BELOW + classes * _CLASS + _MARGIN)
        self._canvas = self._drawn(classes)
        self._line = _Line(self.width, _NOW)
        self._layers: tuple[int | None, list[Layer | None]] = (None, [])

    def _drawn(self, classes: int) -> np.ndarray:
        scene, figure = self._scene, new_figure(self.width, self.height)
        letters, (words, colour) = self.width // 8, verdict(scene)
        text_at(figure, _MARGIN, 6, shortened(scene.attention.id, letters), fontsize=9, fontweight="bold")
        text_at(figure, _MARGIN, 23, shortened(words, letters), fontsize=8.5, color=colour)
        write_legend(figure, self.width - _MARGIN, 6, true=bool(scene.boxes), said=bool(self._said))
        for name, (left, top) in zip(self._panels, self._places, strict=True):
            text_at(figure, left + self._panel[0] / 2, top - 2, name, fontsize=8, ha="center", va="bottom")
        span = self.width - _LEFT - _MARGIN
        draw_strip(axes_at(figure, _LEFT, self._strip_top, span, _STRIP), scene)
        top = self.height - _MARGIN - classes * _CLASS
        self._draw_classes(axes_at(figure, self.width // 3, top, self.width // 2, classes * _CLASS), classes)
        return _pixels(figure)

    def _draw_classes(self, axes: Axes, classes: int) -> None:
        scene = self._scene
        said = scene.said(classes)
        colours = ["#138a4e" if name in scene.truth else WEIGHT for name, _ in said]
        axes.barh(range(classes), [share for _, share in said], color=colours, height=0.7)
        for row, (name, share) in enumerate(said):
            mark = " ✓" if name in scene.truth else ""
            label = shortened(name, self.width // 26) + mark
            axes.text(-0.01, row, label, fontsize=7.5, ha="right", va="center", parse_math=False)
            axes.text(share + 0.01, row, f"{share:.3f}", fontsize=7.5, va="center")
        axes.set_xlim(0, 1)
        axes.set_ylim(classes - 0.5, -0.5)
        axes.axis("off")

    def compose(self, picture: Picture) -> np.ndarray:
        """Return one frame of the film, (height, width, 3) uint8."""
        scene, (width, height) = self._scene, self._panel
        canvas = self._canvas.copy()
        segment = scene.segment_of(picture.frame, picture.seconds)
        boxes = scene.boxes.get(picture.frame, np.empty((0, 4)))
        said = [self._said[segment]] if segment is not None and segment in self._said else []
        base = cropped(picture.rgb, self._view, width=width, height=height)
        for name, over, (left, top) in zip(self._panels, self._layers_of(segment), self._places, strict=True):
            panel = base.copy() if over is None else over.over(base)
            if name != TIME:
                draw_boxes(panel, boxes, view=self._view, colour=TRUE_BOX)
                draw_boxes(panel, said, view=self._view, colour=SAID_BOX, dash_px=6)
            canvas[top : top + height, left : left + width] = panel
        now = picture.seconds if scene.times.unit == "s" else (segment or 0) + 0.5
        at = _LEFT + round((self.width - _LEFT - _MARGIN - 1) * min(max(now / scene.times.end, 0), 1))
        canvas[self._strip_top : self._strip_top + _STRIP, max(at - 1, 0) : at + 1] = 20
        canvas[self._now : self._now + _NOW] = self._line.of(self._told(picture, segment))
        return canvas

    def _told(self, picture: Picture, segment: int | None) -> str:
        when = f"{picture.seconds:.2f} s" if np.isfinite(picture.seconds) else f"frame {picture.frame}"
        if segment is None:
            return f"{when}   before the first segment"
        weights = self._scene.attention.temporal
        share = weights[segment] * len(weights)
        place = f"segment {segment + 1} of {len(weights)}"
        return f"{when}   {place}   weight {weights[segment]:.3g}, {share:.2f} times the mean"

    def _layers_of(self, segment: int | None) -> list[Layer | None]:
        """Return what is laid over each panel; None = nothing."""
        if not self._layers[1] or self._layers[0] != segment:
            self._layers = (segment, [self._layer(name, segment) for name in self._panels])
        return self._layers[1]

    def _layer(self, name: str, segment: int | None) -> Layer | None:
        scene, (width, height) = self._scene, self._panel
        if name == FRAME or segment is None:
            return None
        if name == TIME:
            weights = scene.attention.temporal
            share = float(weights[segment] / max(float(weights.max()), 1e-12))
            factor = np.full((height, width, 1), share, np.float32)
            return Layer(factor=factor, add=np.zeros((height, width, 3), np.float32))
        maps = scene.maps[name]
        if scene.regions is None:  # where they lie in the frame is unknown: they stand alone
            alone = layer(maps.cells[segment], WHOLE, width=width, height=height, style=self._style)
            return Layer(factor=np.zeros_like(alone.factor), add=alone.add)
        place = into_region(maps.region, tuple(self._view))
        return layer(maps.cells[segment], place, width=width, height=height, style=self._style)


class _Line:
    """A line of text that changes."""

    def __init__(self, width: int, height: int) -> None:
        self._figure = new_figure(width, height)
        self._text = self._figure.text(0.5, 0.5, "", ha="center", va="center", fontsize=8.5)

    def of(self, words: str) -> np.ndarray:
        """Return it as a picture, (height, width, 3) uint8."""
        self._text.set_text(words)
        return _pixels(self._figure)


def _pixels(figure: Figure) -> np.ndarray:
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _even(px: int) -> int:
    """H.264 with half the colours has even sides only."""
    return px + px % 2
