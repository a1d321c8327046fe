"""`vidatt explain`: where and when a fitted head looks, on the frames of videos: pictures, films, arrays."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...cache.store import Store
from ...errors import MissingFileError, UnknownNameError, UsageError
from ...heads.registry import HEADS
from ..extraction.config import default_videos
from ..localisation.boxes import BOX_RULES, ThresholdRule, boxes_of, out_of_region
from ..localisation.rules import read_rule
from ..pictures.frames import FramesError, FrameSource
from ..pictures.scene import MEAN, Scene, StoreScenes
from ..pictures.sheet import SheetSettings, Shown, rows_of, show, write_sheet
from ..record import Record
from ..report.looks import choose
from ..report.scored import read_scored
from ..runs.attention import attention
from ..runs.identity import FitIdentity
from ..runs.reload import require_fit, store_for
from ..runs.run import Run
from ..runs.seen import is_own
from ..runs.splits import PARTS, choose_split
from ..runs.videos import usable_videos
from ..runs.views import central_view
from .arrays import write_arrays
from .film import write_film

log = logging.getLogger(__name__)

PICKS = ("random", "right", "wrong")
"""Which videos are shown where none are named: any, the surest right ones, the worst mistakes."""
ALL_TOGETHER = "attention.png"


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
    ids: tuple[str, ...] = ()  # of the store's videos; () = `count` of them, chosen by `pick`
    pick: str = "random"
    count: int = 4
    store: Path | None = None  # None = the one that the run was fitted on
    videos: Path | None = None  # folder of the video files; None = the default of the store's dataset
    split: str | None = None  # None = the run's
    part: str = "test"
    pictures: bool = True
    films: bool = True
    arrays: bool = False
    together: bool = False  # all pictures in one file
    look: SheetSettings = field(default_factory=SheetSettings)
    boxes: str | None = None  # rule of `locate` whose boxes are drawn
    seed: int = 0
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
        if not (self.pictures or self.films or self.arrays):
            raise UsageError("Nothing is to be made: leave out --no-png or --no-mp4, or give --npz.")
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"--out {self.out} is a file; give the name of a folder.")
        if self.videos is not None and not self.videos.is_dir():
            raise MissingFileError(f"--videos {self.videos} is no folder; give the one that holds the video files.")


@dataclass(frozen=True, kw_only=True)
class Explained(Record):
    """One video; a file is null where it was not asked for or could not be made."""

    id: str
    truth: tuple[str, ...]  # its classes; empty = unknown
    said: tuple[str, ...]  # the likeliest classes
    probabilities: tuple[float, ...]  # of these
    weight: float  # the largest of its segments
    seconds: float | None  # when that is
    picture: str | None
    film: str | None
    arrays: str | None
    problem: str | None  # why its frames cannot be shown


@dataclass(frozen=True, kw_only=True)
class ExplainResult(Record):
    """What `explain` made."""

    run: str
    store: str
    out: str
    maps: tuple[str, ...]  # of attention over cells, by name; empty if the head has none
    videos: tuple[Explained, ...]
    together: str | None  # the picture of all
    failed: int  # videos whose frames cannot be shown
    notes: tuple[str, ...]
    seconds: float


def explain(config: ExplainConfig) -> ExplainResult:
    """Draw the attention of a run on videos of its store.

    Raises
    ------
    MissingFileError, UsageError
        If there is no such run, video or folder, or one is asked to show what the head does not have.
    RefusedError, FingerprintMismatchError
        If `store` is another one than the run was fitted on.
    """
    started = time.monotonic()
    run = Run.open(config.run)
    identity, store = require_fit(run), store_for(run, config.store)
    run.require_finished()
    positions = _positions(config, run, identity, store)
    videos = _folder(config, store) if config.pictures or config.films else Path()
    names = _names([str(store.index.ids[position]) for position in positions])
    scenes = StoreScenes(store, identity.stream_names)
    rule = None if config.boxes is None else _BoxDrawer(config.boxes, identity)
    looks = attention(
        config.run, store_path=store.path, videos=positions, view=central_view(store), device=config.device
    )
    done: list[Explained] = []
    shown: list[Shown] = []
    maps: tuple[str, ...] = ()
    with FrameSource() as source:
        for number, (name, seen) in enumerate(zip(names, looks, strict=True)):
            log.info("video %d of %d: %s", number + 1, len(names), seen.id)
            scene = scenes.of(seen)
            rows_of(scene, config.look.rows)  # a row that there is not is refused before anything is decoded
            maps = tuple(scene.maps)
            boxes = {} if rule is None else rule.of(scene)
            told, picture = _made(config, scene, videos / scene.path, name, boxes, source)
            done.append(told)
            shown += [] if picture is None else [picture]
    together = None
    if config.together and shown:
        together = config.out / ALL_TOGETHER
        write_sheet(together, shown, config.look)
    notes = list(scenes.notes)
    if not maps:
        notes.append(f"head {identity.head} attends to no cells: frames, and weights over time")
    return ExplainResult(
        run=str(config.run),
        store=str(store.path),
        out=str(config.out),
        maps=maps,
        videos=tuple(done),
        together=None if together is None else str(together),
        failed=sum(one.problem is not None for one in done),
        notes=tuple(dict.fromkeys(notes)),
        seconds=round(time.monotonic() - started, 3),
    )


def _positions(config: ExplainConfig, run: Run, identity: FitIdentity, store: Store) -> list[int]:
    """Return the videos to show, by their place in the store."""
    usable = usable_videos(identity, store)
    if config.ids:
        found = [store.index.position(id) for id in dict.fromkeys(config.ids)]
        for position in found:
            if not usable[position]:
                said = store.stream(identity.stream_names[0]).outcome(position)
                raise UsageError(f"--id {store.index.ids[position]}: no attention, its outcome is {said.outcome}.")
        return found
    split = choose_split(store, config.split or identity.split)
    if config.pick == "random":
        some = np.flatnonzero((store.index.splits[split] == PARTS[config.part]) & usable)
        if not len(some):
            raise UsageError(f"Split {split!r} of {store.path} has no {config.part} videos with segments; give --id.")
        return np.random.default_rng(config.seed).permutation(some)[: config.count].tolist()
    scored = read_scored(run, split, config.part) if is_own(run, store) else None
    if scored is None:
        raise UsageError(
            f"--pick {config.pick} needs scores of run {run.path} on its own store; name videos by --id, or make them "
            f"by `vidatt evaluate {run.path} --split {split} --part {config.part}`."
        )
    rows = choose(scored, config.count, config.seed)["best" if config.pick == "right" else "worst"]
    if not rows:
        raise UsageError(f"--pick {config.pick}: run {run.path} has no such video in the {config.part} part.")
    return [store.index.position(str(scored.ids[row])) for row in rows]


def _folder(config: ExplainConfig, store: Store) -> Path:
    videos = config.videos or default_videos(store.plan.dataset or "videos")
    if not videos.is_dir():
        raise MissingFileError(
            f"There is no folder {videos} with the videos of {store.path}; name it with --videos DIR, or ask for "
            "arrays alone with --no-png --no-mp4 --npz."
        )
    return videos


def _names(ids: Sequence[str]) -> list[str]:
    """Return names of files without a suffix: the ids' own, with it where two would be the same."""
    flat = [id.replace("/", "_").lstrip(".") for id in ids]
    short = [str(Path(name).with_suffix("")) for name in flat]
    count = Counter(short)
    return [one if count[one] == 1 else name for one, name in zip(short, flat, strict=True)]


