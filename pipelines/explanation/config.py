"""What `vidatt explain` is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import MissingFileError, UnknownNameError, UsageError
from ..localisation.boxes import BOX_RULES
from ..pictures.sheet import SheetSettings
from ..runs.splits import PARTS

PICKS = ("random", "right", "wrong")
"""Which videos are shown where none are named: any, the surest right ones, the worst mistakes."""


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """What `explain` is asked for.

    Raises
    ------
    UsageError, UnknownNameError
        If a value cannot be.
    """

    run: Path
    out: Path  # folder
    clips: tuple[Path, ...] = ()  # new videos: files, folders and CSV files; () = videos of the store
    ids: tuple[str, ...] = ()  # of the store's videos; () = `count` of them, chosen by `pick`
    pick: str = "random"
    count: int = 4
    store: Path | None = None  # None = the one that the run was fitted on
    videos: Path | None = None  # folder of the video files; None = where the store's were when it was made, a CSV's own
    split: str | None = None  # None = the run's
    part: str = "test"
    pictures: bool = True
    films: bool = True
    arrays: bool = False
    together: bool = False  # all pictures in one file
    look: SheetSettings = field(default_factory=SheetSettings)
    boxes: str | None = None  # rule of `locate` whose boxes are drawn
    seed: int = 0
    weights: Mapping[str, Path] = field(default_factory=dict)  # of new videos' networks, by stream; else by digest
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.pick not in PICKS:
            raise UnknownNameError("pick", self.pick, PICKS)
        if self.part not in PARTS:
            raise UnknownNameError("part", self.part, PARTS)
        if self.boxes is not None and self.boxes not in BOX_RULES:
            raise UnknownNameError("rule of boxes", self.boxes, BOX_RULES)
        if self.count < 1 or self.seed < 0:
            raise UsageError(f"--count {self.count}, --seed {self.seed}: must be 1 or more, and 0 or more.")
        if self.clips and (self.ids or self.store or self.split):
            raise UsageError("--id, --store and --split name videos of a store; leave them out, or the video files.")
        if self.weights and not self.clips:
            raise UsageError("--weights are for new videos: those of a store have their features.")
        if not (self.pictures or self.films or self.arrays):
            raise UsageError("Nothing is to be made: leave out --no-png or --no-mp4, or give --npz.")
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"--out {self.out} is a file; give the name of a folder.")
        if self.videos is not None and not self.videos.is_dir():
            raise MissingFileError(f"--videos {self.videos} is no folder; give the one that holds the video files.")
