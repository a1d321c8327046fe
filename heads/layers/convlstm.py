"""Convolutional LSTM: the state keeps its grid, and the gates see a neighbourhood of cells (spec P3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .segments import Segments

State = tuple[Tensor, Tensor]
"""h and c, each [B, H, K, K]."""


class ConvLSTM(nn.Module):
    """One-layer LSTM whose products are same-padded convolutions over `[x ; h]`, for any grid.

    `i, f, o = sigmoid(W * [x; h] + b)`, `g = tanh(W * [x; h] + b)`, `c' = f c + i g`, `h' = o tanh(c')`.

    Starts with Xavier input and orthogonal recurrent weights per gate, and a forget bias of 1, as `Lstm`.

    Parameters
    ----------
    input_channels : C of the input maps
    hidden : H, channels of the state
    kernel : side of the convolution, odd
    peepholes : let the gates see the cell state (Shi et al. 2015; no public code of the heads' papers does). Their
        weights per channel and cell would fix the grid; here they are per channel. They start at 0.

    Raises
    ------
    ValueError
        If the kernel is even: the grid would not keep its size.
    """

    def __init__(self, input_channels: int, hidden: int, kernel: int = 3, peepholes: bool = False) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be odd, so that the grid keeps its size")
        self.input_channels, self.hidden = input_channels, hidden
        self.gates = nn.Conv2d(input_channels + hidden, 4 * hidden, kernel, padding=kernel // 2)  # order i, f, o, g
        self.peepholes = nn.Parameter(torch.zeros(3, hidden, 1, 1)) if peepholes else None  # of i, f, o
        for gate in self.gates.weight.detach().chunk(4):
            nn.init.xavier_uniform_(gate[:, :input_channels])
            nn.init.orthogonal_(gate[:, input_channels:])
        bias = self.gates.bias
        nn.init.zeros_(bias)  # type: ignore[arg-type]
        with torch.no_grad():
            bias[hidden : 2 * hidden] = 1  # type: ignore[index]

    def step(self, maps: Tensor, state: State) -> State:
        """Take one step: [B, C, K, K] and the state before -> the state after.

        One convolution over `[x ; h]`, with the weights as they lie in memory: no copies of halves of them.
        """
        return self._update(self.gates(torch.cat([maps, state[0]], 1)), state[1])

    def halves(self) -> tuple[Tensor, Tensor]:
        """Return the weights of the input and of the state: to be copied once, not at every step of a video."""
        of_input, of_state = self.gates.weight.split([self.input_channels, self.hidden], 1)
        return of_input.contiguous(), of_state.contiguous()

    def project(self, maps: Tensor, of_input: Tensor) -> Tensor:
        """The input's share of the four gates, without the bias: [S, C, K, K] -> [S, 4H, K, K]."""
        return functional.conv2d(maps, of_input, padding=self.gates.padding)

    def advance(self, projected: Tensor, of_state: Tensor, state: State) -> State:
        """Take one step from the input's share [B, 4H, K, K]: the state before -> the state after."""
        share = functional.conv2d(state[0], of_state, self.gates.bias, padding=self.gates.padding)
        return self._update(projected + share, state[1])

    def _update(self, gates: Tensor, c: Tensor) -> State:
        """Gates [B, 4H, K, K] before their non-linearities, and the cell state before -> the state after."""
        i, f, o, g = gates.chunk(4, 1)
        if self.peepholes is not None:
            i, f = i + self.peepholes[0] * c, f + self.peepholes[1] * c
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        if self.peepholes is not None:
            o = o + self.peepholes[2] * c
        return o.sigmoid() * c.tanh(), c

    def zero_state(self, maps: Tensor) -> State:
        """Return a state of zeros for `maps` [B, ..., K, K]."""
        zeros = maps.new_zeros(maps.shape[0], self.hidden, *maps.shape[-2:])
        return zeros, zeros

    def forward(self, x: Tensor, valid: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run over the segments of each video, up to its true length.

        Parameters
        ----------
        x : [B, T, C, K, K] floating; the content of padding is ignored
        valid : [B, T] bool, True = a real segment
        state : the state before the first segment; None = zeros

        Returns
        -------
        States [B, T, H, K, K], on padding that of the last valid segment, and the last state (h, c).
        """
        segments, (of_input, of_state) = Segments(valid), self.halves()
        projected = segments.unpack(self.project(segments.pack(x), of_input))  # all at once: only h must wait
        h, c = self.zero_state(x) if state is None else state
        states = []
        for t in range(x.shape[1]):
            after, real = self.advance(projected[:, t], of_state, (h, c)), valid[:, t, None, None, None]
            h, c = torch.where(real, after[0], h), torch.where(real, after[1], c)
            states.append(h)
        return torch.stack(states, 1), (h, c)
