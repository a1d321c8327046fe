"""The demo really learns, and its numbers are those of its own store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from testkit.commands import start_program

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


# The demo's own extraction and its own fit of all streams, on two thirds of the videos with fewer steps and fewer
# heads beside it. With seeds 0, 1 and 2 stan reaches top1 0.75, 0.73, 0.75 (mean: 0.46, 0.44, 0.54; chance is 0.17)
# and puts 3.7, 3.3 and 3.5 times the box's share of its attention inside the box.
SHORT_DEMO = """
from vidatt.cli.main import main
from vidatt.pipelines import demo
demo.SETTINGS = {"steps": "250"}
demo.FITS = (("mean", ("rgb",)), *(fit for fit in demo.FITS if fit[0] in ("stan", "mean") and len(fit[1]) > 1))
main(prog_name="vidatt")
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_demo_learns_and_attends_to_the_truth(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    running = start_program(SHORT_DEMO, "demo", "--out", out, "--train-videos", 96, "--json", "-q")
    assert running.wait(1400) == 0, running.stderr
    result = json.loads(running.stdout)
    heads = {row["head"]: row for row in result["heads"]}
    assert [(row["head"], len(row["streams"])) for row in result["heads"]] == [("mean", 1), ("stan", 3), ("mean", 3)]
    assert heads["stan"]["top1"] >= 2 * heads["stan"]["chance"]
    assert heads["stan"]["top1"] > heads["mean"]["top1"]
    assert heads["stan"]["mass_in_box"] > 2 * heads["stan"]["box_share"]
    with Image.open(result["picture"]) as picture:
        assert min(picture.size) > 500
        assert np.asarray(picture.convert("L")).std() > 10
    page = Path(result["report"]).read_text()
    assert all(f"runs/{Path(row['run']).name}" in page for row in result["heads"])
    assert page.count("data:image/jpeg") > 30
    assert "frame-mAP" in page
