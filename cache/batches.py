"""Training reads: shuffled batches of whole videos, from device memory, RAM or the store, whichever holds them."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ..errors import UsageError
from .memory import available_ram_bytes, size_text
from .prefetch import RING, Slot, in_huge_pages, prefetched
from .shards import ShardedArray
from .store import Store

WINDOW_SHARDS = 8
"""Shards that are shuffled together: the store's order is random already, and neighbours are read faster."""

WARM_BYTES_PER_SECOND = 4e9
"""Pages read faster than this were in the page cache, also where the file system does not count blocks read."""

RESIDENCIES = ("auto", "device", "ram", "stream")


@dataclass(frozen=True, eq=False)
class Batch:
    """Whole videos, padded to the longest of them."""

    videos: np.ndarray  # [B] int64, positions in the store
    cubes: tuple[torch.Tensor, ...]  # per stream [B, T, K, K, D] float16 on the device
    valid: torch.Tensor  # [B, T] bool on the device; False = padding, or a row without frames in some stream

    def __repr__(self) -> str:
        return f"Batch({len(self.videos)} videos, cubes {', '.join(str(tuple(c.shape)) for c in self.cubes)})"


@dataclass(frozen=True, eq=False)
class _Job:
    videos: np.ndarray  # [B] int64, positions
    views: np.ndarray  # [B] int64
    following: _Job | None  # the next one, whose pages are asked for ahead


