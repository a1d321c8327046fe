"""What the tests of the report share: two runs on generated videos, everything measured, and their page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from testkit.commands import vidatt

from vidatt.extract.datasets.generator import generate
from vidatt.extract.streams import StreamConfig
from vidatt.pipelines.extraction.config import ExtractConfig
from vidatt.pipelines.extraction.extract import extract
from vidatt.pipelines.fitting.fit import fit
from vidatt.pipelines.fitting.plan import FitConfig


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A page of two runs on generated videos, with everything measured, and what the command said of it."""
    folder = tmp_path_factory.mktemp("report")
    generate(folder / "videos", variant="untrimmed", videos=24, shapes=2, motions=1, frames=60, n_jobs=1)
    extract(
        ExtractConfig(
            dataset="actionshapes", videos=folder / "videos", store=folder / "s.zarr", sampler="every:6",
            streams=tuple(
                StreamConfig(name=name, backbone=backbone, resize="short:112", crop_px=112)
                for name, backbone in (("rgb", "hog"), ("clip", "hog3d"))
            ),
            device="cpu", workers=1, decoders=1,
        )
    )  # fmt: skip
    for head, steps in (("stan", "12"), ("mean", "4")):
        quick = {"steps": steps, "validate_every": "2"}
        out = folder / "runs" / head
        fit(FitConfig(head=head, store=folder / "s.zarr", out=out, preset="small", settings=quick, device="cpu"))
    stan, mean = folder / "runs" / "stan", folder / "runs" / "mean"
    for command in (
        ("evaluate", stan), ("evaluate", mean), ("locate", stan),
        ("detect", stan, "--set", "score_threshold=0.3", "--out", folder / "elsewhere.txt"),
    ):  # fmt: skip
        done = vidatt(*command, "--device", "cpu", "-qq")
        assert done.returncode == 0, done.stderr
    page = folder / "report.html"
    asked = ("report", stan, mean, "--videos", folder / "videos", "--out", page, "--device", "cpu", "--json", "-qq")
    done = vidatt(*asked)
    assert done.returncode == 0, done.stderr
    return page, json.loads(done.stdout)
