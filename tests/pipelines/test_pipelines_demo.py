"""The demo really learns, and its numbers are those of its own store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidatt.pipelines.metrics.attention import cell_overlap, into_region, mass_in_box


def test_cell_overlap_is_exact() -> None:
    overlap = cell_overlap(np.array([0.25, 0.0, 0.5, 0.125]), 4)
    assert overlap[0].tolist() == [0.0, 0.5, 0.0, 0.0]
    assert not overlap[1:].any()
    assert cell_overlap(np.array([-1.0, -1.0, 2.0, 2.0]), 3).tolist() == [[1.0] * 3] * 3
    assert not cell_overlap(np.array([1.2, 0.0, 1.4, 1.0]), 7).any()


def test_uniform_attention_has_the_mass_of_the_area() -> None:
    box = np.array([0.1, 0.2, 0.47, 0.9])
    mass, share = mass_in_box(np.full((7, 7), 1 / 49), box)
    assert mass == pytest.approx(share)
    assert share == pytest.approx(0.37 * 0.7)


def test_boxes_are_seen_from_the_crop() -> None:
    assert into_region(np.array([0.5, 0.5, 0.75, 1.0]), (0.25, 0.0, 0.75, 1.0)).tolist() == [0.5, 0.5, 1.0, 1.0]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_demo_learns_and_attends_to_the_truth(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "vidatt", "demo", "--out", str(out), "--json", "-q"],
        check=True,
        capture_output=True,
        text=True,
        timeout=1400,
    )
    result = json.loads(done.stdout)
    heads = {row["head"]: row for row in result["heads"]}
    assert heads["stan"]["top1"] >= 2 * heads["stan"]["chance"]
    assert heads["stan"]["top1"] > heads["mean"]["top1"]
    assert heads["stan"]["mass_in_box"] > 2 * heads["stan"]["box_share"]
    with Image.open(result["picture"]) as picture:
        assert min(picture.size) > 500
        assert np.asarray(picture.convert("L")).std() > 10
