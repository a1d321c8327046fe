"""A frozen network or descriptor behind one contract: uint8 inputs of a segment in, a cube out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UnknownNameError, UsageError, VidattError
from ..kinds import find_kind
from ..windows import StreamKind
from .forms import MAP, OutputForm, pool_cubes, to_cubes
from .preprocessing import Preprocessing

PRECISIONS = ("auto", "float32", "bfloat16")


class Backbone(nn.Module):
    """A frozen network from uint8 inputs to cubes; made by `build_backbone`, never trained.

    Attributes
    ----------
    kind : what a segment is
    form : what the network's output is
    pool : side to which grids are averaged; None leaves them
    crop_px, resize : the input's side, and how frames are to be resized before the crop (see `views.Geometry`)
    mean, std : (1, channels or 1, 1, 1) with another 1 for clips, of the preprocessing
    cube_shape : (K, K, D) of the output
    recipe : what the fingerprint of a stream says about it: name, layer, weights, preprocessing, precision
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        preprocessing: Preprocessing | None,
        precision: torch.dtype,
        *,
        kind: str | StreamKind,
        crop_px: int,
        resize: str,
        form: OutputForm = MAP,
        pool: int | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.preprocessing = preprocessing
        self.precision = precision
        self.kind, self.crop_px, self.resize = find_kind(kind), crop_px, resize
        self.form, self.pool = form, pool
        self.recipe: dict[str, Any] = {}
        self.cube_shape: tuple[int, int, int] = (0, 0, 0)
        shape = (1, -1, *(1,) * (len(self.input_shape) - 1))
        for name, values in (("mean", (0.0,)), ("std", (1.0,))):
            chosen = getattr(preprocessing, name) if preprocessing else values
            self.register_buffer(name, torch.tensor(chosen).view(shape), persistent=False)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one segment's input: (S, S, 3), (S, S, 20) or (16, S, S, 3)."""
        return self.kind.input_shape(self.crop_px)

    def forward(self, inputs: Tensor) -> Tensor:
        """Extract one batch.

        Parameters
        ----------
        inputs : uint8 on the backbone's device. rgb: (b, S, S, 3) RGB. flow: (b, S, S, 20), quantised, channels
            x0, y0, x1, y1, ... clip: (b, 16, S, S, 3) RGB, time in order

        Returns
        -------
        (b, K, K, D) in the working precision; a vector layer gives (b, 1, 1, D), and time steps are averaged

        Raises
        ------
        UsageError
            For inputs of another shape or dtype, for layers that do not give what their network declares, and for
            grids smaller than those that they are to be averaged to.
        """
        if inputs.dtype != torch.uint8 or tuple(inputs.shape[1:]) != self.input_shape:
            raise UsageError(
                f"Backbone {self.recipe['backbone']!r} takes {list(self.input_shape)} uint8 a segment, not "
                f"{list(inputs.shape[1:])} {str(inputs.dtype).removeprefix('torch.')}."
            )
        output = self.net(inputs if self.preprocessing is None else self._prepare(inputs))
        cubes = to_cubes(output, self.form) if isinstance(output, Tensor) else None
        if cubes is None or len(cubes) != len(inputs):
            given = list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise UsageError(
                f"Layer {self.recipe['layer']!r} of {self.recipe['backbone']!r} gives {given} for {len(inputs)} "
                f"segments, neither {self.form} a segment nor a vector; choose another layer."
            )
        return cubes if self.pool is None else self._averaged(cubes, self.pool)

    def _averaged(self, cubes: Tensor, side: int) -> Tensor:
        if side > min(cubes.shape[1:3]):
            raise UsageError(
                f"--pool {side}: layer {self.recipe['layer']!r} of {self.recipe['backbone']!r} gives a grid of "
                f"{cubes.shape[1]}x{cubes.shape[2]}, which is averaged to smaller ones only."
            )
        return pool_cubes(cubes, side)

    def _prepare(self, inputs: Tensor) -> Tensor:
        assert self.preprocessing is not None
        values = inputs.movedim(-1, 1)  # channels-last memory seen as channels-first is in PyTorch's channels_last
        if self.preprocessing.order == "BGR":
            values = values.flip(1)
        values = (values.float() / self.preprocessing.divisor - self.mean) / self.std
        return values.to(self.precision, memory_format=getattr(torch, self.kind.memory_format))


def measure(backbone: Backbone, device: torch.device) -> None:
    """Run one black segment to learn the cube's shape, whatever the documentation says, and note pooling over time.

    Raises
    ------
    UsageError
        If the network cannot take inputs of this size, or the layer gives no square grid.
    VidattError
        If it gives NaN or infinity.
    """
    name, layer = backbone.recipe["backbone"], backbone.recipe["layer"]
    averaged: list[bool] = []
    hook = backbone.net.register_forward_hook(
        lambda net, given, output: averaged.append(backbone.form.averages_time(output))
    )
    try:
        with torch.inference_mode():
            output = backbone(torch.zeros(1, *backbone.input_shape, dtype=torch.uint8, device=device))
    except (RuntimeError, AssertionError) as error:  # timm asserts the sides that it takes
        reason = str(error).splitlines()[0]
        raise UsageError(f"Backbone {name!r} cannot take {backbone.crop_px}-pixel inputs: {reason}") from error
    finally:
        hook.remove()
    if output.shape[1] != output.shape[2]:
        raise UsageError(
            f"Layer {layer!r} of {name!r} gives {list(output.shape[1:])} a segment, not a square grid of descriptors; "
            "choose another layer."
        )
    if not torch.isfinite(output).all():
        source = backbone.recipe.get("weights", {}).get("name", "none")
        raise VidattError(
            f"Backbone {name!r} gives NaN or infinity on a black segment: its weights ({source}) are not for this "
            "network, or damaged; give others with --weights."
        )
    if averaged == [True]:
        backbone.recipe["time_pooling"] = "mean"
    backbone.cube_shape = (output.shape[1], output.shape[2], output.shape[3])


def working_precision(choice: str, device: torch.device) -> torch.dtype:
    """Return the dtype for `--precision`: `auto` is bfloat16 where the hardware multiplies it, else float32."""
    if choice not in PRECISIONS:
        raise UnknownNameError("precision", choice, PRECISIONS)
    if choice != "auto":
        return torch.float32 if choice == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line.split() for line in file if line.startswith(("flags", "Features"))), [])
    except FileNotFoundError:  # not Linux
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
