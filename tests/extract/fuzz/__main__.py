"""Fuzzing: broken videos of every container and codec through the decoder as planning and extraction use it.

By hand, from the root of the repository: `python -m tests.extract.fuzz --videos 10000 --jobs 2`. The same seed breaks
the same files. Each is counted, then read, by one of all samplers and streams; every one must end in a typed outcome
whose rows are accounted for, and the sound ones among them as `ok`. It ends with one JSON object of figures on standard
output, and with exit code 1 where anything was not as it should be. What broke a rule, or killed a decoder, is kept
below `--keep`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from vidatt.cache.ledger import OUTCOMES
from vidatt.extract.child import ChildBugError
from vidatt.extract.decoder import Decoder, DecoderSettings
from vidatt.extract.kinds import CLIP, FLOW, RGB
from vidatt.extract.sampling import MOST_PER_FRAME, Sampler
from vidatt.extract.segments import Counted, CountJob, VideoEnd, VideoJob, VideoStart
from vidatt.extract.views import Geometry, Views
from vidatt.extract.windows import Chunk, FlowSettings, StreamInput, StreamKind

from .seeds import damaged, write_seeds

MOST_MEMORY = 1_500_000_000
RULES = ("uniform:4", "uniform:1", "centre:3", "every:7", "every:1", "fps:2", "fps:29.97", "windows:6:3:4")
BATCH = 250
"""Videos of one decoding child: starting one with its flow engine takes a second."""


def _stream(kind: StreamKind, resize: str, views: str) -> StreamInput:
    geometry = Geometry(resize=resize, crop_px=56)
    flow = FlowSettings(preset="fast")
    return StreamInput(name=kind.name, kind=kind, geometry=geometry, views=Views.parse(views), flow=flow)


STREAMS = (
    tuple(_stream(kind, "short:64", "center") for kind in (RGB, CLIP, FLOW)),
    tuple(_stream(kind, "80x64", "10crop") for kind in (RGB, CLIP)),
    (_stream(RGB, "none", "train:2"), _stream(FLOW, "short:60", "train:2")),
    (_stream(RGB, "short:256", "center"),),
)


def _peak(pid: int | str | None) -> int:
    """Most bytes that a process had in memory so far; 0 of none, or one that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 1024 * int(status.split("VmHWM:")[1].split()[0]) if "VmHWM:" in status else 0


