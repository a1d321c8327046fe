"""Simple recurrent units: GLKA's temporal model, in the paper's form and in that of the published package.

Lei et al., "Simple Recurrent Units for Highly Parallelizable Recurrence", EMNLP 2018; GLKA eqs. (11)-(15). No gate
sees the last output, so all matrix products run over all segments at once and only element-wise work runs along time.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Version = Literal["v1", "v2"]


class SruLayer(nn.Module):
    """One layer of simple recurrent units with a zero first state.

    `v1` is the paper's form: gates see the input alone, g = tanh. `v2` is the package's: gates see c_{t-1} too, g is
    the identity, and the highway is scaled by sqrt(3) so that depth keeps the variance.

    The highway adds the input itself where its size is that of the state. Eq. (15) is defined for that case alone;
    otherwise a fourth matrix without bias projects the input.

    Parameters
    ----------
    channels : n_in
    hidden : n, size of the state
    version : "v1" or "v2"
    dropout : of g(c), one mask per video and unit for all segments
    rnn_dropout : of the input of the matrix products, one mask per video and channel; the identity highway is spared
    scan : v1 only: O(log T) passes over whole tensors instead of T small ones, equal up to rounding. Off, because on a
        CPU the loop is several times faster: `torch.lerp` does a whole step, and reads its inputs once
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        version: Version = "v1",
        dropout: float = 0.0,
        rnn_dropout: float = 0.0,
        scan: bool = False,
    ) -> None:
        super().__init__()
        self.version, self.dropout, self.rnn_dropout, self.scan = version, dropout, rnn_dropout, scan
        self.projects = channels != hidden
        matrices = 4 if self.projects else 3  # candidate, forget gate, reset gate, highway
        self.weight = nn.Parameter(torch.empty(matrices, hidden, channels))
        self.bias = nn.Parameter(torch.zeros(2, hidden))  # forget gate, reset gate
        nn.init.uniform_(self.weight, -math.sqrt(3 / channels), math.sqrt(3 / channels))  # variance 1 / n_in
        self.highway_scale = 1.0
        if version == "v2":
            self.state_weight = nn.Parameter(torch.empty(2, hidden))  # forget gate, reset gate
            nn.init.uniform_(self.state_weight, -math.sqrt(1.5), math.sqrt(1.5))
            scale = math.sqrt(3)  # sqrt(1 + 2 e^b) at b = 0
            self.highway_scale = 1.0 if self.projects else scale
            with torch.no_grad():  # the package's start: each sum keeps its variance, dropout included
                self.weight.mul_(math.sqrt(1 - rnn_dropout))
                self.weight[0].mul_(math.sqrt(1 - dropout))
                self.weight[1:3].mul_(math.sqrt(0.5))
                self.weight[3:].mul_(scale)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, n_in] -> outputs h and states c, each [B, T, n]; no segment looks ahead."""
        seen = inputs * self._mask(inputs, self.rnn_dropout) if self.training and self.rnn_dropout else inputs
        products = functional.linear(seen, self.weight.flatten(0, 1))  # all matrices and segments in one go
        candidate, forget, reset, *projected = products.chunk(len(self.weight), -1)  # (11)-(13) before the biases
        highway = projected[0] if self.projects else inputs * self.highway_scale
        forget, reset = forget + self.bias[0], reset + self.bias[1]
        if self.version == "v1":
            run = recurrence_scan if self.scan else recurrence
            states = run(forget.sigmoid(), candidate)
            value, gate = states.tanh(), reset.sigmoid()
        else:
            states = recurrence_seen(forget, candidate, self.state_weight[0])
            before = functional.pad(states[:, :-1], (0, 0, 1, 0))  # c_{t-1}
            value, gate = states, (reset + before * self.state_weight[1]).sigmoid()
        if self.training and self.dropout:
            mask = self._mask(value, self.dropout)
            if self.version == "v1":  # the two versions of the package put the mask in different places
                value = value * mask
            else:
                gate = gate * mask
        return torch.lerp(highway, value, gate), states  # eq. (15)

    @staticmethod
    def _mask(inputs: Tensor, rate: float) -> Tensor:
        """Dropout mask [B, 1, D] of [B, T, D], the same for all segments; what is kept is scaled by 1 / (1 - rate)."""
        return functional.dropout(torch.ones_like(inputs[:, :1]), rate)


class Sru(nn.Module):
    """A stack of layers; each reads the outputs of the one below.

    Parameters
    ----------
    channels : size of the input
    hidden : size of each layer's state
    layers : 1 or more
    version, rnn_dropout, scan : see `SruLayer`
    dropout : see `SruLayer`; the last layer has none
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        layers: int = 1,
        *,
        version: Version = "v1",
        dropout: float = 0.0,
        rnn_dropout: float = 0.0,
        scan: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SruLayer(
                hidden if depth else channels,
                hidden,
                version=version,
                dropout=dropout if depth + 1 < layers else 0.0,
                rnn_dropout=rnn_dropout,
                scan=scan,
            )
            for depth in range(layers)
        )

    def forward(self, inputs: Tensor, valid: Tensor | None = None) -> Tensor:
        """Run over the segments.

        Parameters
        ----------
        inputs : [B, T, D] floating, finite on padding too
        valid : [B, T] bool, padding only at the end; None = all valid

        Returns
        -------
        [B, T, H] outputs of the last layer, 0 on padding
        """
        for layer in self.layers:
            inputs, _ = layer(inputs)
        return inputs if valid is None else inputs * valid.unsqueeze(-1)


def recurrence(forget: Tensor, candidate: Tensor) -> Tensor:
    """Eq. (14), `c_t = f_t c_{t-1} + (1 - f_t) x_t` from c_0 = 0, one segment after the other.

    Parameters
    ----------
    forget : [B, T, H] in 0..1
    candidate : [B, T, H]

    Returns
    -------
    [B, T, H]
    """
    state = torch.zeros_like(candidate[:, 0])
    states = []
    for f, x in zip(forget.unbind(1), candidate.unbind(1), strict=True):
        state = torch.lerp(x, state, f)
        states.append(state)
    return torch.stack(states, 1)


def recurrence_scan(forget: Tensor, candidate: Tensor) -> Tensor:
    """Same as `recurrence`, in ceil(log2 T) doublings of the stretch that each state has seen.

    Two steps c -> a c + b in a row are one with a = a1 a2 and b = a2 b1 + b2. All a are products of gates, in 0..1, so
    nothing is divided and nothing overflows, unlike in the form with cumulative products.
    """
    decay, states = forget, (1 - forget) * candidate
    T, seen = candidate.shape[1], 1
    while seen < T:
        later = torch.addcmul(states[:, seen:], decay[:, seen:], states[:, :-seen])
        states = torch.cat([states[:, :seen], later], 1)
        decay = torch.cat([decay[:, :seen], decay[:, seen:] * decay[:, :-seen]], 1)
        seen *= 2
    return states


def recurrence_seen(forget: Tensor, candidate: Tensor, weight: Tensor) -> Tensor:
    """Eq. (14) with gates `f_t = sigmoid(forget_t + weight c_{t-1})`: not linear in c, so it has no parallel form.

    Parameters
    ----------
    forget : [B, T, H], before the sigmoid
    candidate : [B, T, H]
    weight : [H]

    Returns
    -------
    [B, T, H]
    """
    state = torch.zeros_like(candidate[:, 0])
    states = []
    for f, x in zip(forget.unbind(1), candidate.unbind(1), strict=True):
        state = torch.lerp(x, state, torch.addcmul(f, weight, state).sigmoid())
        states.append(state)
    return torch.stack(states, 1)
