"""Which videos are explained: those of a store by their stored features, or new ones by cubes made in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.store import Store
from ...errors import MissingFileError, NotFiniteError, UsageError
from ..extraction.command import recorded_videos
from ..extraction.config import default_videos
from ..pictures.scene import Scene, StoreScenes, times_of
from ..prediction.clip_cubes import Clip, ClipCubes, ClipExtractor
from ..prediction.clips import find_clips
from ..prediction.making import Choices, making_of
from ..report.looks import choose
from ..report.scored import read_scored
from ..runs.attention import attention, look
from ..runs.reload import load_head, require_fit, store_for
from ..runs.run import Run
from ..runs.scoring import resolve_device
from ..runs.seen import is_own
from ..runs.splits import PARTS, choose_split
from ..runs.videos import usable_videos
from ..runs.views import central_view
from .config import ExplainConfig


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """One video."""

    id: str
    file: Path
    name: str  # of the files that are made of it, without a suffix
    scene: Scene | None  # None: nothing of it could be read
    problem: str | None = None  # why, with the file's name


@dataclass(frozen=True, eq=False, kw_only=True)
class Subjects:
    """The videos, one after the other."""

    each: Generator[Subject, None, None]  # to be closed: new videos are decoded ahead
    count: int
    store: Path | None
    notes: list[str]  # what cannot be shown; complete when all videos have been seen


def stored_subjects(config: ExplainConfig, run: Run) -> Subjects:
    """Find videos of the run's store, or of another one that fits it.

    Raises
    ------
    MissingFileError, UsageError
        If there is no such store, video or folder of videos, or no scores to choose videos by.
    RefusedError, FingerprintMismatchError
        If the store does not fit the run.
    """
    store = store_for(run, config.store)
    positions = _positions(config, run, store)
    videos = _folder(config, store) if config.pictures or config.films else Path()
    names = _names([str(store.index.ids[position]) for position in positions])
    scenes = StoreScenes(store, require_fit(run).stream_names)
    looks = attention(run.path, store_path=store.path, videos=positions, view=central_view(store), device=config.device)

    def each() -> Generator[Subject, None, None]:
        for name, seen in zip(names, looks, strict=True):
            scene = scenes.of(seen)
            yield Subject(id=seen.id, file=videos / scene.path, name=name, scene=scene)

    return Subjects(each=each(), count=len(positions), store=store.path, notes=scenes.notes)


def _positions(config: ExplainConfig, run: Run, store: Store) -> list[int]:
    """Return the videos to show, by their place in the store."""
    identity = require_fit(run)
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
    videos = config.videos or recorded_videos(store.path) or default_videos(store.plan.dataset or "videos")
    if not videos.is_dir():
        raise MissingFileError(
            f"There is no folder {videos} with the videos of {store.path}; name it with --videos DIR, or ask for "
            "arrays alone with --no-png --no-mp4 --npz."
        )
    return videos


def _names(ids: Sequence[str]) -> list[str]:
    """Return names of files without a suffix: the ids' own, with it where two would be the same."""
    flat = [id.replace("/", "_").lstrip("._") for id in ids]
    short = [str(Path(name).with_suffix("")) for name in flat]
    count = Counter(short)
    return [one if count[one] == 1 else name for one, name in zip(short, flat, strict=True)]


def new_subjects(config: ExplainConfig, run: Run) -> Subjects:
    """Find new videos, whose cubes are made as those of the run were.

    Raises
    ------
    MissingFileError, UsageError
        If a folder holds no video, or a CSV cannot be read.
    RefusedError, WeightsError
        If the cubes cannot be made.
    """
    clips = find_clips(config.clips, folder=config.videos)
    last = [Path(clip.id).name for clip in clips]
    names = _names(last if len(set(last)) == len(last) else [clip.id for clip in clips])
    made = _NewVideos(run, config)
    return Subjects(each=made.of(clips, names), count=len(clips), store=None, notes=made.notes)


class _NewVideos:
    """A head with the networks that make its cubes."""

    def __init__(self, run: Run, config: ExplainConfig) -> None:
        self._device = resolve_device(config.device)
        self._streams = making_of(run, Choices(weights=config.weights))
        self._extractor = ClipExtractor(self._streams, device=self._device)
        self._classes = require_fit(run).classes
        sampling = self._streams[0].sampling
        self._head = load_head(run, sampler=sampling.sampler).to(self._device)
        self._view = next(
            (place[one.central] for one, place in sampling.views.ranges.items() if one.central is not None), None
        )
        self.notes = list(self._extractor.notes)
        if self._view is None:
            self.notes.append(
                f"attention is not laid on frames: {sampling.views} are random crops, whose place is not kept"
            )

    def of(self, clips: Sequence[Clip], names: Sequence[str]) -> Generator[Subject, None, None]:
        """Yield the videos; decoding children end with the last."""
        with self._extractor as extractor, closing(extractor.run(extractor.plan(clips))) as made:
            for name, cubes in zip(names, made, strict=True):
                clip, report = cubes.clip, cubes.report
                read = bool(cubes.valid.any())
                yield Subject(
                    id=clip.id,
                    file=clip.path,
                    name=name,
                    scene=self._scene(cubes) if read else None,
                    problem=None if read else f"{clip.path} cannot be read ({report.outcome}: {report.detail}).",
                )

    def _scene(self, cubes: ClipCubes) -> Scene:
        clip, report, first = cubes.clip, cubes.report, self._streams[0].key
        batch = cubes.batch(self._streams, view=self._view or 0, device=self._device)
        seen = next(look(self._head, batch, [clip.id]))
        if not (np.isfinite(seen.probabilities).all() and np.isfinite(seen.temporal).all()):
            raise NotFiniteError(f"What the head says of {clip.path} is not finite; fit again with another --out.")
        T = len(seen.temporal)
        geometries = [self._extractor.setups[stream.key].input.geometry for stream in self._streams]
        stop = np.nan if clip.stop_seconds is None else clip.stop_seconds
        times = times_of(
            cubes.frames[first][:T], cubes.seconds[first][:T], fps=report.fps, frame_count=report.decoded_frames,
            stop=stop, notes=self.notes,
        )  # fmt: skip
        return Scene(
            attention=seen,
            classes=self._classes,
            truth=(),
            streams=tuple(stream.name for stream in self._streams),
            path=str(clip.path),
            sha256=report.sha256,
            frames=cubes.frames[first][:T, 1],
            size=(report.width, report.height),
            fps=report.fps,
            regions=None
            if self._view is None
            else np.array([g.region(report.width, report.height) for g in geometries]),
            times=times,
            boxes={},
            intervals=(),
            span=(clip.start_seconds, clip.stop_seconds),
        )
