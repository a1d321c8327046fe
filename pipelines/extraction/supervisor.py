"""The supervisor of an extraction: starts workers, hands out shards, restarts what dies, drains on a signal."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ...cache.store import Store
from ...errors import InterruptedRunError, UsageError, VidattError
from ...extract.child import Child
from ..jobs.allotment import given_cards, given_cores
from ..runs.progress import Progress
from ..runs.signals import StopRequest
from .breaker import Breaker
from .plan import WorkPlan
from .shard_work import ShardTask
from .worker import Failed, Ready, ShardDone, ShardHeld, VideosCopied, VideoSeen, Want, WorkerConfig

log = logging.getLogger(__name__)

CPU_BATCH_SEGMENTS = 8
NVIDIA_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""Where a driver shows itself on Linux and on WSL."""
TRIES_PER_SHARD = 3
"""A shard that kills its worker this often is given up; the others go on."""
STARTS = 4
"""A run in which so many workers die before their first shard ends."""


def devices(choice: str, workers: int | None) -> list[str]:
    """Return the device of each worker.

    Raises
    ------
    UsageError
        If CUDA is asked for and there is none.
    """
    if choice == "auto" and not any(Path(driver).exists() for driver in NVIDIA_DRIVERS):
        choice = "cpu"  # decided without torch: importing it would cost the supervisor 0.3 GB
    if choice == "cpu":
        return ["cpu"] * (workers or given_cores(os.environ))
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "auto":
        choice = "cuda" if found else "cpu"
    if choice == "cpu":
        return ["cpu"] * (workers or given_cores(os.environ))
    if not found:
        raise UsageError(f"--device {choice}: no CUDA device is usable here; use --device cpu.")
    cards = [choice] if ":" in choice else given_cards([f"cuda:{i}" for i in range(found)], os.environ)
    return [cards[i % len(cards)] for i in range(workers or len(cards))]


@dataclass(eq=False)
class _Worker:
    child: Child
    device: str
    shards: list[int] = field(default_factory=list)  # handed out, being made
    held: list[int] = field(default_factory=list)  # made, not yet committed: see Breaker
    asks: bool = False  # waits for an answer to its Want
    dismissed: bool = False  # was told that there is nothing left


def _tell(worker: _Worker, message: object) -> None:
    """Send a worker something; of one that died meanwhile, `Supervisor._receive` will tell."""
    with suppress(BrokenPipeError, ConnectionResetError):
        worker.child.connection.send(message)


