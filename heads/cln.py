"""The collaborative learning network of TCLSTA: each of two streams attends to its frames guided by the other.

Section II-B of the paper (see tclsta.py), Eqs (7) to (9) and Algorithm 1; docs/tclsta.md says what was decided and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import UsageError, WeightsError
from .contract import HeadOutput, StreamShape, classification_loss, require_choice, require_range
from .fusion.score_fusion import fuse_probabilities
from .layers.attention import attention_pool, attention_weights
from .layers.pretrained import place_branches, read_weights, take
from .layers.segments import Segments
from .layers.starting import classifier
from .tclsta import Tclsta, TclstaConfig

TOLERANCE = 1e-4
"""A video has settled when its last round moved no coefficient z by this much."""


@dataclass(frozen=True, kw_only=True)
class TclstaClnConfig(TclstaConfig):
    """The width and the number of rounds are left open by the paper."""

    cln: int = 512  # k, rows of the W matrices
    rounds: int = 1  # of Algorithm 1 per step, 5 at most: at fixed weights it need not converge
    joint: bool = False  # the collaborative losses train the branches, too
    first: Literal["static", "motion"] = "static"  # which stream the first step updates; then they take turns
    branches: tuple[str, ...] = ()  # runs of `tclsta`, one per stream or one of both, whose branches are taken
    freeze_branches: bool = False  # and stay as they are: the paper's second stage

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "first", ("static", "motion"))
        if len(self.branches) > 2 or len(set(self.branches)) < len(self.branches):
            raise UsageError(f"Setting branches={','.join(self.branches)}: must be one or two different runs.")
        if self.freeze_branches and not self.branches:
            raise UsageError("Setting freeze_branches=true: needs branches, or they would stay as they start.")
        if self.freeze_branches and self.joint:
            raise UsageError("Settings freeze_branches and joint: frozen branches cannot be trained along; drop one.")
        require_range(self, "cln", least=1)
        require_range(self, "rounds", least=1, below=6)

    @property
    def sources(self) -> tuple[str, ...]:
        """See `HeadConfig.sources`."""
        return self.branches


class GuidedAttention(nn.Module):
    """Eqs (7) to (9): attention over the frames of one stream, guided by the video feature of the other."""

    def __init__(self, channels: int, guide_channels: int, width: int) -> None:
        super().__init__()
        self.of_frames = nn.Linear(channels, width, bias=False)  # W
        self.of_guide = nn.Linear(guide_channels, width, bias=False)  # W_o
        self.of_hidden = nn.Linear(width, 1, bias=False)  # W_h
        for linear in (self.of_frames, self.of_guide, self.of_hidden):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, frames: Tensor, guide: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D] and [B, G] -> coefficients z [B, T] and their scores before the softmax [B, T]."""
        hidden = (self.of_frames(frames) + self.of_guide(guide).unsqueeze(1)).tanh()  # Eq (7)
        scores = self.of_hidden(hidden).squeeze(-1)
        return attention_weights(scores, valid), scores.masked_fill(~valid, 0)  # Eq (8)


@dataclass(frozen=True, eq=False)
class Collaboration:
    """What the two streams agreed on; first the static one, then the motion one."""

    z: tuple[Tensor, Tensor]  # [B, T] each, coefficients over frames
    scores: tuple[Tensor, Tensor]  # [B, T] each, before the softmax
    features: tuple[Tensor, Tensor]  # [B, D] each, O of Eq (9)
    settled: Tensor  # [B] bool, whether the last round moved no coefficient by `TOLERANCE`


class CollaborativeLearning(nn.Module):
    """Algorithm 1 with a fixed number of rounds; the stream that guides is a constant to the one that is guided.

    Parameters
    ----------
    channels : of the static and the motion stream's frame features
    width : k
    rounds : 1 or more
    """

    def __init__(self, channels: tuple[int, int], width: int, *, rounds: int = 1) -> None:
        super().__init__()
        self.rounds = rounds
        self.static = GuidedAttention(channels[0], channels[1], width)
        self.motion = GuidedAttention(channels[1], channels[0], width)

    def forward(self, static: Tensor, motion: Tensor, valid: Tensor) -> Collaboration:
        """Frame features [B, T, D] of both streams, 0 on padding."""
        z_s = z_m = Segments(valid).uniform()  # line 1
        for _ in range(self.rounds):
            before = z_s, z_m
            z_m, scores_m = self.motion(motion, attention_pool(static, z_s).detach(), valid)  # lines 3 and 4
            z_s, scores_s = self.static(static, attention_pool(motion, z_m).detach(), valid)  # lines 5 and 6
        moved = torch.maximum((z_s - before[0]).abs(), (z_m - before[1]).abs()).detach().amax(1)
        features = attention_pool(static, z_s), attention_pool(motion, z_m)  # Eq (9)
        return Collaboration((z_s, z_m), (scores_s, scores_m), features, moved < TOLERANCE)


