"""Where a network's weights come from: a registry with source, digest, licence and preprocessing, or a file.

Every tensor of a file must find its place in the network, and every parameter that the chosen
layer needs must be in the file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ...errors import UnknownNameError, WeightsError
from ..kinds import find_kind
from .preprocessing import PREPROCESSINGS, Preprocessing, check_preprocessing
from .weights_files import file_sha256, read_tensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """One published weights file."""

    name: str
    network: str  # torchvision's name of the architecture, or c3d
    url: str  # empty: no public address
    file_name: str
    sha256: str  # the whole digest, or the leading digits that the publisher states in the file name; empty: unstated
    licence: str
    preprocessing: str  # key of PREPROCESSINGS

    @property
    def path(self) -> Path:
        """Where the file belongs: torch hub's own folder, so that files fetched by other programs are found."""
        return weights_folder() / self.file_name

    @property
    def digest_words(self) -> str:
        """What messages say of the digest."""
        return f"SHA-256 {self.sha256[:16]}..." if self.sha256 else "no digest published"


@dataclass(frozen=True, eq=False)
class LoadedWeights:
    """Tensors and what the recipe says about them."""

    tensors: Mapping[str, Tensor] | None  # None: seeded random initialisation
    recipe: dict[str, Any]
    preprocessing: Preprocessing


_C3D_LICENCE = "CC BY-NC 3.0 (weights of C3D): for your own use, not to be passed on"

# Beside torchvision's. Files without an address are recognised by their digest when given with --weights PATH.
_KNOWN_FILES = (
    WeightsEntry(
        name="c3d-sports1m",
        network="c3d",
        url="https://download.openmmlab.com/mmaction/recognition/c3d/c3d_sports1m_pretrain_20201016-dcc47ddc.pth",
        file_name="c3d_sports1m_pretrain_20201016-dcc47ddc.pth",
        sha256="dcc47ddc",
        licence=_C3D_LICENCE,
        preprocessing="sports1m",
    ),
    WeightsEntry(
        name="c3d-sports1m-davidea",
        network="c3d",
        url="http://imagelab.ing.unimore.it/files/c3d_pytorch/c3d.pickle",
        file_name="c3d.pickle",
        sha256="",
        licence=_C3D_LICENCE,
        preprocessing="sports1m",
    ),
    WeightsEntry(
        name="c3d-ucf101-jfzhang95",
        network="c3d",
        url="",
        file_name="ucf101-caffe.pth",
        sha256="",
        licence=_C3D_LICENCE,
        preprocessing="sports1m",
    ),
    WeightsEntry(
        name="squeezenet1_1-caffe-features",
        network="squeezenet1_1",
        url="",
        file_name="squeezenet1_1_features.npz",
        sha256="f14a67293e9c5d84ad967328335bbfc8096e09f6f1620d35353943b8d0f2bf5c",
        licence="BSD-2-Clause (SqueezeNet v1.1 of DeepScale; conversion MIT)",
        preprocessing="caffe",
    ),
    WeightsEntry(
        name="squeezenet1_0-caffe",
        network="squeezenet1_0",
        url="",
        file_name="squeezenet1_0_full.npz",
        sha256="8fad76354b1026a6338b9704ba0832491c1a5c29e31c6f0063aa824b82f18e5d",
        licence="BSD-2-Clause",
        preprocessing="caffe",
    ),
)


def weights_folder() -> Path:
    """Return `$VIDATT_WEIGHTS`, else torch hub's checkpoint folder."""
    named = os.environ.get("VIDATT_WEIGHTS")
    return Path(named) if named else Path(torch.hub.get_dir()) / "checkpoints"


@cache
def weights_registry() -> dict[str, WeightsEntry]:
    """All known weights by name: torchvision's ImageNet files and those recognised by digest."""
    from torchvision.models import get_model_weights, list_models

    entries = {entry.name: entry for entry in _KNOWN_FILES}
    for network in list_models():
        if network.startswith("quantized_"):
            continue
        for weights in get_model_weights(network):
            file_name = weights.url.rsplit("/", 1)[-1]
            digest = file_name.rsplit(".", 1)[0].rsplit("-", 1)[-1]  # torchvision's convention: name-<8 digits>.pth
            name = f"{network}-{weights.name.lower()}"
            entries[name] = WeightsEntry(
                name=name,
                network=network,
                url=weights.url,
                file_name=file_name,
                sha256=digest,
                licence="BSD-3-Clause (torchvision); trained on the data set named in the weights' meta data",
                preprocessing=default_preprocessing(network),
            )
    return entries


@cache
def default_preprocessing(network: str) -> str:
    """Return the preprocessing that belongs to a network's published weights, and to weights that nobody knows."""
    if network == "c3d":
        return "sports1m"
    if network in ("googlenet", "inception_v3"):
        return "symmetric"
    from torchvision.models import get_model_weights, list_models, video

    if network not in list_models(module=video):
        return "imagenet"
    mean = tuple(get_model_weights(network).DEFAULT.transforms().mean)
    return next(name for name in ("kinetics", "kinetics-mvit", "imagenet") if PREPROCESSINGS[name].mean == mean)


def weights_entry(name: str) -> WeightsEntry:
    """Return one registered file by name.

    Raises
    ------
    UnknownNameError
    """
    entries = weights_registry()
    if name not in entries:
        raise UnknownNameError("weights", name, entries)
    return entries[name]


