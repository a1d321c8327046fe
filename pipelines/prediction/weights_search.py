"""The file of a network's weights, found by the digest that a stream's recipe states, wherever it lies by now."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import WeightsError
from ...extract.backbones.weights import file_sha256, weights_folder, weights_registry
from ..extraction.remake import require_digest

SUFFIXES = frozenset((".pth", ".pt", ".safetensors", ".npz", ".pickle", ".bin"))
"""Of files that may hold weights: only these of a folder are read for their digest."""


def find_weights(stream: str, recipe: Mapping[str, Any], named: Path | None = None) -> Path | None:
    """Return the file whose SHA-256 a recipe states; None if its backbone needs none.

    Looked for, in this order: the file that is named, then `$VIDATT_WEIGHTS` (a file or a folder, else torch hub's
    folder of checkpoints): there first the file of the recorded name, then whatever has the digest.

    Parameters
    ----------
    stream : for messages
    recipe : of the stream
    named : the file that the user names

    Raises
    ------
    WeightsError
        If no such file is found, or the one that is named is another; the message says what to do.
    """
    weights: Mapping[str, Any] = recipe.get("weights") or {}
    digest, name = str(weights.get("sha256", "")), str(weights.get("name", ""))
    if not digest:  # a descriptor, or seeded random weights
        if named is not None:
            raise WeightsError(f"--weights {stream}={named}: stream {stream!r} was made without a file; leave it out.")
        return None
    if named is not None:
        require_digest(stream, named, name=name, digest=digest)
        return named
    for path in _candidates(name):
        if file_sha256(path) == digest:
            return path
    entry = weights_registry().get(name)
    fetch = f", run `vidatt weights fetch {name}`" if entry is not None and entry.url else ""
    raise WeightsError(
        f"Stream {stream!r} was made with the weights {name!r} (SHA-256 {digest[:16]}...), which are not in "
        f"{weights_folder()}: name the file with --weights {stream}=FILE{fetch}, or set VIDATT_WEIGHTS to the file or "
        "its folder."
    )


def _candidates(name: str) -> Iterator[Path]:
    """Yield the files that may be meant, the likely ones first."""
    place = weights_folder()
    if place.is_file():
        yield place
        return
    entry = weights_registry().get(name)
    likely = [place / (entry.file_name if entry else name)]
    others = sorted(p for p in place.iterdir() if p.suffix in SUFFIXES) if place.is_dir() else []
    for path in dict.fromkeys([*likely, *others]):
        if os.path.isfile(path):
            yield path
