"""TCLSTA: class activation maps over cells, affinity of LSTM states over frames, one branch per stream.

Peng, Zhao and Zhang, "Two-stream Collaborative Learning with Spatial-Temporal Attention for Video Classification",
IEEE TCSVT 2019. Equation numbers are the paper's; docs/tclsta.md says what was decided and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Head, HeadConfig, HeadOutput, StreamShape, check_batch, require_choice, require_range
from .fusion.score_fusion import fuse_probabilities
from .layers.attention import attention_pool, attention_weights, resample_maps
from .layers.recurrent import Lstm
from .layers.segments import Segments
from .layers.starting import classifier, he_conv
from .layers.step_scores import segment_loss


@dataclass(frozen=True, kw_only=True)
class TclstaConfig(HeadConfig):
    """The paper's sizes; the class of the maps, the scale of the affinity and the step loss are left open by it."""

    cam: int = 1024  # filters of the convolution under the class activation map
    relu: bool = True  # after it
    # whose map: the class that the frame is taken for, the true one in training, or all by their probabilities
    cam_class: Literal["predicted", "gt_train", "soft"] = "predicted"
    detach_map: bool = False  # no gradient through the map into the classifier's weights
    lstm: int = 512  # hidden units of the temporal attention
    affinity_scale: bool = False  # inner products of states by 1 / sqrt(lstm), before the tanh
    gamma_mean: bool = False  # relevance divided by the number of frames, before the softmax
    step_loss: Literal["mean", "last"] = "mean"  # LSTM's loss: over all steps, or at the last one
    spatial: bool = True  # False: plain pooling over cells, the paper's ablation
    temporal: bool = True  # False: plain mean over frames, the paper's ablation
    dropout: float = 0.0  # before the classifiers of frames and steps

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "cam_class", ("predicted", "gt_train", "soft"))
        require_choice(self, "step_loss", ("mean", "last"))
        for name in ("cam", "lstm"):
            require_range(self, name, least=1)
        require_range(self, "dropout", least=0.0, below=1.0)


def class_map(activations: Tensor, class_weights: Tensor) -> Tensor:
    """Eq (2): `m_c(x, y) = sum_k w_k^c a_k(x, y)`.

    Parameters
    ----------
    activations : [S, k, K, K]
    class_weights : [S, k], the classifier's row of the class wanted for each frame, or a mixture of rows

    Returns
    -------
    [S, K, K], at the scale of logits: its mean over cells is the class's score without the bias
    """
    return torch.einsum("sk,skyx->syx", class_weights, activations)


def relevance(states: Tensor, valid: Tensor, *, scale: bool = False, mean: bool = False) -> Tensor:
    """Eqs (4) and (5): `C = tanh(H^T H)`, `gamma = 1^T C`, how well each frame goes with all frames.

    Parameters
    ----------
    states : [B, T, n] floating, finite on padding too
    valid : [B, T] bool
    scale : divide the inner products by sqrt(n): with n = 512 they are large and the tanh is a sign
    mean : divide gamma by the number of frames, which otherwise sets the sharpness of the softmax

    Returns
    -------
    [B, T], 0 on padding
    """
    states = states * valid.unsqueeze(-1)  # the affinity to padding is tanh(0) = 0
    affinity = torch.bmm(states, states.transpose(1, 2))  # [B, T, T]
    if scale:
        affinity = affinity / states.shape[-1] ** 0.5
    gamma = affinity.tanh().sum(1)
    return gamma / valid.sum(1, keepdim=True) if mean else gamma


def normalised_entropy(weights: Tensor, valid: Tensor) -> Tensor:
    """Entropy of attention weights over that of uniform ones: 1 = no attention, 0 = a single frame.

    Parameters
    ----------
    weights : [B, T], 0 on padding
    valid : [B, T] bool

    Returns
    -------
    [B]; 1 for a single frame
    """
    lengths = valid.sum(1)
    entropy = torch.special.entr(weights).sum(1)
    return torch.where(lengths > 1, entropy / lengths.clamp_min(2).log(), 1.0)