class Supervisor:
    """Starts workers, hands out shards, restarts what dies, drains on a signal.

    Parameters
    ----------
    again : videos are looked at again, see `Breaker`

    Attributes
    ----------
    given_up : shards that no worker survived
    reused : videos copied from another store
    changed : positions of the videos looked at again that end otherwise now
    """

    def __init__(self, plan: WorkPlan, *, again: bool = False) -> None:
        self._plan, self._again = plan, again
        self._devices = devices(plan.config.device, plan.config.workers)
        self._workers: list[_Worker] = []
        self._todo: deque[int] = deque()
        self._tries: Counter[int] = Counter()
        self._unborn = 0  # workers that died before they had a shard
        self._first: _Worker | None = None
        self._store: Store | None = None
        self._stop = StopRequest("the shards in work", keep=True)
        self._breaker = Breaker(off=again)  # over all workers
        self._tasks: dict[int, ShardTask] = {}
        self.given_up: list[int] = []
        self.reused = 0
        self.changed: set[int] = set()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.child.kill()
        self._workers = []

    def start_first_worker(self) -> Ready:
        """Start one worker and wait for its backbones; return their shapes and recipes."""
        while True:
            worker = self._start(self._devices[0])
            message = self._receive(worker)
            if message is not None:
                break
            self._bury_unborn(worker)
        if not isinstance(message, Ready):
            raise RuntimeError(f"a worker began with {message!r}")
        self._first = worker
        return message

    def run(self, store: Store, tasks: Sequence[ShardTask]) -> None:
        """Extract the given shards; returns when all are committed or given up."""
        if not tasks:
            return
        if self._first is None:
            raise RuntimeError("run() before start_first_worker()")
        self._store, self._tasks = store, {task.shard: task for task in tasks}
        self._todo = deque(self._tasks)
        workers = min(len(self._devices), len(tasks))
        _tell(self._first, store.path)
        for device in self._devices[1:workers]:
            self._start(device)
        with self._stop, Progress("extract", sum(task.videos for task in tasks), unit="video") as progress:
            while self._workers:
                self._step(progress)
        if self._stop.count:
            raise InterruptedRunError(
                f"Interrupted, {len(self._todo)} shards left; what is committed stays. Run the same command again."
            )

    def _start(self, device: str) -> _Worker:
        cores = max(1, given_cores(os.environ) // len(self._devices))
        cuda = device != "cpu"
        plan, config = self._plan, self._plan.config
        work = WorkerConfig(
            videos=config.videos.resolve(),
            streams=plan.streams,
            sampler=plan.sampler,
            window_frames=plan.window_frames,
            views=plan.views,
            seed=config.seed,
            device=device,
            decoders=config.decoders or (cores if cuda else 1),
            batch_segments=config.batch_segments or (64 if cuda else CPU_BATCH_SEGMENTS),
            decode_timeout_seconds=config.decode_timeout_seconds,
            decode_memory_bytes=config.decode_memory_bytes,
            reuse=None if config.reuse is None else config.reuse.resolve(),
            again=self._again,
        )
        environment = {"MALLOC_ARENA_MAX": "2"}  # one heap a thread would never give back what the feeder used
        if not cuda:
            environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        worker = _Worker(Child("vidatt.pipelines.extraction.worker:serve", environment), device)
        _tell(worker, work)
        self._workers.append(worker)
        return worker

    def _receive(self, worker: _Worker) -> Any:
        """Return a worker's next message, None if it died; its own errors are raised here."""
        try:
            message = worker.child.receive()
        except (EOFError, ConnectionResetError):
            return None
        if isinstance(message, Failed):
            error = VidattError(message.message)
            error.exit_code = message.exit_code
            raise error
        return message

    def _step(self, progress: Progress) -> None:
        timeout = 0.5
        ready = wait([w.child.connection for w in self._workers], timeout)
        for worker in [w for w in self._workers if w.child.connection in ready]:
            message = self._receive(worker)
            if message is None:
                self._bury(worker)
            elif isinstance(message, Ready):
                _tell(worker, self._open().path)
            elif isinstance(message, Want):
                worker.asks = True
            elif isinstance(message, VideoSeen):
                progress.advance()
                self._breaker.count(message.report)
                if message.report.outcome != "ok":
                    log.debug("%s: %s", message.report.outcome, message.report.detail)
            elif isinstance(message, ShardHeld):
                worker.shards.remove(message.shard)
                worker.held.append(message.shard)
            elif isinstance(message, ShardDone):
                (worker.held if message.shard in worker.held else worker.shards).remove(message.shard)
                self.changed |= message.published.changed
                if not message.published.ours:
                    log.info("shard %d was committed by another job meanwhile", message.shard)
            elif isinstance(message, VideosCopied):
                progress.advance(count=message.count)
                self.reused += message.count
        self._answer()

    def _answer(self) -> None:
        busy = any(worker.shards for worker in self._workers)
        for worker in list(self._workers):
            if self._stop.count > 1 or (self._stop.count and worker.asks and worker.held):
                self._todo.extend(worker.shards + worker.held)
                worker.child.kill()
                self._workers.remove(worker)
            elif worker.asks and (self._todo or not (busy if worker.held else worker.shards) or self._stop.count):
                if worker.held and not self._todo:
                    self._breaker.judge()  # a run of few videos
                shard = self._todo.popleft() if self._todo and not self._stop.count else None
                worker.asks = False
                if shard is not None:
                    worker.shards.append(shard)
                worker.dismissed = shard is None
                _tell(worker, None if shard is None else self._tasks[shard])

    def _bury(self, worker: _Worker) -> None:
        """Forget a worker that ended; give its shards to another, unless they killed too many."""
        lost = worker.shards + worker.held
        if not lost:
            if worker.dismissed:  # it has told of all that it committed, and may take its time to end
                self._workers.remove(worker)
                worker.child.kill()
                return
            self._bury_unborn(worker)
            if self._todo and not self._stop.count:
                self._start(worker.device)
            return
        self._workers.remove(worker)
        cause = worker.child.died_of()
        for shard in lost:
            self._tries[shard] += 1
            if self._tries[shard] >= TRIES_PER_SHARD:
                log.error(
                    "shard %d is given up: %d workers died on it, the last one was %s", shard, TRIES_PER_SHARD, cause
                )
                self.given_up.append(shard)
            else:
                log.warning("a worker on %s was %s; shard %d starts again", worker.device, cause, shard)
                self._todo.append(shard)
        if self._todo and not self._stop.count:
            self._start(worker.device)

    def _bury_unborn(self, worker: _Worker) -> None:
        """Forget a worker that died before it had a shard, and let another try.

        Raises
        ------
        VidattError
            If that has happened too often.
        """
        self._workers.remove(worker)
        self._unborn += 1
        cause = worker.child.died_of()
        if self._unborn >= STARTS:
            raise VidattError(
                f"{STARTS} extraction workers ended before their first shard, the last one on {worker.device} was "
                f"{cause}; see whether memory is short, or run fewer --workers."
            )
        log.warning("a worker on %s was %s at its start; another one starts", worker.device, cause)

    def _open(self) -> Store:
        if self._store is None:
            raise RuntimeError("no store yet")
        return self._store
