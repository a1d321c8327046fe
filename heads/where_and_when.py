"""Where-and-when: a mask over the cells of each frame, attention over frames at each step of a ConvLSTM.

Meng et al., "Where and When to Look? Spatio-temporal Attention for Action Recognition in Videos", 2018 (submitted to
ICLR 2019). Equation numbers are the paper's; docs/where-and-when.md says what was decided and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from .contract import Head, HeadConfig, HeadOutput, StreamShape, check_batch, require_choice, require_range
from .layers.attention import attention_pool, attention_weights
from .layers.convlstm import ConvLSTM, State
from .layers.grids import on_grid
from .layers.regularisers import contrast, total_variation, unimodality, unimodality_root
from .layers.segments import Segments
from .layers.starting import classifier, he_conv


@dataclass(frozen=True, kw_only=True)
class WhereAndWhenConfig(HeadConfig):
    """Sizes and weights are the paper's or its authors' code's; `temporal` departs from the printed form."""

    temporal: Literal["bahdanau", "paper", "post_lstm", "none"] = "bahdanau"  # which attention over segments
    spatial: bool = True  # False: no mask, the paper's ablation
    filters: tuple[int, ...] = (1024, 512)  # of the two hidden convolutions, in the mask network and in Eq (5)'s
    lstm: int = 512  # channels of the ConvLSTM's state
    start: Literal["learned", "zeros"] = "learned"  # the ConvLSTM's first state: Eq (5), or as the authors' code has it
    energy: int = 512  # width of the `bahdanau` energy
    peepholes: bool = False  # in the ConvLSTM
    divide_by_n: bool = False  # Eq (4)'s 1/n on top of weights that sum to 1
    total_variation: float = 1e-5  # weights of the regularisers, Eq (7)
    contrast: float = 1e-4
    unimodality: float = 1.0
    regularisers: Literal["paper", "repo"] = "paper"  # repo: as the authors' code adds them up
    dropout: float = 0.2  # of whole channels of the cubes

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "temporal", ("bahdanau", "paper", "post_lstm", "none"))
        require_choice(self, "start", ("learned", "zeros"))
        require_choice(self, "regularisers", ("paper", "repo"))
        if len(self.filters) != 2 or min(self.filters) < 1:
            raise UsageError(f"Setting filters={self.filters}: must be two numbers, 1 or more, such as 1024,512.")
        for name in ("lstm", "energy"):
            require_range(self, name, least=1)
        for name in ("total_variation", "contrast", "unimodality"):
            require_range(self, name, least=0.0)
        require_range(self, "dropout", least=0.0, below=1.0)


class MapNorm(nn.BatchNorm2d):
    """Batch normalisation that takes its running statistics where a batch holds one value per channel.

    A last batch of one video on a 1 x 1 grid has no variance; PyTorch refuses it.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """[S, C, K, K] -> the same shape."""
        if self.training and maps.numel() == maps.shape[1]:
            return functional.batch_norm(
                maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(maps)


def conv_norm_relu(channels_in: int, channels_out: int) -> nn.Sequential:
    """3 x 3 convolution without bias, batch normalisation, ReLU."""
    return nn.Sequential(he_conv(channels_in, channels_out, kernel=3, bias=False), MapNorm(channels_out), nn.ReLU())


class MaskNetwork(nn.Module):
    """The importance mask of a frame, Eq (1): three convolutions and a sigmoid.

    It sees valid segments only, so the statistics of the normalisation hold no padding.
    """

    def __init__(self, channels: int, filters: Sequence[int]) -> None:
        super().__init__()
        last = nn.Conv2d(filters[1], 1, 3, padding=1, bias=False)
        nn.init.xavier_uniform_(last.weight)  # no ReLU follows
        self.layers = nn.Sequential(conv_norm_relu(channels, filters[0]), conv_norm_relu(*filters), last)

    def forward(self, maps: Tensor) -> Tensor:
        """[S, D, K, K] -> masks [S, 1, K, K] in 0..1."""
        return self.layers(maps).sigmoid()


class StartNetwork(nn.Module):
    """Eq (5): a first state of the ConvLSTM, from the masked features averaged over the video."""

    def __init__(self, channels: int, filters: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv_norm_relu(channels, filters), conv_norm_relu(filters, hidden))

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, K, K] -> [B, H, K, K], 0 and up."""
        return self.layers(maps)


