"""The plan of an extraction: all its choices, made once, before anything is decoded."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.fingerprint import differences
from ...cache.index import Index
from ...cache.layout import Layout, extend_layout, plan_layout
from ...cache.plan import StorePlan
from ...cache.store import Store
from ...errors import MissingFileError, RefusedError, StoreNotFoundError
from ...extract.counting import count_segments
from ...extract.datasets.catalogue import Catalogue
from ...extract.datasets.registry import describe, load_catalogue
from ...extract.datasets.video_files import refuse_links_outside
from ...extract.sampling import Sampler
from ...extract.segments import CountJob, VideoJob
from ...extract.streams import StreamConfig
from ...extract.views import CENTER, Views
from ...extract.windows import StreamKind
from ..jobs.allotment import given_cores
from ..jobs.place import find_place
from ..runs.progress import Progress
from .catalogue_changes import catalogue_changes
from .command import extract_command
from .config import ExtractConfig
from .index import index_of
from .reuse import check_reuse

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class WorkPlan:
    """What workers must know to make the cubes of a store."""

    config: ExtractConfig
    streams: tuple[StreamConfig, ...]  # their `auto` is what the store was begun with
    sampler: Sampler
    window_frames: int  # kept free behind a segment's first frame
    views: Views


@dataclass(frozen=True, eq=False, kw_only=True)
class ExtractionPlan(WorkPlan):
    """All choices of one extraction: what `--dry-run` prints, what the run carries out, what the store is made by."""

    catalogue: Catalogue
    index: Index  # the videos in store order, with the segments planned for each
    layout: Layout
    recorded: StorePlan  # what the store keeps of all this
    store: Store | None  # the one that is there; then index and layout are its own, or those of its extension
    shards: range  # my slice

    @property
    def extends(self) -> bool:
        """Whether the store that is there is to be extended."""
        return self.store is not None and self.index is not self.store.index

    def open_store(self) -> Store:
        """Return the store that is there, extended if that is asked for, else make it.

        Raises
        ------
        RefusedError
            If another process has made another one meanwhile, or extended it otherwise.
        """
        if self.store is not None and not self.extends:
            return self.store
        if self.store is not None:
            store = self.store.extend(index=self.index, layout=self.layout, attributes=self.recorded.to_attributes())
            if store.index.content_digest() != self.index.content_digest():
                raise RefusedError(
                    f"Another process has extended the store {store.path} at this moment; run the same command again."
                )
            return store
        path = self.config.store
        path.parent.mkdir(parents=True, exist_ok=True)
        attributes = self.recorded.to_attributes()
        return Store.create(path, index=self.index, views=self.views.count, layout=self.layout, attributes=attributes)

    def shards_to_do(self, store: Store | None) -> list[int]:
        """Return the shards of my slice that a stream lacks."""
        names = [stream.name for stream in self.streams]
        if store is None or not set(names) <= set(store.stream_names):
            return list(self.shards)
        streams = [store.stream(name) for name in names]
        return [shard for shard in self.shards if not all(stream.is_done(shard) for stream in streams)]

    def job(self, position: int) -> VideoJob:
        """Return what is to be read of a video."""
        return video_job(
            self.index, position, videos=self.config.videos, sampler=self.sampler, window_frames=self.window_frames
        )


def plan_extraction(config: ExtractConfig) -> ExtractionPlan:
    """Make every choice of an extraction; reads catalogue and store, looks into videos, writes nothing.

    Raises
    ------
    RefusedError
        With the differences, if the store at hand was planned for other videos or by another rule.
    VidattError
        If catalogue, videos or store cannot be read.
    """
    place = find_place(config.slice, os.environ)
    catalogue = open_catalogue(config)
    store = Store.open(config.store) if config.store.exists() else None
    views = Views.parse(config.views or (store and store.plan.view_rule) or str(CENTER))
    sampler, window_frames, shard_videos = _open_choices(config, catalogue, store)
    recorded = StorePlan(
        dataset=catalogue.name,
        catalogue_sha256=catalogue.digest(),
        sampler=str(sampler),
        window_frames=window_frames,
        view_rule=str(views),
        seed=config.seed,
        shard_videos=shard_videos,
    )
    if store is None:
        if config.retry or config.extend:
            raise StoreNotFoundError(
                f"There is no store {config.store} to {'retry' if config.retry else 'extend'}; name it with --store."
            )
        length = plan_segments(config, catalogue, sampler)
        index, layout = make_index(catalogue, length, views=views.count, shard_videos=shard_videos, seed=config.seed)
    elif odd := differences(
        asdict(replace(recorded, catalogue_sha256=None)), asdict(replace(store.plan, catalogue_sha256=None))
    ):
        raise RefusedError(
            f"The store {config.store} was planned differently: {'; '.join(odd)}. "
            "Name another --store, or repeat the old options."
        )
    elif recorded.catalogue_sha256 != store.plan.catalogue_sha256:
        index, layout = _extension(config, catalogue, store, sampler)
    else:
        index, layout = store.index, store.layout
    if config.reuse is not None:
        check_reuse(config.reuse, config.store, recorded)
    return ExtractionPlan(
        config=config,
        catalogue=catalogue,
        streams=_as_begun(config.streams, store),
        sampler=sampler,
        window_frames=window_frames,
        views=views,
        index=index,
        layout=layout,
        recorded=recorded,
        store=store,
        shards=range(place.index, layout.shard_count, place.count),
    )


def _extension(config: ExtractConfig, catalogue: Catalogue, store: Store, sampler: Sampler) -> tuple[Index, Layout]:
    """Return the store's index as the catalogue has it now, and its layout: new videos behind those there are.

    Raises
    ------
    RefusedError
        If no extension is asked for, or the catalogue does not only add; the message says what differs, and the way.
    """
    changes = catalogue_changes(store.index, catalogue)
    if not changes.only_adds:
        raise RefusedError(
            f"The store {config.store} was planned for other videos: {changes.words()}. A store only grows; give "
            "another --store, and this one as --reuse: what is equal is copied."
        )
    if not config.extend:
        raise RefusedError(
            f"The store {config.store} was planned for other videos: {changes.words()}. Go on with "
            f"`{extract_command(config, '--extend')}`."
        )
    log.info("%s: %s", config.store, changes.words())
    place = {video.id: row for row, video in enumerate(catalogue.videos)}
    old = [place[id] for id in store.index.ids.tolist()]
    new = np.array([place[id] for id in changes.added], np.int64)
    new = new[np.random.default_rng([config.seed, len(store.layout.earlier_rows) + 1]).permutation(len(new))]
    added = replace(catalogue, videos=tuple(catalogue.videos[row] for row in new.tolist()), splits={})
    length = plan_segments(config, added, sampler) if len(new) else np.empty(0, np.int32)
    layout = extend_layout(store.layout, length, store.views)
    order = np.concatenate([np.array(old, np.int64), new])
    return index_of(catalogue, order, np.concatenate([store.index.length, length]), layout), layout


def _open_choices(config: ExtractConfig, catalogue: Catalogue, store: Store | None) -> tuple[Sampler, int, int]:
    """Return sampler, window and videos per shard: as asked, else the store's, else those that fit the streams."""
    if store is not None:
        rule, window_frames, shard_videos = store.plan.sampler, store.plan.window_frames, store.plan.shard_videos
    else:
        kinds = [stream.kind for stream in config.streams]
        rule, window_frames = config.default_sampler, max(kind.window_frames for kind in kinds)
        shard_videos = shard_size(len(catalogue.videos), kinds)
    rule, window_frames = config.sampler or rule, config.window_frames or window_frames
    shard_videos = config.shard_videos or shard_videos
    if rule is None or window_frames is None or shard_videos is None:
        raise RefusedError(
            f"The store {config.store} does not say how its segments were placed, so no extraction can add to it; "
            "name another --store."
        )
    return Sampler.parse(rule, seed=config.seed), window_frames, shard_videos


