"""`vidatt extract`: plan once, then workers turn shards of videos into shards of cubes until none is missing."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

from ...cache.fingerprint import differences
from ...cache.store import Store
from ...errors import InterruptedRunError, RefusedError, VidattError
from ...extract.child import Child
from ...extract.datasets.catalogue import Catalogue
from ...extract.datasets.registry import describe, load_catalogue
from ...extract.datasets.video_files import refuse_links_outside
from ...extract.sampling import Sampler
from ...extract.streams import StreamConfig
from ...extract.views import Views
from ..runs.progress import Progress
from ..runs.signals import NUMBERS
from .breaker import Breaker
from .plan import check_videos_folder, make_index, parse_slice, plan_segments, shard_size
from .worker import Failed, Ready, ShardDone, ShardHeld, VideoSeen, Want, WorkerConfig

log = logging.getLogger(__name__)

NVIDIA_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""Where a driver shows itself on Linux and on WSL."""
TRIES_PER_SHARD = 3
"""A shard that kills its worker this often is given up; the others go on."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """What one extraction is asked to do; None means what the store says, else the default."""

    dataset: str
    videos: Path
    store: Path
    streams: tuple[StreamConfig, ...]
    annotations: Path | None = None
    dataset_options: Mapping[str, str] = field(default_factory=dict)
    sampler: str | None = None
    default_sampler: str = "uniform:25"  # the recipe's
    window_frames: int | None = None  # the longest stream's
    shard_videos: int | None = None
    slice: str | None = None  # I/N
    seed: int = 0
    device: str = "auto"
    workers: int | None = None  # one per GPU, or one per CPU core
    decoders: int | None = None  # per worker
    batch_segments: int | None = None
    decode_timeout_seconds: float = 60.0
    decode_memory_bytes: int = 0

    @property
    def views(self) -> str:
        """The one choice of views that all streams share."""
        return self.streams[0].views


def open_catalogue(config: ExtractConfig) -> Catalogue:
    """Read the dataset's catalogue; its quirks go to the log."""
    describe(config.dataset)  # a misspelt name before a missing folder of that name
    check_videos_folder(config.videos, config.dataset)
    catalogue = load_catalogue(
        config.dataset, annotations=config.annotations, videos=config.videos, options=config.dataset_options
    )
    refuse_links_outside(config.videos, (video.path for video in catalogue.videos))
    for note in catalogue.notes:
        log.info("%s: %s", config.dataset, note)
    return catalogue


def open_store(config: ExtractConfig, catalogue: Catalogue) -> Store:
    """Create the store by the plan, or open the one that is there if it was planned the same way.

    Raises
    ------
    RefusedError
        With the differences, if the store at hand was planned for other videos or by another rule.
    """
    window = config.window_frames or max(stream.window_frames for stream in config.streams)
    asked: dict[str, Any] = {
        "dataset": catalogue.name,
        "catalogue_sha256": catalogue.digest(),
        "sampler": str(Sampler.parse(config.sampler or config.default_sampler)),
        "window_frames": window,
        "view_rule": config.views,
        "seed": config.seed,
        "shard_videos": config.shard_videos or shard_size(len(catalogue.videos), [s.name for s in config.streams]),
    }
    if config.store.exists():
        store = Store.open(config.store)
        free = {"sampler": config.sampler, "window_frames": config.window_frames, "shard_videos": config.shard_videos}
        for key, chosen in free.items():
            if chosen is None:
                asked[key] = store.attributes.get(key)
        theirs = {key: store.attributes.get(key) for key in asked}
        if theirs != asked:
            raise RefusedError(
                f"The store {config.store} was planned differently: {'; '.join(differences(asked, theirs))}. "
                "Name another --store, or repeat the old options."
            )
        return store
    sampler = Sampler.parse(asked["sampler"])
    length = plan_segments(catalogue, config.videos, sampler, jobs=cpu_count())
    views = Views.parse(config.views).count
    index, layout = make_index(catalogue, length, views=views, shard_videos=asked["shard_videos"], seed=config.seed)
    config.store.parent.mkdir(parents=True, exist_ok=True)
    return Store.create(config.store, index=index, views=views, layout=layout, attributes=asked)


