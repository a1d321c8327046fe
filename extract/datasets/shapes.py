"""What the generated data set `actionshapes` is made of: its options, its shapes and its motions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np

from ...errors import UsageError

Contours = tuple[np.ndarray, ...]  # closed polygons [points, 2] in the unit square around 0; even-odd filling


@dataclass(frozen=True, kw_only=True)
class ShapesOptions:
    """Everything that decides the generated files.

    Raises
    ------
    UsageError
        For a value outside its range.
    """

    variant: str = "trimmed"  # the object is there for 60-100 % of the frames; untrimmed: 15-35 %
    videos: int = 120
    shapes: int = 3
    motions: int = 2
    seed: int = 0
    frames: int | None = None  # None: 45 trimmed, 150 untrimmed
    width: int = 160  # pixels, even
    height: int = 120  # pixels, even
    fps: int = 15

    def __post_init__(self) -> None:
        if self.variant not in ("trimmed", "untrimmed"):
            raise UsageError(f"actionshapes: variant must be trimmed or untrimmed, not {self.variant!r}.")
        if self.frames is None:
            object.__setattr__(self, "frames", 45 if self.variant == "trimmed" else 150)
        ranges = {
            "shapes": (1, len(SHAPES)), "motions": (1, len(MOTIONS)), "seed": (0, 2**32 - 1),
            "frames": (8, 100_000), "width": (64, 4096), "height": (64, 4096), "fps": (5, 120),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"actionshapes: {name} must be {low}..{high}, not {getattr(self, name)}.")
        if self.width % 2 or self.height % 2:
            raise UsageError(
                f"actionshapes: width and height must be even for yuv420p, not {self.width}x{self.height}."
            )
        if len(self.classes) < 2:
            raise UsageError("actionshapes: one shape and one motion make one class; ask for more of either.")
        if self.videos < 3 * len(self.classes):
            raise UsageError(
                f"actionshapes: {len(self.classes)} classes need at least {3 * len(self.classes)} videos (two to train "
                f"on and one to test with each), not {self.videos}."
            )

    @property
    def frame_count(self) -> int:
        """Frames of each video."""
        assert self.frames is not None  # filled in on construction
        return self.frames

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, shape by shape."""
        return tuple(f"{s}-{m}" for s in list(SHAPES)[: self.shapes] for m in list(MOTIONS)[: self.motions])

    def to_dict(self) -> dict[str, str | int]:
        """Return the options as they are recorded beside the videos."""
        return asdict(self)


def _polygon(points: list[tuple[float, float]]) -> Contours:
    return (np.array(points, dtype=np.float64),)


def _ellipse(width: float, height: float, points: int = 48) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([width / 2 * np.cos(turn), height / 2 * np.sin(turn)], axis=1)


def _star(points: int = 5, waist: float = 0.42) -> Contours:
    turn = np.arange(2 * points) * np.pi / points - np.pi / 2
    radius = np.where(np.arange(2 * points) % 2, waist * 0.52, 0.52)
    return (np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1),)


_ARM = 0.16  # half the width of the cross's arms

SHAPES: dict[str, Contours] = {
    "square": _polygon([(-0.46, -0.46), (0.46, -0.46), (0.46, 0.46), (-0.46, 0.46)]),
    "disc": (_ellipse(1.04, 1.04),),
    "triangle": _polygon([(0.0, -0.52), (0.55, 0.46), (-0.55, 0.46)]),
    "cross": _polygon([
        (-_ARM, -0.5), (_ARM, -0.5), (_ARM, -_ARM), (0.5, -_ARM), (0.5, _ARM), (_ARM, _ARM),
        (_ARM, 0.5), (-_ARM, 0.5), (-_ARM, _ARM), (-0.5, _ARM), (-0.5, -_ARM), (-_ARM, -_ARM),
    ]),
    "star": _star(),
    "ring": (_ellipse(1.04, 1.04), _ellipse(0.56, 0.56)),
}  # fmt: skip
"""Class shapes, in the order in which they are used; of similar extent, so that the box tells nothing."""


def _crescent() -> Contours:
    outer, inner = np.linspace(-2.2, 2.2, 24), np.linspace(1.9, -1.9, 24)
    return (np.concatenate([
        np.stack([0.5 * np.cos(outer), 0.5 * np.sin(outer)], axis=1),
        np.stack([0.42 * np.cos(inner) - 0.18, 0.42 * np.sin(inner)], axis=1),
    ]),)  # fmt: skip


DISTRACTORS: tuple[Contours, ...] = (
    _polygon([(-0.5, -0.14), (0.5, -0.14), (0.5, 0.14), (-0.5, 0.14)]),  # a bar
    (_ellipse(1.0, 0.5),),  # a blob
    _crescent(),
    _polygon([(-0.45, -0.5), (-0.15, -0.5), (-0.15, 0.2), (0.45, 0.2), (0.45, 0.5), (-0.45, 0.5)]),  # an L
)
"""What else moves about; none of them is a class shape."""

# A motion turns the moving angle and the three still offsets of a video into (x, y, zoom), each within -1..1. The
# still offsets are sines of uniform phases too: at any one moment every motion has the same distribution of places
# and sizes, and a single frame tells nothing about it.
MOTIONS: dict[str, Callable[[float, np.ndarray], tuple[float, float, float]]] = {
    "leftright": lambda angle, still: (np.sin(angle), still[1], still[2]),
    "updown": lambda angle, still: (still[0], np.sin(angle), still[2]),
    "pulse": lambda angle, still: (still[0], still[1], np.sin(angle)),
    "clockwise": lambda angle, still: (np.cos(angle), np.sin(angle), still[2]),
    "counterclockwise": lambda angle, still: (np.cos(angle), -np.sin(angle), still[2]),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """One moving thing of a scene; lengths in pixels, angles in radians."""

    contours: Contours
    colour: tuple[int, int, int]  # RGB
    side: float
    tilt: float
    motion: str
    centre: tuple[float, float]
    amplitude: float
    zoom: float  # the side swells and shrinks by this share
    period_seconds: float
    phase: float
    still: np.ndarray = field(repr=False)  # [3], within -1..1

    def outline(self, seconds: float) -> Contours:
        """Return the polygons [points, 2] float64 in pixels at a moment, before the camera shakes."""
        x, y, zoom = MOTIONS[self.motion](2 * np.pi * seconds / self.period_seconds + self.phase, self.still)
        side = self.side * (1 + self.zoom * zoom)
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        turn = np.array([[cos, sin], [-sin, cos]])
        place = np.array(self.centre) + self.amplitude * np.array([x, y])
        return tuple(contour @ turn * side + place for contour in self.contours)
