"""The whole chain with real commands on a few files: generate, extract, fit, evaluate, predict, explain.

`make smoke` runs this file alone, on every Python and with the lowest versions of every dependency.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate

STREAMS = {"rgb": [7, 7, 36], "flow": [7, 7, 72], "clip": [7, 7, 80]}


def _vidatt(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "vidatt", *map(str, arguments), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


IMPORTS = """
import importlib, pkgutil, vidatt
names = [module.name for module in pkgutil.walk_packages(vidatt.__path__, "vidatt.")]
rooms = [n for n in names if n.split(".")[1] in ("cache", "cli", "extract", "heads", "pipelines")]
for name in rooms:
    if name != "vidatt.extract.flow.triton_engine":  # wants the compiler of an NVIDIA GPU
        importlib.import_module(name)
print(len(rooms))
"""


@pytest.mark.slow
def test_every_module_can_be_imported() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", IMPORTS], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


@pytest.mark.slow
def test_videos_become_cubes_a_head_and_its_measures(tmp_path: Path) -> None:
    videos, store, run = tmp_path / "videos", tmp_path / "shapes.zarr", tmp_path / "run"
    generate(videos, videos=12, shapes=2, motions=2, frames=20, n_jobs=1)
    made = _vidatt(
        "extract", "--dataset", "actionshapes", "--videos", videos, "--store", store, "--recipe", "hands",
        "--resize", "short:112", "--crop", "112", "--flow-preset", "fast", "--segments", "3",
    )  # fmt: skip
    assert made["outcomes"] == {"ok": 12}
    assert {name: stream["cube"] for name, stream in made["streams"].items()} == STREAMS
    for name, cube in STREAMS.items():
        cubes = Store.open(store).stream(name).reader().read_video(0)
        assert cubes.shape == (3, *cube)
        assert np.isfinite(cubes).all()
        assert cubes.any()
    fit = ["fit-head", "--head", "stan", "--store", store, "--preset", "small", "--set", "steps=4", "--out", run]
    fitted = _vidatt(*fit)
    assert fitted["streams"] == list(STREAMS)
    measured = _vidatt("evaluate", run)
    assert measured["videos"] == 4
    assert 0 <= measured["metrics"]["top1"] <= 1
    with np.load(run / "scores-1-test.npz") as scores:
        assert scores["scores"].shape == (4, 4)
        ids, wanted = scores["ids"].tolist(), scores["scores"]
    predicted = _vidatt("predict", run, *(videos / name for name in ids))["predictions"]
    found = [{one["name"]: one["score"] for one in video["classes"]} for video in predicted]
    classes = Store.open(store).index.classes
    np.testing.assert_allclose([[scores[name] for name in classes] for scores in found], wanted, atol=1e-3)
    shown = _vidatt("explain", run, "--videos", videos, "--id", ids[0], "--out", tmp_path / "looks")["videos"]
    assert [path.suffix for path in sorted((tmp_path / "looks").iterdir())] == [".mp4", ".png"]
    assert shown[0]["problem"] is None
    assert not _vidatt("doctor")["missing"]