def open_catalogue(config: ExtractConfig) -> Catalogue:
    """Read the dataset's catalogue; its quirks go to the log.

    Raises
    ------
    MissingFileError
        If the folder of the videos is not there, or an annotation file.
    UsageError
        For an unknown dataset, or files that are no catalogue.
    """
    describe(config.dataset)  # a misspelt name before a missing folder of that name
    if not config.videos.is_dir():
        raise MissingFileError(
            f"There is no folder {config.videos} with the videos of {config.dataset!r}; name it with --videos DIR "
            f"(`vidatt datasets {config.dataset}` says what belongs there)."
        )
    catalogue = load_catalogue(
        config.dataset,
        annotations=config.annotations,
        videos=config.videos,
        options=config.dataset_options,
        follow_links=config.follow_links,
    )
    if not config.follow_links:
        refuse_links_outside(config.videos, (video.path for video in catalogue.videos))
    for note in catalogue.notes:
        log.info("%s: %s", config.dataset, note)
    return catalogue


def _as_begun(streams: tuple[StreamConfig, ...], store: Store | None) -> tuple[StreamConfig, ...]:
    """Let `auto` (precision, flow engine) mean what the store was begun with: other hardware can continue it."""
    if store is None:
        return streams
    recipes = {name: store.stream(name).recipe for name in store.stream_names}
    return tuple(_as_in(recipes[s.name], s) if s.name in recipes else s for s in streams)


