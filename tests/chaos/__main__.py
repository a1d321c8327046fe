"""Chaos: extractions, readers and fits at once while processes are killed and files damaged; then all is mended.

By hand, from the root of the repository: `python -m tests.chaos --minutes 30`. Each epoch makes one store under random
SIGKILLs of any process of the trees, flipped bytes, swapped, truncated and removed files, lost markers, a full disk,
broken, missing and mended videos; a reader compares every video that it can read with the truth all the while. Then the
commands that a user has (`cache repair`, `extract`, `extract --retry`, `cache verify`) must bring it to the bytes of a
store that nobody disturbed, and a fit that is killed over and over must give the weights of one that was not.

It ends with one JSON object of figures on standard output, and with exit code 1 at the first thing that is not as it
should be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from vidatt.extract.datasets.generator import generate

VIDEOS = 24
STREAMS = {"rgb": "hog", "clip": "hog3d"}
HARMLESS = (0, 1, 3, 75, -signal.SIGKILL)
"""Exit codes that a command may have here: done, something is wrong and said, refused, stopped, killed by us."""

READER = """
import sys, time
import numpy as np
from vidatt.cache.store import Store
from vidatt.errors import VidattError
truth, chaos, until = Store.open(sys.argv[1]), sys.argv[2], float(sys.argv[3])
read = refused = 0
wanted = {(s, str(v)): truth[s].video(str(v)).cubes.copy() for s in truth for v in truth.index.ids}
while time.time() < until:
    for (name, video), cubes in wanted.items():
        try:
            stream = Store.open(chaos)[name]
            position = stream.store.index.position(video)
            if stream.outcome(position).outcome != "ok":
                continue
            found = stream.video(video)
            again = Store.open(chaos)[name].outcome(position).outcome
        except VidattError:
            refused += 1
            continue
        if again == "ok" and not np.array_equal(found.cubes, cubes):
            sys.exit(f"WRONG CUBES of {video} in stream {name}")
        read += 1
    time.sleep(0.05)
