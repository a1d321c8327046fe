"""What a dataset brings to the registry: a description for the user and a function that reads its catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .catalogue import Catalogue

PROTOCOLS = (
    "",  # none: the metrics of a plain evaluation
    "accuracy-mean-of-splits",
    "class-accuracy-mean-of-folds",
    "map",
    "hit",
    "top1-top5-average",
    "detection-map",
)
"""What `evaluate --protocol official` can mean; docs/evaluation.md says how each is computed."""


class Loader(Protocol):
    """Reads the catalogue of one dataset; the registry has checked the option names already."""

    def __call__(self, *, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
        """Read the catalogue."""
        ...


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What a user has to know before the first extraction."""

    name: str
    summary: str  # one line
    layout: str  # what to put where; several lines
    source: str  # where the videos and lists come from, in words
    classes: int | None = None  # None: whatever the user brings
    videos: int | None = None
    splits: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # name -> (train, test) videos
    options: Mapping[str, str] = field(default_factory=dict)  # name -> what it does, one line
    protocol: str = ""  # one of PROTOCOLS
    frame_px: tuple[int, int] | None = None  # width and height, where all its videos have one size

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"Dataset {self.name!r} has the protocol {self.protocol!r}, none of {PROTOCOLS}.")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One entry of the registry."""

    info: DatasetInfo
    load: Loader
    load_with_links: Loader | None = (
        None  # where links may lead out of the folder that is the dataset; None: it has lists
    )