def _as_in(recipe: Mapping[str, Any], stream: StreamConfig) -> StreamConfig:
    if stream.precision == "auto" and "precision" in recipe:  # an imported stream may not say
        stream = replace(stream, precision=recipe["precision"])
    if stream.flow_engine == "auto" and "flow" in recipe:
        stream = replace(stream, flow_engine=recipe["flow"]["engine"])
    return stream


def plan_segments(config: ExtractConfig, catalogue: Catalogue, sampler: Sampler) -> np.ndarray:
    """Return the planned number of segments of each video, (N,) int32.

    Only a sampler whose number of segments follows the length looks into the files: decoders count the packets, within
    the limits of any decoder. What cannot be read gets one row, so that it can be retried when it is mended.
    """
    if sampler.fixed_segments is not None:
        return np.full(len(catalogue.videos), sampler.fixed_segments, np.int32)
    jobs = [
        CountJob(
            path=config.videos.resolve() / video.path,
            sampler=sampler,
            start_seconds=video.start_seconds,
            stop_seconds=video.stop_seconds,
        )
        for video in catalogue.videos
    ]
    with Progress("plan", len(jobs), unit="video") as progress:
        return count_segments(jobs, config.decoder, cores=given_cores(os.environ), progress=progress.advance)


def make_index(
    catalogue: Catalogue, length: np.ndarray, *, views: int, shard_videos: int, seed: int
) -> tuple[Index, Layout]:
    """Return the store's index in a seeded random order, and the layout of its rows.

    The order is shuffled so that neighbours in a shard are not one class: training reads whole blocks of shards.
    """
    order = np.random.default_rng(seed).permutation(len(catalogue.videos))
    layout = plan_layout(length[order], views=views, videos_per_shard=shard_videos)
    return index_of(catalogue, order, length[order], layout), layout


def shard_size(videos: int, kinds: Iterable[StreamKind]) -> int:
    """Return the videos per shard: 64, fewer where a stream's extraction is slow, fewer for few videos."""
    most = min((kind.shard_videos for kind in kinds), default=StreamKind.shard_videos)
    return max(1, min(most, videos // 32))


def video_job(index: Index, position: int, *, videos: Path, sampler: Sampler, window_frames: int) -> VideoJob:
    """Return what is to be read of the video at a position of the index."""
    start, stop = (None if np.isnan(x) else float(x) for x in index.span_seconds[position])
    return VideoJob(
        id=str(index.ids[position]),
        path=videos / str(index.paths[position]),
        sampler=sampler,
        window_frames=window_frames,
        segments=int(index.length[position]),
        start_seconds=start,
        stop_seconds=stop,
    )
