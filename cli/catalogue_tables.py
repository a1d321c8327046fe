"""What the catalogues and `vidatt doctor` say, as text for people."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .tables import listing, size, table

if TYPE_CHECKING:
    from ..pipelines.doctor import DoctorReport
    from .catalogue_results import BackboneInfo, DatasetCheck, DatasetDescription, HeadInfo


def doctor_text(report: DoctorReport) -> str:
    """Return what `vidatt doctor` found, the missing things last."""
    lines = {
        "vidatt": report.vidatt,
        "Python": f"{report.python}, {report.platform}",
        "machine": f"{report.processor}, {report.cores} cores, {size(report.memory_bytes)}",
        **{name: version or "absent" for name, version in report.packages.items()},
    }
    if report.weights:
        here = f"{len(report.weights.here)} of {report.weights.known} files in {report.weights.folder}"
        lines |= {
            "FFmpeg": ", ".join(f"{name} {version}" for name, version in (report.ffmpeg or {}).items()),
            "decoder": "reads a small video" if report.decoder == "ok" else str(report.decoder),
            "devices": ", ".join(report.devices or ()),
            "TV-L1": ", ".join(report.flow_engines or ()),
            "not at hand": " ".join(report.not_at_hand or ()) or "nothing",
            "weights": here,
            "folders": ", ".join(f"{name} {value or 'not set'}" for name, value in (report.folders or {}).items()),
        }
    found = [f"missing: {line}" for line in report.missing]
    return "\n".join([listing(lines), "", *(found or ["Nothing is missing."])])


def dataset_text(info: DatasetDescription) -> str:
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


def check_text(result: DatasetCheck) -> str:
    """Return what `datasets NAME --check` found."""
    lines = [
        f"{result.dataset}: {result.videos} videos listed, {len(result.missing)} missing, "
        f"{len(result.surplus)} surplus, {len(result.misnamed)} misnamed"
    ]
    told = {"missing": list(result.missing), "surplus": list(result.surplus)}
    told["misnamed"] = [f"{found} should be {expected}" for found, expected in result.misnamed]
    told["outside"] = [f"{path} leads by a link to {target}" for path, target in result.outside]
    for kind, entries in told.items():
        lines += [f"  {kind:<8} {entry}" for entry in entries[:20]]
        lines += [f"  {kind:<8} and {len(entries) - 20} more"] if len(entries) > 20 else []
    return "\n".join(lines + [f"  note: {note}" for note in result.notes])


def head_text(result: HeadInfo) -> str:
    """Return the settings of a head, one column per preset."""
    presets = result.presets
    merged = {
        name: {
            key: "-" if key in values.inert else str(value) for key, value in {**values.config, **values.fit}.items()
        }
        for name, values in presets.items()
    }
    names = ["paper", *sorted(set(presets) - {"paper"})]
    rows = [[key, *(merged[name][key] for name in names)] for key in merged["paper"]]
    rows = [row for row in rows if set(row[1:]) != {"-"}]  # what no preset lets act is no setting of it
    return "\n".join([f"{result.head}: {result.summary}", result.paper, "", table(["setting (--set)", *names], rows)])


def backbones_text(found: Mapping[str, Mapping[str, BackboneInfo]]) -> str:
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
            also = [layer for layer in entry.layers if layer != entry.default_layer]
            layers = f"layer {entry.default_layer}" + (f", also {', '.join(also)}" if also else "")
            lines[name] = f"{entry.summary}; {layers}; {entry.crop_px} pixels"
        lines["torchvision:MODEL:NODE"] = others[kind]
        if kind != "clip":
            lines["timm:MODEL:LAYER"] = (
                "any of timm's, such as timm:vit_base_patch14_dinov2 (pip install 'vidatt[timm]')"
            )
        parts.append(f"{kind}\n{textwrap.indent(listing(lines), '  ')}")
    return "\n\n".join(parts)
