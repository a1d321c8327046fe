"""Soft attention over cells, guided by an LSTM's state: Sharma, Kiros and Salakhutdinov, 2015 (spec section 8).

"Action Recognition using Visual Attention", arXiv:1511.04119, after its authors' code, whose attention is a small
network where the paper prints a linear map of the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .contract import Head, HeadConfig, HeadOutput, StreamShape, check_batch, require_choice, require_range
from .layers.attention import attention_pool, attention_weights, resample_maps
from .layers.recurrent import Lstm
from .layers.segments import Segments
from .layers.starting import classifier
from .layers.step_scores import segment_loss, step_output


@dataclass(frozen=True, kw_only=True)
class SoftAttentionConfig(HeadConfig):
    """Sizes of the authors' code for UCF-11; preset `hmdb51` is its other one."""

    attention: int = 1024  # width of the attention's hidden layer: the code takes the channels of its cubes, 1024
    attention_layers: int = 1  # from a cell to that layer; tanh after the inner ones
    lstm: int = 512
    output: int = 512  # units of the tanh layer between the LSTM and the scores
    attention_penalty: float = 0.0  # of cells that the attention never visits: sum over cells of (1 - sum_t alpha)^2
    dropout: float = 0.5  # of the LSTM's states on their way out, and before the classifier
    last_segments: int | None = None  # whose probabilities are averaged to the score; none = of all
    reduction: Literal["mean", "sum"] = "mean"  # of the loss, over the segments and videos of a batch

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "reduction", ("mean", "sum"))
        for name in ("attention", "attention_layers", "lstm", "output"):
            require_range(self, name, least=1)
        if self.last_segments is not None:
            require_range(self, "last_segments", least=1)
        require_range(self, "attention_penalty", least=0.0)
        require_range(self, "dropout", least=0.0, below=1.0)


class GuidedCells(nn.Module):
    """Attention over the cells of one stream: `alpha = softmax(u . tanh(W_c x + W_d h + b))`.

    With several layers, `W_c x + b` is followed by further ones, `W_l z + b_l`, with a tanh after all but the last. As
    in the code, none follows `W_c x + b` itself.
    """

    def __init__(self, channels: int, hidden: int, width: int, layers: int) -> None:
        super().__init__()
        self.of_cells = nn.Linear(channels, width)
        self.deeper = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.of_state = nn.Linear(hidden, width, bias=False)
        self.u = nn.Linear(width, 1, bias=False)
        for linear in (self.of_cells, self.of_state, self.u):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.of_cells.bias)
        for deeper in self.deeper.parameters():
            (nn.init.orthogonal_ if deeper.ndim == 2 else nn.init.zeros_)(deeper)

    def forward(self, cells: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L, D] and [B, H] -> attended [B, D] and weights [B, L]."""
        seen = self.of_cells(cells)
        for number, linear in enumerate(self.deeper, 1):
            seen = linear(seen) if number == len(self.deeper) else linear(seen).tanh()
        hidden = (seen + self.of_state(state).unsqueeze(1)).tanh()
        alpha = attention_weights(self.u(hidden).squeeze(-1))
        return attention_pool(cells, alpha), alpha


class SoftAttention(Head):
    """One LSTM over the segments; at each, its state before it attends to the cells of every stream.

    Scores are the mean of the steps' probabilities, of the last ones if `last_segments` says so. The code adds them up
    over blocks of 30 frames and takes the most frequent class of a video's blocks; over one block that is the same.
    """

    Config = SoftAttentionConfig

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: SoftAttentionConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        self.grid = max(stream.grid for stream in streams)
        self.config = config
        width = sum(stream.channels for stream in streams)
        self.attentions = nn.ModuleList(
            GuidedCells(stream.channels, config.lstm, config.attention, config.attention_layers) for stream in streams
        )
        self.start_h = nn.Linear(width, config.lstm)
        self.start_c = nn.Linear(width, config.lstm)
        for linear in (self.start_h, self.start_c):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.lstm = Lstm(width, config.lstm)
        self.output = nn.Linear(config.lstm, config.output)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = classifier(config.output, classes)

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`. `parts`: `step` [B, T, N], logits, and `share`, 1 / length."""
        check_batch(self.streams, cubes, valid)
        segments = Segments(valid)
        cells = [segments.unpack(segments.pack(cube).float().flatten(1, 2)) for cube in cubes]  # [B, T, K*K, D]
        mean = torch.cat([segments.mean(c.mean(2)) for c in cells], -1)
        h, c = self.start_h(mean).tanh(), self.start_c(mean).tanh()  # from the mean over cells and segments
        states, alphas = [], []
        for t in range(valid.shape[1]):  # the states of padding are never read
            context, weights = zip(*(a(x[:, t], h) for a, x in zip(self.attentions, cells, strict=True)), strict=True)
            _, (h_n, c_n) = self.lstm.lstm(torch.cat(context, -1).unsqueeze(1), (h.unsqueeze(0), c.unsqueeze(0)))
            h, c = h_n.squeeze(0), c_n.squeeze(0)
            states.append(h)
            maps = [w.unflatten(1, (s.grid, s.grid)) for w, s in zip(weights, self.streams, strict=True)]
            alphas.append(torch.stack([resample_maps(m, grid=self.grid) for m in maps], 1))
        hidden = self.output(self.dropout(torch.stack(states, 1))).tanh() * valid.unsqueeze(-1)
        step = self.classifier(self.dropout(hidden)) * valid.unsqueeze(-1)
        return step_output(hidden, step, alphas, segments, kind=self.loss_kind, last=self.config.last_segments)

    def loss(self, output: HeadOutput, target: Tensor, *, step: int = 0) -> Tensor:
        """Cross-entropy of every step, and the penalty of unseen cells; see `Head.loss`.

        With `reduction=sum` the cross-entropies are added up over steps and videos, as the code does, whose learning
        rate of gradient descent belongs to that.
        """
        parts, config = output.parts, self.config
        weights = parts["share"]
        if config.reduction == "sum":
            weights = (weights > 0) * float(len(weights))  # segment_loss divides by the videos
        loss = segment_loss(parts["step"], target, weights, kind=self.loss_kind)
        if config.attention_penalty and output.spatial is not None:
            unseen = (1 - output.spatial.sum(1)).square().sum((1, 2, 3)).mean()
            loss = loss + config.attention_penalty * unseen
        return loss
