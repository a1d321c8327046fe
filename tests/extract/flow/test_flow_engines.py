"""TV-L1 without an oracle: known motions, batches, borders, kinds of input, wrong use."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from testkit.commands import run_program

from vidatt.errors import UnknownNameError, UsageError
from vidatt.extract.flow import PRESETS, TVL1Preset, choose_engine, tvl1

ENGINES = ["numba", "torch", "opencv"]
OF_OPENCV = "opencv5" if int(cv2.__version__.split(".")[0]) >= 5 else "opencv4"  # how this OpenCV's remap interpolates
SHORT = TVL1Preset(scales=2, warps=2, iterations=6, max_iterations=12)


def texture(height: int, width: int, shift: tuple[float, float] = (0.0, 0.0), seed: int = 0) -> np.ndarray:
    """A band-limited texture moved by `shift` (x, y) pixels, exact at any fraction: (H, W) float32 in 0..255."""
    waves = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    image = np.zeros((height, width))
    for _ in range(60):
        period, angle, phase = waves.uniform(6, 60), waves.uniform(0, np.pi), waves.uniform(0, 2 * np.pi)
        along = (x - shift[0]) * np.cos(angle) + (y - shift[1]) * np.sin(angle)
        image += np.sin(2 * np.pi * along / period + phase)
    return (127 + 16 * image).clip(0, 255).astype(np.float32)


def pairs(batch: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.stack([texture(height, width, seed=seed) for seed in range(batch)])
    second = np.stack([texture(height, width, (1.5 - seed, 0.5 * seed), seed=seed) for seed in range(batch)])
    return first.astype(np.uint8), second.astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("engine", ENGINES)
def test_tvl1_finds_known_motions(engine: str, preset: str) -> None:
    shifts = [(1.0, 0.0), (-2.25, 1.5), (2.5, -2.5)]
    first = np.stack([texture(96, 128)] * 3)
    second = np.stack([texture(96, 128, shift) for shift in shifts])
    flow = tvl1(first, second, engine=engine, preset=preset)
    error = np.linalg.norm(flow - np.array(shifts, np.float32)[:, :, None, None], axis=1)
    inside = error[:, 8:-8, 8:-8]  # what leaves the frame has no partner
    assert inside.mean(axis=(1, 2)) == pytest.approx(0, abs=0.2), inside.mean(axis=(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_tvl1_of_equal_frames_is_zero(engine: str, preset: str) -> None:
    first, _ = pairs(2, 50, 70)
    flow = tvl1(first, first, engine=engine, preset=replace(PRESETS[preset], iterations=5))
    assert not flow.any()


@pytest.mark.parametrize("engine", ENGINES)
def test_tvl1_of_a_flat_frame_is_zero(engine: str) -> None:
    flat = np.full((1, 40, 40), 200, np.uint8)
    assert not tvl1(flat, flat // 2, engine=engine, preset=replace(SHORT, scales=1))[:, :, 4:-4, 4:-4].any()


@pytest.mark.parametrize("shape", [(131, 98), (33, 47), (64, 48), (17, 40), (9, 100), (5, 5), (2, 2)])
def test_tvl1_engines_agree_on_every_size(shape: tuple[int, int]) -> None:
    first, second = pairs(1, *shape)
    preset = replace(SHORT, scales=5, stop="fixed", interpolation=OF_OPENCV)
    flows = {engine: tvl1(first, second, engine=engine, preset=preset) for engine in ENGINES}
    for engine in ENGINES:
        assert flows[engine].shape == (1, 2, *shape)
        error = np.linalg.norm(flows[engine] - flows["opencv"], axis=1)
        assert error.mean() < 1e-3, (engine, error.mean(), error.max())


# zeros outside make the border unstable: over five scales a change of 1e-4 gray levels moves the flow there by pixels
@pytest.mark.slow
@pytest.mark.parametrize(("interpolation", "scales"), [("exact", 5), ("opencv5", 1), ("opencv4", 1)])
@pytest.mark.parametrize("median", [0, 3, 5])
def test_numba_and_torch_agree_to_rounding(median: int, interpolation: str, scales: int) -> None:
    first, second = pairs(3, 60, 83)
    preset = TVL1Preset(scales=scales, stop="fixed", median=median, median_every=10, interpolation=interpolation)
    flows = [tvl1(first, second, engine=engine, preset=preset) for engine in ("numba", "torch")]
    error = np.linalg.norm(flows[0] - flows[1], axis=1)
    assert error.mean() < 1e-3, error.mean()
    assert np.quantile(error, 0.99) < 1e-2


@pytest.mark.parametrize("engine", ENGINES)
def test_tvl1_of_a_batch_equals_single_pairs_and_repeats(engine: str) -> None:
    first, second = pairs(3, 45, 61)
    flow = tvl1(first, second, engine=engine, preset=SHORT)
    singles = [tvl1(first[i : i + 1], second[i : i + 1], engine=engine, preset=SHORT) for i in range(3)]
    assert flow.tobytes() == np.concatenate(singles).tobytes()
    assert flow.tobytes() == tvl1(first, second, engine=engine, preset=SHORT).tobytes()


@pytest.mark.parametrize("engine", ENGINES)
def test_tvl1_takes_arrays_and_tensors_of_both_dtypes(engine: str) -> None:
    first, second = pairs(2, 40, 52)
    flow = tvl1(first, second, engine=engine, preset=SHORT)
    assert flow.dtype == np.float32
    as_tensor = tvl1(torch.from_numpy(first), torch.from_numpy(second), engine=engine, preset=SHORT)
    assert isinstance(as_tensor, torch.Tensor)
    assert as_tensor.dtype == torch.float32
    np.testing.assert_array_equal(as_tensor.numpy(), flow)
    floats = tvl1(first.astype(np.float32), second.astype(np.float32), engine=engine, preset=SHORT)
    np.testing.assert_allclose(floats, flow, atol=1e-3 if engine == "opencv" else 0)  # OpenCV scales floats by 255


@pytest.mark.parametrize("engine", ENGINES)
def test_tvl1_takes_read_only_and_mirrored_views(engine: str) -> None:
    first, second = pairs(1, 40, 52)
    expected = tvl1(first[..., ::-1].copy(), second[..., ::-1].copy(), engine=engine, preset=SHORT)
    first.setflags(write=False)
    second.setflags(write=False)
    np.testing.assert_array_equal(tvl1(first[..., ::-1], second[..., ::-1], engine=engine, preset=SHORT), expected)
    np.testing.assert_array_equal(
        tvl1(first, second, engine=engine, preset=SHORT), tvl1(first.copy(), second.copy(), engine=engine, preset=SHORT)
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_tvl1_of_no_pairs_is_empty(engine: str) -> None:
    none = np.zeros((0, 20, 30), np.uint8)
    assert tvl1(none, none, engine=engine).shape == (0, 2, 20, 30)
    assert tvl1(torch.from_numpy(none), torch.from_numpy(none), engine=engine).shape == (0, 2, 20, 30)


_DIGEST = """
import hashlib
import numpy as np
from vidatt.extract.flow import tvl1