class _BoxDrawer:
    """Boxes as `locate` makes them, for the frames that are shown."""

    def __init__(self, name: str, identity: FitIdentity) -> None:
        self._rule: ThresholdRule = read_rule(BOX_RULES, name, {})
        self._sums_to_one = HEADS[identity.base.head].head.spatial_sums_to_one
        self._name, self._head = name, identity.head

    def of(self, scene: Scene) -> Mapping[int, np.ndarray]:
        """Return a box by segment, (4,) in fractions of the frame; none where the rule keeps nothing."""
        found = scene.maps.get(MEAN) or next(iter(scene.maps.values()), None)
        apart = len(scene.streams) > 1 and MEAN not in scene.maps
        if found is None or scene.size is None or scene.regions is None or apart:
            raise UsageError(
                f"--boxes {self._name}: head {self._head!r} attends to no cells, its streams show different parts of "
                "the frame, or it is unknown where they lie; leave it out."
            )
        x1, y1, x2, y2 = found.region
        width, height = round((x2 - x1) * scene.size[0]), round((y2 - y1) * scene.size[1])
        boxes = boxes_of(
            found.cells, width=max(1, width), height=max(1, height), rule=self._rule, sums_to_one=self._sums_to_one
        )
        boxes = out_of_region(boxes, (x1, y1, x2, y2))
        return {segment: box for segment, box in enumerate(boxes) if np.isfinite(box).all()}


def _made(
    config: ExplainConfig, scene: Scene, file: Path, name: str, boxes: Mapping[int, np.ndarray], source: FrameSource
) -> tuple[Explained, Shown | None]:
    """Write the files of one video; that its frames cannot be shown is told, and ends nothing."""
    picture, film, arrays = (config.out / f"{name}.{suffix}" for suffix in ("png", "mp4", "npz"))
    made: dict[str, str] = {}
    shown, problem = None, None
    if config.arrays:
        write_arrays(arrays, scene)
        made["arrays"] = str(arrays)
    try:
        if config.pictures:
            shown = show(scene, source, file, config.look, boxes)
            if not config.together:
                write_sheet(picture, [shown], config.look)
                made["picture"] = str(picture)
        if config.films:
            write_film(film, scene, source, file, config.look, said_boxes=boxes)
            made["film"] = str(film)
    except FramesError as error:
        problem = str(error)
        log.error("%s", problem)
    peak, said = int(scene.attention.temporal.argmax()), scene.said(5)
    told = Explained(
        id=scene.attention.id,
        truth=scene.truth,
        said=tuple(name for name, _ in said),
        probabilities=tuple(share for _, share in said),
        weight=float(scene.attention.temporal[peak]),
        seconds=float(scene.times.centres[peak]) if scene.times.unit == "s" else None,
        picture=made.get("picture"),
        film=made.get("film"),
        arrays=made.get("arrays"),
        problem=problem,
    )
    return told, shown
