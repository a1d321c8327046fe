"""What every head agrees on: what it takes, what it returns, how it is configured, and how it is fitted by default."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError


@dataclass(frozen=True, kw_only=True)
class StreamShape:
    """The cubes that one stream delivers: `[K, K, D]` per segment, K = `grid`, D = `channels`."""

    name: str
    grid: int
    channels: int

    def __post_init__(self) -> None:
        if self.grid < 1 or self.channels < 1:
            raise UsageError(f"Stream {self.name!r}: a cube of {self.grid} x {self.grid} x {self.channels} is empty.")


@dataclass(frozen=True, eq=False, repr=False)
class HeadOutput:
    """Scores and attention of one batch; K is the largest grid among the streams.

    Raises
    ------
    ValueError
        If the shapes contradict each other.
    """

    logits: Tensor  # [B, N] float32, unnormalised class scores
    representation: Tensor  # [B, R] float32, what the classifier saw (before dropout)
    spatial: Tensor | None  # [B, T, M, K, K] float32, 0 on padding; None if the head attends to no cell
    temporal: Tensor  # [B, T] float32, sums to 1 over the valid segments, 0 on padding
    temporal_raw: Tensor | None = None  # [B, T] float32, scores before the softmax, 0 on padding
    parts: Mapping[str, Tensor] = field(default_factory=dict)  # what else the head's own loss and pipelines read

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.temporal.ndim != 2:
            raise ValueError(f"logits must be [B, N] and temporal [B, T]: {self!r}")
        (B, _), T = self.logits.shape, self.temporal.shape[1]
        fits = (
            self.representation.ndim == 2
            and self.representation.shape[0] == self.temporal.shape[0] == B
            and (self.temporal_raw is None or self.temporal_raw.shape == (B, T))
        )
        if self.spatial is not None:
            fits = fits and self.spatial.ndim == 5 and self.spatial.shape[:2] == (B, T)
            fits = fits and self.spatial.shape[3] == self.spatial.shape[4]
        if not fits:
            raise ValueError(f"shapes contradict each other: {self!r}")

    def __repr__(self) -> str:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "parts"} | dict(self.parts)
        return f"HeadOutput({', '.join(f'{k}={None if v is None else list(v.shape)}' for k, v in tensors.items())})"


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What all heads can be told; a head's own `Config` adds its fields, whose defaults are the paper's.

    Raises
    ------
    UsageError
        If a field has a value that it cannot mean.
    """

    loss: Literal["softmax", "sigmoid"] = "softmax"  # softmax: cross-entropy; sigmoid: one yes/no per class

    reads_windows: ClassVar[bool] = False  # whether `on_windows` does something

    @property
    def sources(self) -> tuple[str, ...]:
        """Runs and files of weights that `load_pretrained` takes from: what they were fitted on, this head has seen."""
        return ()

    def __post_init__(self) -> None:
        require_choice(self, "loss", ("softmax", "sigmoid"))

    def on_windows(self, length: int) -> Self:
        """Return what this is on a store whose segments are windows of `length` frames, laid end to end.

        The store's sampler has cut the videos already, with windows that may overlap: a head that cuts clips takes
        those windows.

        Raises
        ------
        UsageError
            If the settings ask for clips that the windows are not.
        """
        return self


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What every way of fitting a head can be told: training step by step (`FitDefaults`), or a solver (`SvmFit`).

    Raises
    ------
    UsageError
        If a field has a value that it cannot mean.
    """

    batch_videos: int = 128  # read and scored at a time

    def __post_init__(self) -> None:
        require_range(self, "batch_videos", least=1)

    @property
    def inert(self) -> frozenset[str]:
        """Settings that do nothing beside the others as they are."""
        return frozenset()


@dataclass(frozen=True, kw_only=True)
class FitDefaults(FitSettings):
    """How a head is trained unless the user says otherwise; the defaults are STAN's (spec section 12).

    Raises
    ------
    UsageError
        If a field has a value that it cannot mean.
    """

    optimiser: Literal["sgd", "adam", "rmsprop"] = "sgd"  # rmsprop: decay of the squares 0.9
    lr: float = 1e-3  # at step 0
    momentum: float = 0.9  # of sgd
    weight_decay: float = 5e-4
    steps: int = 15_000  # optimiser steps in all
    schedule: Literal["steps", "cosine", "plateau"] = "steps"
    milestones: tuple[int, ...] = (4_000, 8_000, 12_000)  # of `steps`: multiply the rate by `factor` at each
    factor: float = 0.1  # of `steps` and `plateau`
    patience: int = 5  # of `plateau`: validations without a lower loss before the rate falls
    validate_every: int = 250  # steps
    early_stopping: int | None = None  # validations without a better one after which the fit ends; None = none

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.early_stopping is not None:
            require_range(self, "early_stopping", least=1)
        require_choice(self, "optimiser", ("sgd", "adam", "rmsprop"))
        require_choice(self, "schedule", ("steps", "cosine", "plateau"))
        require_range(self, "lr", above=0.0)
        require_range(self, "momentum", least=0.0, below=1.0)
        require_range(self, "weight_decay", least=0.0)
        require_range(self, "factor", above=0.0, below=1.0)
        for name in ("steps", "patience", "validate_every"):
            require_range(self, name, least=1)
        if any(m < 1 for m in self.milestones) or list(self.milestones) != sorted(set(self.milestones)):
            raise UsageError(f"Setting milestones={self.milestones}: must be rising step numbers, 1 or more.")

    @property
    def inert(self) -> frozenset[str]:
        """Settings that do nothing beside the others as they are, such as the momentum of Adam."""
        acting = {
            "momentum": self.optimiser == "sgd",
            "milestones": self.schedule == "steps",
            "factor": self.schedule in ("steps", "plateau"),
            "patience": self.schedule == "plateau",
        }
        return frozenset(name for name, acts in acting.items() if not acts)


def require_choice(config: object, name: str, choices: Sequence[str]) -> None:
    """Refuse a field whose value is none of `choices`."""
    value = getattr(config, name)
    if value not in choices:
        raise UsageError(f"Setting {name}={value!r}: must be one of {', '.join(choices)}.")


def require_range(
    config: object, name: str, *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> None:
    """Refuse a field whose number is not finite, under `least`, not over `above`, or not under `below`."""
    value = getattr(config, name)
    if not math.isfinite(value) or value < least or value <= above or value >= below:
        limits = [(least, "at least"), (above, "more than"), (below, "less than")]
        rule = " and ".join(f"{word} {limit:g}" for limit, word in limits if math.isfinite(limit))
        raise UsageError(f"Setting {name}={value}: must be {rule}.")


class Head(nn.Module, ABC):
    """A model from cubes to class scores and attention maps.

    Parameters
    ----------
    streams : the streams it reads, in the order in which `forward` gets their cubes
    classes : N, at least 2
    config : an instance of the head's own `Config`

    Raises
    ------
    UsageError
        Without streams, on a stream named twice, on another number of streams than the head is defined for, or with
        fewer than two classes.
    """

    Config: ClassVar[type[HeadConfig]]
    inert: ClassVar[frozenset[str]] = frozenset()  # parameters that get no gradient by design of the paper
    logged: ClassVar[tuple[str, ...]] = ()  # parts [B, T, ...] whose means over valid segments the history tells
    stream_count: ClassVar[int | None] = None  # a head that is defined for so many streams only; None = any number
    spatial_sums_to_one: ClassVar[bool] = True  # False: masks in 0..1 (sigmoid), not distributions over cells
    score_kind: ClassVar[str] = "class probabilities"  # what `scores` returns, in the words of a report

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: HeadConfig) -> None:
        super().__init__()
        names = [stream.name for stream in streams]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"Head {type(self).__name__}: needs one or more different streams, got {names}.")
        if self.stream_count not in (None, len(names)):
            raise UsageError(
                f"Head {type(self).__name__}: needs {self.stream_count} streams, got {len(names)} ({names})."
            )
        if classes < 2:
            raise UsageError(f"Head {type(self).__name__}: needs two or more classes, got {classes}.")
        self.streams, self.classes = tuple(streams), classes
        self.loss_kind = config.loss

    @abstractmethod
    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos.

        Parameters
        ----------
        cubes : per stream [B, T, K, K, D] of any floating dtype, channels last; the content of padding is ignored
        valid : [B, T] bool, True = a real segment; each video has one or more, and padding only follows them

        Raises
        ------
        ValueError
            If a shape or `valid` breaks these rules.
        """

    def branch_logits(self, output: HeadOutput) -> dict[str, Tensor]:
        """Return the scores [B, N] of each branch of a head that fuses several, as `output.logits` are; else nothing.

        The names are those of `fuse RUN:BRANCH`: a stream's for a head with a branch per stream.
        """
        return {}

    def load_pretrained(self) -> None:
        """Take the weights that the configuration names files for; called once, before a fit begins.

        A fitted head has them among its own weights: whoever loads one need not have the files.
        """

    def loss(self, output: HeadOutput, target: Tensor, *, step: int = 0) -> Tensor:
        """Return the training loss.

        Parameters
        ----------
        output : what `forward` returned
        target : [B] int64 class indices, or [B, N] multi-hot with one or more labels per video
        step : counts from 0; heads that train their branches in turn read it

        Returns
        -------
        () float32, the mean over the batch
        """
        return classification_loss(output.logits, target, kind=self.loss_kind)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities [B, N]: a distribution (softmax), or one yes/no per class (sigmoid)."""
        return logits.softmax(-1) if self.loss_kind == "softmax" else logits.sigmoid()

    def scores(self, logits: Tensor) -> Tensor:
        """Return what evaluations rank by and runs keep, [B, N], higher = more likely: the probabilities."""
        return self.probabilities(logits)


def classification_loss(logits: Tensor, target: Tensor, *, kind: str) -> Tensor:
    """Cross-entropy against the label or the normalised multi-hot vector, or the mean of yes/no losses over classes.

    Parameters
    ----------
    logits : [B, N] float32
    target : [B] int64, or [B, N] multi-hot of any dtype
    kind : "softmax" or "sigmoid"

    Returns
    -------
    () float32, the mean over the batch
    """
    if kind == "sigmoid":
        hot = functional.one_hot(target, logits.shape[1]) if target.ndim == 1 else target
        return functional.binary_cross_entropy_with_logits(logits, hot.to(logits.dtype))
    if target.ndim == 2:
        target = target.to(logits.dtype)
        target = target / target.sum(1, keepdim=True)  # several labels share the probability mass (spec 3.2)
    return functional.cross_entropy(logits, target)


def check_batch(streams: Sequence[StreamShape], cubes: Sequence[Tensor], valid: Tensor) -> None:
    """Refuse a batch that breaks the rules of `Head.forward`.

    Raises
    ------
    ValueError
        Naming the stream and both shapes, or the rule on `valid`.
    """
    if len(cubes) != len(streams):
        raise ValueError(f"the head reads {len(streams)} streams ({[s.name for s in streams]}), got {len(cubes)}")
    if valid.ndim != 2 or valid.dtype != torch.bool:
        raise ValueError(f"valid must be [B, T] bool, got {list(valid.shape)} {valid.dtype}")
    for stream, cube in zip(streams, cubes, strict=True):
        shape = (*valid.shape, stream.grid, stream.grid, stream.channels)
        if cube.shape != shape or not cube.is_floating_point():
            raise ValueError(
                f"stream {stream.name!r}: expected floating {list(shape)}, got {list(cube.shape)} {cube.dtype}"
            )
    if not bool((valid[:, 0].all() & (valid[:, 1:] <= valid[:, :-1]).all()).item()):
        raise ValueError("valid: each video needs one or more valid segments, and padding must only follow them")
