"""Linear support vector machines on video vectors: STAN's encoded baselines, and any fitted head's representation.

Li et al., IEEE TMM 2019, runs 1 to 4. A video's vector per stream has length 1; the streams' vectors side by side are
early fusion, scaled to length 1 again. The weights are learned in `svm_solver.py`, not by gradient; afterwards the head
is like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import UsageError
from ..contract import (
    FitSettings,
    Head,
    HeadConfig,
    HeadOutput,
    StreamShape,
    check_batch,
    require_choice,
    require_range,
)
from ..layers.segments import Segments
from .encodings import CellMean, Codebook, Flat, FullyConnected, Vlad
from .solver import machine_count


@dataclass(frozen=True, kw_only=True)
class SvmFit(FitSettings):
    """How the weights are learned.

    Raises
    ------
    UsageError
        If a field has a value that it cannot mean.
    """

    batch_videos: int = 32
    C: float | None = None  # None = by cross-validation over whole groups of the training videos
    grid: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0)  # from which C is chosen; a tie goes to the smaller
    folds: int = 3  # of the cross-validation
    refit: bool = True  # once C is chosen and the validation part is scored, learn from both parts

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.C is not None:
            require_range(self, "C", above=0.0)
        require_range(self, "folds", least=2)
        if not self.grid or any(not 0 < C < float("inf") for C in self.grid) or list(self.grid) != sorted(self.grid):
            raise UsageError(f"Setting grid={self.grid}: must be rising numbers above 0, such as 0.1,1,10.")

    @property
    def inert(self) -> frozenset[str]:
        """Settings that do nothing beside the others as they are: nothing is tried where C is given."""
        return frozenset() if self.C is None else frozenset({"grid", "folds"})


@dataclass(frozen=True, kw_only=True)
class SvmConfig(HeadConfig):
    """What the machines are; `loss` says how probabilities are made of decision values: softmax or sigmoid."""

    form: Literal["one-vs-rest", "one-vs-one"] = "one-vs-rest"  # squared hinge; LIBSVM's pairs with hinge

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "form", ("one-vs-rest", "one-vs-one"))


@dataclass(frozen=True, kw_only=True)
class VladConfig(SvmConfig):
    """The machines, and VLAD of a video's local descriptors."""

    pca: int = 256  # components, at most D
    whiten: bool = False
    clusters: int = 128
    signed_root: bool = True
    intra: bool = True  # each cluster's part to length 1
    overall: bool = True  # the whole to length 1
    descriptors: int = 1_000_000  # of the training videos, by which components and clusters are learned

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pca", "clusters", "descriptors"):
            require_range(self, name, least=1)


class Svm(Head):
    """Linear machines on a video vector of length 1; what the vector is, subclasses say.

    `logits` are the decision values of the classes (one-vs-one: votes, ties broken by the sums of the pairs' decision
    values, as scikit-learn does). They rank videos and classes; `probabilities` are their softmax or sigmoid, which is
    not calibrated.
    """

    Config: ClassVar[type[HeadConfig]] = SvmConfig
    score_kind = "decision values"
    coefficients: Tensor
    intercepts: Tensor

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: HeadConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        if not isinstance(config, SvmConfig):
            raise UsageError(f"Head {type(self).__name__} is configured by SvmConfig, not {type(config).__name__}.")
        self.form = config.form

    def _make_machines(self, length: int) -> None:
        """Make room for the weights: R = `length`."""
        P = machine_count(self.classes, self.form)
        self.register_buffer("coefficients", torch.zeros(P, length))
        self.register_buffer("intercepts", torch.zeros(P))

    def scores(self, logits: Tensor) -> Tensor:
        """Return the decision values as they are."""
        return logits

    def from_decisions(self, decisions: Tensor) -> Tensor:
        """Scores of the classes [B, N] from what the machines say, [B, P]."""
        return decisions if self.form == "one-vs-rest" else votes(decisions, self.classes)

    def _score(self, vectors: Tensor) -> Tensor:
        return self.from_decisions(vectors @ self.coefficients.T + self.intercepts)


