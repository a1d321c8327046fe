"""Results as text for people; the same results as JSON need none of this."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any


def listing(entries: Mapping[str, str]) -> str:
    """Return `name  what it is` lines, aligned."""
    width = max(len(name) for name in entries)
    return "\n".join(f"{name:<{width}}  {what}" for name, what in entries.items())


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under a header; numbers to the right, floats with three decimals."""
    cells = [[f"{x:.3f}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        pairs = zip(row, widths, numeric, strict=True)
        return "  ".join(x.rjust(w) if right else x.ljust(w) for x, w, right in pairs).rstrip()

    return "\n".join([line(header), *(line(row) for row in cells)])


def backbones_text(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the backbones of each kind of stream."""
    others = {
        "rgb": "any torchvision image model, cut at any node, such as torchvision:squeezenet1_1:features.12",
        "flow": "the same; its first convolution is converted from RGB",
        "clip": "any torchvision video model, such as torchvision:r3d_18:layer4; time steps are averaged",
    }
    parts = []
    for kind, entries in found.items():
        lines = {}
        for name, entry in entries.items():
            also = [layer for layer in entry["layers"] if layer != entry["default_layer"]]
            layers = f"layer {entry['default_layer']}" + (f", also {', '.join(also)}" if also else "")
            lines[name] = f"{entry['summary']}; {layers}; {entry['crop_px']} pixels"
        lines["torchvision:MODEL:NODE"] = others[kind]
        if kind != "clip":
            lines["timm:MODEL:LAYER"] = (
                "any of timm's, such as timm:vit_base_patch14_dinov2 (pip install 'vidatt[timm]')"
            )
        parts.append(f"{kind}\n{textwrap.indent(listing(lines), '  ')}")
    return "\n\n".join(parts)


def doctor_text(report: Mapping[str, Any]) -> str:
    """Return what `vidatt doctor` found, the missing things last."""
    lines = {
        "vidatt": report["vidatt"],
        "Python": f"{report['python']}, {report['platform']}",
        "machine": f"{report['processor']}, {report['cores']} cores, {size(report['memory_bytes'])}",
        **{name: version or "absent" for name, version in report["packages"].items()},
    }
    if "ffmpeg" in report:
        lines |= {
            "FFmpeg": ", ".join(f"{name} {version}" for name, version in report["ffmpeg"].items()),
            "decoder": "reads a small video" if report["decoder"] == "ok" else report["decoder"],
            "devices": ", ".join(report["devices"]),
            "TV-L1": ", ".join(report["flow_engines"]),
            "not at hand": " ".join(report["not_at_hand"]) or "nothing",
            "weights": f"{len(report['weights']['here'])} of {report['weights']['known']} files in "
            f"{report['weights']['folder']}",
            "folders": ", ".join(f"{name} {value or 'not set'}" for name, value in report["folders"].items()),
        }
    found = [f"missing: {line}" for line in report["missing"]]
    return "\n".join([listing(lines), "", *(found or ["Nothing is missing."])])


def size(count: float) -> str:
    """Return bytes as a short text, powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Return seconds as a short text."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _failures(failed: Sequence[Mapping[str, Any]], *, most: int = 20) -> list[str]:
    lines = [f"  {o['outcome']:<15} {o['id']}: {o['detail']}" for o in failed[:most]]
    if len(failed) > most:
        lines.append(f"  ... and {len(failed) - most} more (--json lists all)")
    return lines


def summary_text(result: Mapping[str, Any]) -> str:
    """Return the end of an extraction."""
    outcomes = ", ".join(f"{count} {name}" for name, count in result["outcomes"].items()) or "nothing done"
    lines = [f"{result['store']}: {result['videos']} videos, {outcomes}, {duration(result['seconds'])}"]
    for name, stream in result["streams"].items():
        K, _, D = stream["cube"]
        lines.append(
            f"  {name}: {stream['segments']} cubes {K}x{K}x{D}, {size(stream['bytes'])}, "
            f"fingerprint {stream['fingerprint'][:12]}"
        )
    if result["given_up"]:
        lines.append(f"  given up: shards {result['given_up']}; run the same command again to retry them")
    return "\n".join(lines + _failures(result["failed"]))


def plan_text(plan: Mapping[str, Any]) -> str:
    """Return what `--dry-run` found."""
    lines = [
        f"{plan['store']}{' (exists)' if plan['exists'] else ''}: {plan['videos']} videos, {plan['segments']} "
        f"segments, {plan['shards']} shards, {plan['files']} files",
        *(
            f"  {name}: cubes {s['cube'][0]}x{s['cube'][1]}x{s['cube'][2]}, {size(s['bytes'])}"
            for name, s in plan["streams"].items()
        ),
        f"  free disk: {size(plan['free_bytes'])}",
        f"  about {duration(plan['estimated_seconds'])} with {plan['workers']} workers on {plan['device']}, measured "
        f"on {plan['sampled_videos']} videos",
    ]
    if plan["missing"]:
        some = ", ".join(plan["missing"][:3])
        lines.append(f"  {len(plan['missing'])} videos are not there, such as {some}")
    return "\n".join(lines)


def fit_text(result: Mapping[str, Any]) -> str:
    """Return the end of a fit."""
    measured = result["metrics"]["validation"] or {}
    numbers = ", ".join(f"{k} {v:.3f}" for k, v in measured.items() if isinstance(v, float))
    made = f"{result['run']}: {result['head']} on {', '.join(result['streams'])}"
    chosen = f"; C {result['C']:g}" if "C" in result else ""
    return f"{made}{chosen}; validation {numbers or 'none'}; {duration(result['seconds'])}"


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
            + [_figure(r["metrics"][key], digits=4) for key in keys]
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
        f"official, {number['dataset']} ({number['text']}): {number['primary']} {_figure(number['value'], digits=4)}"
        f"{spread}; {number['scored']} of {number['listed']} listed videos scored"
    )
    if len(number["splits"]) > 1:
        text += "; " + ", ".join(f"split {split} {_figure(x, digits=4)}" for split, x in number["splits"].items())
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
        [row["name"], row["instances"], row["detections"], *(_figure(ap) for ap in row["ap"])]
        for row in result["per_class"]
    ]
    rows.append(["mAP", result["instances"], result["detections"], *(_figure(value) for value in result["map"])])
    header = ["class", "true", "detected", *(f"{threshold:g}" for threshold in result["thresholds"])]
    return "\n".join([*lines, "", table(header, rows), "", f"average mAP {_figure(result['average_map'], digits=4)}"])


def demo_text(result: Mapping[str, Any]) -> str:
    """Return the demo's one table and where its picture lies."""
    rows = [
        [
            r["head"],
            "+".join(r["streams"]),
            r["top1"],
            r["chance"],
            *("-" if r[key] is None else f"{r[key]:.3f}" for key in ("mass_in_box", "box_share")),
            r["seconds"],
        ]
        for r in result["heads"]
    ]
    header = ["head", "streams", "test top-1", "chance", "attention in box", "box area share", "fit s"]
    return "\n".join(
        [
            f"{result['videos']} generated videos, {result['classes']} classes; features: {result['features']}",
            "",
            table(header, rows),
            "",
            *textwrap.wrap(result["reading"], 110),
            f"picture: {result['picture']}",
            f"total: {duration(result['seconds'])}",
        ]
    )


def dataset_text(info: Any) -> str:
    """Return what a user must know about a dataset."""
    lines = [f"{info.name}: {info.summary}"]
    counts = [f"{n} {what}" for n, what in ((info.classes, "classes"), (info.videos, "videos")) if n]
    lines += [", ".join(counts)] if counts else []
    lines += [f"split {name}: {train} train, {test} test" for name, (train, test) in info.splits.items()]
    lines += ["", info.layout.strip("\n"), "", f"source: {info.source}"]
    if info.protocol:
        lines += [f"official protocol: {info.protocol}"]
    if info.options:
        lines += ["", "options (--option KEY=VALUE):", textwrap.indent(listing(info.options), "  ")]
    return "\n".join(lines)


def check_text(result: Mapping[str, Any]) -> str:
    """Return what `datasets NAME --check` found."""
    lines = [
        f"{result['dataset']}: {result['videos']} videos listed, {len(result['missing'])} missing, "
        f"{len(result['surplus'])} surplus, {len(result['misnamed'])} misnamed"
    ]
    told = {kind: list(result[kind]) for kind in ("missing", "surplus")}
    told["misnamed"] = [f"{found} should be {expected}" for found, expected in result["misnamed"]]
    told["outside"] = [f"{path} leads by a link to {target}" for path, target in result.get("outside", ())]
    for kind, entries in told.items():
        lines += [f"  {kind:<8} {entry}" for entry in entries[:20]]
        lines += [f"  {kind:<8} and {len(entries) - 20} more"] if len(entries) > 20 else []
    return "\n".join(lines + [f"  note: {note}" for note in result.get("notes", ())])


def head_text(result: Mapping[str, Any]) -> str:
    """Return the settings of a head, one column per preset."""
    presets = result["presets"]
    merged = {name: {**values["config"], **values["fit"]} for name, values in presets.items()}
    names = ["paper", *sorted(set(presets) - {"paper"})]
    rows = [[key, *(str(merged[name][key]) for name in names)] for key in merged["paper"]]
    return "\n".join(
        [f"{result['head']}: {result['summary']}", result["paper"], "", table(["setting (--set)", *names], rows)]
    )


def info_text(result: Mapping[str, Any]) -> str:
    """Return what a store holds."""
    attributes = result["attributes"]
    lines = [
        f"{result['store']}: {result['videos']} videos of {attributes.get('dataset')}, {result['classes']} classes, "
        f"{result['rows']} rows in {result['shards']} shards",
        f"  sampler {attributes.get('sampler')}, views {attributes.get('view_rule')}, seed {attributes.get('seed')}",
        *(f"  split {name}: {s['train']} train, {s['test']} test" for name, s in result["splits"].items()),
    ]
    for name, stream in result["streams"].items():
        K, _, D = stream["cube"]
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in stream["outcomes"].items()) or "none yet"
        recipe = stream["recipe"]
        weights = (recipe.get("weights") or {}).get("name", "none")
        lines += [
            f"  {name}: cubes {K}x{K}x{D}, {stream['shards_done']} of {result['shards']} shards, "
            f"{size(stream['bytes'])}; videos: {outcomes}",
            f"    {recipe.get('backbone')} {recipe.get('layer')}, weights {weights}, {recipe.get('precision')}, "
            f"fingerprint {stream['fingerprint'][:12]}",
            *(f"  {line}" for line in _failures(stream["failed"])),
        ]
    return "\n".join(lines)


