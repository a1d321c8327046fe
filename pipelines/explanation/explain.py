"""`vidatt explain`: where and when a fitted head looks, on the frames of videos: pictures, films, arrays."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..pictures.frames import FramesError, FrameSource
from ..pictures.scene import Scene
from ..pictures.sheet import Shown, rows_of, show, write_sheet
from ..record import Record
from ..runs.reload import require_fit
from ..runs.run import Run
from .arrays import write_arrays
from .config import ExplainConfig
from .film import write_film
from .said_boxes import SaidBoxes
from .subjects import Subject, Subjects, new_subjects, stored_subjects

log = logging.getLogger(__name__)

ALL_TOGETHER = "attention.png"


@dataclass(frozen=True, kw_only=True)
class Explained(Record):
    """One video; a file is null where it was not asked for or could not be made."""

    id: str
    truth: tuple[str, ...]  # its classes; empty = unknown
    said: tuple[str, ...]  # the likeliest classes; empty if nothing of it could be read
    probabilities: tuple[float, ...]  # of these
    weight: float | None  # the largest of its segments
    seconds: float | None  # when that is
    picture: str | None
    film: str | None
    arrays: str | None
    problem: str | None  # why it, or its frames, cannot be shown


@dataclass(frozen=True, kw_only=True)
class ExplainResult(Record):
    """What `explain` made."""

    run: str
    store: str | None  # null: the videos are new
    out: str
    maps: tuple[str, ...]  # of attention over cells, by name; empty if the head has none
    videos: tuple[Explained, ...]
    together: str | None  # the picture of all
    failed: int  # videos with a problem
    notes: tuple[str, ...]
    seconds: float


def explain(config: ExplainConfig) -> ExplainResult:
    """Draw the attention of a run on videos of its store, or on new ones.

    Raises
    ------
    MissingFileError, UsageError
        If there is no such run, video or folder, or one is asked to show what the head does not have.
    RefusedError, FingerprintMismatchError
        If `store` is another one than the run was fitted on, or cubes of new videos cannot be made as the run's were.
    WeightsError
        If the weights for that are not found.
    """
    started = time.monotonic()
    run = Run.open(config.run)
    identity = require_fit(run)
    run.require_finished()
    subjects = new_subjects(config, run) if config.clips else stored_subjects(config, run)
    rule = None if config.boxes is None else SaidBoxes(config.boxes, identity)
    done: list[Explained] = []
    shown: list[Shown] = []
    maps: tuple[str, ...] = ()
    with FrameSource() as source:
        for number, one in enumerate(subjects.each):
            log.info("video %d of %d: %s", number + 1, subjects.count, one.id)
            if one.scene is None:
                done.append(_unread(one))
                continue
            rows_of(one.scene, config.look.rows)  # a row that there is not is refused before anything is drawn
            maps = tuple(one.scene.maps)
            told, picture = _made(config, one.scene, one, {} if rule is None else rule.of(one.scene), source)
            done.append(told)
            shown += [] if picture is None else [picture]
    together = None
    if config.together and shown:
        together = config.out / ALL_TOGETHER
        write_sheet(together, shown, config.look)
    return ExplainResult(
        run=str(config.run),
        store=None if subjects.store is None else str(subjects.store),
        out=str(config.out),
        maps=maps,
        videos=tuple(done),
        together=None if together is None else str(together),
        failed=sum(one.problem is not None for one in done),
        notes=_notes(subjects, identity.head, maps=bool(maps), read=any(one.said for one in done)),
        seconds=round(time.monotonic() - started, 3),
    )


def _notes(subjects: Subjects, head: str, *, maps: bool, read: bool) -> tuple[str, ...]:
    alone = [f"head {head} attends to no cells: frames, and weights over time"] if read and not maps else []
    return tuple(dict.fromkeys([*subjects.notes, *alone]))


def _unread(one: Subject) -> Explained:
    return Explained(
        id=one.id, truth=(), said=(), probabilities=(), weight=None, seconds=None, picture=None, film=None, arrays=None,
        problem=one.problem,
    )  # fmt: skip


def _made(
    config: ExplainConfig, scene: Scene, one: Subject, boxes: Mapping[int, np.ndarray], source: FrameSource
) -> tuple[Explained, Shown | None]:
    """Write the files of one video; that its frames cannot be shown is told, and ends nothing."""
    picture, film, arrays = (config.out / f"{one.name}.{suffix}" for suffix in ("png", "mp4", "npz"))
    made: dict[str, str] = {}
    shown, problem = None, None
    if config.arrays:
        write_arrays(arrays, scene)
        made["arrays"] = str(arrays)
    try:
        if config.pictures:
            shown = show(scene, source, one.file, config.look, boxes)
            if not config.together:
                write_sheet(picture, [shown], config.look)
                made["picture"] = str(picture)
        if config.films:
            write_film(film, scene, source, one.file, config.look, said_boxes=boxes)
            made["film"] = str(film)
    except FramesError as error:
        problem = str(error)
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