@dataclass(frozen=True, eq=False)
class BranchOutput:
    """What one stream says; all 0 on padding."""

    alpha: Tensor  # [B, T, D] frames, pooled by their maps
    maps: Tensor | None  # [B, T, K, K], sums to 1
    weights: Tensor  # [B, T], softmax of gamma
    gamma: Tensor  # [B, T]
    logits: dict[str, Tensor]  # [B, T, N] each: "frame" (connection head), "cam" (maps), "step" (LSTM)


class Branch(nn.Module):
    """Spatial attention, connection network and temporal attention of one stream."""

    def __init__(self, channels: int, classes: int, config: TclstaConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        if config.spatial:
            self.cam_conv = he_conv(channels, config.cam, kernel=3)
            self.cam_classifier = classifier(config.cam, classes)
        self.frame_classifier = classifier(channels, classes)
        if config.temporal:
            self.lstm = Lstm(channels, config.lstm)
            self.step_classifier = classifier(config.lstm, classes)

    def forward(self, cube: Tensor, segments: Segments, shares: Tensor | None = None) -> BranchOutput:
        """Score the frames of one stream.

        Parameters
        ----------
        cube : [B, T, K, K, D] of any floating dtype
        shares : [B, N] classes whose maps are taken, sum 1; None = as the configuration says
        """
        logits = {}
        cells = segments.pack(cube).float()  # [S, K, K, D]
        if self.config.spatial:
            maps, logits["cam"] = self._spatial(cells, segments, shares)
            alpha = attention_pool(cells.flatten(1, 2), maps.flatten(1))  # section 7.2
        else:
            maps, alpha = None, cells.mean((1, 2))
        logits["frame"] = self.frame_classifier(self.dropout(alpha))  # [S, N]
        alpha = segments.unpack(alpha)
        if self.config.temporal:
            states = self.lstm(alpha)  # [B, T, n]
            logits["step"] = self.step_classifier(self.dropout(segments.pack(states)))
            gamma = relevance(
                states, segments.valid, scale=self.config.affinity_scale, mean=self.config.gamma_mean
            )  # Eqs (4) and (5)
            weights = attention_weights(gamma, segments.valid)
        else:
            weights, gamma = segments.uniform(), torch.zeros_like(alpha[..., 0])
        return BranchOutput(
            alpha=alpha,
            maps=None if maps is None else segments.unpack(maps),
            weights=weights,
            gamma=gamma,
            logits={name: segments.unpack(value) for name, value in logits.items()},
        )

    def _spatial(self, cells: Tensor, segments: Segments, shares: Tensor | None) -> tuple[Tensor, Tensor]:
        """Section 7.1: [S, K, K, D] -> maps [S, K, K] that sum to 1, and logits [S, N]."""
        a = self.cam_conv(cells.permute(0, 3, 1, 2))
        if self.config.relu:
            a = a.relu()
        logits = self.cam_classifier(a.mean((2, 3)))  # the score of a class is the mean of its map over the cells
        if shares is not None:
            chosen = segments.pack(shares.unsqueeze(1).expand(-1, segments.valid.shape[1], -1))
        elif self.config.cam_class == "soft":
            p = logits.softmax(-1) if self.config.loss == "softmax" else logits.sigmoid()
            chosen = p / p.sum(-1, keepdim=True)
        else:
            chosen = functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        m = class_map(a, chosen @ self.cam_classifier.weight)
        if self.config.detach_map:
            m = m.detach()
        # Eq (3) is g times this softmax, and the connection network divides by g again
        return attention_weights(m.flatten(1)).view_as(m), logits


class Tclsta(Head):
    """One branch per stream, each with its losses; scores are the mean of the streams' probabilities."""

    Config = TclstaConfig
    logged = ("entropy",)  # of the affinity attention: 1 is uniform, 0 one segment; its printed form saturates

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: TclstaConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        self.config = config
        self.branches = nn.ModuleList(Branch(stream.channels, classes, config) for stream in streams)
        self.grid = max(stream.grid for stream in streams)

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`. The attention over segments is the mean of the streams'.

        `parts`: `segments` [B, T, sum of D], the alpha of section 7.2; `beta` likewise, Eq (6), and `beta_hat`, beta
        times the number of frames; `entropy` [B, T, M], how uniform each stream's attention over time is
        (`normalised_entropy`, repeated on the valid segments); `gamma` [B, T, M]; `frame`, `cam` and `step`
        [B, T, M, N], the logits that the losses read, and `share` [B, T], 1 / length.
        """
        check_batch(self.streams, cubes, valid)
        segments = Segments(valid)
        outputs = [branch(cube, segments) for branch, cube in zip(self.branches, cubes, strict=True)]
        # video scores: the sum of softmax(gamma) times frame scores, one softmax, and the mean over the streams
        videos = torch.stack([attention_pool(o.logits["frame"], o.weights) for o in outputs], 1)  # [B, M, N]
        beta = torch.cat([o.weights.unsqueeze(-1) * o.alpha for o in outputs], -1)  # Eq (6)
        entropy = torch.stack([normalised_entropy(o.weights.detach(), valid) for o in outputs], -1)
        parts = self._logits(outputs) | {
            "share": segments.uniform(),
            "segments": torch.cat([o.alpha for o in outputs], -1),
            "beta": beta,
            "beta_hat": beta * valid.sum(1).view(-1, 1, 1),
            "gamma": torch.stack([o.gamma for o in outputs], -1),
            "entropy": entropy.unsqueeze(1) * valid.unsqueeze(-1),
        }
        if self._leaks:
            parts |= {f"cube {stream.name}": cube for stream, cube in zip(self.streams, cubes, strict=True)}
        maps = [resample_maps(o.maps, grid=self.grid) for o in outputs if o.maps is not None]
        return HeadOutput(
            logits=fuse_probabilities(videos, kind=self.loss_kind),
            representation=beta.sum(1),
            spatial=torch.stack(maps, 2) if maps else None,
            temporal=torch.stack([o.weights for o in outputs]).mean(0),
            temporal_raw=parts["gamma"].mean(-1),
            parts=parts,
        )

    def branch_logits(self, output: HeadOutput) -> dict[str, Tensor]:
        """Return the logits [B, N] of each stream's branch, if there are several; see `Head.branch_logits`."""
        if len(self.streams) == 1:
            return {}
        valid = output.parts["share"] > 0
        pairs = zip(output.parts["frame"].unbind(2), output.parts["gamma"].unbind(2), strict=True)
        logits = [attention_pool(frames, attention_weights(gamma, valid)) for frames, gamma in pairs]
        return dict(zip([stream.name for stream in self.streams], logits, strict=True))

    def loss(self, output: HeadOutput, target: Tensor, *, step: int = 0) -> Tensor:
        """Return the three losses of each stream, added: frames, maps, LSTM steps; see `Head.loss`."""
        parts, share = output.parts, output.parts["share"]
        if self._leaks:
            parts = dict(parts) | self._with_true_class(output, target)
        # the last segment of a video: valid, and none valid behind it
        last = (share > 0) & ~functional.pad(share[:, 1:] > 0, (0, 1))
        weights = {"step": last.to(share.dtype)} if self.config.step_loss == "last" else {}
        losses = [
            segment_loss(parts[name], target, weights.get(name, share), kind=self.loss_kind)
            for name in ("frame", "cam", "step")
            if name in parts
        ]
        return torch.stack(losses).sum()

    @property
    def _leaks(self) -> bool:
        """Whether the maps of the true classes are taken now: never in evaluation, where nobody knows them."""
        return self.training and self.config.spatial and self.config.cam_class == "gt_train"

    def _with_true_class(self, output: HeadOutput, target: Tensor) -> dict[str, Tensor]:
        """Score once more, now that the labels are known: `forward` does not get them."""
        segments = Segments(output.parts["share"] > 0)
        hot = functional.one_hot(target, self.classes) if target.ndim == 1 else target
        shares = hot.float() / hot.sum(1, keepdim=True)
        cubes = [output.parts[f"cube {stream.name}"] for stream in self.streams]
        return self._logits([branch(c, segments, shares) for branch, c in zip(self.branches, cubes, strict=True)])

    @staticmethod
    def _logits(outputs: Sequence[BranchOutput]) -> dict[str, Tensor]:
        """Logits [B, T, M, N] by their head."""
        return {name: torch.stack([o.logits[name] for o in outputs], 2) for name in outputs[0].logits}
