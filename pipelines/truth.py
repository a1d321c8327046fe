"""What is true of the videos of a dataset: as a store keeps it, or as the dataset's annotations say it, without videos.

Results of other programs are measured by it: labels, lists, intervals and boxes are the same object from either.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..cache.index import Index
from ..cache.ledger import VideoOutcome
from ..cache.store import Store
from ..errors import UnknownNameError, UsageError
from ..extract.datasets.registry import NO_OPTIONS, describe, load_catalogue
from .extraction.index import index_of
from .runs.splits import PARTS, choose_among

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class Truth:
    """The videos of a dataset with all that is known of them."""

    where: str  # who says it, in words
    dataset: str | None  # its name; None = a store does not say
    index: Index  # in the order of the store, or of the annotations
    store: Store | None = None

    @classmethod
    def of_store(cls, store: Store) -> Truth:
        """Return what a store keeps."""
        return cls(where=str(store.path), dataset=store.plan.dataset, index=store.index, store=store)

    @classmethod
    def of_dataset(
        cls, name: str, annotations: Path | None, options: Mapping[str, str] = NO_OPTIONS, videos: Path | None = None
    ) -> Truth:
        """Return what the annotations of a dataset say; its videos need not be there.

        Parameters
        ----------
        annotations, options : see `load_catalogue`
        videos : of a dataset that is its folder of videos; beside it others look for their annotations

        Raises
        ------
        UnknownNameError, MissingFileError, UsageError
            As `load_catalogue`.
        """
        catalogue = load_catalogue(name, annotations=annotations, videos=videos, options=options)
        for note in catalogue.notes:
            log.info("%s: %s", name, note)
        n = len(catalogue.videos)
        folder = annotations or videos
        where = f"the annotations of {name!r}" + ("" if folder is None else f" in {folder}")
        return cls(where=where, dataset=name, index=index_of(catalogue, np.arange(n), np.zeros(n, np.int32), None))

    def part(self, split: str | None, part: str) -> TruthPart:
        """Return a part of a split; None = the only split.

        Raises
        ------
        UnknownNameError
            For a split or a part that there is not.
        UsageError
            If there are several splits and none is named, or no videos in the part.
        """
        if part not in PARTS:
            raise UnknownNameError("part", part, PARTS)
        what = f"Dataset {self.dataset!r}" if self.store is None else f"Store {self.store.path}"
        split = choose_among(self.index.splits, split, what=what, guess=False)
        videos = np.flatnonzero(self.index.split(split) == PARTS[part])
        if not len(videos):
            raise UsageError(f"{what} has no {part} videos in split {split!r}.")
        return TruthPart(truth=self, split=split, part=part, videos=videos)

    def frame_px(self, position: int) -> tuple[int, int] | None:
        """Return width and height of a video's upright frames; None = nobody says."""
        if self.store is None:
            return describe(str(self.dataset)).frame_px
        outcome = self._outcome(position)
        return (outcome.width, outcome.height) if outcome and outcome.width and outcome.height else None

    def fps(self, position: int) -> float | None:
        """Return the frames per second of a video's file; None = nobody says, as annotations never do."""
        outcome = self._outcome(position)
        return outcome.fps or None if outcome else None

    def _outcome(self, position: int) -> VideoOutcome | None:
        if self.store is None or not self.store.stream_names:
            return None
        return self.store.stream(self.store.stream_names[0]).outcome(position)


@dataclass(frozen=True, eq=False, kw_only=True)
class TruthPart:
    """The videos of one part of a split."""

    truth: Truth
    split: str
    part: str  # train or test
    videos: np.ndarray  # [n] positions in the index

    @property
    def ids(self) -> np.ndarray:
        """Ids of the videos, [n] str."""
        return np.array([str(id) for id in self.truth.index.ids[self.videos]], dtype=str)


@dataclass(frozen=True, kw_only=True)
class TruthSource:
    """Where the truth is: a store, or a dataset's annotations; neither = nowhere.

    Raises
    ------
    UsageError
        If both are named, or annotations, options and videos of no dataset.
    """

    store: Path | None = None
    dataset: str | None = None
    annotations: Path | None = None  # None = where the dataset looks by default
    options: Mapping[str, str] = field(default_factory=dict)  # settings of the dataset
    videos: Path | None = None  # of a dataset that is its folder of videos

    def __post_init__(self) -> None:
        if self.store is not None and self.dataset is not None:
            raise UsageError("Give --store or --dataset, not both: either says what is true.")
        if self.dataset is None and (self.annotations or self.options or self.videos):
            raise UsageError("--annotations, --option and --videos are of a dataset; name it with --dataset.")

    def __bool__(self) -> bool:
        return self.store is not None or self.dataset is not None

    def open(self) -> Truth | None:
        """Read it; None = nowhere."""
        if self.store is not None:
            return Truth.of_store(Store.open(self.store))
        if self.dataset is None:
            return None
        return Truth.of_dataset(self.dataset, self.annotations, self.options, self.videos)


NOWHERE = TruthSource()
"""Results are held to what stands in their own files."""


def require_truth(source: TruthSource) -> Truth:
    """Read the truth of a source.

    Raises
    ------
    UsageError
        If there is none.
    """
    truth = source.open()
    if truth is None:
        raise UsageError("Say what is true: --store STORE, or --dataset NAME --annotations DIR.")
    return truth
