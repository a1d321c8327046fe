"""Fits that are killed, stopped and resumed: real processes, real signals, equal bits."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from testkit.commands import Running, start_program
from testkit.stores import filled_store

from vidatt.errors import InterruptedRunError, UsageError
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.runs.run import Run

QUICK = {"conv6": "8", "lstm": "8", "steps": "24", "validate_every": "8"}
STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def quick(store: Path, out: Path, **settings: str) -> FitConfig:
    return FitConfig(head="stan", store=store, out=out, preset="small", settings=QUICK | settings, device="cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "s.zarr"
    return filled_store(path, [5] * 100, {"rgb": (5, 5, 12)}, videos_per_shard=16).path


def same(one: Path, other: Path) -> bool:
    a, b = (load_file(run / "weights.safetensors") for run in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


CHILD = """
import json, sys
from pathlib import Path
from vidatt.errors import VidattError
from vidatt.pipelines.fitting.fit import FitConfig, fit
store, out, settings, interval = json.loads(sys.argv[1])
try:
    fit(FitConfig(head="stan", store=Path(store), out=Path(out), preset="small", settings=settings, device="cpu",
                  checkpoint_seconds=interval))
except VidattError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
# twelve batches an epoch: hardly any interruption falls on the border of an epoch
LONG = QUICK | {"steps": "210", "validate_every": "7", "batch_videos": "4"}


def start(store: Path, out: Path, interval: float) -> Running:
    arguments = json.dumps([str(store), str(out), LONG, interval])
    return start_program(CHILD, arguments)


def wait_for(condition: Callable[[], bool], child: Running) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert child.poll() is None, child.stderr
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    child = start(store, out, 60.0)
    assert child.wait(120) == 0, child.stderr
    return out


@pytest.mark.slow
@pytest.mark.long
def test_fit_killed_with_kill_9_resumes_to_bit_identical_weights(store, uninterrupted, tmp_path):
    out, kills = tmp_path / "killed", 0
    for rows in (4, 12):
        child = start(store, out, 0.0)
        history = out / "history.csv"
        wait_for(lambda: history.exists() and len(history.read_text().splitlines()) > rows, child)  # noqa: B023
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert (out / "checkpoint.pt").exists()
        assert not (out / "metrics.json").exists()
        kills += 1
    child = start(store, out, 60.0)
    assert child.wait(120) == 0, child.stderr
    assert kills == 2
    assert "continues after step" in (out / "log.txt").read_text()
    assert same(out, uninterrupted)
    columns = [
        [row.split(",")[:6] for row in (run / "history.csv").read_text().splitlines()] for run in (out, uninterrupted)
    ]
    assert columns[0] == columns[1]
    assert not (out / "checkpoint.pt").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fit_stops_in_good_order_on_a_signal_and_resumes(store, uninterrupted, tmp_path, number):
    out = tmp_path / "stopped"
    child = start(store, out, 60.0)
    wait_for((out / "history.csv").exists, child)
    child.send_signal(number)
    assert child.wait(60) == 75
    error = child.stderr.splitlines()[-1]
    assert f"Stopped by {number.name} after step" in error
    assert "the same command continues" in error
    assert (out / "checkpoint.pt").exists()
    child = start(store, out, 60.0)
    assert child.wait(120) == 0, child.stderr
    assert same(out, uninterrupted)


@pytest.mark.slow
def test_fit_in_a_thread_works_without_signals(store, tmp_path):
    results: list[dict] = []
    thread = threading.Thread(target=lambda: results.append(fit(quick(store, tmp_path / "r"))))
    thread.start()
    thread.join()
    assert results[0].steps == 24


@pytest.mark.slow
def test_fit_signal_handlers_are_restored(store, tmp_path):
    before = [signal.getsignal(number) for number in STOPS]
    fit(quick(store, tmp_path / "r"))
    assert before == [signal.getsignal(number) for number in STOPS]


def test_fit_interrupted_in_process_raises_and_restores(store, tmp_path):
    def kill_soon() -> None:
        while not (tmp_path / "r" / "history.csv").exists():
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=kill_soon)
    thread.start()
    with pytest.raises(InterruptedRunError, match="SIGUSR1") as caught:
        fit(quick(store, tmp_path / "r", steps="100000", validate_every="7"))
    thread.join()
    assert caught.value.exit_code == 75
    assert Run.open(tmp_path / "r").checkpoint()["step"] >= 7
    with pytest.raises(UsageError, match="is not finished"):
        evaluate(tmp_path / "r", device="cpu")
