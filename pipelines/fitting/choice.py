"""A preset for a fit that was given none: by videos and device, said in one line with what it costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...errors import UsageError
from ...heads.contract import FitDefaults, StreamShape
from ...heads.registry import (
    HeadSettings,
    build_from_settings,
    default_preset,
    preset_names,
    resolve_settings,
    trained_head_names,
)
from ..durations import rough_text
from ..runs.run import Run
from .training import build_optimiser

MANY_VIDEOS = 1_000
"""Training videos from which, on a GPU, the papers' configurations are taken: they were made for thousands."""
PATIENCE = 6
"""Validations without a better one after which a fit by `small` ends that nobody chose: half of those it has."""
_FEW, _MOST_BYTES, _MOST_SEGMENTS = 4, 1 << 28, 200
"""Videos of the larger of two timed steps, what their cubes may take, and segments of each: longer ones are scaled."""
_LONG_SECONDS = 0.5
"""A step on one video that takes so long is the only one that is timed."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A preset, and settings beside it that the user's go over."""

    preset: str
    settings: Mapping[str, str] = field(default_factory=dict)
    automatic: bool = False  # by videos and device: to be told


def choose_preset(head: str, *, videos: int, device: torch.device) -> Choice:
    """Choose by data and device: the papers' configurations take hours on a CPU, and need thousands of videos.

    Parameters
    ----------
    videos : of the training list, those that are held out included
    """
    large = default_preset(head)
    if head not in trained_head_names():
        return Choice(preset=large)  # a solver takes seconds
    if "small" not in preset_names(head) or (device.type == "cuda" and videos >= MANY_VIDEOS):
        return Choice(preset=large, automatic=True)
    return Choice(preset="small", settings={"early_stopping": str(PATIENCE)}, automatic=True)


def chosen_before(head: str, run: Run) -> Choice | None:
    """Return the choice by which a run was begun: what continues it must not depend on today's device."""
    if run.identity.head != head:
        return None
    patience = run.identity.settings.fit.get("early_stopping")
    return Choice(preset=run.identity.preset, settings={} if patience is None else {"early_stopping": str(patience)})


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a fit reads, as far as its time depends on it."""

    streams: Sequence[StreamShape]
    classes: int
    multi_label: bool
    segments: int  # of a video in the middle
    listed: int  # videos of the training list
    videos: int  # of those, to train on
    device: torch.device


def choice_line(settings: HeadSettings, given: Mapping[str, str], material: Material) -> str:
    """Return what was chosen, what it costs here, and what the other preset would.

    Parameters
    ----------
    settings : the chosen ones
    given : the user's own, which go into the other preset too
    """
    names = [name for name in (default_preset(settings.name), "small") if name in preset_names(settings.name)]
    other = next((name for name in names if name != settings.preset), None)
    data = f"{material.listed} training videos, {material.device}"
    line = f"{data}: preset {settings.preset}, {_cost(settings, material)}"
    if other is None:
        return line
    told = f"{line}; --preset {other} is "
    try:
        return told + _cost(resolve_settings(settings.name, other, given), material)
    except UsageError as error:
        return f"{told}not possible here: {error}"


def _cost(settings: HeadSettings, material: Material) -> str:
    """Return the steps and, on a CPU, about how long they take: two steps are timed, on one and on a few videos."""
    fit = settings.fit
    if not isinstance(fit, FitDefaults):
        raise UsageError(f"Head {settings.name!r} is not trained step by step.")
    papers = "the paper's " if settings.preset == "paper" else ""
    most = "at most " if fit.early_stopping else ""
    words = f"{papers}{most}{fit.steps:,} steps of {min(fit.batch_videos, material.videos)} videos"
    if material.device.type != "cpu":
        return words  # steps on few videos say nothing of a GPU; the fit tells its time after its first steps
    try:
        seconds = fit.steps * step_seconds(settings, material)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        return f"{words} (a step could not be timed: it does not fit in memory)"
    return f"{words}, about {rough_text(seconds)}"


def step_seconds(settings: HeadSettings, material: Material) -> float:
    """Time steps on noise, on one and on a few videos, and go on in a straight line to a batch.

    An estimate: larger batches are computed somewhat better, and where one video alone takes long it stands for all.
    PyTorch's generator is left as it was.

    Raises
    ------
    UsageError
        If the head cannot read such streams.
    """
    fit = settings.fit
    assert isinstance(fit, FitDefaults)
    batch = min(fit.batch_videos, material.videos)
    T = min(material.segments, _MOST_SEGMENTS)
    cells = sum(stream.grid**2 * stream.channels for stream in material.streams)
    few = max(2, min(_FEW, batch, _MOST_BYTES // (4 * cells * T)))
    with torch.random.fork_rng(devices=[]):
        head = build_from_settings(settings, streams=material.streams, classes=material.classes).train()
        optimiser = build_optimiser(head, fit)

        def seconds(videos: int) -> float:
            shapes = [(videos, T, stream.grid, stream.grid, stream.channels) for stream in material.streams]
            cubes = [torch.randn(shape, dtype=torch.float32).half() for shape in shapes]
            target = torch.zeros((videos, material.classes) if material.multi_label else videos)
            started = time.perf_counter()
            output = head(cubes, torch.ones(videos, T, dtype=torch.bool))
            loss = head.loss(output, target if material.multi_label else target.long())
            loss.backward()
            optimiser.step()
            return time.perf_counter() - started

        first = seconds(1)  # allocates, too
        if first > _LONG_SECONDS:
            return first * batch * material.segments / T
        one, several = (min(seconds(videos) for _ in range(2)) for videos in (1, few))
    each = max(0.0, several - one) / (few - 1)
    return (one + (batch - 1) * each) * material.segments / T