def export_text(result: Mapping[str, Any]) -> str:
    """Return what an export wrote, and what it could not."""
    lines = [
        f"{result['out']}: {result['videos']} videos as {result['format']}, {size(result['bytes'])}, "
        f"{duration(result['seconds'])}",
        *(
            f"  {name}: {s['segments']} cubes {'x'.join(map(str, s['cube']))}, fingerprint {s['fingerprint'][:12]}"
            for name, s in result["streams"].items()
        ),
    ]
    if result["missing"]:
        some = ", ".join(result["missing"][:3])
        lines.append(f"  left out: {len(result['missing'])} videos that are not extracted yet, such as {some}")
    return "\n".join(lines)


def import_text(result: Mapping[str, Any]) -> str:
    """Return what an import made."""
    done = "could become" if result["dry_run"] else "is now"
    lines = [
        f"{result['store']} {done} {'a store' if result['new'] else 'the store with these streams'}: "
        f"{result['videos']} videos, {result['classes']} classes, from {', '.join(result['dtypes'])}; "
        f"{duration(result['seconds'])}",
        *(f"  split {name}: {s['train']} train, {s['test']} test" for name, s in result["splits"].items()),
    ]
    for name, stream in result["streams"].items():
        told = f", fingerprint {stream['fingerprint'][:12]}" if stream["fingerprint"] else ""
        lines.append(f"  {name}: {stream['segments']} cubes {'x'.join(map(str, stream['cube']))}{told}")
    if result["not_listed"]:
        lines.append(f"  {result['not_listed']} arrays are not in the manifest and were left out")
    return "\n".join([*lines, *(f"  note: {note}" for note in result["notes"])])


