"""Training steps of the heads against the bare matrix work in them, on one device, in one run.

A step is forward, loss, backward and the optimiser's step on random float16 cubes that lie ready in memory, at the
papers' sizes. Its matrix work is counted, not timed: multiplications and additions of forward and backward, over the
rate of a large float32 matrix product, or of a convolution like STAN's conv6 where convolutions are more than half of
it. Step and references take turns, medians are compared; 1 = nothing but matrix work.

    python benchmarks/heads.py [--heads stan,glka] [--device cpu] [--threads 1] [--compile] [--json]

A step of a paper's whole batch takes minutes on a CPU: the batch is cut to --gflop of matrix work, or set by --videos.
Small batches are harder to fill a device with, so the ratios are lower than those of whole batches.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from vidatt.heads.contract import FitDefaults, Head, StreamShape
from vidatt.heads.registry import build_from_settings, preset_names, resolve_settings, trained_head_names
from vidatt.pipelines.fitting.training import build_optimiser

CLASSES = 101
NAMES = ("rgb", "flow", "clip")


@dataclass(frozen=True)
class Case:
    """One head on streams of one kind."""

    head: str
    streams: int = 1
    channels: int = 512
    segments: int = 25

    def shapes(self) -> tuple[StreamShape, ...]:
        return tuple(StreamShape(name=name, grid=7, channels=self.channels) for name in NAMES[: self.streams])


def cases(heads: list[str]) -> list[Case]:
    """The sizes of the papers (sections 1.1 and 12 of the specification)."""
    found = []
    for head in heads:
        if head in ("stan", "san", "mean"):
            found += [Case(head), Case(head, streams=3)]
        elif head.startswith("glka"):
            found.append(Case(head, segments=30))
        elif head in ("where-and-when", "tclsta", "tclsta-cln"):
            found.append(Case(head, streams=2 if head == "tclsta-cln" else 1, channels=2048))
        elif head == "soft-attention":
            found.append(Case(head, channels=1024, segments=30))
        elif head == "videolstm":
            found.append(Case(head, segments=15))
        else:
            found.append(Case(head))
    return found


class Step:
    """One training step, again and again."""

    def __init__(self, case: Case, head: Head, fit: FitDefaults, videos: int, device: str) -> None:
        shape = (videos, case.segments, 7, 7, case.channels)
        self.head = head.to(device).train()
        self.run: Callable[..., Any] = self.head
        self.cubes = [torch.rand(shape, device=device).half() for _ in case.shapes()]
        self.valid = torch.ones(shape[:2], dtype=torch.bool, device=device)
        self.target = torch.randint(CLASSES, (videos,), device=device)
        self.optimiser = build_optimiser(head, fit)

    def gradients(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.head.loss(self.run(self.cubes, self.valid), self.target).backward()

    def __call__(self) -> None:
        self.gradients()
        self.optimiser.step()


def count(case: Case, head: Head, fit: FitDefaults) -> dict[str, float]:
    """Multiplications and additions of one video's forward and backward, by kind; they grow with the videos.

    Counted on the CPU without oneDNN: the fused LSTMs of oneDNN and cuDNN are unknown to the counter.
    """
    step = Step(case, head, fit, 1, "cpu")
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        step.gradients()
    step.optimiser.zero_grad(set_to_none=True)
    by_kind = {str(kind): number for kind, number in counter.get_flop_counts()["Global"].items()}
    convolution = sum(number for kind, number in by_kind.items() if "convolution" in kind)
    return {"convolution": float(convolution), "all": float(sum(by_kind.values()))}


def references(device: str) -> dict[str, tuple[float, Callable[[], object]]]:
    """Floating point operations of each reference, and the reference."""
    side, maps = (2048, 32) if device == "cpu" else (8192, 3200)
    a, b = torch.rand(side, side, device=device), torch.rand(side, side, device=device)
    cubes = torch.rand(maps, 7, 7, 512, device=device).permute(0, 3, 1, 2)
    weight = torch.rand(1024, 512, 3, 3, device=device).requires_grad_()
    above = torch.rand(maps, 7, 7, 1024, device=device).permute(0, 3, 1, 2)

    def convolve() -> Tensor:
        return torch.autograd.grad(functional.conv2d(cubes, weight, padding=1), weight, above)[0]

    with FlopCounterMode(display=False) as counter:
        convolve()
    return {
        "matmul": (2.0 * side**3, lambda: a @ b),
        "conv": (float(counter.get_total_flops()), convolve),
    }


def timed(work: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def measure(case: Case, given: argparse.Namespace, bare: dict[str, tuple[float, Callable[[], object]]]) -> dict:
    torch.manual_seed(0)
    names = preset_names(case.head)
    preset = given.preset or ("default" if "default" in names else "paper")
    settings = resolve_settings(case.head, preset)
    assert isinstance(settings.fit, FitDefaults)
    head = build_from_settings(settings, streams=case.shapes(), classes=CLASSES)
    flops = count(case, head, settings.fit)
    videos = given.videos or max(1, min(settings.fit.batch_videos, int(given.gflop * 1e9 / flops["all"])))
    step = Step(case, head, settings.fit, videos, given.device)
    work = {name: reference for name, (_, reference) in bare.items()} | {"step": step}
    if given.compile:
        compiled = Step(case, build_from_settings(settings, streams=case.shapes(), classes=CLASSES), settings.fit,
                        videos, given.device)  # fmt: skip
        compiled.run = torch.compile(compiled.head)
        work["compiled"] = compiled
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(given.rounds + 1):  # the first, which allocates and compiles, does not count
        for name, call in work.items():
            took = timed(call, given.device)
            if round_:
                seconds[name].append(took)
    reference = "conv" if flops["convolution"] > flops["all"] / 2 else "matmul"
    ratios = {
        name: statistics.median(
            flops["all"] * videos / bare[name][0] * r / s for r, s in zip(seconds[name], seconds["step"], strict=True)
        )
        for name in bare
    }
    row: dict[str, Any] = {
        "head": case.head,
        "preset": preset,
        "cube": [case.segments, 7, 7, case.channels],
        "streams": case.streams,
        "videos": videos,
        "batch": settings.fit.batch_videos,
        "parameters": sum(p.numel() for p in head.parameters()),
        "gflop": flops["all"] * videos / 1e9,
        "seconds": statistics.median(seconds["step"]),
        "gflop_per_second": {name: bare[name][0] / statistics.median(seconds[name]) / 1e9 for name in bare},
        "reference": reference,
        "ratio": ratios[reference],
        "ratios": ratios,
    }
    if given.compile:
        pairs = zip(seconds["step"], seconds["compiled"], strict=True)
        row["times_faster_compiled"] = statistics.median(eager / fast for eager, fast in pairs)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", default=",".join(trained_head_names()), help="comma-separated (all that train)")
    parser.add_argument("--preset", help="of every head (paper; where-and-when: default)")
    parser.add_argument("--videos", type=int, help="a step")
    parser.add_argument("--gflop", type=float, default=300, help="matrix work a step without --videos, at most (300)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--compile", action="store_true", help="time torch.compile's step too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    heads = given.heads.split(",")
    if unknown := sorted(set(heads) - set(trained_head_names())):
        raise SystemExit(f"--heads {','.join(unknown)}: must be of {', '.join(trained_head_names())}.")
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: no GPU that this PyTorch can use; take --device cpu.")
    if given.compile and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise SystemExit("--compile: torch.compile needs a C++ compiler; install g++, or leave --compile out.")
    torch.set_num_threads(given.threads)
    bare = references(given.device)
    rows = []
    if not given.json:
        where = f"{given.threads} threads" if given.device == "cpu" else torch.cuda.get_device_name()
        print(f"{where}, torch {torch.__version__}, random float16 cubes, N = {CLASSES}, {given.rounds} rounds")
        print(f"{'head':<16}{'streams x cube':<20}{'videos of batch':>16}{'GFLOP':>8}{'s/step':>9}  {'reference':<17}"
              f"{'ratio':>6}{'  compiled' if given.compile else ''}")  # fmt: skip
    for case in cases(heads):
        row = measure(case, given, bare)
        rows.append(row)
        if not given.json:
            print(line(row), flush=True)
    if given.json:
        json.dump({"device": given.device, "threads": given.threads, "rounds": given.rounds, "rows": rows}, sys.stdout)
        print()


def line(row: dict[str, Any]) -> str:
    cube = f"{row['streams']} x {'x'.join(map(str, row['cube']))}"
    rate = f"{row['reference']} {row['gflop_per_second'][row['reference']]:.0f} GF/s"
    compiled = f"{row['times_faster_compiled']:8.2f} x" if "times_faster_compiled" in row else ""
    return (
        f"{row['head']:<16}{cube:<20}{row['videos']:>9} of {row['batch']:<3}{row['gflop']:>9.1f}{row['seconds']:>9.3f}"
        f"  {rate:<17}{row['ratio']:>6.2f}{compiled}"
    )


if __name__ == "__main__":
    main()