class EncodedSvm(Svm):
    """A machine on the encoded cubes of each stream; `encode` returns the video vectors [B, R]."""

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: SvmConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        encoders = [self._encoder(stream, config) for stream in streams]
        self.encoders = nn.ModuleList(encoders)
        self._make_machines(sum(encoder.length for encoder in encoders))

    def _encoder(self, stream: StreamShape, config: SvmConfig) -> FullyConnected | Flat | CellMean | Vlad:
        raise UsageError(f"Head {type(self).__name__} has no encoding.")

    def encode(self, cubes: Sequence[Tensor], valid: Tensor) -> Tensor:
        """Return the video vectors, [B, R] float32 of length 1 (0 for a video of zeros); arguments as `forward`."""
        check_batch(self.streams, cubes, valid)
        lengths = valid.sum(1).tolist()
        sides = [
            torch.stack([encoder(video[:T]) for video, T in zip(cube, lengths, strict=True)])
            for encoder, cube in zip(self.encoders, cubes, strict=True)
        ]  # each [B, R of the stream]
        return functional.normalize(torch.cat([functional.normalize(side, dim=1) for side in sides], 1), dim=1)

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`."""
        vectors = self.encode(cubes, valid)
        return HeadOutput(self._score(vectors), vectors, None, Segments(valid).uniform())


class SvmFc6(EncodedSvm):
    """On the mean over segments of a vector layer."""

    def _encoder(self, stream: StreamShape, config: SvmConfig) -> FullyConnected:
        return FullyConnected(stream)


class SvmPool5Flat(EncodedSvm):
    """On the mean over segments of the flattened grid."""

    def _encoder(self, stream: StreamShape, config: SvmConfig) -> Flat:
        return Flat(stream)


class SvmPool5Mean(EncodedSvm):
    """On the mean over segments and cells."""

    def _encoder(self, stream: StreamShape, config: SvmConfig) -> CellMean:
        return CellMean(stream)


class SvmVlad(EncodedSvm):
    """On VLAD of all local descriptors of a video."""

    Config = VladConfig

    def _encoder(self, stream: StreamShape, config: SvmConfig) -> Vlad:
        if not isinstance(config, VladConfig):
            raise UsageError(f"Head SvmVlad is configured by VladConfig, not {type(config).__name__}.")
        return Vlad(
            stream,
            components=config.pca,
            clusters=config.clusters,
            signed_root=config.signed_root,
            intra=config.intra,
            overall=config.overall,
        )

    def take_codebook(self, number: int, codebook: Codebook) -> None:
        """Take over the codebook learned for one of the streams."""
        encoder = self.encoders[number]
        if isinstance(encoder, Vlad):  # always; the list does not say so
            encoder.take(codebook)


class SvmOn(Svm):
    """On the representation of a fitted head, whose attention it keeps.

    Parameters
    ----------
    on : the fitted head; it is frozen, and its weights are among this head's own
    """

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: HeadConfig, on: Head) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        self.on = on.requires_grad_(False).eval()
        segment = [torch.zeros(1, 1, s.grid, s.grid, s.channels) for s in streams]
        with torch.inference_mode():
            length = on(segment, torch.ones(1, 1, dtype=torch.bool)).representation.shape[1]
        self._make_machines(length)

    def encode(self, cubes: Sequence[Tensor], valid: Tensor) -> Tensor:
        """Return the head's representation, [B, R] float32 of length 1."""
        self.on.eval()
        return functional.normalize(self.on(cubes, valid).representation, dim=1)

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`."""
        seen = self.on.eval()(cubes, valid)
        vectors = functional.normalize(seen.representation, dim=1)
        return HeadOutput(self._score(vectors), vectors, seen.spatial, seen.temporal, seen.temporal_raw)


def votes(decisions: Tensor, classes: int) -> Tensor:
    """Count the votes of one-vs-one machines.

    Parameters
    ----------
    decisions : [B, N (N - 1) / 2] in the order (0, 1), (0, 2), ..., (1, 2), ...; above 0 = the first of the pair
    classes : N

    Returns
    -------
    [B, N]: the number of pairs won, plus a third of s / (|s| + 1), where s sums the pairs' decision values for the
    class: it breaks ties and moves no vote
    """
    first, second = torch.triu_indices(classes, classes, 1, device=decisions.device)
    first = functional.one_hot(first, classes).to(decisions.dtype)  # [P, N]
    second = functional.one_hot(second, classes).to(decisions.dtype)
    won = (decisions > 0).to(decisions.dtype)
    confidence = decisions @ (first - second)
    return won @ first + (1 - won) @ second + confidence / (3 * (confidence.abs() + 1))
