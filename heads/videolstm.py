"""VideoLSTM's convolutional attention LSTM: Li, Gavrilyuk, Gavves, Jain and Snoek, 2016 (spec section 8).

"VideoLSTM Convolves, Attends and Flows for Action Recognition", arXiv:1607.01794, after its authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .contract import Head, HeadConfig, HeadOutput, StreamShape, check_batch, require_choice, require_range
from .layers.attention import attention_weights
from .layers.convlstm import ConvLSTM
from .layers.grids import on_grid
from .layers.segments import Segments
from .layers.starting import classifier
from .layers.step_scores import segment_loss, step_output


@dataclass(frozen=True, kw_only=True)
class VideoLstmConfig(HeadConfig):
    """Sizes of the authors' code."""

    attention: int = 512  # channels of the attention's hidden maps
    lstm: int = 512  # channels of the state
    output: int = 1024  # units of the tanh layer between the state and the scores
    pooling: Literal["flat", "mean"] = (
        "flat"  # of the state before that layer: all cells (grid is fixed), or their mean
    )
    rescale: bool = False  # attended cells times their number; else the input is smaller by it than the cubes
    dropout: float = 0.7  # before the classifier

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "pooling", ("flat", "mean"))
        for name in ("attention", "lstm", "output"):
            require_range(self, name, least=1)
        require_range(self, "dropout", least=0.0, below=1.0)


class ConvAttention(nn.Module):
    """Attention over cells that keeps the grid: `alpha = softmax(U * tanh(W_d * h + W_c * x + b))`, 1 x 1 maps."""

    def __init__(self, channels: int, hidden: int, width: int) -> None:
        super().__init__()
        self.of_cells = nn.Conv2d(channels, width, 1)
        self.of_state = nn.Conv2d(hidden, width, 1, bias=False)
        self.u = nn.Conv2d(width, 1, 1, bias=False)
        for conv in (self.of_cells, self.of_state, self.u):
            nn.init.xavier_uniform_(conv.weight)
        nn.init.zeros_(self.of_cells.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor, state: Tensor) -> Tensor:
        """[B, D, K, K] and [B, H, K, K] -> weights [B, 1, K, K] that sum to 1."""
        scores = self.u((self.of_cells(maps) + self.of_state(state)).tanh())
        return attention_weights(scores.flatten(1)).view_as(scores)


class VideoLstm(Head):
    """A ConvLSTM over the segments; at each, its state before it weights the cells of every stream.

    The streams lie side by side on the largest grid. The paper's motion-driven variant, in which a second ConvLSTM over
    flow steers the attention, is left out: here every stream, flow too, has attention of its own.
    """

    Config = VideoLstmConfig

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: VideoLstmConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        self.config = config
        self.grid = max(stream.grid for stream in streams)
        channels = sum(stream.channels for stream in streams)
        self.attentions = nn.ModuleList(
            ConvAttention(stream.channels, config.lstm, config.attention) for stream in streams
        )  # fmt: skip
        self.start_h = nn.Conv2d(channels, config.lstm, 3, padding=1)
        self.start_c = nn.Conv2d(channels, config.lstm, 3, padding=1)
        self.convlstm = ConvLSTM(channels, config.lstm)
        self.output = nn.Linear(config.lstm * (self.grid**2 if config.pooling == "flat" else 1), config.output)
        for layer in (self.start_h, self.start_c, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = classifier(config.output, classes)

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`. `parts`: `step` [B, T, N], logits, and `share`, 1 / length."""
        check_batch(self.streams, cubes, valid)
        segments = Segments(valid)
        maps = [segments.pack(cube).float().permute(0, 3, 1, 2) for cube in cubes]  # [S, D, K, K]
        x = [segments.unpack(on_grid(m, grid=self.grid)) for m in maps]  # [B, T, D, K, K]
        mean = segments.mean(torch.cat(x, 2))
        state = self.start_h(mean).tanh(), self.start_c(mean).tanh()
        pooled, alphas = [], []
        for t in range(valid.shape[1]):  # the states of padding are never read
            alpha = [attend(m[:, t], state[0]) for attend, m in zip(self.attentions, x, strict=True)]
            attended = torch.cat([m[:, t] * a for m, a in zip(x, alpha, strict=True)], 1)
            if self.config.rescale:
                attended = attended * self.grid**2
            state = self.convlstm.step(attended, state)
            pooled.append(state[0].flatten(1) if self.config.pooling == "flat" else state[0].mean((2, 3)))
            alphas.append(torch.cat(alpha, 1))
        hidden = self.output(torch.stack(pooled, 1)).tanh() * valid.unsqueeze(-1)
        step = self.classifier(self.dropout(hidden)) * valid.unsqueeze(-1)
        return step_output(hidden, step, alphas, segments, kind=self.loss_kind)

    def loss(self, output: HeadOutput, target: Tensor, *, step: int = 0) -> Tensor:
        """Cross-entropy of every step; see `Head.loss`."""
        return segment_loss(output.parts["step"], target, output.parts["share"], kind=self.loss_kind)
