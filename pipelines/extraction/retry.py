"""`extract --retry`: which videos of a store are looked at again, and what a run has to do altogether."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ...cache.store import Store
from .plan import ExtractionPlan, plan_segments
from .shard_work import ShardTask


@dataclass(frozen=True, kw_only=True)
class Todo:
    """What a run has to do in its slice."""

    tasks: tuple[ShardTask, ...]  # shards that a stream lacks, and those with videos that are looked at again
    again: int  # videos that are looked at again
    still_missing: int  # videos whose file is still not there: not worth a look
    longer: tuple[str, ...]  # ids of videos that have other segments now than the store has rows for


def todo(plan: ExtractionPlan, store: Store | None) -> Todo:
    """Return what a run has to do; `store` is None where it is still to be made."""
    lacking = plan.shards_to_do(store)
    tasks = {shard: ShardTask(shard, len(plan.layout.shard_videos(shard))) for shard in lacking}
    if not plan.config.retry or store is None:
        return Todo(tasks=tuple(tasks.values()), again=0, still_missing=0, longer=())
    names = [stream.name for stream in plan.streams if stream.name in store.stream_names]
    found, still_missing = _unfinished(plan, store, names)
    longer = _longer(plan, found)
    again = 0
    for shard in plan.shards:
        mine = tuple(p for p in plan.layout.shard_videos(shard) if p in found and p not in longer)
        if mine:
            videos = tasks[shard].videos if shard in tasks else len(mine)
            tasks[shard] = ShardTask(shard, videos, again=mine)
            again += len(mine)
    return Todo(
        tasks=tuple(tasks[shard] for shard in sorted(tasks)),
        again=again,
        still_missing=still_missing,
        longer=tuple(str(store.index.ids[p]) for p in sorted(longer)),
    )


def can_be_retried(plan: ExtractionPlan, position: int, outcome: str) -> bool:
    """Whether a video that is not ok is worth another look: one whose file is still missing is not."""
    return outcome != "missing" or os.path.isfile(plan.config.videos / str(plan.index.paths[position]))


def _unfinished(plan: ExtractionPlan, store: Store, streams: Sequence[str]) -> tuple[set[int], int]:
    """Return the positions in my slice that ended in an outcome to retry, in any of the streams.

    Returns
    -------
    Positions, and how many more are left out because their file is still not there.
    """
    found: set[int] = set()
    missing: set[int] = set()
    for stream in map(store.stream, streams):
        for shard in plan.shards:
            if stream.is_done(shard):
                told = zip(store.shard_videos(shard), stream.marker(shard)["videos"], strict=True)
                for position, outcome in ((p, values["outcome"]) for p, values in told):
                    if outcome in plan.config.retry:
                        (found if can_be_retried(plan, position, outcome) else missing).add(position)
    return found, len(missing - found)


def _longer(plan: ExtractionPlan, positions: Collection[int]) -> set[int]:
    """Return those whose number of segments is no longer what was planned: a store's rows never move."""
    if plan.sampler.fixed_segments is not None or not positions:
        return set()
    ordered = sorted(positions)
    by_id = {video.id: video for video in plan.catalogue.videos}
    some = replace(plan.catalogue, videos=tuple(by_id[str(plan.index.ids[p])] for p in ordered), splits={})
    segments = plan_segments(plan.config, some, plan.sampler)
    return {p for p, count in zip(ordered, segments.tolist(), strict=True) if count != plan.index.length[p]}