class Batches:
    """Batches of a set of videos, epoch after epoch; each video once an epoch.

    On the CPU with residency `ram` or `stream`, a batch's cubes lie in a ring of kept buffers: they are valid until the
    next batch but one is drawn. Copy what must live longer. One epoch is drawn at a time.

    Parameters
    ----------
    streams : names; cubes come in this order
    videos : [n] positions in store order, such as `np.flatnonzero(store.usable(streams) & (roles == 1))`
    batch_videos : videos in a batch; the last batch of an epoch may have fewer
    shuffle : each epoch in an order that depends on `seed`, the epoch's number and the set of videos only; otherwise
        in the order of `videos`
    view : which view of each video, or "random" for a new one each epoch, or the range that it is drawn from
    residency : where the cubes stay between epochs; "auto" takes the device if they fill at most half of its free
        memory, else RAM if at most half of what is available, else streams them from the store

    Attributes
    ----------
    residency : the one chosen
    description : one line to log

    Raises
    ------
    UsageError
        If an argument is out of range, or a video has no valid segment.
    ShardMissingError
        If a video was never extracted.
    """

    def __init__(
        self,
        store: Store,
        streams: Sequence[str],
        videos: np.ndarray,
        *,
        batch_videos: int,
        seed: int = 0,
        shuffle: bool = True,
        view: int | range | Literal["random"] = 0,
        device: torch.device | str = "cpu",
        residency: str = "auto",
    ) -> None:
        self.store, self.streams = store, tuple(streams)
        self.videos = np.array(videos, np.int64)
        self.batch_videos, self.seed, self.shuffle, self.view = batch_videos, seed, shuffle, view
        self._views = _view_range(view, store.views)
        self.device = torch.device(device)
        self._check(residency)
        opened = [store.stream(name) for name in self.streams]
        self._readers = [stream.reader() for stream in opened]
        self._shapes = [stream.cube_shape for stream in opened]
        self._offset, self._length = store.index.offset, store.index.length.astype(np.int64)
        self._real = self._real_rows()
        # What stays resident: the distinct videos in store order, with the views that are read.
        self._held = np.unique(self.videos)
        rows = self._length[self._held] * len(self._views)
        self._held_start = np.concatenate([[0], np.cumsum(rows)])
        self.bytes = sum(2 * int(np.prod(shape)) for shape in self._shapes) * int(rows.sum())
        self.residency, self.description = self._choose(residency)
        self._resident = [] if self.residency == "stream" else [self._load(i) for i in range(len(opened))]
        self._ring: list[Slot] = []
        self._cold = True  # whether the last batch came from a disk; asking ahead for warm pages costs a fifth

    def __len__(self) -> int:
        return (len(self.videos) + self.batch_videos - 1) // self.batch_videos

    def __repr__(self) -> str:
        streams = ", ".join(self.streams)
        return f"Batches({len(self.videos)} videos of {streams} by {self.batch_videos}, {self.description})"

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        Parameters
        ----------
        number : 0 or more; the same number gives the same batches
        """
        jobs = self._jobs(number)
        if self.residency == "device":
            for job in jobs:
                rows, valid = self._rows(job)
                index = torch.from_numpy(self._resident_rows(job, rows)).to(self.device)
                cubes = tuple(
                    flat.index_select(0, index.view(-1)).view(*rows.shape, *shape)
                    for flat, shape in zip(self._resident, self._shapes, strict=True)
                )
                yield Batch(job.videos, cubes, torch.from_numpy(valid).to(self.device))
            return
        # Kept from epoch to epoch; taken out meanwhile, so that a second iterator gets buffers of its own.
        pinned = self.device.type == "cuda"
        ring, self._ring = self._ring or [Slot(len(self.streams), pinned=pinned) for _ in range(RING)], []
        try:
            for slot, batch in prefetched(self._fill, jobs, ring):
                if self.device.type == "cpu":
                    yield batch
                else:
                    cubes = tuple(slot.to(tensor, self.device) for tensor in batch.cubes)
                    yield Batch(batch.videos, cubes, batch.valid.to(self.device))
        finally:
            self._ring = ring

    def _fill(self, slot: Slot, job: _Job) -> tuple[Slot, Batch]:
        """Put the cubes of a batch into a slot; runs in the prefetch thread."""
        slot.reuse()
        rows, valid = self._rows(job)
        B, T = rows.shape
        tensors = tuple(slot.tensor(i, (B, T, *shape)) for i, shape in enumerate(self._shapes))
        if self.residency == "ram":
            index = torch.from_numpy(self._resident_rows(job, rows)).view(-1)
            for tensor, flat, shape in zip(tensors, self._resident, self._shapes, strict=True):
                torch.index_select(flat, 0, index, out=tensor.view(B * T, *shape))
            return slot, Batch(job.videos, tensors, torch.from_numpy(valid))
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
        start = time.perf_counter()
        if job.following is not None and self._cold:
            for reader in self._readers:
                for position, view in zip(job.following.videos.tolist(), job.following.views.tolist(), strict=True):
                    reader.will_need(position, view)
        for tensor, reader in zip(tensors, self._readers, strict=True):
            cubes = tensor.numpy()
            for i, (position, view) in enumerate(zip(job.videos.tolist(), job.views.tolist(), strict=True)):
                length = int(self._length[position])
                reader.read_video(position, view=view, out=cubes[i, :length])
                cubes[i, length:] = 0
        rate = sum(tensor.nbytes for tensor in tensors) / (time.perf_counter() - start)
        self._cold = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock > before or rate < WARM_BYTES_PER_SECOND
        return slot, Batch(job.videos, tensors, torch.from_numpy(valid))

    def _jobs(self, number: int) -> list[_Job]:
        rng = np.random.default_rng([self.seed, number])
        videos = self.videos
        if self.shuffle:
            videos = np.sort(videos)
            shards, shard = np.unique(self._offset[videos] // self.store.shard_rows, return_inverse=True)
            window = rng.permutation(len(shards))[shard] // WINDOW_SHARDS
            videos = videos[np.lexsort((rng.random(len(videos)), window))]
        views = self._views.start + rng.integers(len(self._views), size=len(videos))
        jobs: list[_Job] = []
        for first in reversed(range(0, len(videos), self.batch_videos)):
            part = slice(first, first + self.batch_videos)
            jobs.append(_Job(videos[part], views[part], jobs[-1] if jobs else None))
        return jobs[::-1]

    def _rows(self, job: _Job) -> tuple[np.ndarray, np.ndarray]:
        """Return the segment of each place, [B, T] int64 with -1 as padding, and valid [B, T] bool."""
        length = self._length[job.videos][:, None]
        segment = np.arange(length.max())[None, :]
        inside = segment < length
        first_view = np.where(inside, self._offset[job.videos][:, None] + segment, 0)  # all views have the same frames
        return np.where(inside, segment, -1), inside & self._real[first_view]

    def _resident_rows(self, job: _Job, segments: np.ndarray) -> np.ndarray:
        """Return the resident row of each place, [B, T] int64; padding takes the last, which is zero."""
        start = self._held_start[np.searchsorted(self._held, job.videos)]
        start = start + (job.views - self._views.start) * self._length[job.videos]
        return np.where(segments >= 0, start[:, None] + segments, self._held_start[-1])

    def _real_rows(self) -> np.ndarray:
        """Tell which rows of the store have frames in all streams, [rows] bool; only shards in use are read."""
        real = np.ones(self.store.rows, bool)
        last = self._offset + self.store.views * self._length - 1
        shards: set[int] = set()
        for position in self.videos.tolist():
            shards.update(
                range(self._offset[position] // self.store.shard_rows, last[position] // self.store.shard_rows + 1)
            )
        for name in self.streams:
            array = ShardedArray(self.store.stream(name), "frames")
            for shard in sorted(shards):
                start, stop = self.store.shard_row_range(shard)
                frames = np.empty((stop - start, 3), np.int32)
                array.read(start, stop, frames)
                real[start:stop] &= frames[:, 0] >= 0
            array.close()
        counts = np.concatenate([[0], np.cumsum(real, dtype=np.int32)])
        first = self._offset[self.videos]
        empty = self.videos[counts[first + self._length[self.videos]] == counts[first]]
        if len(empty):
            raise UsageError(
                f"Video {self.store.index.ids[empty[0]]!r} and {len(empty) - 1} others have no segment in all of "
                f"{', '.join(self.streams)}; choose videos by Store.usable."
            )
        return real

    def _check(self, residency: str) -> None:
        if not self.streams:
            raise UsageError("Batches need at least one stream.")
        if self.videos.ndim != 1 or not self.videos.size:
            raise UsageError(f"Batches need a list of at least one video, not shape {self.videos.shape}.")
        if self.videos.min() < 0 or self.videos.max() >= len(self.store.index):
            raise UsageError(f"The store has videos 0..{len(self.store.index) - 1}; others were asked for.")
        if self.batch_videos < 1:
            raise UsageError(f"A batch needs at least 1 video, not {self.batch_videos}.")
        if residency not in RESIDENCIES:
            raise UsageError(f"Unknown residency {residency!r}; it is one of {', '.join(RESIDENCIES)}.")

    def _choose(self, residency: str) -> tuple[str, str]:
        ram = available_ram_bytes()
        free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else ram
        if residency == "auto":
            if self.device.type == "cuda" and self.bytes <= free // 2:
                residency = "device"
            else:
                residency = "ram" if self.bytes <= ram // 2 else "stream"
        size = size_text(self.bytes)
        return residency, {
            "device": f"resident on {self.device}: {size} of {size_text(free)} free",
            "ram": f"resident in RAM: {size} of {size_text(ram)} available",
            "stream": f"streamed from the store: {size}, {size_text(ram)} of RAM available",
        }[residency]

    def _load(self, stream: int) -> torch.Tensor:
        """Read the cubes of a stream that stay resident, once and in store order; the last row is zero."""
        reader, shape = self._readers[stream], self._shapes[stream]
        where = self.device if self.residency == "device" else torch.device("cpu")
        rows = int(self._held_start[-1]) + 1
        if where.type == "cpu":
            flat = in_huge_pages(rows, *shape)
        else:
            flat = torch.empty((rows, *shape), dtype=torch.float16, device=where)
        flat[-1] = 0
        for position, start, stop in zip(
            self._held.tolist(), self._held_start[:-1].tolist(), self._held_start[1:].tolist(), strict=True
        ):
            first = reader.row_range(position, self._views.start)[0]
            if where.type == "cpu":
                reader.read_rows(first, first + stop - start, flat[start:stop].numpy())
            else:
                flat[start:stop].copy_(torch.from_numpy(reader.read_rows(first, first + stop - start)))
        reader.close()
        return flat


def _view_range(view: int | range | str, views: int) -> range:
    """Return the views that are drawn from."""
    if view == "random":
        return range(views)
    drawn = view if isinstance(view, range) else range(view, view + 1) if isinstance(view, int) else range(0)
    if not drawn or drawn.step != 1 or drawn.start < 0 or drawn.stop > views:
        raise UsageError(f"The store has views 0..{views - 1} or 'random', not {view!r}.")
    return drawn
