"""UntrimmedNet with soft selection: every segment is classified, and attention says whose verdict counts.

Wang et al., "UntrimmedNets for Weakly Supervised Action Recognition and Detection", CVPR 2017, as the authors' code
has it (section 8 of the spec), on frozen features: their backbone is trained along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .contract import Head, HeadConfig, HeadOutput, StreamShape, check_batch, require_choice, require_range
from .fusion.score_fusion import fuse_probabilities
from .layers.attention import AttCell, attention_weights
from .layers.segments import Segments
from .layers.starting import classifier


@dataclass(frozen=True, kw_only=True)
class UntrimmedConfig(HeadConfig):
    """Training weighs class probabilities, scoring a video weighs logits, with a softer attention."""

    dropout: float = 0.8  # of the pooled feature, before the classifier alone
    scoring: Literal["logits", "probabilities"] = "logits"  # after training; probabilities: the same as in training
    temperature: float = 3.0  # of the attention when `scoring=logits`: softmax(score / temperature)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "dropout", least=0.0, below=1.0)
        require_choice(self, "scoring", ("logits", "probabilities"))
        require_range(self, "temperature", above=0.0)


class Untrimmed(Head):
    """Mean over cells, the streams side by side; a linear classifier and a linear attention over segments."""

    Config = UntrimmedConfig

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: UntrimmedConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        width = sum(stream.channels for stream in streams)
        self.attention = AttCell(width)  # the bias of the code shifts all scores alike: left out
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = classifier(width, classes)
        self.scoring, self.temperature = config.scoring, config.temperature

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`.

        `parts` holds `segment_logits` [B, T, N], 0 on padding. In training, and with `scoring=probabilities`, the
        video's probabilities are the attention's average of those of the segments: `loss` is then the negative log of
        their mixture.
        """
        check_batch(self.streams, cubes, valid)
        segments = Segments(valid)
        pooled = torch.cat([segments.pack(cube).mean((1, 2), dtype=torch.float32) for cube in cubes], -1)  # [S, D]
        verdicts = segments.unpack(self.classifier(self.dropout(pooled)))  # [B, T, N]
        x = segments.unpack(pooled)
        raw = self.attention(x)
        if self.training or self.scoring == "probabilities":
            weights = attention_weights(raw, valid)
            log_weights = raw.masked_fill(~valid, -torch.inf).log_softmax(-1)
            logits = fuse_probabilities(verdicts, kind=self.loss_kind, log_weights=log_weights)
        else:
            weights = attention_weights(raw / self.temperature, valid)
            logits = (weights.unsqueeze(-1) * verdicts).sum(1)
        representation = (weights.unsqueeze(-1) * x).sum(1)
        raw = raw.masked_fill(~valid, 0)
        return HeadOutput(logits, representation, None, weights, raw, parts={"segment_logits": verdicts})
