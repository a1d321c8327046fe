"""GLKA: global pooling and two attentions, each with its own recurrent model, and a loss that favours the attentions.

Zheng et al., "Global and Local Knowledge-Aware Attention Network for Action Recognition", IEEE TNNLS 2021. Equation
numbers are the paper's; docs/glka.md says what it leaves open and what its printed form does wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError, WeightsError
from .aggregators import LstmStack
from .contract import Head, HeadConfig, HeadOutput, StreamShape, check_batch, require_choice, require_range
from .fusion.score_fusion import Rule, fuse_probabilities
from .layers.clips import Clips
from .layers.glka_attention import Descriptors, FeatureFusion, LearnedAttention, StatisticAttention, fuse_features
from .layers.pretrained import read_weights, take
from .layers.segments import Segments
from .layers.sru import Sru
from .layers.starting import classifier

Part = Literal["gp", "sa", "la", "gs", "gl"]
PARTS: dict[str, str | None] = {"gp": None, "sa": "sa", "la": "la", "gs": "sa", "gl": "la"}
"""The models by name, and the attention that each one reads; `gs` and `gl` read global pooling too."""

COMPOSITE = ("gs", "gl")


@dataclass(frozen=True, kw_only=True)
class GlkaConfig(HeadConfig):
    """Which models, what they read, how their scores become one, and what is loaded and frozen."""

    reads_windows: ClassVar[bool] = True

    parts: tuple[Part, ...] = ("gp", "gs", "gl")
    predict: tuple[Part, ...] = ()  # the parts whose scores count, in the prediction and the cross-entropy; () = all
    # attention
    sa_reduction: Literal["sum", "mean"] = "sum"  # of the squares over channels
    sa_scale: bool = False  # learn a factor on the statistic
    la_hidden: int = 128
    la_outer_tanh: bool = False
    feature_fusion: FeatureFusion = "concatenation"
    # time
    aggregator: Literal["sru", "lstm", "mean"] = "sru"
    hidden: int = 1024
    layers: int = 3
    sru: Literal["v1", "v2"] = "v1"
    sru_dropout: float = 0.0  # of the outputs of all layers but the last, one mask for all segments
    rnn_dropout: float = 0.6  # of the inputs of the matrix products, one mask for all segments
    dropout: float = 0.0  # of the outputs of every segment, before the classifier
    clip_segments: int | None = 30  # segments per clip; none = a video is one clip
    clip_stride: int = 15  # on a store that was sampled in windows, each window is a clip whatever this says
    max_clips: int = 20  # per video, evenly spaced
    # scores
    score_fusion: Rule = "average"  # over the parts
    fuse: Literal["probabilities", "logits"] = "probabilities"  # what is averaged, over parts and over clips
    cross_entropy: Literal["mean_logits", "mean_probability", "sum"] = "mean_logits"  # of what over the parts
    ga_weight: float = 1.0  # of each regularisation term
    ga_margin: float = 0.1
    detach_reference: bool = False  # no gradient of the regularisation into the gp model
    # protocol of Tables II to IV
    attention_from: tuple[str, ...] = ()  # runs, or safetensors files, whose trained attention is taken
    freeze_attention: bool = False
    reference_from: str | None = None  # run, or safetensors file, whose trained gp model is taken
    freeze_reference: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parts or len(set(self.parts)) < len(self.parts) or not set(self.parts) <= set(PARTS):
            raise UsageError(f"Setting parts={','.join(self.parts)}: must be different ones of {', '.join(PARTS)}.")
        if not set(self.predict) <= set(self.parts) or len(set(self.predict)) < len(self.predict):
            raise UsageError(f"Setting predict={','.join(self.predict)}: must be some of {', '.join(self.parts)}.")
        for name, choices in (
            ("sa_reduction", ("sum", "mean")),
            ("feature_fusion", ("concatenation", "average", "max", "multiply")),
            ("aggregator", ("sru", "lstm", "mean")),
            ("sru", ("v1", "v2")),
            ("score_fusion", ("average", "max", "multiply")),
            ("fuse", ("probabilities", "logits")),
            ("cross_entropy", ("mean_logits", "mean_probability", "sum")),
        ):
            require_choice(self, name, choices)
        for name in ("la_hidden", "hidden", "layers", "clip_stride", "max_clips"):
            require_range(self, name, least=1)
        for name in ("sru_dropout", "rnn_dropout", "dropout"):
            require_range(self, name, least=0.0, below=1.0)
        for name in ("ga_weight", "ga_margin"):
            require_range(self, name, least=0.0)
        if self.clip_segments is not None:
            require_range(self, "clip_segments", least=1)
            if self.clip_stride > self.clip_segments:
                raise UsageError(
                    f"Setting clip_stride={self.clip_stride}: must be at most clip_segments={self.clip_segments}, else "
                    "segments between the clips are never seen."
                )
        if self.fuse == "logits" and self.score_fusion != "average":
            raise UsageError(f"Setting score_fusion={self.score_fusion}: needs fuse=probabilities.")
        if self.freeze_reference and ("gp" not in self.parts or self.reference_from is None):
            raise UsageError("Setting freeze_reference=true: needs a part gp and reference_from.")
        if self.reference_from is not None and "gp" not in self.parts:
            raise UsageError("Setting reference_from: needs a part gp.")
        trained = {*(self.predict or self.parts), *(("gp",) if self.freeze_reference else ())}
        if idle := sorted(set(self.parts) - trained):
            raise UsageError(
                f"Setting predict={','.join(self.predict)}: nothing trains {', '.join(idle)}; drop it from parts, or "
                "freeze gp with freeze_reference=true."
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """See `HeadConfig.sources`."""
        return (*self.attention_from, *([] if self.reference_from is None else [self.reference_from]))

    def on_windows(self, length: int) -> GlkaConfig:
        """Clips are the windows; see `HeadConfig.on_windows`."""
        if self.clip_segments != length:
            raise UsageError(
                f"Setting clip_segments={'none' if self.clip_segments is None else self.clip_segments}: the store's "
                f"segments are windows of {length} frames, which are the clips; use clip_segments={length}, or a store "
                "of another sampler."
            )
        return replace(self, clip_stride=length)


class PartModel(nn.Module):
    """One of the parallel models: recurrent layers, and a classifier on the mean of their outputs (eqs. 11-16)."""

    def __init__(self, channels: int, classes: int, config: GlkaConfig) -> None:
        super().__init__()
        self.temporal: nn.Module | None = None
        self.channels = channels if config.aggregator == "mean" else config.hidden
        if config.aggregator == "sru":
            self.temporal = Sru(
                channels,
                config.hidden,
                config.layers,
                version=config.sru,
                dropout=config.sru_dropout,
                rnn_dropout=config.rnn_dropout,
            )
        elif config.aggregator == "lstm":
            self.temporal = LstmStack(channels, config.hidden, config.layers)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = classifier(self.channels, classes)

    def forward(self, inputs: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """[Q, W, D] (0 on padding) and valid [Q, W] -> logits [Q, N] and the mean output [Q, H]."""
        outputs = inputs if self.temporal is None else self.temporal(inputs, valid)
        lengths = valid.sum(1, keepdim=True)
        # eq. (16): the logits' mean over time is the logits of the mean; the softmax comes after it
        logits = self.classifier(self.dropout(outputs).sum(1) / lengths)
        return logits, outputs.sum(1) / lengths


class Glka(Head):
    """Global pooling (gp), statistic (sa) and learned (la) attention, and the composites gs = gp + sa, gl = gp + la.

    `spatial` is the mean of the attentions in use; `parts` holds each as `spatial_sa` and `spatial_la`
    [B, T, M, K, K], the logits of the models per clip `part_logits` [B, C, P, N] and `clip_weights` [B, C], which sum
    to 1 over a video's clips. All weights of `temporal` are alike within a clip: the model averages over time.
    """

    Config = GlkaConfig

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: GlkaConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        self.config = config
        kinds = {PARTS[part] for part in config.parts}
        self.attention = Descriptors(
            streams,
            statistic=[
                StatisticAttention(reduction=config.sa_reduction, learned_scale=config.sa_scale) for _ in streams
            ]
            if "sa" in kinds
            else None,
            learned=[LearnedAttention(s.channels, config.la_hidden, outer_tanh=config.la_outer_tanh) for s in streams]
            if "la" in kinds
            else None,
        )
        width = sum(stream.channels for stream in streams)
        doubled = 2 * width if config.feature_fusion == "concatenation" else width
        self.models = nn.ModuleDict(
            {part: PartModel(doubled if part in COMPOSITE else width, classes, config) for part in config.parts}
        )
        self.predicting = [config.parts.index(part) for part in config.predict or config.parts]
        self._freeze()
        self.unloaded = bool(config.attention_from or config.reference_from)

    def _freeze(self) -> None:
        config = self.config
        learned = any(True for _ in self.attention.parameters())
        if config.attention_from and not learned:
            raise UsageError(f"Setting attention_from: the attention of {','.join(config.parts)} has nothing to load.")
        if config.freeze_attention:
            if learned and not config.attention_from:
                raise UsageError("Setting freeze_attention=true: needs attention_from, or it would stay as it starts.")
            self.attention.requires_grad_(False)
        if config.freeze_reference:
            self.models["gp"].requires_grad_(False)

    def train(self, mode: bool = True) -> Glka:
        """Switch between training and scoring; a frozen reference scores always (it has dropout)."""
        super().train(mode)
        if self.config.freeze_reference:
            self.models["gp"].eval()
        return self

    def load_pretrained(self) -> None:
        """Take the trained attention and gp model that `attention_from` and `reference_from` name.

        Raises
        ------
        WeightsError
            If a file cannot be read, lacks a tensor of this head, has it in another shape, or two files have it.
        """
        if self.config.attention_from:
            self._take("attention.", self.config.attention_from)
        if self.config.reference_from is not None:
            self._take("models.gp.", (self.config.reference_from,))
        self.unloaded = False

    def _take(self, prefix: str, sources: Sequence[str]) -> None:
        wanted = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(prefix)}
        take(wanted, {source: read_weights(Path(source)) for source in sources})

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward` and the class."""
        if self.training and self.unloaded:
            raise WeightsError("A head with attention_from or reference_from is trained after `load_pretrained` only.")
        check_batch(self.streams, cubes, valid)
        config, segments = self.config, Segments(valid)
        vectors, maps = self.attention(cubes, segments)
        clips = Clips(valid, length=config.clip_segments, stride=config.clip_stride, most=config.max_clips)
        scored = [model(clips.cut(self._feature(part, vectors)), clips.valid) for part, model in self.models.items()]
        logits = clips.by_video(torch.stack([score for score, _ in scored], 1))  # [B, C, P, N]
        weights = clips.weights()
        states = clips.by_video(torch.cat([state for _, state in scored], -1))  # [B, C, P*H]
        parts = {"part_logits": logits, "clip_weights": weights}
        parts |= {f"spatial_{kind}": map_ for kind, map_ in maps.items()}
        return HeadOutput(
            self._video_logits(logits[:, :, self.predicting], weights),
            (states * weights.unsqueeze(-1)).sum(1),
            torch.stack(list(maps.values())).mean(0) if maps else None,
            clips.temporal(),
            parts=parts,
        )

    def _feature(self, part: str, vectors: dict[str, Tensor]) -> Tensor:
        kind = PARTS[part]
        if part in COMPOSITE:
            return fuse_features(vectors["gp"], vectors[str(kind)], rule=self.config.feature_fusion)
        return vectors[kind or "gp"]

    def _video_logits(self, logits: Tensor, weights: Tensor) -> Tensor:
        """[B, C, P, N] and [B, C] -> [B, N]: eqs. (19) and (20) over the parts, then the mean over the clips."""
        if self.config.fuse == "logits":
            return (logits.mean(2) * weights.unsqueeze(-1)).sum(1)
        fused = fuse_probabilities(logits, kind=self.loss_kind, rule=self.config.score_fusion)  # [B, C, N]
        return fuse_probabilities(fused, kind=self.loss_kind, log_weights=weights.log())

    def branch_logits(self, output: HeadOutput) -> dict[str, Tensor]:
        """Return the scores [B, N] of each model by the name of its part, if there are several."""
        logits, weights = output.parts["part_logits"], output.parts["clip_weights"]
        if len(self.config.parts) == 1:
            return {}
        return {part: self._video_logits(logits[:, :, [p]], weights) for p, part in enumerate(self.config.parts)}

    def loss(self, output: HeadOutput, target: Tensor, *, step: int = 0) -> Tensor:
        """Return eq. (18) of every clip, averaged over each video's clips and then over videos; see `Head.loss`."""
        logits, weights = output.parts["part_logits"], output.parts["clip_weights"]
        hot = functional.one_hot(target, self.classes) if target.ndim == 1 else target
        hot = hot.to(logits.dtype).unsqueeze(1)  # [B, 1, N]
        per_clip = self._cross_entropy(logits[:, :, self.predicting], hot) + self._regularisation(logits, hot)
        return (per_clip * weights).sum(1).mean()

    def _cross_entropy(self, logits: Tensor, hot: Tensor) -> Tensor:
        """[B, C, P, N] -> [B, C]. Which scores the paper's eq. (18) means, it does not say."""
        if self.config.cross_entropy == "sum":
            return torch.stack([self._entropy(scores, hot) for scores in logits.unbind(2)]).sum(0)
        if self.config.cross_entropy == "mean_probability":
            return self._entropy(fuse_probabilities(logits, kind=self.loss_kind), hot)
        return self._entropy(logits.mean(2), hot)

    def _entropy(self, logits: Tensor, hot: Tensor) -> Tensor:
        if self.loss_kind == "sigmoid":
            return functional.binary_cross_entropy_with_logits(
                logits, hot.expand_as(logits), reduction="none"
            ).mean(-1)  # fmt: skip
        return -(logits.log_softmax(-1) * hot / hot.sum(-1, keepdim=True)).sum(-1)

    def _regularisation(self, logits: Tensor, hot: Tensor) -> Tensor:
        """Eq. (17) of each composite model, of its true class (the mean over several), summed: [B, C]."""
        total = logits.new_zeros(logits.shape[:2])
        if "gp" not in self.models:
            return total
        order = list(self.models)
        probability = self.probabilities(logits)
        reference = probability[:, :, order.index("gp")]
        if self.config.detach_reference:
            reference = reference.detach()
        for part in (part for part in COMPOSITE if part in order):
            hinge = (reference - probability[:, :, order.index(part)] + self.config.ga_margin).clamp_min(0)
            total = total + self.config.ga_weight * (hinge * hot).sum(-1) / hot.sum(-1)
        return total


VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "glka": ("global pooling and two composites with attention, fused early, regularised by the global one", {}),
    "glka-late": (
        "global pooling, statistic and learned attention as separate models, whose probabilities are fused",
        {"parts": ("gp", "sa", "la"), "cross_entropy": "sum"},
    ),
    "glka-gp": ("global pooling alone, then simple recurrent units", {"parts": ("gp",)}),
    "glka-sa": ("statistic attention alone, then simple recurrent units", {"parts": ("sa",)}),
    "glka-la": ("learned attention alone, then simple recurrent units", {"parts": ("la",)}),
    "glka-gs": ("global pooling beside statistic attention, then simple recurrent units", {"parts": ("gs",)}),
    "glka-gl": ("global pooling beside learned attention, then simple recurrent units", {"parts": ("gl",)}),
}
"""Heads of this file: a summary, and what sets each apart in every preset."""

_FIT = {"optimiser": "adam", "lr": 1e-3, "weight_decay": 0.0, "batch_videos": 28, "steps": 5_500, "schedule": "cosine"}
PRESETS: dict[str, dict[str, object]] = {
    # 16 epochs of UCF101; the paper's rate of 1e-5 trains a backbone along, fresh recurrent layers alone need more
    "paper": dict(_FIT),
    # as the authors' code has it: 12 segments, one clip, 18 epochs
    "repo": {
        "sa_reduction": "mean", "sa_scale": True, "la_outer_tanh": True, "sru": "v2", "sru_dropout": 0.5,
        "rnn_dropout": 0.0, "dropout": 0.5, "clip_segments": None, "fuse": "logits", "optimiser": "sgd", "lr": 1e-3,
        "weight_decay": 1e-5, "batch_videos": 30, "steps": 5_700, "schedule": "cosine",
    },
    # for hundreds of videos and a CPU
    "small": {
        "sa_reduction": "mean", "sa_scale": True, "la_hidden": 32, "hidden": 128, "layers": 2, "rnn_dropout": 0.2,
        **_FIT, "batch_videos": 32, "steps": 600, "validate_every": 50,
    },
}  # fmt: skip
"""Presets of all heads of this file: fields of `GlkaConfig` and of `FitDefaults`."""
