"""What the tests of explanations share: a small store of generated videos, and three heads fitted on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidatt.extract.datasets.generator import generate
from vidatt.extract.streams import StreamConfig
from vidatt.pipelines.extraction.config import ExtractConfig
from vidatt.pipelines.extraction.extract import extract
from vidatt.pipelines.fitting.fit import fit
from vidatt.pipelines.fitting.plan import FitConfig


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `videos`, `s.zarr`, `apart.zarr` (whose streams show different parts of the frame) and `runs`."""
    folder = tmp_path_factory.mktemp("explain")
    generate(folder / "videos", variant="untrimmed", videos=12, shapes=2, motions=1, frames=40, n_jobs=1)
    for name, crops in (("s", {"rgb": 112, "clip": 112}), ("apart", {"rgb": 112, "clip": 56})):
        extract(
            ExtractConfig(
                dataset="actionshapes", videos=folder / "videos", store=folder / f"{name}.zarr", sampler="every:8",
                streams=tuple(
                    StreamConfig(name=s, backbone=b, resize="short:128", crop_px=crops[s])
                    for s, b in (("rgb", "hog"), ("clip", "hog3d"))
                ),
                device="cpu", workers=1, decoders=1,
            )
        )  # fmt: skip
    for head, store in (("stan", "s"), ("glka", "s"), ("mean", "s"), ("untrimmed", "s"), ("san", "apart")):
        quick, out = {"steps": "6", "validate_every": "3"}, folder / "runs" / head
        fit(FitConfig(head=head, store=folder / f"{store}.zarr", out=out, preset="small", settings=quick, device="cpu"))
    return folder
