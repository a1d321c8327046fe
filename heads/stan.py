"""STAN and SAN: spatial attention over cells, temporal attention over segments.

Li et al., "Unified Spatio-Temporal Attention Networks for Action Recognition in Videos", IEEE TMM 2019. Equation
numbers are the paper's; what it leaves open is a field of the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .contract import Head, HeadConfig, HeadOutput, StreamShape, check_batch, require_choice, require_range
from .layers.attention import AttCell, attention_pool, attention_weights, resample_maps
from .layers.recurrent import Lstm
from .layers.segments import Segments
from .layers.starting import classifier, he_conv


@dataclass(frozen=True, kw_only=True)
class SanConfig(HeadConfig):
    """Spatial attention; the non-linearity, the dropout rate and the start of the attention are not in the paper."""

    conv6: int = 1024  # filters of the convolution before the attention
    kernel: int = 3  # its side; 1 looks at each cell alone
    relu: bool = True  # after conv6
    attention_init: Literal["normal", "zeros"] = "normal"  # zeros: starts as plain averaging
    dropout: float = 0.5  # before the classifier

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "conv6", least=1)
        require_range(self, "kernel", least=1)
        if self.kernel % 2 == 0:
            raise UsageError(f"Setting kernel={self.kernel}: must be odd, so that the grid keeps its size.")
        require_choice(self, "attention_init", ("normal", "zeros"))
        require_range(self, "dropout", least=0.0, below=1.0)


@dataclass(frozen=True, kw_only=True)
class StanConfig(SanConfig):
    """Spatial and temporal attention."""

    lstm: int = 1024  # hidden units of the LSTM behind the temporal attention

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "lstm", least=1)


class SpatialAttention(nn.Module):
    """Attention over the cells of one stream, shared over its segments: section 3.1 of the spec."""

    def __init__(self, channels: int, config: SanConfig) -> None:
        super().__init__()
        self.conv6 = he_conv(channels, config.conv6, kernel=config.kernel)
        self.cell = AttCell(config.conv6, init=config.attention_init)
        self.relu = config.relu

    def forward(self, cubes: Tensor) -> tuple[Tensor, Tensor]:
        """[S, K, K, D] of any floating dtype -> attended descriptors [S, conv6] and weights [S, K, K]."""
        S, K = cubes.shape[:2]
        maps = cubes.float().permute(0, 3, 1, 2)  # [S, D, K, K] in memory format channels_last: no copy
        maps = self.conv6(maps)
        if self.relu:
            maps = maps.relu_()
        cells = maps.permute(0, 2, 3, 1).flatten(1, 2)  # [S, K*K, conv6], no copy either
        alpha = attention_weights(self.cell(cells))  # eq. (4)
        return attention_pool(cells, alpha), alpha.view(S, K, K)  # eq. (5)


class SpatialStage(nn.Module):
    """Spatial attention in every stream, and the streams side by side (early fusion)."""

    def __init__(self, streams: Sequence[StreamShape], config: SanConfig) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(SpatialAttention(stream.channels, config) for stream in streams)
        self.grid = max(stream.grid for stream in streams)

    def forward(self, cubes: Sequence[Tensor], segments: Segments) -> tuple[Tensor, Tensor]:
        """Per stream [B, T, K, K, D] -> segments [B, T, M*conv6] and weights [B, T, M, K, K], both 0 on padding."""
        attended, maps = [], []
        for attention, cube in zip(self.attentions, cubes, strict=True):
            vector, alpha = attention(segments.pack(cube))
            attended.append(vector)
            maps.append(resample_maps(alpha, grid=self.grid))
        # eq. (6): x^t is the concatenation over the streams
        return segments.unpack(torch.cat(attended, -1)), segments.unpack(torch.stack(maps, 1))


class San(Head):
    """Spatial attention, then the mean over segments: the paper's ablation without temporal attention."""

    Config = SanConfig

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: SanConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        self.spatial = SpatialStage(streams, config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = classifier(len(streams) * config.conv6, classes)

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`. `parts` holds `segments` [B, T, M*conv6]."""
        check_batch(self.streams, cubes, valid)
        segments = Segments(valid)
        x, maps = self.spatial(cubes, segments)
        representation = segments.mean(x)
        logits = self.classifier(self.dropout(representation))
        return HeadOutput(logits, representation, maps, segments.uniform(), parts={"segments": x})


class Stan(Head):
    """Spatial attention per stream and segment, LSTM-guided temporal attention over the fused segments."""

    Config = StanConfig

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: StanConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        width = len(streams) * config.conv6
        self.spatial = SpatialStage(streams, config)
        self.lstm = Lstm(width, config.lstm)
        self.temporal = AttCell(config.lstm, init=config.attention_init)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = classifier(width, classes)

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`. `parts` holds `segments` [B, T, M*conv6], the x^t of eq. (6)."""
        check_batch(self.streams, cubes, valid)
        x, maps = self.spatial(cubes, Segments(valid))
        k = self.temporal(self.lstm(x))  # [B, T], eq. (7): k^t = w_k . h^t
        beta = attention_weights(k, valid)
        representation = attention_pool(x, beta)  # eq. (8): the weights multiply the LSTM's inputs, not its states
        logits = self.classifier(self.dropout(representation))
        raw = k.masked_fill(~valid, 0)
        return HeadOutput(logits, representation, maps, beta, raw, parts={"segments": x})
