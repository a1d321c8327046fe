"""Children outlive the thread that wanted them, never the process; one that is killed in a shard is replaced."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from testkit.commands import start_program

from vidatt.extract.child import Child
from vidatt.extract.datasets.generator import generate
from vidatt.extract.decoder import Decoder, DecoderSettings
from vidatt.extract.extractor import Extractor, ShardArrays
from vidatt.extract.kinds import RGB
from vidatt.extract.sampling import Sampler
from vidatt.extract.segments import ShardJob, VideoEnd, VideoJob
from vidatt.extract.streams import StreamConfig
from vidatt.extract.views import CENTER, Geometry
from vidatt.extract.windows import StreamInput

HOG = StreamConfig(name="rgb", backbone="hog", resize="short:28", crop_px=28)
RAW = StreamInput(name="rgb", kind=RGB, geometry=Geometry(resize="none", crop_px=28), views=CENTER)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("children") / "videos"
    generate(folder, videos=8, shapes=2, motions=1, frames=12, n_jobs=1)
    return sorted(folder.rglob("*.mp4"))


def _job(path: Path) -> VideoJob:
    return VideoJob(id=path.name, path=path, sampler=Sampler.parse("uniform:3"), window_frames=1, segments=3)


def _shard(paths: list[Path]) -> ShardJob:
    return ShardJob(0, 3 * len(paths), tuple(map(_job, paths)), tuple(range(0, 3 * len(paths), 3)))


@pytest.fixture
def extractor() -> Iterator[Extractor]:
    with Extractor((HOG.setup("cpu"),), decoders=2, settings=DecoderSettings(timeout_seconds=30)) as one:
        yield one


def _pids(extractor: Extractor) -> list[int | None]:
    return [decoder.pid for decoder in extractor._decoders]


def _gone(pid: int, *, seconds: float) -> bool:
    """Whether a process ends within some time; a zombie has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.slow
def test_two_runs_of_an_extractor_have_the_same_decoders(extractor: Extractor, paths: list[Path]) -> None:
    (first,) = extractor.run([_shard(paths)])
    before = _pids(extractor)
    assert None not in before
    time.sleep(0.3)
    for _ in range(3):
        (again,) = extractor.run([_shard(paths)])
        assert [report.outcome for report in again.reports] == ["ok"] * len(paths)
        assert np.array_equal(again.streams["rgb"].cubes, first.streams["rgb"].cubes)
    assert _pids(extractor) == before


@pytest.mark.slow
def test_a_decoder_killed_in_the_middle_of_a_shard_costs_nothing(extractor: Extractor, paths: list[Path]) -> None:
    (undisturbed,) = extractor.run([_shard(paths)])
    seen = []

    def kill(report: object) -> None:
        seen.append(report)
        pid = _pids(extractor)[len(seen) % 2]
        if pid is not None and len(seen) in (1, 4):
            os.kill(pid, signal.SIGKILL)

    found: list[ShardArrays] = list(extractor.run([_shard(paths)], progress=kill))
    assert [report.outcome for report in found[0].reports] == ["ok"] * len(paths)
    for name in ("cubes", "frames", "seconds"):
        a, b = (getattr(arrays.streams["rgb"], name) for arrays in (found[0], undisturbed))
        assert np.array_equal(a, b)


def _in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.slow
def test_a_child_lives_longer_than_the_thread_that_made_it(paths: list[Path]) -> None:
    decoder = Decoder((RAW,), DecoderSettings())
    try:
        _in_a_thread(lambda: decoder.submit(_job(paths[0])))
        time.sleep(0.5)
        *_, end = decoder.messages()
        assert isinstance(end, VideoEnd)
        assert end.report.outcome == "ok"
        pid = decoder.pid
        _in_a_thread(lambda: decoder.submit(_job(paths[1])))
        *_, end = decoder.messages()
        assert decoder.pid == pid
    finally:
        decoder.close()


def test_a_child_of_a_forked_process_works() -> None:
    Child("vidatt.extract.decoder:serve").kill()  # the thread that starts children is there, and no fork has it
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(20)
            Child("vidatt.extract.decoder:serve").kill()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from vidatt.extract.decoder import Decoder, DecoderSettings
from vidatt.extract.sampling import Sampler
from vidatt.extract.segments import CountJob
decoder = Decoder((), DecoderSettings())
thread = threading.Thread(
    target=decoder.submit, args=(CountJob(path=Path(sys.argv[1]), sampler=Sampler.parse("every:1")),)
)
thread.start()
thread.join()
list(decoder.messages())
if sys.argv[2] == "stopped":  # as if it hung in FFmpeg: none of its own code runs
    os.kill(decoder.pid, signal.SIGSTOP)
print(decoder.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.slow
@pytest.mark.parametrize("state", ["waiting", "stopped"])
def test_a_killed_parent_leaves_no_orphan(paths: list[Path], state: str) -> None:
    parent = start_program(KILLED, paths[0], state)
    end = time.monotonic() + 60
    while not parent.stdout and time.monotonic() < end:
        time.sleep(0.02)
    pid = int(parent.stdout)
    assert not _gone(pid, seconds=0.1)
    parent.send_signal(signal.SIGKILL)
    assert parent.wait() == -signal.SIGKILL
    assert _gone(pid, seconds=10)
