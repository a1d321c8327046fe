"""A store and a run that the released version made: they open, evaluate, continue, and are not touched.

`made_by_0_1_0.zip` is what version 0.1.0 made (Python 3.11, zarr 3.1.6, torch 2.15) on the videos and with the commands
below, the extraction of the streams rgb and clip.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from testkit.commands import vidatt
from testkit.stores import content

from vidatt.extract.datasets.generator import generate

pytestmark = pytest.mark.slow
MEASURED = {"top1": 0.0, "top5": 1.0, "class_mean": 0.0, "map": 0.3125}
EXTRACT = ("extract", "--dataset", "actionshapes", "--videos", "videos", "--store", "shapes.zarr", "--recipe", "hands",
           "--resize", "short:112", "--crop", "112", "--segments", "2")  # fmt: skip
FIT = ("fit-head", "--head", "mean", "--store", "shapes.zarr", "--preset", "small", "--set", "steps=20", "--out", "run")


@pytest.fixture
def before(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("made_by_0_1_0.zip")) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_a_run_of_before_is_evaluated_and_its_fit_is_finished(before: Path) -> None:
    fitted = content(before / "run")
    done = vidatt(*FIT, "--json", "--device", "cpu", cwd=before)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["validation"]["top1"] == 0.25
    assert content(before / "run") == fitted
    done = vidatt("evaluate", "run", "--json", "--device", "cpu", cwd=before)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"] == MEASURED
    with (
        np.load(before / "run" / "scores-1-test.npz") as again,
        zipfile.ZipFile(Path(__file__).with_name("made_by_0_1_0.zip")) as archive,
        archive.open("run/scores-1-test.npz") as file,
        np.load(file) as scores,
    ):
        np.testing.assert_allclose(again["scores"], scores["scores"], rtol=1e-4)
        assert again["ids"].tolist() == scores["ids"].tolist()


def test_the_extraction_of_before_is_complete_and_takes_another_stream(before: Path) -> None:
    generate(before / "videos", videos=12, shapes=2, motions=2, frames=20, n_jobs=1)
    made = content(before / "shapes.zarr")
    done = vidatt(*EXTRACT, "--streams", "rgb,clip", "--json", cwd=before)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcomes"] == {"ok": 12}
    assert content(before / "shapes.zarr") == made
    done = vidatt(*EXTRACT, "--streams", "flow", "--flow-preset", "fast", cwd=before)
    assert done.returncode == 0, done.stderr
    after = content(before / "shapes.zarr")
    assert {name: content for name, content in after.items() if not name.startswith("flow/")} == made
    assert any(name.startswith("flow/.done/") for name in after)