frames = np.random.default_rng(0).integers(0, 256, (3, 60, 80), dtype=np.uint8)
print(hashlib.sha256(tvl1(frames[:-1], frames[1:], engine="numba").tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_numba_flow_is_the_same_compiled_afresh_and_from_the_cache(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    first = run_program(_DIGEST, env=environment)
    assert any(tmp_path.rglob("*.nbi"))
    assert run_program(_DIGEST, env=environment) == first


def test_auto_is_numba_on_the_cpu() -> None:
    first, second = pairs(1, 40, 52)
    assert choose_engine("auto", "cpu") == "numba"
    np.testing.assert_array_equal(tvl1(first, second, preset=SHORT), tvl1(first, second, preset=SHORT, engine="numba"))


WITHOUT = """
import sys
import cv2
if sys.argv[1] == "cv2.optflow":  # as in the builds without contrib
    del cv2.optflow
sys.modules[sys.argv[1]] = None  # what an uninstalled module looks like to `import`
import numpy as np
from vidatt.errors import UsageError
from vidatt.extract.flow import choose_engine, tvl1
frames = np.zeros((1, 20, 20), np.uint8)
print(choose_engine("auto", "cpu"))
try:
    tvl1(frames, frames, engine=sys.argv[2])
except UsageError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "engine", "auto", "way_out"),
    [
        ("numba", "numba", "torch", "pip install numba"),
        ("cv2.optflow", "opencv", "numba", "pip install opencv-contrib-python-headless"),
        ("triton", "triton", "numba", "pip install triton"),
    ],
)
def test_a_missing_engine_is_named_with_what_to_install(module: str, engine: str, auto: str, way_out: str) -> None:
    lines = run_program(WITHOUT, module, engine).splitlines()
    assert lines[0] == auto
    assert f"engine {engine!r} is not available" in lines[1]
    assert lines[1].endswith(way_out)
    assert len(lines) == 2


FRAMES = np.zeros((2, 20, 30), np.uint8)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (FRAMES[0], FRAMES[0], r"\(B, H, W\) gray frames"),
        (FRAMES[:, :1], FRAMES[:, :1], "at least 2x2 pixels"),
        (FRAMES[..., None], FRAMES[..., None], r"\(B, H, W\) gray frames"),
        (FRAMES.astype(np.float64), FRAMES.astype(np.float64), "uint8 or float32"),
        (torch.from_numpy(FRAMES).long(), torch.from_numpy(FRAMES).long(), "uint8 or float32"),
        (FRAMES, FRAMES[:1], "of one kind, shape and dtype"),
        (FRAMES, FRAMES.astype(np.float32), "of one kind, shape and dtype"),
        (FRAMES, torch.from_numpy(FRAMES), "of one kind, shape and dtype"),
        (FRAMES.tolist(), FRAMES, "NumPy array or a tensor"),
        (FRAMES.astype(np.float32) - 1, FRAMES.astype(np.float32), r"first must lie in 0\.\.255"),
        (FRAMES.astype(np.float32), FRAMES + np.float32(np.nan), r"second must lie in 0\.\.255"),
    ],
    ids=["2d", "thin", "4d", "float64", "int64", "batch", "dtypes", "kinds", "list", "negative", "nan"],
)
def test_tvl1_refuses_wrong_frames(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tvl1(first, second)


def test_tvl1_refuses_unknown_names_and_impossible_devices() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'numba'"):
        tvl1(FRAMES, FRAMES, engine="nunba")
    with pytest.raises(UnknownNameError, match="Did you mean 'opencv'"):
        tvl1(FRAMES, FRAMES, preset="opncv")
    with pytest.raises(UsageError, match="needs a CUDA device, got 'cpu'"):
        tvl1(FRAMES, FRAMES, engine="triton")
    with pytest.raises(UsageError, match="runs on the CPU, not on 'cuda'"):
        tvl1(FRAMES, FRAMES, engine="numba", device="cuda")
    with pytest.raises(UsageError, match="fixed number of iterations"):
        tvl1(FRAMES, FRAMES, engine="torch", preset=TVL1Preset(stop="early"))
    uneven = TVL1Preset(stop="fixed", iterations=45, median=5)
    with pytest.raises(UsageError, match="whole rounds"):
        tvl1(FRAMES, FRAMES, engine="opencv", preset=uneven)


@pytest.mark.parametrize(
    "wrong",
    [{"tau": 0.0}, {"epsilon": float("nan")}, {"scales": 0}, {"iterations": 2.5}, {"step": 1.0}, {"median": 4},
     {"interpolation": "cubic"}, {"stop": "never"}],
    ids=str,
)  # fmt: skip
def test_preset_refuses_values_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"TV-L1: {next(iter(wrong))} must"):
        TVL1Preset(**wrong)
