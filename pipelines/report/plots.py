"""The page's plots: matplotlib's SVG, with the page's own colours, so that they follow light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SIZE_INCHES = (4.4, 3.0)
"""Small, so that letters of 9 points can be read on a phone, where the plot is as wide as the screen."""
INK, GRID = "#010101", "#020202"
SERIES = tuple(f"#0000{n:02x}" for n in range(0xA1, 0xA7))
"""Colours that stand for others: the page gives them, one set for light and one for dark."""
_PAGE = {INK: "currentColor", GRID: "var(--rule)"} | {c: f"var(--c{n})" for n, c in enumerate(SERIES, start=1)}
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1)), (0, (8, 2, 1.5, 2, 1.5, 2)))
MOST_ROWS = 60
"""Of the table beside a plot."""
_POINTS = 80
"""Of a precision-recall curve: what the eye sees at this size."""
_styled = matplotlib.rc_context(
    {"svg.fonttype": "none", "font.size": 9, "legend.fontsize": 8.5, "text.parse_math": False}  # names may hold a $
)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot, and the same in words and as a table."""

    name: str  # unique in the page; a word
    title: str
    summary: str  # what it shows, one sentence
    svg: Markup
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    choices: tuple[tuple[str, str], ...] = ()  # id in the SVG and name of the lines that can be picked out


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a plot; NaN = no point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@_styled
def lines(
    name: str, title: str, drawn: Sequence[Line], *, x_label: str, y_label: str, share: bool = False,
    mark: tuple[float, str] | None = None,
) -> Plot:  # fmt: skip
    """Draw lines over steps, told apart by colour, dash and marker.

    Parameters
    ----------
    share : whether values are shares, 0..1
    mark : a step to be marked, and its name
    """
    figure, axes = _figure()
    for n, line in enumerate(drawn):
        axes.plot(
            line.x, line.y, color=SERIES[n % len(SERIES)], linestyle=DASHES[n % len(DASHES)], linewidth=1.6,
            marker=MARKERS[n % len(MARKERS)] if len(line.x) <= 30 else None, markersize=3.5, label=line.name,
        )  # fmt: skip
    if mark is not None:
        axes.axvline(mark[0], color=INK, linewidth=0.8, linestyle=(0, (2, 2)), label=mark[1])
    if share:
        axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(drawn) > 1 or mark:
        axes.legend(frameon=False, loc="best", labelcolor=INK)
    x = drawn[0].x
    kept = range(0, len(x), max(1, math.ceil(len(x) / MOST_ROWS)))
    ends = "; ".join(f"{line.name} ends at {_number(line.y[-1])}" for line in drawn)
    return Plot(
        name=name,
        title=title,
        summary=f"{title} over {len(x)} points: {ends}.",
        svg=_svg(figure, name),
        header=(x_label, *(line.name for line in drawn)),
        rows=tuple((_number(x[i]), *(_number(line.y[i]) for line in drawn)) for i in kept),
    )


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One value with its interval; a row of `dots`."""

    name: str
    value: float
    low: float | None
    high: float | None


@_styled
def dots(name: str, title: str, drawn: Sequence[Dot], *, x_label: str) -> Plot:
    """Draw values below each other, each with its interval."""
    figure, axes = _figure(height=0.9 + 0.24 * len(drawn))
    for n, dot in enumerate(drawn):
        if dot.low is not None and dot.high is not None:
            axes.plot([dot.low, dot.high], [n, n], color=SERIES[0], linewidth=2.2, solid_capstyle="butt")
        axes.plot([dot.value], [n], color=SERIES[0], marker="o", markersize=5)
    axes.set_yticks(range(len(drawn)), [_shortened(dot.name) for dot in drawn])
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlabel(x_label)
    best = max(drawn, key=lambda dot: dot.value)
    return Plot(
        name=name,
        title=title,
        summary=f"{title}: highest is {best.name} with {_number(best.value)}.",
        svg=_svg(figure, name),
        header=("", x_label, "95 % from", "to"),
        rows=tuple((d.name, _number(d.value), _number(d.low), _number(d.high)) for d in drawn),
    )


@_styled
def scatter(name: str, title: str, points: Sequence[tuple[str, float, float]], *, x_label: str, y_label: str) -> Plot:
    """Draw values over a number that varies; on a logarithmic axis where it varies more than thirtyfold."""
    figure, axes = _figure()
    groups = list(dict.fromkeys(group for group, *_ in points))
    for n, group in enumerate(groups):
        x, y = (np.array(v) for v in zip(*[(a, b) for g, a, b in points if g == group], strict=True))
        order = np.argsort(x, kind="stable")
        middle = np.unique(x)
        look: dict[str, Any] = {"color": SERIES[n % len(SERIES)], "markersize": 5}
        axes.plot(x[order], y[order], linestyle="none", marker=MARKERS[n % len(MARKERS)], label=group, **look)
        axes.plot(middle, [y[x == m].mean() for m in middle], linestyle=DASHES[n % len(DASHES)], linewidth=1.2, **look)
    values = [x for _, x, _ in points]
    if min(values) > 0 and max(values) > 30 * min(values):
        axes.set_xscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(groups) > 1:
        axes.legend(frameon=False, loc="best", labelcolor=INK)
    best = max(points, key=lambda point: point[2])
    return Plot(
        name=name,
        title=title,
        summary=f"{title}: the highest of {len(points)} is {_number(best[2])} at {x_label} {_number(best[1])}.",
        svg=_svg(figure, name),
        header=("", x_label, y_label),
        rows=tuple((group, _number(x), _number(y)) for group, x, y in points[:MOST_ROWS]),
    )


@_styled
def precision_recall(name: str, scores: np.ndarray, hot: np.ndarray, classes: Sequence[str]) -> Plot:
    """Draw the curve of every class and that of all decisions together.

    Parameters
    ----------
    scores : [videos, N] floating
    hot : [videos, N] bool
    """
    figure, axes = _figure()
    drawn = [n for n in range(len(classes)) if hot[:, n].any()]
    choices, rows = [], []
    for n in drawn:
        recall, precision, average = _curve(scores[:, n], hot[:, n])
        (line,) = axes.plot(recall, precision, color=SERIES[5], linewidth=0.9, alpha=0.55)
        line.set_gid(f"{name}-class{n}")
        choices.append((f"{name}-class{n}", classes[n]))
        rows.append((classes[n], str(int(hot[:, n].sum())), _number(average)))
    recall, precision, average = _curve(scores.ravel(), hot.ravel())
    (line,) = axes.plot(recall, precision, color=SERIES[0], linewidth=2.2, label="all classes together")
    line.set_gid(f"{name}-all")
    axes.plot([], [], color=SERIES[5], linewidth=0.9, alpha=0.8, label="one class each")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.05)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.legend(frameon=False, loc="lower left", labelcolor=INK)
    return Plot(
        name=name,
        title="Every class, and all decisions together",
        summary=(
            f"Precision over recall of {len(drawn)} classes; of all decisions together the average precision is "
            f"{_number(average)}."
        ),
        svg=_svg(figure, name),
        header=("class", "videos", "average precision"),
        rows=(("all classes together", str(int(hot.sum())), _number(average)), *rows),
        choices=tuple(choices),
    )


def _curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Recall, precision [at most _POINTS] and average precision; equal scores are one step."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    hits = np.cumsum(positive[order])[ends]
    recall, precision = hits / hits[-1], hits / (ends + 1)
    average = float((np.diff(recall, prepend=0.0) * precision).sum())
    kept = np.unique(np.linspace(0, len(ends) - 1, _POINTS).round().astype(int))
    return recall[kept], precision[kept], average


def _figure(height: float = SIZE_INCHES[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(SIZE_INCHES[0], height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    return figure, axes


def _svg(figure: Figure, name: str) -> Markup:
    """Return the figure as an SVG element with the page's colours; the same figure gives the same text."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for side in ("width", "height"):  # the page says how large it is
        svg = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", svg, count=1)
    for stand_in, colour in _PAGE.items():
        svg = svg.replace(f": {stand_in}", f": {colour}")
    # ids are the page's, and several plots stand in it
    svg = re.sub(r'<g id="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend)_\d+"', "<g", svg)
    svg = svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
    return Markup(svg)  # matplotlib escapes the texts in it


def _shortened(text: str, most: int = 28) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) > 1 else f"{value:.4g}"
