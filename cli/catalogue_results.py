"""What `vidatt datasets`, `heads`, `backbones` and `weights` return as JSON, whatever their registries hold besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..pipelines.record import Record

if TYPE_CHECKING:
    from ..extract.backbones.registry import BackboneEntry
    from ..extract.backbones.weights import WeightsEntry
    from ..extract.datasets.dataset import DatasetInfo


@dataclass(frozen=True, kw_only=True)
class DatasetList(Record):
    """The datasets, one line each."""

    datasets: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class DatasetDescription(Record):
    """What a user has to know about a dataset before the first extraction."""

    name: str
    summary: str
    layout: str  # what to put where; several lines
    source: str
    classes: int | None  # None: whatever the user brings
    videos: int | None
    splits: Mapping[str, tuple[int, ...]]  # training and test videos by name
    options: Mapping[str, str]
    protocol: str  # "" = no official one

    @classmethod
    def of(cls, info: DatasetInfo) -> DatasetDescription:
        """Return what a registry's entry says."""
        return cls(
            name=info.name,
            summary=info.summary,
            layout=info.layout,
            source=info.source,
            classes=info.classes,
            videos=info.videos,
            splits=info.splits,
            options=info.options,
            protocol=info.protocol,
        )


@dataclass(frozen=True, kw_only=True)
class DatasetCheck(Record):
    """A dataset's files held against its lists."""

    dataset: str
    videos: int  # listed
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    misnamed: tuple[tuple[str, ...], ...]  # found, expected
    outside: tuple[tuple[str, ...], ...]  # path, where its link leads
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HeadList(Record):
    """The heads, one line each."""

    heads: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class HeadPreset(Record):
    """The settings of a head and of its fit by one preset."""

    config: Mapping[str, Any]
    fit: Mapping[str, Any]
    inert: tuple[str, ...]  # those that do nothing beside the others, such as the momentum of Adam


@dataclass(frozen=True, kw_only=True)
class HeadInfo(Record):
    """A head with its presets."""

    head: str
    summary: str
    paper: str
    presets: Mapping[str, HeadPreset]


@dataclass(frozen=True, kw_only=True)
class BackboneInfo(Record):
    """A backbone."""

    name: str
    summary: str
    kinds: tuple[str, ...]  # of streams that it takes
    layers: Mapping[str, str]  # node of the network by layer
    default_layer: str
    network: str | None  # whose weights it takes; None: a descriptor without any
    crop_px: int  # of the default layer
    layer_crops: Mapping[str, int]  # of layers that take no other side
    resize: str
    resizes: Mapping[int, str]  # by side of the crop
    form: str  # axes of its output
    forms: Mapping[str, str]  # of layers with other axes

    @classmethod
    def of(cls, entry: BackboneEntry) -> BackboneInfo:
        """Return what a registry's entry says."""
        return cls(
            name=entry.name,
            summary=entry.summary,
            kinds=entry.kinds,
            layers=entry.layers,
            default_layer=entry.default_layer,
            network=entry.network,
            crop_px=entry.default_crop_px(),
            layer_crops=entry.layer_crops,
            resize=entry.resize,
            resizes=entry.resizes,
            form=entry.form.axes,
            forms={layer: form.axes for layer, form in entry.forms.items()},
        )


@dataclass(frozen=True, kw_only=True)
class BackboneList(Record):
    """The backbones by kind of stream."""

    backbones: Mapping[str, Mapping[str, BackboneInfo]]


@dataclass(frozen=True, kw_only=True)
class BackboneLayers(Record):
    """Where a backbone can be cut."""

    backbone: str
    crop_px: int  # of the layers that take any side
    layers: Mapping[str, tuple[int, int, int]]  # rows, columns and channels of the cube


@dataclass(frozen=True, kw_only=True)
class WeightsInfo(Record):
    """A file of weights."""

    name: str
    network: str
    url: str  # "" = no public address
    file_name: str
    sha256: str  # or its leading digits, or ""
    licence: str
    preprocessing: str
    path: str
    here: bool

    @classmethod
    def of(cls, entry: WeightsEntry) -> WeightsInfo:
        """Return what a registry's entry says."""
        return cls(
            name=entry.name,
            network=entry.network,
            url=entry.url,
            file_name=entry.file_name,
            sha256=entry.sha256,
            licence=entry.licence,
            preprocessing=entry.preprocessing,
            path=str(entry.path),
            here=entry.path.exists(),
        )


@dataclass(frozen=True, kw_only=True)
class WeightsList(Record):
    """The files of weights."""

    weights: tuple[WeightsInfo, ...]


@dataclass(frozen=True, kw_only=True)
class FetchedWeights(Record):
    """A file that was fetched."""

    name: str
    path: str
