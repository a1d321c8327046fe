"""Results of `vidatt evaluate`, `fuse`, `compare` and `evaluate-detections` as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tables import figure, table


def evaluation_text(result: Mapping[str, Any]) -> str:
    """Return the numbers of an evaluation and the per-class table; of several runs a row each."""
    numbers = ", ".join(f"{k} {v:.4f}" for k, v in result["metrics"].items() if v is not None)
    of_split = "" if result["split"] is None else f" of split {result['split']}"
    lines = [f"{result['run']}: {result['videos']} videos{of_split} ({result['protocol']})", numbers]
    if result.get("missing"):
        lines.append(f"{result['missing']} videos of the list have no scores and are not counted")
    if "official" in result:
        lines.append(_official_text(result["official"]))
    if "runs" in result:
        keys = list(result["metrics"])
        by_run = [
            [r["run"], r["split"], f"{r['videos']} of {r['listed']}"]
            + [figure(r["metrics"][key], digits=4) for key in keys]
            for r in result["runs"]
        ]
        lines += ["", table(["run", "split", "videos", *keys], by_run)]
    rows = result.get("per_class", [])
    if rows:
        keys = list(rows[0])
        lines += ["", table(keys, [[row[key] for key in keys] for row in rows])]
    matrix = result.get("confusion")
    if matrix is not None and len(matrix) <= 12:
        header = ["true \\ predicted", *(str(i) for i in range(len(matrix)))]
        names = [str(row["name"]) for row in rows] or [str(i) for i in range(len(matrix))]
        lines += ["", table(header, [[f"{i} {names[i]}", *row] for i, row in enumerate(matrix)])]
    return "\n".join(lines)


def _official_text(number: Mapping[str, Any]) -> str:
    """Return the official number of a dataset, and what keeps it from being official."""
    spread = f" +- {number['spread']:.4f} over {len(number['splits'])} splits" if number["spread"] is not None else ""
    text = (
        f"official, {number['dataset']} ({number['text']}): {number['primary']} {figure(number['value'], digits=4)}"
        f"{spread}; {number['scored']} of {number['listed']} listed videos scored"
    )
    if len(number["splits"]) > 1:
        text += "; " + ", ".join(f"split {split} {figure(x, digits=4)}" for split, x in number["splits"].items())
    others = {key: value for key, value in number["figures"].items() if value is not None}
    lines = [text, "beside it: " + ", ".join(f"{key} {value:.4f}" for key, value in others.items())]
    return "\n".join(lines + [f"NOT the official number: {caveat}" for caveat in number["caveats"]])


def detection_text(result: Mapping[str, Any]) -> str:
    """Return the average precisions of detections by class and overlap, and the rule they were measured by."""
    counted = f"{result['videos']} videos with {result['instances']} true segments of {result['classes']} classes"
    lines = [
        f"{result['result']}: {result['detections']} detections against {result['truth']} ({result['subset']})",
        f"rule: {result['rule_text']}",
        f"{counted}, {result['ambiguous']} ambiguous segments; {result['detections_elsewhere']} detections in videos "
        "without truth are false",
    ]
    if result["excluded"]:
        lines.append(f"left out, truth and detections: {', '.join(result['excluded'])}")
    rows = [
        [row["name"], row["instances"], row["detections"], *(figure(ap) for ap in row["ap"])]
        for row in result["per_class"]
    ]
    rows.append(["mAP", result["instances"], result["detections"], *(figure(value) for value in result["map"])])
    header = ["class", "true", "detected", *(f"{threshold:g}" for threshold in result["thresholds"])]
    return "\n".join([*lines, "", table(header, rows), "", f"average mAP {figure(result['average_map'], digits=4)}"])


def compare_text(result: Mapping[str, Any]) -> str:
    """Return the runs side by side, and the paired tests."""
    header = ["", "run", "head", "preset", "streams", "split", "seed", "videos", "top1", "class mean", "mAP"]
    rows = []
    for number, run in enumerate(result["runs"], start=1):
        told = [str(run[key] if run[key] is not None else "-") for key in ("run", "head", "preset")]
        told += ["+".join(run["streams"]) or "-"]
        told += [str(run[key] if run[key] is not None else "-") for key in ("split", "seed", "videos")]
        rows.append([str(number), *told, *(figure(run["metrics"][key]) for key in ("top1", "class_mean", "map"))])
    lines = [table(header, rows), ""]
    pairs = [
        [
            f"{pair['a'] + 1} : {pair['b'] + 1}",
            str(pair["shared"]),
            f"{figure(pair['top1_a'])} : {figure(pair['top1_b'])}",
            f"{pair['a_right_b_wrong']} : {pair['b_right_a_wrong']}",
            figure(pair["p_value"], digits=4),
        ]
        for pair in result["pairs"]
    ]
    lines.append(table(["pair", "shared videos", "top1 on them", "only one right", "p (McNemar, exact)"], pairs))
    lines += [
        f"runs {pair['a'] + 1} and {pair['b'] + 1} share {pair['shared']} videos; {pair['only_a']} and "
        f"{pair['only_b']} others are left out of their test"
        for pair in result["pairs"]
        if pair["only_a"] or pair["only_b"]
    ]
    equal = "the same" if result["fingerprints_equal"] else "NOT the same: the runs read different features"
    return "\n".join([*lines, f"fingerprints of the streams that runs share: {equal}"])
