"""Attention over time, drawn: the weight of every segment, and the true intervals below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .scene import Scene

DPI = 100
WEIGHT = "#1f6fb4"
TRUE = "#138a4e"
SAID_WRONG = "#b02020"
RIGHT_SIGN, WRONG_SIGN = "✓", "✗"


def new_figure(width_px: int, height_px: int) -> Figure:
    """Return a figure of so many pixels whose texts mean what they say: a $ in a name begins no formula."""
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, left: int, top: int, width: int, height: int) -> Axes:
    """Add axes at a place in pixels from the top left corner."""
    W, H = (figure.get_size_inches() * DPI).round()
    return figure.add_axes((left / W, 1 - (top + height) / H, width / W, height / H))


def text_at(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Write a text whose top left corner lies at a place in pixels."""
    W, H = (figure.get_size_inches() * DPI).round()
    figure.text(left / W, 1 - top / H, text, **{"va": "top", "ha": "left", "parse_math": False, **style})


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters: its middle is left out, for beginnings and ends tell files apart."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def verdict(scene: Scene) -> tuple[str, str]:
    """Return in words what is true and what the head says, and the colour of that."""
    said = ", ".join(f"{name} {share:.2f}" for name, share in scene.said(3))
    if not scene.truth:
        return f"said: {said}", "#303030"
    sign, colour = (RIGHT_SIGN, TRUE) if scene.right else (WRONG_SIGN, SAID_WRONG)
    return f"{sign} truth: {', '.join(scene.truth)}   said: {said}", colour


def write_legend(figure: Figure, right: float, top: float, *, true: bool, said: bool) -> None:
    """Say what the boxes are, at the right of a line."""
    told = [text for there, text in ((true, "box in a full line: true"), (said, "in dashes: by attention")) if there]
    text_at(figure, right, top, "; ".join(told), fontsize=7.5, ha="right", color="#505050")


def draw_strip(axes: Axes, scene: Scene, *, marks: Sequence[int] = ()) -> None:
    """Draw the weights of all segments over time with the mean weight, and true intervals, hatched, with their names.

    Parameters
    ----------
    marks : segments whose frames are shown
    """
    times, weights = scene.times, scene.attention.temporal.astype(np.float64)
    edges = np.append(times.bounds[:, 0], times.end)
    top = 1.25 * max(float(weights.max()), 1e-12)
    names: dict[str, float] = {}
    for interval in scene.intervals:
        axes.axvspan(interval.start, interval.stop, facecolor="#13a04e33", edgecolor=TRUE, hatch="//", linewidth=0.8)
        names.setdefault(interval.name, (interval.start + interval.stop) / 2)
    axes.stairs(weights, edges, fill=True, color=WEIGHT, alpha=0.85)
    axes.axhline(1 / len(weights), color="#606060", linewidth=0.8, linestyle=(0, (4, 3)))
    for segment in marks:
        centre = float(times.centres[segment])
        axes.plot([centre], [top * 0.965], marker="v", color="#303030", markersize=4, clip_on=False)
    for name, centre in names.items():
        axes.text(
            centre, top * 0.9, shortened(name, 40), fontsize=7.5, color=TRUE, ha="center", va="top", parse_math=False,
            clip_on=True, backgroundcolor="#ffffffb0",
        )  # fmt: skip
    axes.set_xlim(0, max(times.end, 1e-6))
    axes.set_ylim(0, top)
    axes.set_yticks([0, float(weights.max())], ["0", f"{weights.max():.2g}"])
    axes.tick_params(labelsize=7.5, length=2.5, pad=2)
    axes.set_xlabel("seconds" if times.unit == "s" else "segments", fontsize=7.5, labelpad=1)
    axes.set_ylabel("weight", fontsize=7.5, labelpad=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