class TclstaCln(Tclsta):
    """TCLSTA's two branches, and the collaborative learning network on their attended frames.

    The first stream is the static one, the second the motion one.
    """

    Config = TclstaClnConfig
    stream_count = 2

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: TclstaClnConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        channels = streams[0].channels, streams[1].channels
        self.joint, self.first = config.joint, config.first
        self.sources, self.unloaded = config.branches, bool(config.branches)
        if config.freeze_branches:
            self.branches.requires_grad_(False)
        self.collaboration = CollaborativeLearning(channels, config.cln, rounds=config.rounds)
        self.static_classifier = classifier(channels[0], classes)
        self.motion_classifier = classifier(channels[1], classes)

    def load_pretrained(self) -> None:
        """Take the trained branches that `branches` names.

        Raises
        ------
        WeightsError
            If a stream has no run or two, or a run's branch is of other sizes.
        """
        if self.sources:
            places = place_branches([stream.name for stream in self.streams], self.sources)
            for branch, (source, place) in zip(self.branches, places, strict=True):
                prefix = f"branches.{place}."
                given = {
                    k.removeprefix(prefix): v for k, v in read_weights(Path(source)).items() if k.startswith(prefix)
                }
                take(branch.state_dict(), {source: given})
        self.unloaded = False

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`. The attention over segments is the mean of both streams' z.

        `parts` holds those of `Tclsta`, and `static` and `motion` [B, T, N], the logits of both streams, and `settled`
        [B, T], whether the rounds converged, each repeated over the valid segments.
        """
        if self.training and self.unloaded:
            raise WeightsError("A head with branches is trained after `load_pretrained` only.")
        base = super().forward(cubes, valid)
        features = base.parts["beta_hat"] if self.joint else base.parts["beta_hat"].detach()
        static, motion = features.split([stream.channels for stream in self.streams], -1)
        agreed = self.collaboration(static, motion, valid)
        # apart, not stacked: the stream whose turn it is not must get no gradient at all, for a gradient of zeros
        # would still move its weights by momentum and weight decay
        scores = [self.static_classifier(agreed.features[0]), self.motion_classifier(agreed.features[1])]  # [B, N] each
        parts = dict(base.parts) | {
            "static": scores[0].unsqueeze(1) * valid.unsqueeze(-1),
            "motion": scores[1].unsqueeze(1) * valid.unsqueeze(-1),
            "settled": (agreed.settled.unsqueeze(1) & valid).float(),
        }
        return HeadOutput(
            logits=fuse_probabilities(torch.stack(scores, 1), kind=self.loss_kind),
            representation=torch.cat(agreed.features, -1),
            spatial=base.spatial,
            temporal=torch.stack(agreed.z).mean(0),
            temporal_raw=torch.stack(agreed.scores).mean(0),
            parts=parts,
        )

    def branch_logits(self, output: HeadOutput) -> dict[str, Tensor]:
        """Return the logits [B, N] of both streams, after they have learned from each other."""
        return {s.name: output.parts[part][:, 0] for s, part in zip(self.streams, ("static", "motion"), strict=True)}

    def loss(self, output: HeadOutput, target: Tensor, *, step: int = 0) -> Tensor:
        """Return TCLSTA's losses, and one stream's collaborative loss in turn: that of `first` at even steps.

        In evaluation both are added, so that validation losses can be compared.
        """
        order = ("static", "motion") if self.first == "static" else ("motion", "static")
        turns = (order[step % 2],) if self.training else order
        # the first segment is always valid
        losses = [classification_loss(output.parts[name][:, 0], target, kind=self.loss_kind) for name in turns]
        return super().loss(output, target, step=step) + torch.stack(losses).sum()