def cpu_count() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices(choice: str, workers: int | None) -> list[str]:
    """Return the device of each worker.

    Raises
    ------
    VidattError
        If CUDA is asked for and there is none.
    """
    if choice == "auto" and not any(Path(driver).exists() for driver in NVIDIA_DRIVERS):
        choice = "cpu"  # decided without torch: importing it would cost the supervisor 0.3 GB
    if choice == "cpu":
        return ["cpu"] * (workers or cpu_count())
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "auto":
        choice = "cuda" if found else "cpu"
    if choice == "cpu":
        return ["cpu"] * (workers or cpu_count())
    if not found:
        raise VidattError(f"--device {choice}: no CUDA device is usable here; use --device cpu.")
    cards = [choice] if ":" in choice else [f"cuda:{i}" for i in range(found)]
    return [cards[i % len(cards)] for i in range(workers or len(cards))]


def extract(config: ExtractConfig) -> dict[str, Any]:
    """Run one extraction (or continue it) and return its summary; see design: `extract --json`.

    Raises
    ------
    VidattError
        One line for the user; what was committed stays.
    InterruptedRunError
        After SIGTERM, SIGUSR1 or Ctrl-C, when the shards in work are committed.
    """
    started = time.monotonic()
    index, count = parse_slice(config.slice)
    catalogue = open_catalogue(config)
    setup = _Supervisor(config, len(catalogue.videos))
    with setup:
        probe = setup.start_first_worker()  # its backbones are built before a store is made: no empty store on errors
        store = open_store(config, catalogue)
        store.sweep()
        for name, (cube_shape, recipe) in probe.streams.items():
            store.add_stream(name, cube_shape=cube_shape, recipe=recipe)
        mine = [shard for shard in range(store.shard_count) if shard % count == index]
        names = [stream.name for stream in config.streams]
        missing = [s for s in mine if not all(store.stream(name).is_done(s) for name in names)]
        log.info(
            "%s: %d videos in %d shards; %d of my %d shards are to do",
            config.store, len(store.index.ids), store.shard_count, len(missing), len(mine),
        )  # fmt: skip
        setup.run(store, missing)
    if count == 1:
        store.sweep()
    summary = summarise(store, names, mine)
    summary["seconds"] = round(time.monotonic() - started, 3)
    summary["given_up"] = setup.given_up
    return summary


def summarise(store: Store, streams: Sequence[str], shards: Sequence[int]) -> dict[str, Any]:
    """Return what stands in the store for some of its shards: outcomes by video (the worst of its streams)."""
    positions = [p for shard in shards for p in store.shard_videos(shard)]
    wanted = {str(store.index.ids[p]) for p in positions}
    worst: dict[str, Any] = {}
    for name in streams:
        for outcome in store.stream(name).outcomes():
            if outcome.id in wanted and (outcome.id not in worst or worst[outcome.id].outcome == "ok"):
                worst[outcome.id] = outcome
    failed = [o.to_dict() for o in worst.values() if o.outcome != "ok"]
    return {
        "store": str(store.path),
        "videos": len(positions),
        "outcomes": dict(sorted(Counter(o.outcome for o in worst.values()).items())),
        "failed": sorted(failed, key=lambda o: str(o["id"])),
        "streams": {
            name: {
                "fingerprint": store.stream(name).fingerprint,
                "cube": list(store.stream(name).cube_shape),
                "segments": sum(o.segments for o in store.stream(name).outcomes() if o.id in wanted),
                "bytes": sum(
                    entry["bytes"]
                    for shard in shards
                    if store.stream(name).is_done(shard)
                    for entry in store.stream(name).marker(shard)["files"].values()
                ),
            }
            for name in streams
        },
    }


@dataclass(eq=False)
class _Worker:
    child: Child
    device: str
    shards: list[int] = field(default_factory=list)  # handed out, being made
    held: list[int] = field(default_factory=list)  # made, not yet committed: see Breaker
    asks: bool = False  # waits for an answer to its Want


