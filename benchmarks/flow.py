"""TV-L1 engines against OpenCV's DualTVL1 in one run on one core: milliseconds per pair, ratio, agreement.

    python benchmarks/flow.py --video clip.avi [--video other.mp4 ...] [--pairs 8] [--json]

Times are CPU seconds of this process, the engines taken in turn pair by pair, after one warm-up call each. With a GPU,
the CUDA engines run the same pairs as one large batch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from vidatt.extract.flow import PRESETS, TVL1Preset, quantise, tvl1

GPU_BATCH = 240


def video_pairs(path: Path, *, count: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` pairs of consecutive gray frames, spread evenly over a clip: two (count, height, width) uint8."""
    with av.open(str(path)) as container:
        frames = [
            frame.reformat(width=width, height=height, format="gray").to_ndarray()
            for frame in container.decode(video=0)
        ]
    if len(frames) < 2:
        raise SystemExit(f"{path} has {len(frames)} frames; a pair needs 2.")
    at = np.linspace(0, len(frames) - 2, count).round().astype(int)
    return np.array([frames[i] for i in at]), np.array([frames[i + 1] for i in at])


def synthetic_pairs(*, count: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Two textured layers that move against each other by up to 6 pixels."""
    random = np.random.default_rng(0)
    first, second = [], []
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(count):
        layers = [cv2.GaussianBlur(random.normal(size=(height, width)), (0, 0), sigma) for sigma in (2.0, 3.0)]
        images = [(127 + 45 * layer / layer.std()).clip(0, 255).astype(np.float32) for layer in layers]
        inside = (np.hypot(x - width / 2, y - height / 2) < height / 3).astype(np.float32)
        moved = []
        for plane, (dx, dy) in zip((*images, inside), [*random.uniform(-3, 3, (2, 2)), (0, 0)], strict=True):
            moved.append(cv2.remap(plane, x - np.float32(dx), y - np.float32(dy), cv2.INTER_CUBIC, borderMode=4))
        noise = random.normal(size=(2, height, width))
        first.append(np.where(inside > 0.5, images[1], images[0]) + noise[0])
        second.append(np.where(moved[2] > 0.5, moved[1], moved[0]) + noise[1])
    return np.array(first).clip(0, 255).astype(np.uint8), np.array(second).clip(0, 255).astype(np.uint8)


def measure(first: np.ndarray, second: np.ndarray) -> list[dict[str, object]]:
    """One row per engine and preset; the first row of each preset is its reference, OpenCV."""
    tsn, fixed = PRESETS["tsn"], replace(PRESETS["tsn"], stop="fixed")
    runs: list[tuple[str, str, TVL1Preset]] = [
        ("opencv", "tsn", tsn), ("numba", "tsn", tsn), ("numba", "tsn, fixed 30", fixed),
        ("torch", "tsn, fixed 30", tsn), ("numba", "fast", PRESETS["fast"]), ("opencv", "opencv", PRESETS["opencv"]),
        ("numba", "opencv", PRESETS["opencv"]), ("torch", "opencv, fixed 30", PRESETS["opencv"]),
    ]  # fmt: skip
    calls: list[Callable[[int], np.ndarray]] = [
        lambda i, engine=engine, preset=preset: tvl1(
            first[i : i + 1], second[i : i + 1], engine=engine, preset=preset, device="cpu"
        )
        for engine, _, preset in runs
    ]
    for call in calls:
        call(0)
    seconds = np.zeros((len(runs), len(first)))
    flows = [np.empty((len(first), 2, *first.shape[1:]), np.float32) for _ in runs]
    for i in range(len(first)):
        for number, call in enumerate(calls):
            start = time.process_time()
            flows[number][i : i + 1] = call(i)
            seconds[number, i] = time.process_time() - start
    rows: list[dict[str, object]] = []
    for number, (engine, name, _) in enumerate(runs):
        reference = 0 if number < 5 else 5
        rows.append(
            {
                "engine": engine,
                "preset": name,
                "ms_per_pair": 1e3 * seconds[number].mean(),
                "ms_median": 1e3 * float(np.median(seconds[number])),
                "times_opencv": seconds[reference].sum() / seconds[number].sum(),
                **agreement(flows[number], flows[reference]),
            }
        )
    if torch.cuda.is_available():
        rows += measure_cuda(first, second, flows[0], seconds[0].mean())
    return rows


def measure_cuda(
    first: np.ndarray, second: np.ndarray, reference: np.ndarray, opencv: float
) -> list[dict[str, object]]:
    repeats = -(-GPU_BATCH // len(first))
    one, two = (torch.from_numpy(frames).cuda().repeat(repeats, 1, 1) for frames in (first, second))
    rows: list[dict[str, object]] = []
    for engine in ("triton", "torch"):
        tvl1(one[:2], two[:2], engine=engine)
        torch.cuda.synchronize()
        start = time.perf_counter()
        flow = tvl1(one, two, engine=engine)
        torch.cuda.synchronize()
        each = (time.perf_counter() - start) / len(one)
        row = {
            "engine": f"{engine} (cuda)",
            "preset": "tsn, fixed 30",
            "ms_per_pair": 1e3 * each,
            "ms_median": 1e3 * each,
        }
        rows.append(row | {"times_opencv": opencv / each, **agreement(flow[: len(first)].cpu().numpy(), reference)})
    return rows


def agreement(flow: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    return {
        "end_point_error": float(np.linalg.norm(flow - reference, axis=1).mean()),
        "levels": float(np.abs(quantise(flow).astype(int) - quantise(reference)).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, action="append", help="may be repeated; default: synthetic pairs")
    parser.add_argument("--pairs", type=int, default=8, help="pairs per video (default: 8)")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    size = {"count": given.pairs, "width": given.width, "height": given.height}
    sources = [video_pairs(path, **size) for path in given.video] if given.video else [synthetic_pairs(**size)]
    first, second = (np.concatenate(frames) for frames in zip(*sources, strict=True))
    rows = measure(first, second)
    if given.json:
        json.dump({"pairs": len(first), "width": given.width, "height": given.height, "rows": rows}, sys.stdout)
        return
    print(f"{len(first)} pairs at {given.width}x{given.height}, one core, against OpenCV {cv2.__version__}")
    print(f"{'engine':<14}{'preset':<18}{'ms/pair':>9}{'median':>9}{'x OpenCV':>10}{'EPE, px':>9}{'levels':>8}")
    for row in rows:
        print(
            f"{row['engine']:<14}{row['preset']:<18}{row['ms_per_pair']:>9.1f}{row['ms_median']:>9.1f}"
            f"{row['times_opencv']:>10.1f}{row['end_point_error']:>9.4f}{row['levels']:>8.3f}"
        )


if __name__ == "__main__":
    main()
