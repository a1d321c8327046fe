from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidatt.errors import UsageError
from vidatt.extract.views import CENTER, Geometry, Views
from vidatt.extract.windows import FrameStore

sides = st.integers(1, 400)


def _center(frame: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Resize and crop one frame."""
    return CENTER.cut(geometry.resized(frame)[None], geometry, key=())[0, 0]


@given(width=sides, height=sides, resize=st.sampled_from(["short:64", "80x64", "none"]))
def test_geometry_always_gives_the_crop(width: int, height: int, resize: str) -> None:
    geometry = Geometry(resize=resize, crop_px=64)
    frame = np.arange(width * height * 3, dtype=np.uint32).astype(np.uint8).reshape(height, width, 3)
    assert _center(frame, geometry).shape == (64, 64, 3)
    x1, y1, x2, y2 = geometry.region(width, height)
    assert 0 <= x1 < x2 <= 1
    assert 0 <= y1 < y2 <= 1


def test_geometry_without_resize_is_an_exact_crop() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    cropped = _center(frame, Geometry(resize="none", crop_px=224))
    assert np.array_equal(cropped, frame[8:232, 48:272])
    assert Geometry(resize="none", crop_px=224).region(320, 240) == (48 / 320, 8 / 240, 272 / 320, 232 / 240)


def test_only_absurd_pictures_are_cut_before_they_are_enlarged() -> None:
    hd = Geometry(resize="short:256", crop_px=224)
    whole = [(3840, 2160), (8192, 256), (32, 2), (2, 32), (30000, 300), (1, 1)]
    assert [hd.part_px(w, h) for w, h in whole] == [(0, 0, w, h) for w, h in whole]
    assert hd.part_px(16000, 2) == (7984, 0, 32, 2)
    assert hd.part_px(3, 1000) == (0, 476, 3, 48)
    assert hd.target_px(16000, 2) == (4096, 256)
    assert Geometry(resize="340x256", crop_px=224).part_px(16000, 2) == (0, 0, 16000, 2)
    assert Geometry(resize="none", crop_px=224).target_px(16000, 2) == (3584, 224)


@pytest.mark.parametrize("view", ["center", "10crop", "train:3"])
def test_absurd_pictures_show_their_middle(view: str) -> None:
    geometry = Geometry(resize="short:64", crop_px=56)
    frame = np.random.default_rng(0).integers(0, 256, (3, 4000, 3), dtype=np.uint8)
    small = geometry.resized(frame)
    assert small.shape == (64, 1024, 3)
    assert np.array_equal(small, geometry.resized(frame[:, 1976:2024]))
    assert Views.parse(view).cut(small[None], geometry, key=(1,)).shape[2:] == (56, 56, 3)
    x1, y1, x2, y2 = geometry.region(4000, 3)
    assert (x1 + x2) / 2 == pytest.approx(0.5)
    assert (x2 - x1) * 4000 == pytest.approx(56 / 64 * 3)
    assert (y1, y2) == (4 / 64, 60 / 64)


def test_a_frame_of_another_size_is_stretched_to_that_of_the_first() -> None:
    random = np.random.default_rng(0)
    wide, high = (random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((120, 160), (160, 120)))
    geometry = Geometry(resize="short:64", crop_px=56)
    assert geometry.resized(high, first=(160, 120)).shape == geometry.resized(wide).shape == (64, 85, 3)
    double = wide.repeat(2, 0).repeat(2, 1)
    assert np.array_equal(geometry.resized(double, first=(160, 120)), geometry.resized(double))


def test_forms_of_an_absurd_frame_are_kept_apart() -> None:
    frame = FrameStore(np.random.default_rng(0).integers(0, 256, (2, 16000, 3), dtype=np.uint8), (16000, 2))
    cut, squeezed = Geometry(resize="short:256", crop_px=224), Geometry(resize="4096x256", crop_px=224)
    assert cut.target_px(16000, 2) == squeezed.target_px(16000, 2)
    assert not np.array_equal(frame.get(cut, gray=False), frame.get(squeezed, gray=False))


def test_geometry_keeps_the_aspect_of_the_short_side() -> None:
    assert Geometry(resize="short:256", crop_px=224).target_px(320, 240) == (341, 256)
    assert Geometry(resize="short:256", crop_px=224).target_px(240, 320) == (256, 341)


@pytest.mark.parametrize("resize", ["256", "short:", "short:0", "340x", "340x0", "axb"])
def test_geometry_refuses_nonsense(resize: str) -> None:
    with pytest.raises(UsageError, match="Resize"):
        Geometry(resize=resize, crop_px=32)


def test_geometry_refuses_a_resize_below_the_crop() -> None:
    with pytest.raises(UsageError, match="smaller than the crop"):
        Geometry(resize="short:128", crop_px=224)


def _picture(width: int = 341, height: int = 256, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, height, width, channels), dtype=np.uint8)


SQUARE = Geometry(resize="short:256", crop_px=224)


def test_ten_crops_are_corners_and_centre_then_mirrors() -> None:
    pictures = _picture()
    views = Views.parse("10crop").cut(pictures, SQUARE, key=(0,))
    assert views.shape == (10, 4, 224, 224, 3)
    for view, (top, left) in enumerate([(0, 0), (0, 117), (32, 0), (32, 117), (16, 58)]):
        expected = pictures[:, top : top + 224, left : left + 224]
        assert np.array_equal(views[view], expected)
        assert np.array_equal(views[view + 5], expected[:, :, ::-1])
    center = Views.parse("center").cut(pictures, SQUARE, key=(0,))
    assert np.array_equal(views[4], center[0])


def test_mirrored_flow_turns_x_and_keeps_y() -> None:
    fields = _picture(channels=2)
    views = Views.parse("10crop").cut(fields, SQUARE, key=(0,), displacement=True)
    assert np.array_equal(views[9, ..., 0], 255 - views[4, :, :, ::-1, 0])
    assert np.array_equal(views[9, ..., 1], views[4, :, :, ::-1, 1])


def test_random_views_depend_on_their_key_only() -> None:
    rgb, flow = _picture(), _picture(channels=2)
    rule = Views.parse("train:3")
    first = rule.cut(rgb, SQUARE, key=(7, 1, 2))
    assert first.shape == (3, 4, 224, 224, 3)
    assert np.array_equal(first, rule.cut(rgb, SQUARE, key=(7, 1, 2)))
    assert not np.array_equal(first, rule.cut(rgb, SQUARE, key=(7, 1, 3)))
    assert not np.array_equal(first[0], first[1])
    # all streams get the same crops: gradients of position survive any crop and resize
    ramp = np.broadcast_to(np.linspace(0, 255, 341, dtype=np.uint8)[None, None, :, None], (4, 256, 341, 3))
    as_rgb = rule.cut(np.ascontiguousarray(ramp), SQUARE, key=(7, 1, 2))[..., 0].astype(int)
    as_flow = rule.cut(np.ascontiguousarray(ramp[..., :2]), SQUARE, key=(7, 1, 2))[..., 0].astype(int)
    assert np.array_equal(as_rgb, as_flow)
    more = rule.cut(flow, SQUARE, key=(7, 1, 2), displacement=True)
    plain = rule.cut(flow, SQUARE, key=(7, 1, 2))
    for view in range(3):
        turned = not np.array_equal(more[view], plain[view])
        assert turned == bool(as_rgb[view, 0, 0, 0] > as_rgb[view, 0, 0, -1])


def test_random_views_mirror_about_half() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 341, dtype=np.uint8)[None, None, :, None], (1, 256, 341, 3))
    views = Views.parse("train:200").cut(np.ascontiguousarray(ramp), Geometry(resize="none", crop_px=32), key=(0,))
    mirrored = (views[:, 0, 0, 0, 0] > views[:, 0, 0, -1, 0]).mean()
    assert 0.35 < mirrored < 0.65


@pytest.mark.parametrize("text", ["centre", "10", "train", "train:0", "train:x"])
def test_views_refuse_nonsense(text: str) -> None:
    with pytest.raises(UsageError, match="Unknown views"):
        Views.parse(text)