class _Supervisor:
    """Starts workers, hands out shards, restarts what dies, drains on a signal."""

    def __init__(self, config: ExtractConfig, videos: int) -> None:
        self._config = config
        self._devices = devices(config.device, config.workers)
        self._workers: list[_Worker] = []
        self._todo: deque[int] = deque()
        self._tries: Counter[int] = Counter()
        self._first: tuple[_Worker, Ready] | None = None
        self._store: Store | None = None
        self._signals = 0
        self._breaker = Breaker()  # over all workers
        self._videos = videos
        self.given_up: list[int] = []

    def __enter__(self) -> _Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.child.kill()
        self._workers = []

    def start_first_worker(self) -> Ready:
        """Start one worker and wait for its backbones; return their shapes and recipes."""
        worker = self._start(self._devices[0])
        message = self._receive(worker)
        if message is None:
            raise VidattError(f"The extraction worker was {worker.child.died_of()} while building its backbones.")
        if not isinstance(message, Ready):
            raise RuntimeError(f"a worker began with {message!r}")
        self._first = worker, message
        return message

    def run(self, store: Store, shards: Sequence[int]) -> None:
        """Extract the given shards; returns when all are committed or given up."""
        if not shards:
            return
        if self._first is None:
            raise RuntimeError("run() before start_first_worker()")
        self._store, self._todo = store, deque(shards)
        workers = min(len(self._devices), len(shards))
        self._first[0].child.connection.send(store.path)
        for device in self._devices[1:workers]:
            self._start(device)
        videos = sum(len(store.shard_videos(shard)) for shard in shards)
        with _caught_signals(self._on_signal), Progress("extract", videos, unit="video") as progress:
            while self._workers:
                self._step(progress)
        if self._signals:
            raise InterruptedRunError(
                f"Interrupted, {len(self._todo)} shards left; what is committed stays. Run the same command again."
            )

    def _start(self, device: str) -> _Worker:
        cores = max(1, cpu_count() // len(self._devices))
        cuda = device != "cpu"
        config = WorkerConfig(
            videos=self._config.videos.resolve(),
            streams=tuple(self._config.streams),
            device=device,
            decoders=self._config.decoders or (cores if cuda else 1),
            batch_segments=self._config.batch_segments or (64 if cuda else 8),
            decode_timeout_seconds=self._config.decode_timeout_seconds,
            decode_memory_bytes=self._config.decode_memory_bytes,
        )
        environment = {"MALLOC_ARENA_MAX": "2"}  # one heap a thread would never give back what the feeder used
        if not cuda:
            environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        worker = _Worker(Child("vidatt.pipelines.extraction.worker:serve", environment), device)
        worker.child.connection.send(config)
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
                worker.child.connection.send(self._open().path)
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
                if not message.ours:
                    log.info("shard %d was committed by another job meanwhile", message.shard)
        self._answer()

    def _answer(self) -> None:
        busy = any(worker.shards for worker in self._workers)
        for worker in list(self._workers):
            if self._signals > 1 or (self._signals and worker.asks and worker.held):
                self._todo.extend(worker.shards + worker.held)
                worker.child.kill()
                self._workers.remove(worker)
            elif worker.asks and (self._todo or not (busy if worker.held else worker.shards) or self._signals):
                if worker.held and not self._todo:
                    self._breaker.judge()  # a run of few videos
                shard = self._todo.popleft() if self._todo and not self._signals else None
                worker.asks = False
                if shard is not None:
                    worker.shards.append(shard)
                worker.child.connection.send(shard)

    def _bury(self, worker: _Worker) -> None:
        """Forget a worker that ended; give its shards to another, unless they killed too many."""
        self._workers.remove(worker)
        lost = worker.shards + worker.held
        if not lost:
            if worker.child.process.wait(timeout=30) != 0:
                raise VidattError(f"An extraction worker on {worker.device} was {worker.child.died_of()} at its start.")
            return
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
        if self._todo and not self._signals:
            self._start(worker.device)

    def _open(self) -> Store:
        if self._store is None:
            raise RuntimeError("no store yet")
        return self._store

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals == 1:
            log.warning("%s: finishing the shards in work; once more stops at once", name)


@contextmanager
def _caught_signals(handler: Any) -> Iterator[None]:
    """Send SIGTERM, SIGUSR1 and Ctrl-C to `handler` for a while."""
    before = {number: signal.signal(number, handler) for number in NUMBERS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def free_bytes(path: Path) -> int:
    """Return the free space where `path` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def with_choices_of_store(config: ExtractConfig) -> ExtractConfig:
    """Let `auto` (precision, flow engine) mean what the store was begun with: other hardware can continue it."""
    if not config.store.exists():
        return config
    store = Store.open(config.store)
    streams = []
    for stream in config.streams:
        if stream.name in store.stream_names:
            recipe = store.stream(stream.name).recipe
            engine = recipe["flow"]["engine"] if "flow" in recipe else stream.flow_engine
            streams.append(
                replace(
                    stream,
                    precision=recipe["precision"] if stream.precision == "auto" else stream.precision,
                    flow_engine=engine if stream.flow_engine == "auto" else stream.flow_engine,
                )
            )
        else:
            streams.append(stream)
    return replace(config, streams=tuple(streams))
