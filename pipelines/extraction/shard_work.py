"""What a worker does with a shard: which videos it decodes, which rows it copies, and how both become one content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...cache.ledger import VideoOutcome
from ...cache.publish import marker_digest
from ...cache.store import Store
from ...cache.stream import Stream
from ...extract.sampling import Sampler
from ...extract.segments import ShardJob
from ...extract.video import VideoReport
from .plan import video_job
from .reuse import Reuse

if TYPE_CHECKING:  # only the child computes: its parent is spared importing torch
    from ...extract.extractor import ShardArrays, StreamArrays


@dataclass(frozen=True)
class ShardTask:
    """One shard to do."""

    shard: int
    videos: int  # how many of it are to do
    again: tuple[int, ...] = ()  # positions of videos that are looked at again in streams that have the shard
    rewrite: bool = False  # replace what stands there even if the outcomes stay the same: a repair


@dataclass(frozen=True, eq=False)
class _Work:
    task: ShardTask
    bases: Mapping[str, str | None]  # by stream: the marker that the new content replaces
    taken: Mapping[str, frozenset[int]]  # by stream: positions whose rows come anew
    decoded: tuple[int, ...]  # positions
    copied: Mapping[int, int]  # position -> position in the store that is reused


@dataclass(frozen=True)
class Published:
    """What became of a shard."""

    ours: bool  # False: another writer was first
    changed: frozenset[int]  # videos looked at again that end otherwise now


class ShardWork:
    """The shards of one worker, from task to commit.

    Parameters
    ----------
    streams : names of those that are extracted
    videos : folder of the videos
    reuse : another store whose cubes are copied where a video's file and recipe are equal
    """

    def __init__(
        self, store: Store, streams: Sequence[str], *, videos: Path, sampler: Sampler, window_frames: int,
        reuse: Reuse | None,
    ) -> None:  # fmt: skip
        self._store, self._streams = store, {name: store.stream(name) for name in streams}
        self._videos, self._sampler, self._window_frames, self._reuse = videos, sampler, window_frames, reuse
        self._works: dict[int, _Work] = {}

    def job(self, task: ShardTask) -> tuple[ShardJob, int]:
        """Return what is to be decoded of a shard, and how many of its videos are copied from another store."""
        videos = self._store.shard_videos(task.shard)
        bases = {name: marker_digest(stream.path, task.shard) for name, stream in self._streams.items()}
        again = frozenset(task.again)
        taken = {name: frozenset(videos) if base is None else again for name, base in bases.items()}
        wanted = sorted(frozenset().union(*taken.values()))
        copied = {} if self._reuse is None else self._reuse.matches(self._store, wanted, self._videos)
        decoded = tuple(position for position in wanted if position not in copied)
        self._works[task.shard] = _Work(task, bases, taken, decoded, copied)
        first, stop = self._store.shard_row_range(task.shard)
        jobs = tuple(
            video_job(
                self._store.index, p, videos=self._videos, sampler=self._sampler, window_frames=self._window_frames
            )
            for p in decoded
        )
        first_rows = tuple(int(self._store.index.offset[p]) - first for p in decoded)
        return ShardJob(task.shard, stop - first, jobs, first_rows), len(copied)

    def publish(self, arrays: ShardArrays) -> Published:
        """Commit one shard of every stream that lacks it, or in which a video ends otherwise now."""
        work = self._works.pop(arrays.shard)
        outcomes = {
            position: _outcome(str(self._store.index.ids[position]), report, segments)
            for position, report, segments in zip(work.decoded, arrays.reports, arrays.segments, strict=True)
        }
        ours, changed = True, set()
        for name, fresh in arrays.streams.items():
            stream, taken = self._streams[name], work.taken[name]
            if not taken:
                continue
            mine = {p: o for p, o in outcomes.items() if p in taken}
            mine |= {p: self._copy(work, name, p, fresh) for p in work.copied if p in taken}
            videos = self._store.shard_videos(arrays.shard)
            if len(taken) < len(videos) or (work.bases[name] is not None and not work.task.rewrite):
                old = _outcomes(stream, arrays.shard)
                differing = {p for p, o in mine.items() if not _same(old[p], o)}
                if not differing:
                    continue
                changed |= differing
                self._keep(stream, arrays.shard, fresh, taken)
                mine = old | mine
            ours &= stream.publish(
                arrays.shard,
                cubes=fresh.cubes,
                frames=fresh.frames,
                seconds=fresh.seconds,
                outcomes=[mine[p] for p in videos],
                replaces=work.bases[name],
            )
        return Published(ours, frozenset(changed))

    def _rows(self, shard: int, position: int) -> tuple[int, int]:
        """Return the rows [start, stop) of a video within a shard, those of all its views."""
        start, stop = self._store.shard_row_range(shard)
        first = int(self._store.index.offset[position]) - start
        last = first + self._store.views * int(self._store.index.length[position])
        return max(0, first), min(stop - start, last)

    def _keep(self, stream: Stream, shard: int, fresh: StreamArrays, taken: frozenset[int]) -> None:
        """Fill in the rows of the videos that are not taken anew, from what stands in the store."""
        start = self._store.shard_row_range(shard)[0]
        reader = stream.reader()
        for position in self._store.shard_videos(shard):
            if position not in taken:
                first, last = self._rows(shard, position)
                reader.read_rows(start + first, start + last, out=fresh.cubes[first:last])
                for view in range(self._store.views):
                    low, high = (row - start for row in reader.row_range(position, view))
                    fresh.frames[low:high] = reader.frames(position, view)
                    fresh.seconds[low:high] = reader.seconds(position, view)
        reader.close()

    def _copy(self, work: _Work, name: str, position: int, fresh: StreamArrays) -> VideoOutcome:
        """Fill in the rows of a video from the store that is reused; its outcome there, under its id here."""
        assert self._reuse is not None
        first, last = self._rows(work.task.shard, position)
        skip = self._store.shard_row_range(work.task.shard)[0] + first - int(self._store.index.offset[position])
        part = slice(first, last)
        outcome = self._reuse.copy(
            name, work.copied[position], skip,
            cubes=fresh.cubes[part], frames=fresh.frames[part], seconds=fresh.seconds[part],
        )  # fmt: skip
        return replace(outcome, id=str(self._store.index.ids[position]))


def _outcomes(stream: Stream, shard: int) -> dict[int, VideoOutcome]:
    found = [VideoOutcome.from_dict(values) for values in stream.marker(shard)["videos"]]
    return dict(zip(stream.store.shard_videos(shard), found, strict=True))


def _same(old: VideoOutcome, new: VideoOutcome) -> bool:
    """Whether a video ends as before; a digest that was not recorded then is no difference."""
    return old == (new if old.sha256 else replace(new, sha256=""))


def _outcome(id: str, report: VideoReport, segments: int) -> VideoOutcome:
    return VideoOutcome(
        id=id,
        outcome=report.outcome,
        detail=report.detail,
        decoded_frames=report.decoded_frames,
        header_frames=report.header_frames,
        fps=report.fps,
        width=report.width,
        height=report.height,
        segments=segments,
        sha256=report.sha256,
    )