class Fuzzer:
    """One thread's part: its own decoder, its own random numbers."""

    def __init__(self, name: int, folder: Path, seeds: list[Path], chance: random.Random) -> None:
        self.name, self.folder, self.seeds, self.chance = name, folder, seeds, chance
        self.contents = [path.read_bytes() for path in seeds]
        self.outcomes: Counter[str] = Counter()
        self.sound = 0
        self.peak_bytes = 0  # of its child
        self.deaths = 0
        self.wrong: list[str] = []
        self.slowest = (0.0, "")
        self.samples: dict[str, str] = {}  # details of outcomes that a child died of

    def run(self, videos: int, keep: Path | None) -> None:
        for number in range(videos):
            if number % BATCH == 0:
                streams = STREAMS[number // BATCH % len(STREAMS)]
                decoder = Decoder(streams, DecoderSettings(timeout_seconds=30))
            path, whole = self._broken(number)
            started = time.monotonic()
            try:
                found = self._wrong(decoder, path, whole, streams)
            except ChildBugError as error:
                found = str(error)
            self.slowest = max(self.slowest, (time.monotonic() - started, path.name))
            self.peak_bytes = max(self.peak_bytes, _peak(decoder.pid))
            if found:
                self.wrong.append(f"{path.name}: {found}")
            deaths = self.outcomes["decoder_crash"] + self.outcomes["decoder_hang"]
            if (found or deaths > self.deaths) and keep is not None and path.is_file():
                keep.mkdir(parents=True, exist_ok=True)
                (keep / path.name).write_bytes(path.read_bytes())
            self.deaths = deaths
            self._remove(path)
            if number % BATCH == BATCH - 1 or number == videos - 1:
                decoder.close()

    def _broken(self, number: int) -> tuple[Path, bool]:
        """Make one video; return its path, and whether it is sound."""
        chance = self.chance
        place = chance.randrange(len(self.seeds))
        seed, content = self.seeds[place], self.contents[place]
        ending = seed.suffix if chance.random() < 0.9 else chance.choice([".mp4", ".avi", ".m3u8", ".jpg", "", ".ts"])
        path = self.folder / f"{self.name}-{number}-{seed.stem}{ending}"
        what = chance.random()
        if what < 0.005:
            os.mkfifo(path)
        elif what < 0.01:
            path.mkdir()
        elif what < 0.015:
            path.symlink_to(path.name)
        elif what < 0.02:
            pass  # nothing there
        elif what < 0.06:
            path.write_bytes(content)
            return path, ending == seed.suffix
        else:
            path.write_bytes(damaged(chance, content, chance.choice(self.contents)))
        return path, False

    @staticmethod
    def _remove(path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)

    def _wrong(self, decoder: Decoder, path: Path, sound: bool, streams: tuple[StreamInput, ...]) -> str:
        """Count and read one video; return what is wrong with what came, in words."""
        sampler = Sampler.parse(self.chance.choice(RULES))
        start = self.chance.choice([None, None, None, None, 0.1, 1e9])
        stop = None if start is None else self.chance.choice([None, start + 0.2])
        rows = self._count(decoder, CountJob(path=path, sampler=sampler, start_seconds=start, stop_seconds=stop))
        size = path.stat().st_size if path.is_file() else 0
        if rows > max(size, 1) * MOST_PER_FRAME:
            return f"{rows} rows are planned for {size} bytes by {sampler}"
        job = VideoJob(
            id=path.name, path=path, sampler=sampler, window_frames=max(s.kind.window_frames for s in streams),
            segments=sampler.fixed_segments or rows, start_seconds=start, stop_seconds=stop,
        )  # fmt: skip
        decoder.submit(job)
        came: dict[str, list[int]] = {}
        message: object = None
        for message in decoder.messages():
            if isinstance(message, VideoStart):
                came = {}
            elif isinstance(message, Chunk):
                came.setdefault(message.stream, []).extend(message.segments.tolist())
        if not isinstance(message, VideoEnd):
            return f"it ends with {message!r}"
        report = message.report
        self.outcomes[report.outcome] += 1
        self.sound += sound
        if report.outcome in ("decoder_crash", "decoder_hang", "out_of_memory"):
            self.samples.setdefault(report.outcome, f"{path.name}: {report.detail}")
        if report.outcome not in OUTCOMES or "\n" in report.detail or (report.outcome == "ok") == bool(report.detail):
            return f"odd outcome {report.outcome!r} with {report.detail!r}"
        if sound and start is None and report.outcome != "ok":
            return f"a sound video ends as {report.outcome}: {report.detail}"
        return _odd_rows(message, came, rows=job.segments, streams=streams)

    def _count(self, decoder: Decoder, job: CountJob) -> int:
        decoder.submit(job)
        counted = [message.segments for message in decoder.messages() if isinstance(message, Counted)]
        return counted[0] if counted else 1


def _odd_rows(end: VideoEnd, came: dict[str, list[int]], *, rows: int, streams: tuple[StreamInput, ...]) -> str:
    T = len(end.first_frames)
    if end.report.outcome not in ("ok", "truncated"):
        return f"{T} rows of a video that is {end.report.outcome}" if T else ""
    if not 0 < T <= rows:
        return f"{T} segments where {rows} are planned"
    if {name: sorted(segments) for name, segments in came.items()} != {s.name: list(range(T)) for s in streams}:
        return f"{T} segments, and came { ({name: len(s) for name, s in came.items()}) }"
    if end.first_frames.min() < 0 or end.first_frames.max() > end.last_frame or len(end.seconds) != end.last_frame + 1:
        return f"frames {end.first_frames} of a video whose last is {end.last_frame}, {len(end.seconds)} times"
    known = end.seconds[~np.isnan(end.seconds)]
    return "" if (np.diff(known) >= 0).all() else "times that go back"


def fuzz(videos: int, *, seed: int, jobs: int, folder: Path, keep: Path | None) -> dict[str, object]:
    """Break and read some videos; return the figures."""
    (folder / "seeds").mkdir()
    (folder / "broken").mkdir()
    seeds = write_seeds(folder / "seeds")
    parts = [Fuzzer(i, folder / "broken", seeds, random.Random(f"{seed}/{i}")) for i in range(jobs)]
    shares = [videos // jobs + (i < videos % jobs) for i in range(jobs)]
    started = time.monotonic()
    threads = [threading.Thread(target=p.run, args=(n, keep)) for p, n in zip(parts, shares, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes: Counter[str] = sum((p.outcomes for p in parts), Counter())
    wrong = [line for p in parts for line in p.wrong]
    peak = _peak("self") + sum(p.peak_bytes for p in parts)
    if outcomes.total() + len([line for line in wrong if "vidatt failed" in line]) != videos:
        wrong.append(f"{outcomes.total()} outcomes of {videos} videos")
    if peak > MOST_MEMORY:
        wrong.append(f"the processes had {peak / 1e9:.2f} GB in memory, more than {MOST_MEMORY / 1e9:g}")
    return {
        "videos": videos, "seed": seed, "forms": len(seeds), "sound": sum(p.sound for p in parts),
        "outcomes": dict(sorted(outcomes.items())), "peak_bytes": peak, "seconds": round(time.monotonic() - started, 1),
        "slowest": max(p.slowest for p in parts), "deaths": {k: v for p in parts for k, v in p.samples.items()},
        "wrong": wrong,
    }  # fmt: skip


def main() -> None:
    """Read the options, fuzz, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.extract.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="decoders at a time")
    parser.add_argument("--keep", type=Path, help="folder for files that broke a rule or a decoder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vidatt-fuzz-") as folder:
        figures = fuzz(given.videos, seed=given.seed, jobs=given.jobs, folder=Path(folder), keep=given.keep)
    print(json.dumps(figures, indent=1))
    sys.exit(1 if figures["wrong"] else 0)


if __name__ == "__main__":
    main()