def fetch(name: str) -> Path:
    """Download one registered file and check its digest; a file that is there and right is left alone.

    Raises
    ------
    WeightsError
        Without a network, for a file that no public address serves, or when the digest is wrong.
    """
    entry = weights_entry(name)
    if entry.path.exists():
        _check_digest(entry.path, entry)
        return entry.path
    if not entry.url:
        raise WeightsError(f"Weights {name!r} have no public address; give the file with --weights PATH.")
    entry.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(entry.url, str(entry.path), hash_prefix=entry.sha256, progress=False)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: torch's word for a wrong digest
        raise WeightsError(
            f"Weights {name!r} could not be fetched ({error}); on a machine with a network download {entry.url} "
            f"({entry.digest_words}) and copy it to {entry.path}."
        ) from error
    if not entry.sha256:
        logger.warning("%s has SHA-256 %s; its publisher states none to compare.", entry.path, file_sha256(entry.path))
    return entry.path


def _check_digest(path: Path, entry: WeightsEntry) -> str:
    digest = file_sha256(path)
    if not digest.startswith(entry.sha256):
        raise WeightsError(
            f"{path} has SHA-256 {digest[:16]}..., the registry says {entry.sha256[:16]}...: a damaged download; "
            f"delete it and run `vidatt weights fetch {entry.name}`."
        )
    return digest


def resolve_weights(
    choice: str, *, network: str, seed: int, kind: str = "rgb", preprocessing: str | None = None
) -> LoadedWeights:
    """Load the weights that `--weights` names.

    Parameters
    ----------
    choice : `default` (the network's first release), a registered name, `random`, or a file
    network : torchvision's name of the architecture, or c3d
    seed : of the random initialisation
    kind : rgb, flow or clip; flow has preprocessings of its own, in the range of values that the RGB weights take
    preprocessing : key of PREPROCESSINGS that overrides what the registry says

    Raises
    ------
    WeightsError
        The file is missing, unreadable, holds pickled code, or has another digest than the registry.
    UnknownNameError
        For a preprocessing that is unknown or does not fit the kind.
    """
    if preprocessing is not None:
        check_preprocessing(preprocessing, kind)
    if choice == "random":
        recipe = {"name": "random", "seed": seed, "sha256": ""}
        return LoadedWeights(None, recipe, _rules(preprocessing, default_preprocessing(network), kind))
    registry = weights_registry()
    if choice == "default":
        names = [name for name, entry in registry.items() if entry.network == network and entry.url]
        if not names:
            raise WeightsError(f"Network {network!r} has no published weights here; give a file with --weights PATH.")
        choice = names[0]
    found: WeightsEntry | None
    if choice in registry:
        entry = found = registry[choice]
        if not entry.path.exists():
            raise WeightsError(
                f"Weights {entry.name!r} ({entry.digest_words}) are not at {entry.path}; run "
                f"`vidatt weights fetch {entry.name}`, or give a file (--weights PATH), or use --weights random."
            )
        path, digest = entry.path, _check_digest(entry.path, entry)
    else:
        path = Path(choice)
        if not os.path.isfile(path):
            raise WeightsError(
                f"--weights {choice!r} is neither a file nor a known name; `vidatt weights list` shows the names."
            )
        digest = file_sha256(path)
        known = (e for e in registry.values() if e.network == network and e.sha256 and digest.startswith(e.sha256))
        found = next(known, None)
    published = found.preprocessing if found else default_preprocessing(network)
    recipe = {"name": found.name if found else path.name, "sha256": digest}
    return LoadedWeights(read_tensors(path), recipe, _rules(preprocessing, published, kind))


def _rules(chosen: str | None, published: str, kind: str) -> Preprocessing:
    """Return the preprocessing: flow keeps the range of values, 0..1 or 0..255, that the RGB weights were made for."""
    if chosen is None and find_kind(kind).displacement:
        chosen = "flow-caffe" if PREPROCESSINGS[published].divisor == 1 else "flow-tsn"
    return PREPROCESSINGS[chosen or published]


def load_into(network: nn.Module, tensors: Mapping[str, Tensor], *, needed: set[str], source: str) -> None:
    """Copy tensors into a network; every tensor must be consumed and every needed parameter be given.

    Parameters
    ----------
    needed : names of the parameters and buffers that the chosen layer depends on

    Raises
    ------
    WeightsError
        See `check_tensors`.
    """
    check_tensors(network.state_dict(), tensors, needed=needed, source=source)
    network.load_state_dict(dict(tensors), strict=False)


def check_tensors(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, needed: set[str], source: str) -> None:
    """Compare the tensors of a file with those of a network.

    Raises
    ------
    WeightsError
        Naming the first tensors that have no place, are missing, have another shape, or hold NaN or infinity.
    """
    surplus = sorted(set(tensors) - set(own))
    missing = sorted(name for name in needed - set(tensors) if not name.endswith("num_batches_tracked"))
    if surplus:
        raise WeightsError(f"{source}: {len(surplus)} tensors have no place in the network, such as {surplus[:3]}.")
    if missing:
        raise WeightsError(f"{source}: {len(missing)} tensors of the network are missing, such as {missing[:3]}.")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"{source}: tensor {name!r} is {list(tensor.shape)}, the network wants {list(own[name].shape)}."
            )
    for name in sorted(needed & set(tensors)):
        if not torch.isfinite(tensors[name]).all():
            raise WeightsError(
                f"{source}: tensor {name!r} holds NaN or infinity: a damaged file; fetch or make it anew."
            )
