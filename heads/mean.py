"""The rival of every attention: plain averages over cells and segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .contract import Head, HeadConfig, HeadOutput, StreamShape, check_batch, require_range
from .layers.segments import Segments
from .layers.starting import classifier


@dataclass(frozen=True, kw_only=True)
class MeanConfig(HeadConfig):
    """Nothing to choose but the dropout rate."""

    dropout: float = 0.5  # before the classifier

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "dropout", least=0.0, below=1.0)


class Mean(Head):
    """Mean over cells and valid segments per stream, the streams side by side, dropout, a linear classifier."""

    Config = MeanConfig

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: MeanConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = classifier(sum(stream.channels for stream in streams), classes)

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`. `parts` holds `segments` [B, T, sum of D]."""
        check_batch(self.streams, cubes, valid)
        segments = Segments(valid)
        # the mean runs in float32 whatever the cubes' dtype: sums of float16 lose digits
        pooled = [segments.pack(cube).mean((1, 2), dtype=torch.float32) for cube in cubes]  # each [S, D]
        x = segments.unpack(torch.cat(pooled, -1))
        representation = segments.mean(x)
        logits = self.classifier(self.dropout(representation))
        return HeadOutput(logits, representation, None, segments.uniform(), parts={"segments": x})
