"""Weights of runs that another head starts from: heads read files of weights, and of a run the names of its streams."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...errors import WeightsError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or the `weights.safetensors` of a run folder, to the CPU.

    Raises
    ------
    WeightsError
        If it is not there or cannot be read.
    """
    path = path / "weights.safetensors" if path.is_dir() else path
    try:
        return load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there: give a finished run's folder or a safetensors file.") from None
    except SafetensorError as error:
        raise WeightsError(f"{path} cannot be read as safetensors ({error}); give a finished run's folder.") from None


def run_streams(path: Path) -> list[str] | None:
    """Return the streams that a run was fitted on, in its order; None of a bare file of weights.

    Raises
    ------
    WeightsError
        If the folder is no run.
    """
    if not path.is_dir():
        return None
    try:
        names = json.loads((path / "config.json").read_bytes())["identity"]["stream_names"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{path} is no run of a head ({error!r}); give a finished run's folder.") from None
    return [str(name) for name in names]


def take(wanted: Mapping[str, Tensor], sources: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Fill each tensor with the one of the same name in the one source that has it.

    Parameters
    ----------
    wanted : tensors of a head, as `state_dict` gives them: they share its memory
    sources : tensors by name, of each file or run

    Raises
    ------
    WeightsError
        If a tensor is absent, in two sources, or has another shape.
    """
    origin: dict[str, str] = {}
    for source, given in sources.items():
        for name in wanted.keys() & given.keys():
            if name in origin:
                raise WeightsError(f"Both {origin[name]} and {source} have the tensor {name!r}; name one of them.")
            if given[name].shape != wanted[name].shape:
                raise WeightsError(
                    f"{source}: tensor {name!r} is {list(given[name].shape)}, this head wants "
                    f"{list(wanted[name].shape)}; was it fitted on other streams, classes or sizes?"
                )
            origin[name] = source
    if missing := sorted(wanted.keys() - origin.keys()):
        raise WeightsError(f"{', '.join(sources)}: no tensor {missing[0]!r}, which this head needs from there.")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(sources[origin[name]][name])


def place_branches(streams: Sequence[str], sources: Sequence[str]) -> list[tuple[str, int]]:
    """Say for each stream which source has its branch, and at which place there.

    Runs say which streams they are of; bare files of weights hold one branch each, in the order of the streams.

    Raises
    ------
    WeightsError
        If a stream has no source, or two.
    """
    found: dict[str, tuple[str, int]] = {}
    for number, source in enumerate(sources):
        names = run_streams(Path(source))
        if names is None:
            names = [streams[number]] if number < len(streams) else [source]
        for place, name in enumerate(names):
            if name in found:
                raise WeightsError(f"Both {found[name][0]} and {source} are of stream {name!r}; name one of them.")
            found[name] = (source, place)
    if missing := [name for name in streams if name not in found]:
        raise WeightsError(
            f"Setting branches={','.join(sources)}: no run of stream {missing[0]!r} among them (they are of "
            f"{', '.join(found)}); fit one with `vidatt fit-head --head tclsta --streams {missing[0]}`."
        )
    return [found[name] for name in streams]
