"""Plain models of time without attention: rivals of the attention heads, and layers that those may choose from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from .contract import Head, HeadConfig, HeadOutput, StreamShape, check_batch, require_choice, require_range
from .layers.attention import attention_pool
from .layers.convlstm import ConvLSTM
from .layers.grids import on_grid
from .layers.recurrent import Lstm
from .layers.segments import Segments
from .layers.sru import Sru
from .layers.starting import classifier


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(HeadConfig):
    """What all of them have in common."""

    hidden: int = 1024  # units, or channels, of the state
    readout: Literal["mean", "last"] = "mean"  # over the valid segments; last: of the last valid one
    dropout: float = 0.5  # before the classifier

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "hidden", least=1)
        require_choice(self, "readout", ("mean", "last"))
        require_range(self, "dropout", least=0.0, below=1.0)


@dataclass(frozen=True, kw_only=True)
class LstmConfig(RecurrentConfig):
    """A stack of layers, each reading the outputs of the one below."""

    layers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "layers", least=1)


@dataclass(frozen=True, kw_only=True)
class SruConfig(LstmConfig):
    """Simple recurrent units in the paper's form (v1) or the package's (v2)."""

    sru: Literal["v1", "v2"] = "v1"
    sru_dropout: float = 0.0  # of the outputs of all layers but the last, one mask for all segments
    rnn_dropout: float = 0.0  # of the inputs of the matrix products, one mask for all segments

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "sru", ("v1", "v2"))
        require_range(self, "sru_dropout", least=0.0, below=1.0)
        require_range(self, "rnn_dropout", least=0.0, below=1.0)


@dataclass(frozen=True, kw_only=True)
class ConvLstmConfig(RecurrentConfig):
    """One convolutional LSTM."""

    hidden: int = 512
    kernel: int = 3
    peepholes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "kernel", least=1)
        if self.kernel % 2 == 0:
            raise UsageError(f"Setting kernel={self.kernel}: must be odd, so that the grid keeps its size.")


class LstmStack(nn.Module):
    """One or more LSTM layers (spec P1), with the interface of `Sru`."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Lstm(hidden if depth else channels, hidden) for depth in range(layers))

    def forward(self, inputs: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, T, D] finite, and valid [B, T] -> [B, T, H], 0 on padding."""
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs if valid is None else inputs * valid.unsqueeze(-1)


class Recurrent(Head):
    """A recurrent model of the segments, the mean or the last of its outputs, dropout, a linear classifier."""

    def __init__(self, *, streams: Sequence[StreamShape], classes: int, config: RecurrentConfig) -> None:
        super().__init__(streams=streams, classes=classes, config=config)
        self.readout = config.readout
        self.stack = self.build_stack(sum(stream.channels for stream in streams), config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = classifier(config.hidden, classes)

    @staticmethod
    @abstractmethod
    def build_stack(channels: int, config: Any) -> nn.Module:
        """Build the recurrent layers, for what `outputs` feeds them."""

    def outputs(self, cubes: Sequence[Tensor], segments: Segments) -> Tensor:
        """Per stream [B, T, K, K, D] -> outputs [B, T, hidden], 0 on padding; here from the means over cells."""
        pooled = [segments.pack(cube).mean((1, 2), dtype=torch.float32) for cube in cubes]  # each [S, D]
        return self.stack(segments.unpack(torch.cat(pooled, -1)), segments.valid)

    def forward(self, cubes: Sequence[Tensor], valid: Tensor) -> HeadOutput:
        """Score a batch of videos; see `Head.forward`. `parts` holds `segments` [B, T, hidden], the outputs."""
        check_batch(self.streams, cubes, valid)
        segments = Segments(valid)
        outputs = self.outputs(cubes, segments)
        if self.readout == "mean":
            temporal = segments.uniform()
        else:
            temporal = functional.one_hot(valid.sum(1) - 1, valid.shape[1]).float()
        representation = attention_pool(outputs, temporal)
        logits = self.classifier(self.dropout(representation))
        return HeadOutput(logits, representation, None, temporal, parts={"segments": outputs})


class LstmHead(Recurrent):
    """The rival with long short-term memory over pooled segments."""

    Config = LstmConfig

    @staticmethod
    def build_stack(channels: int, config: LstmConfig) -> nn.Module:
        """Build LSTM layers."""
        return LstmStack(channels, config.hidden, config.layers)


class SruHead(Recurrent):
    """The rival with simple recurrent units over pooled segments."""

    Config = SruConfig

    @staticmethod
    def build_stack(channels: int, config: SruConfig) -> nn.Module:
        """Build SRU layers."""
        return Sru(
            channels,
            config.hidden,
            config.layers,
            version=config.sru,
            dropout=config.sru_dropout,
            rnn_dropout=config.rnn_dropout,
        )


class ConvLstmHead(Recurrent):
    """The rival with a convolutional LSTM over whole cubes; its states are pooled over cells after it."""

    Config = ConvLstmConfig

    @staticmethod
    def build_stack(channels: int, config: ConvLstmConfig) -> nn.Module:
        """Build one convolutional LSTM."""
        return ConvLSTM(channels, config.hidden, config.kernel, config.peepholes)

    def outputs(self, cubes: Sequence[Tensor], segments: Segments) -> Tensor:
        """Per stream [B, T, K, K, D], laid on the finest grid -> cell means of the states [B, T, hidden]."""
        grid = max(stream.grid for stream in self.streams)
        maps = [on_grid(segments.pack(cube).float().permute(0, 3, 1, 2), grid=grid) for cube in cubes]  # [S, D, K, K]
        states, _ = self.stack(segments.unpack(torch.cat(maps, 1)), segments.valid)  # [B, T, hidden, K, K]
        return states.mean((3, 4)) * segments.valid.unsqueeze(-1)
