"""Prefetching: one thread fills kept buffers in turn while the caller works on the last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

Job = TypeVar("Job")
Result = TypeVar("Result")

RING = 3
"""Buffers: one being filled, one being used, and the one before it still valid."""


def in_huge_pages(*shape: int) -> torch.Tensor:
    """Return an uninitialised float16 tensor; NumPy asks for huge pages, torch does not (0.81, 0.74 of memcpy)."""
    return torch.from_numpy(np.empty(shape, np.float16))


class Slot:
    """One kept place of the ring: a buffer per stream, which grows to the largest batch and is then used again.

    A new array for each batch would cost five times the reading, in page faults.
    """

    def __init__(self, streams: int, *, pinned: bool) -> None:
        self._buffers = [torch.empty(0, dtype=torch.float16) for _ in range(streams)]
        self._pinned = pinned
        self._copied: torch.cuda.Event | None = None

    def tensor(self, stream: int, shape: Sequence[int]) -> torch.Tensor:
        """Return the buffer of a stream as an uninitialised float16 tensor of a shape."""
        count = 1
        for side in shape:
            count *= side
        if self._buffers[stream].numel() < count:
            self._buffers[stream] = (
                torch.empty(count, dtype=torch.float16, pin_memory=True) if self._pinned else in_huge_pages(count)
            )
        return self._buffers[stream][:count].view(*shape)

    def to(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Copy a tensor of this slot to a CUDA device without waiting; `reuse` waits."""
        moved = tensor.to(device, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record(torch.cuda.current_stream(device))
        return moved

    def reuse(self) -> None:
        """Wait until the last copy has left the buffers."""
        if self._copied is not None:
            self._copied.synchronize()


def prefetched(fill: Callable[[Slot, Job], Result], jobs: Sequence[Job], slots: Sequence[Slot]) -> Iterator[Result]:
    """Yield `fill(slot, job)` for each job in order, computed one job ahead in a thread of its own.

    A result's slot is filled again when the next result but one is drawn. An exception in the thread reaches the
    caller; leaving the loop early stops the thread.
    """
    pending: deque[Future[Result]] = deque()
    submitted = 0
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="vidatt-prefetch") as pool:
        try:
            for drawn in range(len(jobs)):
                while submitted < min(drawn + 2, len(jobs)):
                    pending.append(pool.submit(fill, slots[submitted % len(slots)], jobs[submitted]))
                    submitted += 1
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
