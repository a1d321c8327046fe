"""Every head against plain averaging on the generated data set: trimmed and untrimmed, several seeds, one store each.

All heads see the same cubes (hog, hof, hog3d; early fusion) with `--preset small`. Beside the accuracy stands how much
attention lies inside the true box (spatial) and inside the true interval (temporal), with what uniform attention has.

    python benchmarks/actionshapes.py OUT [--heads stan,san,mean] [--seeds 3] [--variants trimmed,untrimmed] [--jobs 2]
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed

from vidatt.cache.store import Store
from vidatt.cli.tables import table
from vidatt.extract.datasets.generator import generate
from vidatt.extract.streams import StreamConfig
from vidatt.heads.registry import HEADS, head_names
from vidatt.pipelines.extraction.config import ExtractConfig
from vidatt.pipelines.extraction.extract import extract
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.localisation.truth import BoxTruth
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.runs.attention import attention

STREAMS = {"rgb": "hog", "flow": "hof", "clip": "hog3d"}
SEGMENTS = {"trimmed": 10, "untrimmed": 20}
VIDEOS = {"trimmed": 216, "untrimmed": 240}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    gradient = [name for name in head_names() if not name.startswith("svm")]
    parser.add_argument("--heads", default=",".join(gradient))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", default="trimmed,untrimmed")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    for variant in given.variants.split(","):
        store = prepare(given.out, variant)
        work = [(head, seed) for head in given.heads.split(",") for seed in range(given.seeds)]
        rows = Parallel(n_jobs=given.jobs)(
            delayed(run)(given.out / f"runs-{variant}", store, head, seed, given.steps) for head, seed in work
        )
        report(variant, rows, given)


def prepare(out: Path, variant: str) -> Path:
    """Generate and extract one variant; nothing is done twice."""
    videos, store = out / variant, out / f"{variant}.zarr"
    generate(videos, variant=variant, videos=VIDEOS[variant], shapes=3, motions=2, n_jobs=2)
    extract(
        ExtractConfig(
            dataset="actionshapes",
            videos=videos,
            store=store,
            sampler=f"centre:{SEGMENTS[variant]}",
            device="cpu",
            streams=tuple(
                StreamConfig(name=name, backbone=backbone, resize="short:112", crop_px=112, flow_preset="fast")
                for name, backbone in STREAMS.items()
            ),
        )
    )
    return store


def run(out: Path, store_path: Path, head: str, seed: int, steps: int) -> dict[str, Any]:
    """Fit and score one head with one seed."""
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    path = out / f"{head}-{seed}"
    streams = ("rgb", "flow") if HEADS[head].head.stream_count == 2 else tuple(STREAMS)
    config = FitConfig(
        head=head,
        store=store_path,
        out=path,
        streams=streams,
        preset="small",
        settings={"steps": str(steps)},
        seed=seed,
        device="cpu",
    )
    fit(config)
    top1 = evaluate(path, device="cpu").metrics.top1
    store = Store.open(store_path)
    truth = BoxTruth(store, streams[0])
    boxes: list[tuple[float, float]] = []
    times: list[tuple[float, float]] = []
    for video in attention(path, device="cpu"):
        boxes += truth.mass_in_boxes(video)
        inside = {t.segment for t in truth.segments(video.position)}
        total = video.temporal.sum()
        if total > 0:
            mass = sum(video.temporal[s] for s in inside) / total
            times.append((float(mass), len(inside) / len(video.temporal)))
    return {
        "head": head,
        "seed": seed,
        "streams": len(streams),
        "top1": top1,
        "box": float(np.mean([m for m, _ in boxes])) if boxes else None,
        "box_share": float(np.mean([s for _, s in boxes])) if boxes else None,
        "time": float(np.mean([m for m, _ in times])),
        "time_share": float(np.mean([s for _, s in times])),
    }


def report(variant: str, rows: list[dict[str, Any]], given: argparse.Namespace) -> None:
    """Print the table of one variant, and keep the rows."""
    (given.out / f"table-{variant}.json").write_text(json.dumps(rows, indent=1))
    share = next((r["box_share"] for r in rows if r["box_share"] is not None), float("nan"))
    print(
        f"\n{variant}: {VIDEOS[variant]} videos, a third tested; {SEGMENTS[variant]} segments, {given.steps} steps, "
        f"{given.seeds} seeds; chance 0.167; uniform attention has {share:.3f} in the box and "
        f"{rows[0]['time_share']:.3f} in the interval"
    )
    lines = []
    for head in given.heads.split(","):
        mine = [r for r in rows if r["head"] == head]
        top1 = [r["top1"] for r in mine]
        box = [r["box"] for r in mine if r["box"] is not None]
        lines.append(
            [
                head,
                mine[0]["streams"],
                f"{np.mean(top1):.3f}",
                f"{np.std(top1, ddof=1):.3f}" if len(top1) > 1 else "-",
                f"{np.mean(box):.3f}" if box else "-",
                f"{np.mean([r['time'] for r in mine]):.3f}",
            ]
        )
    lines.sort(key=lambda line: -float(line[2]))
    print(table(["head", "streams", "top-1", "spread", "in box", "in interval"], lines))


if __name__ == "__main__":
    main()