def _figure(value: float | None, *, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def sweep_text(result: Mapping[str, Any]) -> str:
    """Return a row per setting, and what failed."""
    rows, measure = result["rows"], result["measure"]
    keys = list(rows[0]["setting"])
    splits = list(dict.fromkeys(split for row in rows for split in row["test"]["splits"]))
    header = [*keys, "runs", f"validation {measure}", "+-", f"test {measure}", "+-"]
    header += [f"split {split}" for split in splits] if len(splits) > 1 else []
    body = []
    for row in rows:
        cells = [*row["setting"].values(), f"{row['runs']}/{row['wanted']}"]
        for part in ("validation", "test"):
            cells += [_figure(row[part]["mean"]), _figure(row[part]["spread"])]
        body.append(cells + ([_figure(row["test"]["splits"].get(s)) for s in splits] if len(splits) > 1 else []))
    lines = [
        table(header, body),
        "",
        "mean over seeds of the mean over splits, +- the sample standard deviation over seeds; choose by validation",
        f"{len(result['runs'])} runs in {result['out']}; {duration(result['seconds'])}",
    ]
    return "\n".join(lines + [f"failed: {failure['run']}: {failure['error']}" for failure in result["failed"]])


def compare_text(result: Mapping[str, Any]) -> str:
    """Return the runs side by side, and the paired tests."""
    header = ["", "run", "head", "preset", "streams", "split", "seed", "videos", "top1", "class mean", "mAP"]
    rows = []
    for number, run in enumerate(result["runs"], start=1):
        told = [str(run[key] if run[key] is not None else "-") for key in ("run", "head", "preset")]
        told += ["+".join(run["streams"]) or "-"]
        told += [str(run[key] if run[key] is not None else "-") for key in ("split", "seed", "videos")]
        rows.append([str(number), *told, *(_figure(run["metrics"][key]) for key in ("top1", "class_mean", "map"))])
    lines = [table(header, rows), ""]
    pairs = [
        [
            f"{pair['a'] + 1} : {pair['b'] + 1}",
            str(pair["shared"]),
            f"{_figure(pair['top1_a'])} : {_figure(pair['top1_b'])}",
            f"{pair['a_right_b_wrong']} : {pair['b_right_a_wrong']}",
            _figure(pair["p_value"], digits=4),
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
