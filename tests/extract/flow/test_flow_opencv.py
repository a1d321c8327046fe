"""TV-L1 against OpenCV's on real frame pairs of different clips."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from vidatt.extract.flow import PRESETS, TVL1Preset, quantise, tvl1
from vidatt.extract.flow.numba_engine import _resize
from vidatt.extract.flow.pyramid import median_filter, resize
from vidatt.extract.flow.scales import scale_shapes

CLIPS = [
    "ucf101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
    "clips/mmaction2__demo.mp4",
    "clips/moviepy__chaplin.mp4",
    "clips/torchcodec__nasa_13013.mp4",
    "clips/decord__flipping_a_pancake.mkv",
    "clips/video_features__v_GGSY1Qvo990.mp4",
    "fight_surv/noFight/nofi047.mp4",
    "fight_surv/noFight/nofi049.mp4",
]

OF_OPENCV = "opencv5" if int(cv2.__version__.split(".")[0]) >= 5 else "opencv4"  # how this OpenCV's remap interpolates


@cache
def real_pairs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames 10 and 11 of each clip: two (8, 180, 240) uint8."""
    found = []
    for clip in CLIPS:
        with av.open(str(folder / "videos" / clip)) as container:
            frames = [frame for frame, _ in zip(container.decode(video=0), range(12), strict=False)][10:]
        found.append([frame.reformat(width=240, height=180, format="gray").to_ndarray() for frame in frames])
    batch = np.array(found)
    return batch[:, 0], batch[:, 1]


@cache
def oracle(folder: Path, preset: str | TVL1Preset) -> np.ndarray:
    return tvl1(*real_pairs(folder), preset=preset, engine="opencv")


def end_point_error(flow: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean per pair, pixels."""
    return np.linalg.norm(flow - other, axis=1).mean(axis=(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tsn", "opencv", "fast"])
@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_own_engines_agree_with_opencv_on_real_pairs(shared_data: Path, engine: str, preset: str) -> None:
    expected = oracle(shared_data, preset)
    assert np.abs(expected).max() > 5  # the clips do move
    ours = replace(PRESETS[preset], interpolation=OF_OPENCV) if preset == "opencv" else preset
    flow = tvl1(*real_pairs(shared_data), preset=ours, engine=engine)
    errors = end_point_error(flow, expected)
    levels = np.abs(quantise(flow).astype(int) - quantise(expected)).mean()
    assert errors.max() <= 0.1, errors
    assert levels <= 0.5
    if (engine, preset) == ("numba", "opencv"):  # the same algorithm to the last step, early stop and median included
        assert errors.mean() < 0.01, errors


@pytest.mark.slow
@pytest.mark.parametrize("median", [0, 5])
def test_numba_is_opencv_to_rounding_while_errors_cannot_grow(shared_data: Path, median: int) -> None:
    preset = TVL1Preset(scales=2, warps=2, stop="fixed", iterations=30, median=median, interpolation=OF_OPENCV)
    flow = tvl1(*real_pairs(shared_data), preset=preset, engine="numba")
    assert end_point_error(flow, oracle(shared_data, preset)).max() < 1e-3


@pytest.mark.slow
def test_numba_and_torch_agree_on_real_pairs_with_fixed_iterations(shared_data: Path) -> None:
    # five scales amplify rounding where the data term is undecided: a few pixels of the fast clips, never the mean
    preset = TVL1Preset(stop="fixed")
    first, second = (half[:4] for half in real_pairs(shared_data))
    errors = end_point_error(
        tvl1(first, second, preset=preset, engine="numba"), tvl1(first, second, preset=preset, engine="torch")
    )
    assert errors.max() < 5e-3, errors
    assert np.median(errors) < 3e-4, errors


@pytest.mark.parametrize(
    ("shape", "step", "expected"),
    [
        ((240, 320), 0.8, [(240, 320), (192, 256), (154, 205), (123, 164), (98, 131)]),
        ((240, 320), 0.5, [(240, 320), (120, 160), (60, 80), (30, 40)]),
        ((33, 47), 0.8, [(33, 47), (26, 38), (21, 30), (17, 24)]),
        ((33, 47), 0.5, [(33, 47), (16, 24)]),
        ((10, 300), 0.8, [(10, 300)]),
    ],
)
def test_pyramid_has_opencvs_sizes(shape: tuple[int, int], step: float, expected: list[tuple[int, int]]) -> None:
    assert scale_shapes(shape, scales=4 if step == 0.5 else 5, step=step) == expected


@pytest.mark.parametrize("step", [0.8, 0.5])
@pytest.mark.parametrize("shape", [(33, 47), (131, 98), (20, 17)])
def test_pyramid_resizes_as_opencv_does(shape: tuple[int, int], step: float) -> None:
    image = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    down = cv2.resize(image, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)
    up = cv2.resize(down, shape[::-1], interpolation=cv2.INTER_LINEAR)
    small = (round(shape[0] * step), round(shape[1] * step))
    np.testing.assert_allclose(_resize(image, small, 1 / step), down, atol=1e-3)
    np.testing.assert_allclose(resize(torch.from_numpy(image), small, ratio=1 / step).numpy(), down, atol=1e-3)
    np.testing.assert_allclose(_resize(down, shape), up, atol=1e-3)
    np.testing.assert_allclose(resize(torch.from_numpy(down), shape).numpy(), up, atol=1e-3)


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("shape", [(40, 31), (5, 6), (2, 9)])
def test_median_filter_is_opencvs(shape: tuple[int, int], side: int) -> None:
    fields = np.random.default_rng(0).normal(size=(2, 2, *shape)).round(1).astype(np.float32)  # with ties
    expected = np.array([[cv2.medianBlur(field, side) for field in pair] for pair in fields])
    np.testing.assert_array_equal(median_filter(torch.from_numpy(fields), side).numpy(), expected)
