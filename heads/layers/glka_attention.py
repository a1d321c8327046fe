"""GLKA's three ways from the cells of a segment to one vector: global pooling, statistic and learned attention.

Zheng et al., "Global and Local Knowledge-Aware Attention Network for Action Recognition", IEEE TNNLS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..contract import StreamShape
from .attention import attention_pool, attention_weights, resample_maps
from .segments import Segments

FeatureFusion = Literal["concatenation", "average", "max", "multiply"]


class StatisticAttention(nn.Module):
    """Eqs. (3) and (4): a cell weighs by the sum of its squared channels.

    Over hundreds of channels after a ReLU the sum is in the hundreds, and its softmax is an argmax. The authors' code
    takes the mean and learns a factor on it, a temperature (their bias shifts all scores alike and is left out).

    Parameters
    ----------
    reduction : "sum" as printed, or "mean"
    learned_scale : whether a factor, 1 at first, multiplies the statistic
    """

    def __init__(self, *, reduction: Literal["sum", "mean"], learned_scale: bool) -> None:
        super().__init__()
        self.reduction = reduction
        self.scale = nn.Parameter(torch.ones(())) if learned_scale else None

    def forward(self, cells: Tensor) -> Tensor:
        """[S, L, D] float32 -> weights [S, L]."""
        squares = cells.square()  # float16 would overflow at 256
        statistic = squares.sum(-1) if self.reduction == "sum" else squares.mean(-1)
        return attention_weights(statistic if self.scale is None else statistic * self.scale)


class LearnedAttention(nn.Module):
    """Eqs. (6) and (7): a cell weighs by a two-layer network.

    Parameters
    ----------
    channels : D of the cells
    hidden : units of the first layer, 128 in the paper
    outer_tanh : the authors' code has a tanh on the score, so that no weight can be more than e^2 times another
    """

    def __init__(self, channels: int, hidden: int, *, outer_tanh: bool) -> None:
        super().__init__()
        self.outer_tanh = outer_tanh
        self.inner, self.outer = nn.Linear(channels, hidden), nn.Linear(hidden, 1)
        for linear in (self.inner, self.outer):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        if not outer_tanh:
            self.outer.bias.requires_grad_(False)  # shifts all scores alike: softmax leaves it no gradient

    def forward(self, cells: Tensor) -> Tensor:
        """[S, L, D] float32 -> weights [S, L]."""
        scores = self.outer(self.inner(cells).tanh()).squeeze(-1)
        return attention_weights(scores.tanh() if self.outer_tanh else scores)


class Descriptors(nn.Module):
    """Vectors of every segment: `gp` by global pooling, `sa` and `la` by attention, the streams side by side.

    Parameters
    ----------
    streams : what is read
    statistic, learned : builds the attention of one stream; None = it is not wanted
    """

    def __init__(
        self,
        streams: Sequence[StreamShape],
        *,
        statistic: Sequence[StatisticAttention] | None,
        learned: Sequence[LearnedAttention] | None,
    ) -> None:
        super().__init__()
        self.grid = max(stream.grid for stream in streams)
        self.by_kind = nn.ModuleDict()
        if statistic is not None:
            self.by_kind["sa"] = nn.ModuleList(statistic)
        if learned is not None:
            self.by_kind["la"] = nn.ModuleList(learned)

    def forward(self, cubes: Sequence[Tensor], segments: Segments) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Describe a batch.

        Parameters
        ----------
        cubes : per stream [B, T, K, K, D]

        Returns
        -------
        vectors : by kind (`gp`, `sa`, `la`), [B, T, sum of D] float32
        maps : by kind (`sa`, `la`), [B, T, M, K, K] float32, K the largest grid

        Both are 0 on padding.
        """
        kinds: list[str] = list(self.by_kind)
        vectors: dict[str, list[Tensor]] = {kind: [] for kind in ("gp", *kinds)}
        maps: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
        for m, cube in enumerate(cubes):
            packed = segments.pack(cube).float()  # [S, K, K, D]
            S, K = packed.shape[:2]
            cells = packed.flatten(1, 2)  # [S, K*K, D]
            vectors["gp"].append(cells.mean(1))  # eq. (2)
            for kind in kinds:
                weights = self.by_kind[kind][m](cells)  # type: ignore[index]
                vectors[kind].append(attention_pool(cells, weights))  # eqs. (5) and (8)
                maps[kind].append(resample_maps(weights.view(S, K, K), grid=self.grid))
        return (
            {kind: segments.unpack(torch.cat(parts, -1)) for kind, parts in vectors.items()},
            {kind: segments.unpack(torch.stack(parts, 1)) for kind, parts in maps.items()},
        )


def fuse_features(pooled: Tensor, attended: Tensor, *, rule: FeatureFusion) -> Tensor:
    """Composite feature of global pooling and an attention: eqs. (9) and (10), and the rivals of Tables II and III.

    Parameters
    ----------
    pooled, attended : [B, T, D]

    Returns
    -------
    [B, T, 2 D] for the concatenation, else [B, T, D]
    """
    if rule == "concatenation":
        return torch.cat([pooled, attended], -1)
    if rule == "average":
        return (pooled + attended) / 2
    return torch.maximum(pooled, attended) if rule == "max" else pooled * attended
