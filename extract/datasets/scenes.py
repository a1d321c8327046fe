"""Draws the generated data set `actionshapes`: one scene per video, frame by frame, with its truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from .shapes import DISTRACTORS, MOTIONS, SHAPES, Contours, Figure, ShapesOptions

_BORDER = 8  # pixels of background beyond the frame for the camera shake to show
_FINE = 4  # fractional bits of a polygon's corners
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Everything that one video shows; the same options and index make the same scene."""

    options: ShapesOptions
    label: int
    first: int  # the object is there in the frames [first, stop)
    stop: int
    thing: Figure
    distractors: tuple[Figure, ...]
    background: np.ndarray = field(repr=False)  # [height + 2 * border, width + 2 * border, 3] uint8 RGB
    shake: np.ndarray  # [2, 3]: amplitude in pixels, frequency in Hz and phase, of x and of y

    def render(self, frame: int, *, with_object: bool = True) -> np.ndarray:
        """Draw a frame: [height, width, 3] uint8 RGB. The object is drawn last, where it is present at all."""
        width, height = self.options.width, self.options.height
        shift = self._shift(frame)
        centre = (_BORDER + (width - 1) / 2 - shift[0], _BORDER + (height - 1) / 2 - shift[1])
        image = cv2.getRectSubPix(self.background, (width, height), centre)
        for figure in self.distractors:
            _paint(image, self._outline(figure, frame), figure.colour)
        if with_object and self.first <= frame < self.stop:
            _paint(image, self._outline(self.thing, frame), self.thing.colour)
        return image

    def box(self, frame: int) -> tuple[float, float, float, float] | None:
        """Return the object's tight box as x1, y1, x2, y2 in fractions of the frame, or None where it is absent."""
        if not self.first <= frame < self.stop:
            return None
        points = np.concatenate(self._outline(self.thing, frame))
        # OpenCV puts whole numbers in the middle of pixels (+ 0.5) and fills half a pixel beyond the corners (-+ 0.5).
        scale = np.array([self.options.width, self.options.height])
        low = np.clip(points.min(axis=0) / scale, 0, 1)
        high = np.clip((points.max(axis=0) + 1) / scale, 0, 1)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def _shift(self, frame: int) -> np.ndarray:
        amplitude, hertz, phase = self.shake.T
        return amplitude * np.sin(2 * np.pi * hertz * frame / self.options.fps + phase)

    def _outline(self, figure: Figure, frame: int) -> Contours:
        shift = self._shift(frame)
        return tuple(contour + shift for contour in figure.outline(frame / self.options.fps))


def make_scene(options: ShapesOptions, index: int) -> Scene:
    """Draw up the scene of video `index`, from a random stream of its own: no other video matters."""
    rng = np.random.default_rng([options.seed, index])
    label = index % len(options.classes)
    shape, motion = options.classes[label].split("-")
    span = min(options.width, options.height)
    background = _background(rng, options)
    paper = background.reshape(-1, 3).mean(axis=0)

    present = rng.uniform(0.6, 1.0) if options.variant == "trimmed" else rng.uniform(0.15, 0.35)
    visible = max(1, round(present * options.frame_count))
    first = int(rng.integers(0, options.frame_count - visible + 1))

    side, amplitude, zoom = rng.uniform(0.30, 0.37) * span, rng.uniform(0.14, 0.18) * span, 0.22
    reach = 0.62 * side * (1 + zoom) + amplitude + 0.025 * span  # half the tilted shape, its way and the shake
    thing = Figure(
        contours=SHAPES[shape],
        colour=_colour(rng, paper),
        side=side,
        tilt=rng.uniform(-0.2, 0.2),
        motion=motion,
        centre=(_within(rng, reach, options.width), _within(rng, reach, options.height)),
        amplitude=amplitude,
        zoom=zoom,
        period_seconds=rng.uniform(0.9, 1.1),
        phase=rng.uniform(0, 2 * np.pi),
        still=np.sin(rng.uniform(0, 2 * np.pi, size=3)),
    )
    kinds = rng.permutation(len(DISTRACTORS))[: rng.integers(2, 4)]
    return Scene(
        options=options,
        label=label,
        first=first,
        stop=first + visible,
        thing=thing,
        distractors=tuple(_distractor(rng, options, DISTRACTORS[kind], thing, paper) for kind in kinds),
        background=background,
        shake=np.stack(
            [
                rng.uniform(0.008, 0.02, size=2) * span,
                rng.uniform(0.3, 0.8, size=2),
                rng.uniform(0, 2 * np.pi, size=2),
            ],
            axis=1,
        ).clip(None, [_BORDER - 2, np.inf, np.inf]),
    )


def _distractor(
    rng: np.random.Generator, options: ShapesOptions, contours: Contours, thing: Figure, paper: np.ndarray
) -> Figure:
    """Place a distractor away from the object where ten tries allow it; it may be cut by the frame's border."""
    span = min(options.width, options.height)
    places = rng.uniform(0.1, 0.9, size=(10, 2)) * (options.width, options.height)
    distances = np.hypot(*(places - thing.centre).T)
    far = np.flatnonzero(distances > 0.5 * span)
    place = places[far[0] if len(far) else np.argmax(distances)]
    return Figure(
        contours=contours,
        colour=_colour(rng, paper),
        side=rng.uniform(0.24, 0.36) * span,
        tilt=rng.uniform(0, 2 * np.pi),
        motion=str(rng.choice(list(MOTIONS))),
        centre=(float(place[0]), float(place[1])),
        amplitude=rng.uniform(0.08, 0.18) * span,
        zoom=rng.uniform(0.1, 0.22),
        period_seconds=rng.uniform(0.8, 1.3),
        phase=rng.uniform(0, 2 * np.pi),
        still=np.sin(rng.uniform(0, 2 * np.pi, size=3)),
    )


def _within(rng: np.random.Generator, reach: float, length: int) -> float:
    return rng.uniform(reach, length - reach) if 2 * reach < length else length / 2


def _colour(rng: np.random.Generator, paper: np.ndarray) -> tuple[int, int, int]:
    """Draw any colour whose brightness differs from the background's mean by at least 55 of 255 grey levels."""
    while True:
        colour = rng.integers(0, 256, size=3)
        if abs(float((colour - paper) @ _LUMA)) >= 55:
            return int(colour[0]), int(colour[1]), int(colour[2])


def _background(rng: np.random.Generator, options: ShapesOptions) -> np.ndarray:
    """Draw smoothed noise of three scales around a random colour, uint8 RGB with a border on all sides."""
    span = min(options.width, options.height)
    size = (options.height + 2 * _BORDER, options.width + 2 * _BORDER, 3)
    texture = np.zeros(size, dtype=np.float32)
    for blur, weight in ((0.012, 0.5), (0.05, 1.0), (0.15, 1.0)):
        noise = cv2.GaussianBlur(rng.standard_normal(size, dtype=np.float32), (0, 0), blur * span)
        texture += rng.uniform(0.5, 1.0) * weight * noise / noise.std()
    texture *= rng.uniform(10, 18) / texture.std()
    return np.clip(texture + rng.uniform(70, 185, size=3).astype(np.float32), 0, 255).astype(np.uint8)


def _paint(image: np.ndarray, contours: Contours, colour: tuple[int, int, int]) -> None:
    """Fill polygons with soft edges, in place."""
    corners = [np.round(contour * (1 << _FINE)).astype(np.int32) for contour in contours]
    cv2.fillPoly(image, corners, colour, lineType=cv2.LINE_AA, shift=_FINE)
