"""When and where, from video labels alone: detection and boxes of fitted heads against random and uniform attention.

On the untrimmed generated data set (hog, hof, hog3d; early fusion; `--preset small`), several seeds. Random and uniform
attention take the place of the head's in the same commands, with the same class scores: what is above them is what the
attention knows. Store and runs of an earlier call are taken up.

    python benchmarks/localise.py OUT [--store STORE] [--heads stan,san,...] [--seeds 3] [--jobs 1]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed

sys.path.insert(0, str(Path(__file__).parent))
from actionshapes import STREAMS, prepare

from vidatt.cli.tables import table
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.localisation.detect import DetectConfig, detect
from vidatt.pipelines.localisation.locate import LocateConfig, locate
from vidatt.pipelines.localisation.reading import ATTENTIONS
from vidatt.pipelines.results.evaluate import evaluate

STEPS = {"where-and-when": 100}  # its ConvLSTM takes long on a CPU
OTHERS = 300
RELATIVE = {"normalise_k": "minmax", "k_threshold": "0.5"}  # half-way between a video's lowest and highest raw score
WHEN = {  # head -> rules with settings
    "stan": (("stan", {}), ("stan", RELATIVE), ("where-and-when", {}), ("untrimmednet", {})),
    "untrimmed": (("stan", {}), ("stan", RELATIVE)),
    "san": (),
    "where-and-when": (("where-and-when", {}),),
}
BOXES = (("threshold", {}), ("threshold", {"confidence_temporal": "true"}), ("minmax", {}), ("contour", {}))
WHERE = {"stan": BOXES, "untrimmed": (), "san": BOXES, "where-and-when": BOXES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--store", type=Path, help="a store made by benchmarks/actionshapes.py [made in OUT]")
    parser.add_argument("--heads", default="stan,untrimmed,san,where-and-when")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    if unknown := sorted(set(given.heads.split(",")) - set(WHEN)):
        parser.error(f"no rules are set out for {', '.join(unknown)}; there are some for {', '.join(WHEN)}")
    store = given.store or prepare(given.out, "untrimmed")
    work = [(head, seed) for head in given.heads.split(",") for seed in range(given.seeds)]
    found = Parallel(n_jobs=given.jobs)(
        delayed(run)(given.out / "runs-untrimmed", store, head, seed) for head, seed in work
    )
    rows = [row for rows in found for row in rows]
    (given.out / "localise.json").write_text(json.dumps(rows, indent=1))
    report(rows)


def run(out: Path, store: Path, head: str, seed: int) -> list[dict[str, Any]]:
    """Fit a head, then find intervals and boxes with its attention and without."""
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    path = out / f"{head}-{seed}"
    settings = {"steps": str(STEPS.get(head, OTHERS))}
    fit(
        FitConfig(
            head=head,
            store=store,
            out=path,
            streams=tuple(STREAMS),
            preset="small",
            settings=settings,
            seed=seed,
            device="cpu",
        )
    )
    top1 = evaluate(path, device="cpu").metrics.top1
    rows = []
    for kind in ATTENTIONS:
        for rule, more in WHEN[head]:
            if rule == "untrimmednet" and kind != "head":
                continue  # it reads no attention
            asked = DetectConfig(run=path, rule=rule, settings=more, attention=kind, seed=seed, device="cpu")
            result = detect(asked)
            measure = result.measures["thumos14"]
            rows.append(_row("mAP", rule, more, kind, measure.map, measure.thresholds, result.proposals))
        for rule, more in WHERE[head]:
            result = locate(LocateConfig(run=path, rule=rule, settings=more, attention=kind, seed=seed, device="cpu"))
            measure = result.measures
            for what, key in (("frame-hit", "frame_hit"), ("frame-mAP", "frame_map")):
                rows.append(_row(what, rule, more, kind, getattr(measure, key), measure.thresholds, result.boxes))
    return [{"head": head, "seed": seed, "top1": top1, **row} for row in rows]


def _row(
    what: str, rule: str, more: dict[str, str], kind: str, values: list[float], at: list[float], count: int
) -> dict[str, Any]:
    told = ", ".join([rule, *(f"{key}={value}" for key, value in more.items())])
    return {"what": what, "rule": told, "attention": kind, "values": values, "at": at, "count": count}


def report(rows: list[dict[str, Any]]) -> None:
    """Print one table of detection and one of boxes: mean +- sample standard deviation over seeds."""
    for head in dict.fromkeys(row["head"] for row in rows):
        top1 = [row["top1"] for row in {row["seed"]: row for row in rows if row["head"] == head}.values()]
        print(f"\n{head}: top-1 {_shown(top1)} over {len(top1)} seeds")
    for title, chosen in (("when", ("mAP",)), ("where", ("frame-hit", "frame-mAP"))):
        mine = [row for row in rows if row["what"] in chosen]
        if not mine:
            continue
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in mine:
            groups.setdefault((row["head"], row["what"], row["rule"], row["attention"]), []).append(row)
        lines = []
        for key, same in groups.items():
            values = np.array([row["values"] for row in same])
            found = float(np.mean([row["count"] for row in same]))
            lines.append([*key, f"{found:.0f}", *(_shown(column.tolist()) for column in values.T)])
        print(f"\n{title}")
        print(table(["head", "measure", "rule", "attention", "found", *(f"{t:g}" for t in mine[0]["at"])], lines))


def _shown(values: list[float]) -> str:
    spread = f" +- {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