print(read, refused)
"""


class Havoc:
    """One run of chaos in a folder of its own."""

    def __init__(self, folder: Path, seed: int, disk: Path | None) -> None:
        self.dice = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.folder, self.disk = folder, disk
        self.videos, self.vault = folder / "videos", folder / "vault"
        self.reference, self.fit = folder / "reference.zarr", folder / "reference-run"
        self.store = (disk or folder) / "chaos.zarr"
        generate(self.vault, videos=VIDEOS, shapes=2, motions=2, n_jobs=2)
        shutil.copytree(self.vault, self.videos)
        self._must(self._extract(self.reference))
        self._must(self._fit(self.reference, self.fit))

    def _extract(self, store: Path, *more: str | Path) -> list[str | Path]:
        streams = [x for name, backbone in STREAMS.items() for x in ("--backbone", f"{name}={backbone}")]
        return ["extract", "--dataset", "actionshapes", "--videos", self.videos, "--store", store,
                "--streams", ",".join(STREAMS), *streams, "--sampler", "centre:4", "--shard-videos", "2",
                "--workers", "1", "--decode-timeout", "20", *more]  # fmt: skip

    def _fit(self, store: Path, run: Path) -> list[str | Path]:
        return ["fit-head", "--head", "san", "--streams", "rgb", "--preset", "small", "--store", store, "--out", run,
                "--device", "cpu", "--set", "steps=150"]  # fmt: skip

    def _start(self, arguments: list[str | Path]) -> subprocess.Popen[str]:
        log = (self.folder / "log.txt").open("a")
        return subprocess.Popen(
            [sys.executable, "-m", "vidatt", *map(str, arguments)], stdout=log, stderr=log, text=True
        )

    def _must(self, arguments: list[str | Path], codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "vidatt", *map(str, arguments)], capture_output=True, text=True, check=False
        )
        if done.returncode not in codes or "Traceback" in done.stderr:
            sys.exit(f"vidatt {' '.join(map(str, arguments))}\nended with {done.returncode}:\n{done.stderr}")
        return done

    def epoch(self, seconds: float) -> None:
        """Disturb one store for so long, mend it, and compare."""
        self.counts["epochs"] += 1
        until = time.time() + seconds
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, str(self.reference), str(self.store), str(until)],
            stdout=subprocess.PIPE,
            text=True,
        )
        running: list[subprocess.Popen[str]] = []
        while time.time() < until:
            running = [process for process in running if self._runs(process)]
            if len(running) < 2:
                self.counts["extractions"] += 1
                shard = self.dice.choice([[], [], ["--shard", "0/2"], ["--shard", "1/2"]])
                running.append(self._start(self._extract(self.store, *shard)))
            time.sleep(self.dice.uniform(0.2, 3.0))
            self.dice.choice(
                [self._kill, self._kill, self._kill, self._damage, self._break_video, self._mend_videos, self._fill]
            )(running)
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.wait()
        told, _ = reader.communicate()
        if reader.returncode:
            sys.exit(f"the reader ended with {reader.returncode}")
        read, refused = map(int, told.split())
        self.counts["videos read and equal to the truth"] += read
        self.counts["reads refused"] += refused
        self._mend()
        self._fit_under_kills()
        shutil.rmtree(self.store)

    def _runs(self, process: subprocess.Popen[str]) -> bool:
        code = process.poll()
        if code is not None and code not in HARMLESS:
            sys.exit(f"an extraction ended with {code}; see {self.folder / 'log.txt'}")
        return code is None

    def _kill(self, running: list[subprocess.Popen[str]]) -> None:
        """SIGKILL any process of any tree."""
        tree = [process.pid for process in running]
        for pid in tree:
            try:
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    tree += [int(child) for child in (thread / "children").read_text().split()]
            except FileNotFoundError:
                continue
        if tree:
            victim = self.dice.choice(tree)
            self.counts["kills of a command" if victim in {p.pid for p in running} else "kills of a child"] += 1
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                self.counts["kills of the dead"] += 1

    def _damage(self, running: list[subprocess.Popen[str]]) -> None:
        """Damage one committed file, or two; not the index, which stands nowhere else: a message says so."""
        streams = [self.store / name for name in STREAMS]
        shards = [path for stream in streams for path in sorted([*stream.glob("*/c.*"), *stream.glob(".done/*.json")])]
        if not shards:
            return
        path = self.dice.choice(shards)
        kind = self.dice.choice(["flip", "truncate", "remove", "garbage", "swap", "intent"])
        try:
            content = path.read_bytes()
            if kind == "flip" and content:
                place = self.dice.randrange(len(content))
                flipped = content[:place] + bytes([content[place] ^ 1 << self.dice.randrange(8)]) + content[place + 1 :]
                self._replace(path, flipped)
            elif kind == "truncate":
                self._replace(path, content[: len(content) // 2])
            elif kind == "remove":
                path.unlink()
            elif kind == "garbage":
                self._replace(path, self.dice.randbytes(len(content)))
            elif kind == "intent":
                stream = self.store / self.dice.choice(list(STREAMS))
                (stream / ".done" / "0.intent-0.json").write_bytes(self.dice.randbytes(40))
            else:
                other = self.dice.choice([p for p in shards if p.parent == path.parent])
                first, second = path.read_bytes(), other.read_bytes()
                self._replace(path, second)
                self._replace(other, first)
            self.counts[f"damage: {kind}"] += 1
        except OSError:  # an extraction was faster, or the disk is full
            self.counts["damage that met nothing"] += 1

    def _replace(self, path: Path, content: bytes) -> None:
        beside = self.folder / "damaged"
        beside.write_bytes(content)
        path.unlink()
        shutil.copyfile(beside, path)

    def _break_video(self, running: list[subprocess.Popen[str]]) -> None:
        path = self.dice.choice([p for p in sorted(self.vault.rglob("*")) if p.suffix in (".mp4", ".avi")])
        target = self.videos / path.relative_to(self.vault)
        kind = self.dice.choice(["missing", "garbage", "truncated"])
        target.unlink(missing_ok=True)
        if kind == "garbage":
            target.write_bytes(self.dice.randbytes(5000))
        elif kind == "truncated":
            target.write_bytes(path.read_bytes()[: self.dice.randrange(100, 5000)])
        self.counts[f"video {kind}"] += 1

    def _mend_videos(self, running: list[subprocess.Popen[str]]) -> None:
        for path in self.vault.rglob("*"):
            target = self.videos / path.relative_to(self.vault)
            if path.is_file() and (not target.exists() or target.stat().st_size != path.stat().st_size):
                shutil.copy2(path, target)

    def _fill(self, running: list[subprocess.Popen[str]]) -> None:
        """Leave a small disk almost no room for a moment."""
        if self.disk is None:
            return
        ballast = self.disk / "ballast"
        free = shutil.disk_usage(self.disk).free
        try:
            ballast.write_bytes(bytes(max(0, free - 20_000)))
            time.sleep(self.dice.uniform(0.2, 1.5))
        except OSError:
            pass  # an extraction took the room first
        ballast.unlink(missing_ok=True)
        self.counts["full disks"] += 1

    def _mend(self) -> None:
        """Do what a user would, as often as a user would, and compare with what nobody disturbed."""
        self._mend_videos([])
        if not (self.store / "zarr.json").exists():
            self._must(self._extract(self.store))
        before = self._must(["cache", "verify", self.store, "--json"], codes=(0, 1))
        self.counts["bad shards found by verify"] += len(json.loads(before.stdout)["bad"])
        self._must(["cache", "repair", self.store, "--videos", self.videos])
        self._must(self._extract(self.store), codes=(0, 1))
        self._must(self._extract(self.store, "--retry"))
        self._must(["cache", "verify", self.store])
        self._must(["status", self.store, "--check"])
        if odd := _odd(self.reference, self.store):
            sys.exit(f"the mended store differs from the undisturbed one in {odd}")
        self.counts["stores equal to the undisturbed one, byte for byte"] += 1

    def _fit_under_kills(self) -> None:
        run = self.folder / "run"
        for _ in range(8):
            process = self._start(self._fit(self.store, run))
            try:
                code = process.wait(self.dice.uniform(2.0, 12.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self.counts["kills of a fit"] += 1
                continue
            if code:
                sys.exit(f"a fit ended with {code}; see {self.folder / 'log.txt'}")
            break
        self._must(self._fit(self.store, run))
        weights = "weights.safetensors"
        if (run / weights).read_bytes() != (self.fit / weights).read_bytes():
            sys.exit("a fit that was killed has other weights than one that was not")
        self.counts["fits with the weights of an undisturbed one"] += 1
        shutil.rmtree(run)


def _odd(one: Path, other: Path) -> list[str]:
    """Files that two stores do not have alike."""
    files = [{str(p.relative_to(s)): p.read_bytes() for p in s.rglob("*") if p.is_file()} for s in (one, other)]
    return sorted(name for name in files[0].keys() | files[1].keys() if files[0].get(name) != files[1].get(name))


def main() -> None:
    """Run epochs until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--epoch-seconds", type=float, default=40.0, help="how long each store is disturbed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk", type=Path, help="a mounted disk of 8 MB or so: the store lies there and it fills up")
    given = parser.parse_args()
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="vidatt-chaos-") as folder:
        havoc = Havoc(Path(folder), given.seed, given.disk)
        try:
            while not havoc.counts["epochs"] or time.time() - started < 60 * given.minutes:
                havoc.epoch(given.epoch_seconds)
        except SystemExit:
            sys.stderr.write((Path(folder) / "log.txt").read_text()[-4000:])
            raise
    sys.stdout.write(json.dumps({"seconds": round(time.time() - started), **sorted_counts(havoc.counts)}) + "\n")


def sorted_counts(counts: Counter[str]) -> dict[str, int]:
    """Return the figures by name."""
    return dict(sorted(counts.items()))


if __name__ == "__main__":
    main()
