"""Boxes from maps: each rule against boxes worked out by hand, and an independent enlargement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from vidatt.errors import UnknownNameError, UsageError
from vidatt.pipelines.localisation.boxes import (
    BOX_RULES,
    ContourRule,
    MinMaxRule,
    ThresholdRule,
    boxes_of,
    contour_box,
    enlarged,
    out_of_region,
    scaled,
    tight_box,
)
from vidatt.pipelines.localisation.rules import read_rule


def found(grid: list[list[float]], rule: ThresholdRule, *, sums_to_one: bool = False, side: int = 70) -> np.ndarray:
    return boxes_of(np.array([grid]), width=side, height=side, rule=rule, sums_to_one=sums_to_one)[0]


def test_maps_are_enlarged_as_torch_does_without_aligned_corners() -> None:
    grid = np.random.default_rng(0).random((7, 7)).astype(np.float32)
    theirs = interpolate(torch.from_numpy(grid)[None, None], (120, 160), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(enlarged(grid, 160, 120), theirs[0, 0].numpy(), atol=1e-5)


def test_threshold_box_follows_the_bilinear_slope() -> None:
    # One cell of 1 in a 7 x 7 grid of 0: along its row the map falls to 0 at the neighbours' centres, ten pixels away,
    # and is above .5 within five pixels of its centre at 35: pixels 30 to 39, whose centres are 30.5 to 39.5.
    grid = np.zeros((7, 7))
    grid[3, 3] = 1
    np.testing.assert_allclose(found(grid.tolist(), ThresholdRule()), np.array([30, 30, 40, 40]) / 70)


def test_a_mask_is_taken_literally_and_a_distribution_by_its_maximum() -> None:
    grid = np.zeros((7, 7))
    grid[3, 3], grid[3, 4] = 0.4, 0.3
    literal, relative = found(grid.tolist(), ThresholdRule()), found(grid.tolist(), ThresholdRule(), sums_to_one=True)
    assert np.isnan(literal).all()
    assert relative[0] == pytest.approx(30 / 70)
    assert relative[2] == pytest.approx(48 / 70)  # .75 at 45 falls to 0 at 55 and passes .5 at 48.3
    assert np.isnan(found(grid.tolist(), ThresholdRule(normalise="none"), sums_to_one=True)).all()
    assert np.isfinite(found(grid.tolist(), ThresholdRule(normalise="max"))).all()


def test_tight_box_takes_everything_and_contour_the_largest_piece() -> None:
    kept = np.zeros((20, 30), bool)
    kept[2:8, 3:12] = True
    kept[15:17, 25:28] = True
    assert tight_box(kept).tolist() == [3, 2, 28, 17]
    assert contour_box(kept).tolist() == [3, 2, 12, 8]
    assert np.isnan(tight_box(np.zeros((4, 4), bool))).all()
    assert np.isnan(contour_box(np.zeros((4, 4), bool))).all()
    hollow = np.zeros((20, 30), bool)  # a frame of little area has the larger rectangle
    hollow[2:8, 3:9] = True
    hollow[10:19, 12:27] = np.pad(np.zeros((7, 13), bool), 1, constant_values=True)
    hollow[10, 13:26] = False
    assert contour_box(hollow).tolist() == [12, 10, 27, 19]
    one = np.zeros((4, 4), bool)
    one[1, 2] = True
    assert tight_box(one).tolist() == contour_box(one).tolist() == [2, 1, 3, 2]


def test_contour_rule_is_stricter_and_ignores_the_weaker_piece() -> None:
    grid = np.full((7, 7), 0.2)
    grid[1, 1], grid[5, 5] = 1.0, 0.9
    loose, strict = found(grid.tolist(), MinMaxRule()), found(grid.tolist(), ContourRule())
    assert loose[0] < 2 / 7 < 5 / 7 < loose[2]
    assert strict[2] < 2.2 / 7
    assert ContourRule().threshold == 200 / 255
    narrow = found(grid.tolist(), MinMaxRule(threshold=200 / 255))
    assert narrow[2] > 5 / 7  # the same threshold with a box around both pieces


def test_contour_rule_gives_the_boxes_of_the_authors_code() -> None:
    """`generate_heatmap` and `generate_boundingbox` of LiliMeng/spatial_temporal_att_ucf101_24 at 56becb4, without its
    JPEG files, on these masks; the boxes are in pixels of 320x240."""
    wave = 0.5 + 0.5 * np.sin(0.9 * np.arange(3 * 49) + 0.3 * (np.arange(3 * 49) // 49)).reshape(3, 7, 7)
    boxes = boxes_of(wave, width=320, height=240, rule=ContourRule(), sums_to_one=False) * [320, 240, 320, 240]
    assert boxes.tolist() == [[51, 0, 149, 240], [30, 0, 128, 240], [0, 0, 107, 240]]


def test_minmax_does_not_see_scale_and_offset() -> None:
    grid = np.random.default_rng(1).random((1, 5, 5))
    for rule in (MinMaxRule(), ContourRule()):
        one, other = (
            boxes_of(maps, width=90, height=60, rule=rule, sums_to_one=False) for maps in (grid, 0.3 * grid + 0.1)
        )
        np.testing.assert_allclose(one, other)
    scales = scaled(grid, "minmax")
    assert (scales.min(), scales.max()) == (0, 1)


@pytest.mark.parametrize("rule", [ThresholdRule(), MinMaxRule(), ContourRule()], ids=lambda r: type(r).__name__)
def test_uniform_attention_has_the_whole_picture_as_its_box(rule: ThresholdRule) -> None:
    assert found(np.full((7, 7), 1 / 49).tolist(), rule, sums_to_one=True).tolist() == [0, 0, 1, 1]


def test_boxes_of_a_crop_are_told_in_the_frame() -> None:
    boxes = out_of_region(np.array([[0, 0, 1, 1], [0.5, 0.25, 0.75, 0.5]]), (0.125, 0.0, 0.875, 1.0))
    np.testing.assert_allclose(boxes, [[0.125, 0, 0.875, 1], [0.5, 0.25, 0.6875, 0.5]])


def test_rules_and_settings_are_checked() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown rule 'contours'. Did you mean 'contour'"):
        read_rule(BOX_RULES, "contours", {})
    with pytest.raises(UnknownNameError, match="Did you mean 'threshold'"):
        read_rule(BOX_RULES, "contour", {"treshold": "1"})
    with pytest.raises(UsageError, match=r"threshold=1\.0: must be at least 0 and less than 1"):
        read_rule(BOX_RULES, "threshold", {"threshold": "1"})
    assert read_rule(BOX_RULES, "threshold", {"normalise": "max"}) == ThresholdRule(normalise="max")