class AdditiveEnergy(nn.Module):
    """Eq (2) as printed: `e_ti = phi_H(H_{t-1}) + phi_X(X~_i)`.

    The first term is the same for all i, so the softmax over i cancels it: the weights do not depend on t, and
    `phi_H` is not trained. Kept to reproduce the paper.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.of_state = nn.Linear(hidden, 1, bias=False)
        self.of_frames = nn.Linear(channels, 1, bias=False)

    def forward(self, state: Tensor, frames: Tensor) -> Tensor:
        """[B, H] and [B, T, C] -> [B, T]."""
        return (self.of_state(state).unsqueeze(1) + self.of_frames(frames)).squeeze(-1)


class BahdanauEnergy(nn.Module):
    """The energy that the paper cites: `e_ti = v . tanh(W_h H_{t-1} + W_x X~_i + b)`."""

    def __init__(self, channels: int, hidden: int, width: int) -> None:
        super().__init__()
        self.of_state = nn.Linear(hidden, width, bias=False)
        self.of_frames = nn.Linear(channels, width)
        self.v = nn.Linear(width, 1, bias=False)
        for linear in (self.of_state, self.of_frames, self.v):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.of_frames.bias)

    def forward(self, state: Tensor, frames: Tensor) -> Tensor:
        """[B, H] and [B, T, C] -> [B, T]."""
        return self.v((self.of_state(state).unsqueeze(1) + self.of_frames(frames)).tanh()).squeeze(-1)


class WhereAndWhen(Head):
    """Masks per stream, the masked streams side by side on the largest grid, one temporal attention and ConvLSTM."""

    Config = WhereAndWhenConfig
    spatial_sums_to_one = False
    logged = ("mask_mean",)  # the all-ones mask is the optimum of the regularisers

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: WhereAndWhenConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        self.config = config
        self.grid = max(stream.grid for stream in streams)
        channels, hidden = sum(stream.channels for stream in streams), config.lstm
        self.dropout = nn.Dropout2d(config.dropout)
        if config.spatial:
            self.masks = nn.ModuleList(MaskNetwork(stream.channels, config.filters) for stream in streams)
        if config.start == "learned":
            self.start_h = StartNetwork(channels, config.filters[0], hidden)
            self.start_c = StartNetwork(channels, config.filters[0], hidden)
        self.convlstm = ConvLSTM(channels, hidden, peepholes=config.peepholes)
        if config.temporal == "bahdanau":
            self.energy: nn.Module = BahdanauEnergy(channels, hidden, config.energy)
        elif config.temporal == "paper":
            self.energy = AdditiveEnergy(channels, hidden)
        elif config.temporal == "post_lstm":
            self.energy = nn.Linear(hidden, 1, bias=False)
        self.classifier = classifier(hidden, classes)

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`.

        `parts`, all [B, T] and 0 on padding: `mask_mean` (1 everywhere is the regularisers' optimum: no attention at
        all), `total_variation`, `contrast` and `unimodality`, each to be summed over the segments.
        """
        check_batch(self.streams, cubes, valid)
        segments = Segments(valid)
        x, masks, parts = self._mask(cubes, segments)
        start = self._start(x, segments)
        raw: Tensor | None
        if self.config.temporal in ("bahdanau", "paper"):
            representation, weights, raw = self._attend_before(x, start, segments)
        else:
            representation, weights, raw = self._attend_after(x, start, segments)
        parts["unimodality"] = self._unimodality(weights, segments)
        steps = valid.sum(1).view(-1, 1)
        temporal = weights.sum(1) / steps if weights.ndim == 3 else weights
        return HeadOutput(self.classifier(representation), representation, masks, temporal, raw, parts)

    def loss(self, output: HeadOutput, target: Tensor, *, step: int = 0) -> Tensor:
        """Eq (7): classification, total variation, contrast, unimodality; see `Head.loss`."""
        config, parts, videos = self.config, output.parts, len(output.logits)
        # the authors' code sums the total variation over the batch, which multiplies its weight by the batch size
        smooth = parts["total_variation"].sum() / (1 if config.regularisers == "repo" else videos)
        return (
            super().loss(output, target, step=step)
            + config.total_variation * smooth
            + config.contrast * parts["contrast"].sum() / videos
            + config.unimodality * parts["unimodality"].sum() / videos
        )

    def _start(self, x: Tensor, segments: Segments) -> State:
        if self.config.start == "zeros":
            return self.convlstm.zero_state(x)
        mean = segments.mean(x)
        return self.start_h(mean), self.start_c(mean)  # Eq (5)

    def _mask(self, cubes: Sequence[Tensor], segments: Segments) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Eq (1) per stream -> features [B, T, C, K, K], masks [B, T, M, K, K], and the masks' figures [B, T]."""
        features, masks = [], []
        figures = segments.rows.new_zeros(len(segments.rows), 3, dtype=torch.float32)
        for m, cube in enumerate(cubes):
            maps = self.dropout(segments.pack(cube).float().permute(0, 3, 1, 2))  # [S, D, K, K]
            if self.config.spatial:
                mask = self.masks[m](maps)  # [S, 1, K, K]
                maps = maps * mask
                mask = mask.squeeze(1)
                decided = contrast(mask, skip_half=self.config.regularisers == "repo")
                figures = figures + torch.stack([mask.mean((1, 2)) / len(cubes), total_variation(mask), decided], 1)
                masks.append(on_grid(mask, grid=self.grid).clamp(0, 1))  # rounding may leave 0..1
            features.append(on_grid(maps, grid=self.grid))
        spatial = segments.unpack(torch.stack(masks, 1)) if masks else None
        mask_mean, smooth, decided = segments.unpack(figures).unbind(-1)
        parts = {"mask_mean": mask_mean, "total_variation": smooth, "contrast": decided}
        return segments.unpack(torch.cat(features, 1)), spatial, parts

    def _attend_before(self, x: Tensor, state: State, segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
        """Attention feeds the ConvLSTM: Eqs (2)-(4) and (6).

        Returns
        -------
        [B, H], weights [B, T, T] of step and segment, 0 where either is padding, and their mean energies [B, T]
        """
        valid, pooled, (of_input, of_state) = segments.valid, x.mean((3, 4)), self.convlstm.halves()
        # Eq (4) and the convolution of Y are both linear: the frames are convolved first, all at once
        projected = segments.unpack(self.convlstm.project(segments.pack(x), of_input))  # [B, T, 4H, K, K]
        flat = projected.flatten(2)
        states, weights, energies = [], [], []
        for t in range(x.shape[1]):
            e = self.energy(state[0].mean((2, 3)), pooled)  # Eq (2), the state seen through its mean over cells
            w = attention_weights(e, valid)  # Eq (3)
            y = attention_pool(flat, w).unflatten(1, projected.shape[2:])  # Eq (4)
            if self.config.divide_by_n:
                y = y / valid.sum(1).view(-1, 1, 1, 1)
            state = self.convlstm.advance(y, of_state, state)  # on padding: never read
            states.append(state[0].mean((2, 3)))
            weights.append(w * valid[:, t, None])
            energies.append((e * valid[:, t, None]).masked_fill(~valid, 0))
        mean_state = segments.mean(torch.stack(states, 1) * valid.unsqueeze(-1))  # Eq (6), then the mean over cells
        raw = torch.stack(energies, 1).sum(1) / valid.sum(1, keepdim=True)
        return mean_state, torch.stack(weights, 1), raw

    def _attend_after(self, x: Tensor, state: State, segments: Segments) -> tuple[Tensor, Tensor, Tensor | None]:
        """The ConvLSTM reads the frames in order; its states are weighted (the authors' code) or averaged.

        Returns
        -------
        [B, H], weights [B, T], and their energies [B, T] or None
        """
        states = self.convlstm(x, segments.valid, state)[0].mean((3, 4))  # [B, T, H]
        if self.config.temporal == "none":
            weights, raw = segments.uniform(), None
        else:
            energies = self.energy(states).squeeze(-1)
            weights = attention_weights(energies, segments.valid)
            raw = energies.masked_fill(~segments.valid, 0)
        return attention_pool(states, weights), weights, raw

    def _unimodality(self, weights: Tensor, segments: Segments) -> Tensor:
        """[B, T, T] or [B, T] weights -> [B, T], whose sum over the segments is the video's penalty."""
        if self.config.regularisers == "paper" and weights.ndim == 3:
            return unimodality(weights)  # Eq (10): one term per step; a step on padding has weights 0 and adds nothing
        lengths = segments.valid.sum(1)
        track = weights.sum(1) / lengths.unsqueeze(1) if weights.ndim == 3 else weights
        value = unimodality_root(track, lengths) if self.config.regularisers == "repo" else unimodality(track)
        return value.unsqueeze(1) * segments.uniform()
