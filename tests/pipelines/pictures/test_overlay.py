"""Attention laid over frames: every cell exactly where it comes from, whatever resize and crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps

from vidatt.extract.datasets.generator import generate
from vidatt.extract.video import VideoReader
from vidatt.extract.views import CENTER, Geometry
from vidatt.pipelines.localisation.boxes import enlarged
from vidatt.pipelines.metrics.attention import cell_overlap, into_region
from vidatt.pipelines.pictures.frames import cropped
from vidatt.pipelines.pictures.overlay import draw_boxes, enlarged_into, heat_colours, layer, shares

WHOLE = np.array([0.0, 0.0, 1.0, 1.0])
GEOMETRIES = {
    "short": Geometry(resize="short:128", crop_px=112),
    "small": Geometry(resize="short:256", crop_px=96),
    "squeezed": Geometry(resize="128x171", crop_px=112),
    "none": Geometry(resize="none", crop_px=100),
    "all": Geometry(resize="112x112", crop_px=112),
}


def test_a_map_over_the_whole_picture_is_what_locate_thresholds() -> None:
    cells = np.random.default_rng(0).random((7, 7), np.float32)
    assert np.abs(enlarged_into(cells, WHOLE, width=160, height=120) - enlarged(cells, 160, 120)).max() < 1e-2


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize(("width", "height"), [(160, 120), (90, 200)])
def test_cells_lie_where_the_network_saw_them(geometry: Geometry, width: int, height: int) -> None:
    """A mark in the frame goes the way of an extraction; the cell in which it arrives is drawn over it."""
    K, scale = 7, 4
    region = geometry.region(width, height)
    for across, down in ((0.2, 0.3), (0.6, 0.8), (0.5, 0.25)):
        x, y = region[0] + across * (region[2] - region[0]), region[1] + down * (region[3] - region[1])
        frame = np.zeros((height, width, 3), np.uint8)
        left, top = round(x * width), round(y * height)
        frame[max(0, top - 3) : top + 3, max(0, left - 3) : left + 3] = 255
        seen = CENTER.cut(geometry.resized(frame)[None], geometry, key=(0,))[0, 0, ..., 0].astype(float)
        S = len(seen)
        rows, columns = np.nonzero(seen > 200)
        row, column = (int(K * (edge.mean() + 0.5) / S) for edge in (rows, columns))
        cells = np.zeros((K, K), np.float32)
        cells[row, column] = 1
        drawn = enlarged_into(cells, region, width=scale * width, height=scale * height)
        assert drawn[scale * top, scale * left] > 0.2, (region, row, column)
        peak = np.unravel_index(np.nanargmax(drawn), drawn.shape)
        centre = region[0] + (column + 0.5) / K * (region[2] - region[0])
        assert (peak[1] + 0.5) / (scale * width) == pytest.approx(centre, abs=1.5 / (scale * width))
        middle = region[1] + (row + 0.5) / K * (region[3] - region[1])
        assert (peak[0] + 0.5) / (scale * height) == pytest.approx(middle, abs=1.5 / (scale * height))
        inside = np.isfinite(drawn)
        assert inside.mean() == pytest.approx((region[2] - region[0]) * (region[3] - region[1]), abs=0.01)


def test_a_crop_of_a_picture_is_what_the_network_saw(tmp_path: Path) -> None:
    catalogue = generate(tmp_path / "v", videos=6, shapes=2, motions=1, frames=12, n_jobs=1)
    with VideoReader(tmp_path / "v" / catalogue.videos[0].path) as reader:
        frame = next(reader.frames()).rgb()
    for geometry in GEOMETRIES.values():
        S = geometry.crop_px
        seen = CENTER.cut(geometry.resized(frame)[None], geometry, key=(0,))[0, 0].astype(float)
        large = Geometry(resize="1280x960", crop_px=1).resized(frame)
        drawn = cropped(large, geometry.region(frame.shape[1], frame.shape[0]), width=S, height=S)
        shifted = np.abs(np.roll(drawn, 3, axis=1).astype(float) - seen).mean()
        assert np.abs(drawn - seen).mean() < min(4.0, shifted), geometry


def test_a_true_box_is_brightest_where_the_attention_is_in_it() -> None:
    geometry, picture = GEOMETRIES["small"], np.full((240, 320, 3), 200, np.uint8)
    region, box = np.array(geometry.region(320, 240)), np.array([0.45, 0.3, 0.7, 0.6])
    cells = cell_overlap(into_region(box, tuple(region)), 7).astype(np.float32)
    laid = layer(cells, region, width=320, height=240, style="light").over(picture)[..., 0].astype(float)
    inside = laid[82:134, 154:214]
    outside = np.delete(laid, np.s_[60:160], axis=0)
    assert inside.mean() > 2 * outside.mean()
    assert inside.min() > 80


def test_styles_are_what_they_say() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    cells = np.ones((2, 2), np.float32)
    whole = {"width": 40, "height": 40}
    assert np.array_equal(layer(cells, WHOLE, **whole, style="light").over(picture), picture)
    blend = layer(cells, WHOLE, **whole, style="blend").over(picture)
    assert np.abs(blend - (picture / 2 + 127.5)).max() <= 1
    heat = layer(cells, WHOLE, **whole).over(picture)
    wanted = 0.2 * picture + 0.8 * 255 * np.array(colormaps["inferno"](1.0)[:3])
    assert np.abs(heat - wanted).max() <= 1.01
    beside = layer(cells, (0.5, 0.0, 1.0, 1.0), **whole, style="light").over(picture)
    assert np.array_equal(beside[:, 20:], picture[:, 20:])
    assert np.abs(beside[:, :20] - 0.45 * picture[:, :20]).max() <= 0.51


def test_shares_and_colours() -> None:
    maps = np.array([[[1.0, 3.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert np.allclose(shares(maps)[0], maps[0] / 3)
    assert not shares(maps)[1].any()
    assert heat_colours(np.array([0.0, 1.0]))[:, 3].tolist() == [0.5, pytest.approx(0.8)]


def test_boxes_are_drawn_on_their_edges_full_or_in_dashes() -> None:
    view = np.array([0.25, 0.0, 0.75, 1.0])
    box, colour = np.array([0.375, 0.2, 0.625, 0.8]), (10, 200, 30)
    for dash in (0, 6):
        picture = np.full((100, 100, 3), 90, np.uint8)
        draw_boxes(picture, [box], view=view, colour=colour, dash_px=dash)
        mine = (picture == colour).all(-1)
        rows, columns = np.nonzero(mine)
        assert abs(rows.min() - 20) <= 1
        assert abs(rows.max() - 79) <= 1
        assert abs(columns.min() - 25) <= 1
        assert abs(columns.max() - 74) <= 1
        assert (picture[40:60, 40:60] == 90).all()
        top = mine[19:21, 25:75].any(0)
        assert top.all() if not dash else 0.4 < top.mean() < 0.8
    outside = np.full((100, 100, 3), 90, np.uint8)
    draw_boxes(outside, [np.array([-0.5, -0.5, 3.0, 2.0])], view=view, colour=colour)
    assert (outside == 90).all()
