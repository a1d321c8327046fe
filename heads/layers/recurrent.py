"""Recurrent layers over the segments of a video."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Lstm(nn.Module):
    """One-layer LSTM without peepholes and with a zero first state (spec P1).

    Starts with orthogonal recurrent and Xavier input weights per gate, and a forget bias of 1.

    Parameters
    ----------
    channels : size of the input
    hidden : size of the state
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, batch_first=True)
        weights = dict(self.lstm.named_parameters())
        for gate in weights["weight_hh_l0"].chunk(4):
            nn.init.orthogonal_(gate)
        for gate in weights["weight_ih_l0"].chunk(4):
            nn.init.xavier_uniform_(gate)
        nn.init.zeros_(weights["bias_hh_l0"])
        nn.init.zeros_(weights["bias_ih_l0"])
        with torch.no_grad():
            weights["bias_ih_l0"][hidden : 2 * hidden] = 1  # gates in PyTorch's order: input, forget, cell, output

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, D] -> hidden states [B, T, H].

        Padding only follows the valid segments, and a state never looks ahead: the states of valid segments are those
        of the unpadded video, the others are for the caller to mask.
        """
        return self.lstm(inputs)[0]
