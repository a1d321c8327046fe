"""The Triton engine: its arithmetic in Triton's interpreter, its kernels through its compiler, both without a GPU."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from packaging.version import Version
from testkit.commands import run_program

from vidatt.extract.flow import PRESETS, choose_engine, tvl1

triton = pytest.importorskip("triton", reason="needs triton: pip install triton")

INTERPRET = """
import json
import numpy as np
from vidatt.extract.flow import TVL1Preset, tvl1
noise = np.random.default_rng(0).uniform(0, 255, (2, 60, 80))
smooth = sum(np.roll(noise, (i, j), (1, 2)) for i in range(5) for j in range(5)) / 25
smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255
found = []
for height, width, options in [
    (33, 47, {}),
    (20, 26, {"interpolation": "opencv5", "median": 5, "median_every": 3}),
    (16, 23, {"interpolation": "opencv4"}),
    (3, 2, {"scales": 5}),
]:
    first = smooth[:, 4:4 + height, 4:4 + width].astype(np.float32)
    second = smooth[:, 3:3 + height, 6:6 + width].astype(np.float32)
    preset = TVL1Preset(**{"scales": 2, "warps": 2, "iterations": 4, "stop": "fixed"} | options)
    torch_flow = tvl1(first, second, preset=preset, engine="torch")
    triton_flow = tvl1(first, second, preset=preset, engine="triton")
    found.append([float(np.abs(torch_flow - triton_flow).max()), float(np.abs(torch_flow).max())])
print(json.dumps(found))
"""

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from vidatt.extract.flow import triton_engine as engine

def binary(kernel, pointers, scalars, constants):
    types = {name: "*fp32" for name in pointers} | scalars | {name: "constexpr" for name in constants}
    source = ASTSource(kernel, types, constants)
    return triton.compile(source, GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True}).asm["cubin"]

sides = {"H": "i32", "W": "i32"}
print(len(binary(
    engine._iteration_kernel, ["u", "p", "u_out", "p_out", "gradient", "rho", "inverse"],
    sides | {"bound": "fp32", "theta": "fp32", "step": "fp32"}, {"BLOCK": engine.BLOCK},
)))
for outside, rounded in ((False, False), (True, False), (True, True)):
    print(len(binary(
        engine._warp_kernel, ["first", "planes", "u", "gradient", "rho", "inverse"], sides,
        {"ZERO_OUTSIDE": outside, "ROUNDED": rounded, "BLOCK": engine.BLOCK},
    )))
"""


@pytest.mark.slow
@pytest.mark.skipif(Version(triton.__version__) < Version("3.1"), reason="needs the interpreter of Triton 3.1 or newer")
def test_triton_in_the_interpreter_agrees_with_torch() -> None:
    for difference, largest in json.loads(run_program(INTERPRET, env={**os.environ, "TRITON_INTERPRET": "1"})):
        assert largest > 0.3
        assert difference < 2e-3  # a position that rounds to another 1/32 pixel moves the flow by about this


@pytest.mark.slow
def test_triton_kernels_compile_for_hopper() -> None:
    sizes = [int(line) for line in run_program(COMPILE, env={**os.environ, "TRITON_INTERPRET": "0"}).split()]
    assert len(sizes) == 4
    assert min(sizes) > 1000


@pytest.mark.cuda
@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("engine", ["triton", "torch"])
def test_cuda_engines_agree_with_torch_on_the_cpu(engine: str, preset: str) -> None:
    noise = torch.nn.functional.avg_pool2d(torch.rand(5, 1, 140, 180), 5, 1)[:, 0]
    frames = (noise - noise.min()) / (noise.max() - noise.min()) * 255
    first, second = frames[:, 5:125, 5:165], frames[:, 4:124, 7:167]
    flow = tvl1(first.cuda(), second.cuda(), preset=preset, engine=engine)
    assert flow.is_cuda
    assert choose_engine("auto", "cuda") == "triton"
    reference = tvl1(first, second, preset=preset, engine="torch")
    error = (flow.cpu() - reference).norm(dim=1)
    assert float(error.mean()) < 5e-3
    arrays = tvl1(first.numpy(), second.numpy(), preset=preset, engine=engine, device="cuda")
    np.testing.assert_array_equal(arrays, flow.cpu().numpy())
