"""What there is: `vidatt datasets`, `heads`, `backbones`, `weights`, and `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UnknownNameError
from .catalogue_results import (
    BackboneInfo,
    BackboneLayers,
    BackboneList,
    DatasetCheck,
    DatasetDescription,
    DatasetList,
    FetchedWeights,
    HeadInfo,
    HeadList,
    HeadPreset,
    WeightsInfo,
    WeightsList,
)  # fmt: skip
from .door import assignments, common

if TYPE_CHECKING:
    from ..pipelines.doctor import DoctorReport


@click.command()
@common
def doctor() -> tuple[DoctorReport, str, int]:
    """Show versions, FFmpeg, devices, cores and what is missing: what a bug report needs.

    \b
    Example:
      vidatt doctor
    """
    from ..pipelines.doctor import doctor as run
    from .catalogue_tables import doctor_text

    report = run()
    return report, doctor_text(report), 1 if report.missing else 0


@click.command()
@click.argument("name", required=False)
@click.option("--check", "folder", type=click.Path(path_type=Path), help="Report missing, surplus, misnamed videos.")
@click.option("--annotations", type=click.Path(path_type=Path), help="Folder of official files, or a CSV (`list`).")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="A setting of the dataset.")
@click.option("--follow-links", is_flag=True, help="Let links lead out of the video folder.")
@common
def datasets(
    name: str | None, folder: Path | None, annotations: Path | None, options: tuple[str, ...], follow_links: bool
) -> tuple[DatasetList | DatasetDescription | DatasetCheck, str, int]:
    """List the datasets, explain one, or check its files.

    \b
    Example:
      vidatt datasets
      vidatt datasets ucf101
      vidatt datasets ucf101 --check /data/UCF-101 --annotations /data/ucfTrainTestlist
    """
    from ..extract.datasets.registry import check, dataset_names, describe, load_catalogue
    from .catalogue_tables import check_text, dataset_text, listing

    if name is None:
        found = {known: describe(known).summary for known in dataset_names()}
        return DatasetList(datasets=found), listing(found), 0
    if folder is None:
        info = DatasetDescription.of(describe(name))
        return info, dataset_text(info), 0
    catalogue = load_catalogue(
        name,
        annotations=annotations,
        videos=folder,
        options=assignments("--option", options),
        follow_links=follow_links,
    )
    report = check(name, catalogue, folder)
    result = DatasetCheck(
        dataset=name,
        videos=len(catalogue.videos),
        missing=tuple(report.missing),
        surplus=tuple(report.surplus),
        misnamed=tuple(report.misnamed),
        outside=() if follow_links else tuple(report.outside),
        notes=tuple(catalogue.notes),
    )
    return result, check_text(result), 1 if report.missing or report.misnamed or report.outside else 0


@click.command()
@click.argument("name", required=False)
@common
def heads(name: str | None) -> tuple[HeadList | HeadInfo, str, int]:
    """List the heads, or show the settings and presets of one.

    \b
    Example:
      vidatt heads
      vidatt heads stan
    """
    from ..heads.registry import HEADS, head_names, preset_names, resolve_settings
    from .catalogue_tables import head_text, listing

    if name is None:
        found = {known: HEADS[known].summary for known in head_names()}
        return HeadList(heads=found), listing(found), 0
    chosen = {preset: resolve_settings(name, preset) for preset in preset_names(name)}
    presets = {
        preset: HeadPreset(**settings.to_dict(), inert=tuple(sorted(settings.fit.inert)))
        for preset, settings in chosen.items()
    }
    result = HeadInfo(head=name, summary=HEADS[name].summary, paper=HEADS[name].paper, presets=presets)
    return result, head_text(result), 0


@click.command()
@click.argument("model", required=False)
@click.option("--crop", type=click.IntRange(1), metavar="PIXELS", help="Side of the square input [the model's own].")
@common
def backbones(model: str | None, crop: int | None) -> tuple[BackboneList | BackboneLayers, str, int]:
    """List the backbones; of one, where it can be cut, and the cube that comes out there.

    `torchvision:MODEL:NODE` and `timm:MODEL:LAYER` name any model of theirs.

    \b
    Example:
      vidatt backbones
      vidatt backbones torchvision:convnext_tiny --crop 256
    """
    from ..extract.backbones.registry import BACKBONES, backbone_entry, backbone_names, layer_cubes
    from ..extract.kinds import KINDS
    from .catalogue_tables import backbones_text
    from .tables import listing

    if model is not None:
        side = crop or backbone_entry(model).crop_px
        layers = layer_cubes(model, crop_px=crop)
        text = listing({name: "x".join(map(str, cube)) for name, cube in layers.items()})
        return BackboneLayers(backbone=model, crop_px=side, layers=layers), text, 0
    found = {
        kind: {name: BackboneInfo.of(BACKBONES[name]) for name in backbone_names(kind)}
        for kind in dict.fromkeys(known.seen_as for known in KINDS.values())
    }
    return BackboneList(backbones=found), backbones_text(found), 0


@click.group()
def weights() -> None:
    """Published weights: what is known, and fetching it ahead of a job without a network."""


@weights.command("list")
@click.argument("network", required=False)
@common
def weights_list(network: str | None) -> tuple[WeightsList, str, int]:
    """List the known weights (of one NETWORK): file, digest, licence, and whether it is here.

    \b
    Example:
      vidatt weights list vgg16
    """
    from ..extract.backbones.weights import weights_registry
    from .catalogue_tables import listing

    entries = [e for e in weights_registry().values() if network in (None, e.network)]
    if not entries:
        raise UnknownNameError("network", str(network), {e.network for e in weights_registry().values()})
    result = WeightsList(weights=tuple(WeightsInfo.of(entry) for entry in entries))
    table = {
        e.name: f"{'here' if e.path.exists() else 'absent'}  {e.file_name}  {e.digest_words}  {e.licence}"
        for e in entries
    }
    return result, listing(table), 0


@weights.command("fetch")
@click.argument("name")
@common
def weights_fetch(name: str) -> tuple[FetchedWeights, str, int]:
    """Download one weights file and check its digest; NAME is one of the list, timm:MODEL or ORG/NAME of the hub.

    \b
    Example:
      vidatt weights fetch vgg16-imagenet1k_v1
      vidatt weights fetch timm:vit_base_patch14_dinov2
    """
    from ..extract.backbones.registry import fetch_weights

    path = fetch_weights(name)
    return FetchedWeights(name=name, path=str(path)), f"{name} is at {path}", 0
