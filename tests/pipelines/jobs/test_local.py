"""Tasks as processes of this machine: all there, one killed, all stopped, and continued."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from testkit.commands import Running, start_vidatt, vidatt
from testkit.stores import content

from vidatt.extract.datasets.generator import generate
from vidatt.pipelines.jobs.local import LocalRun, LocalTask

pytestmark = [pytest.mark.slow, pytest.mark.long]

REPOSITORY = Path(__file__).resolve().parents[3]


def extract(videos: Path, store: Path) -> list[str | Path]:
    return ["extract", "--dataset", "actionshapes", "--videos", videos, "--store", store, "--streams", "rgb",
            "--backbone", "hog", "--sampler", "centre:6", "--shard-videos", "1", "--workers", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "videos"
    generate(folder, videos=24, shapes=2, motions=2, n_jobs=2)
    return folder


@pytest.fixture(scope="module")
def reference(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    store = tmp_path_factory.mktemp("reference") / "s.zarr"
    done = vidatt(*extract(shapes, store))
    assert done.returncode == 0, done.stderr
    return content(store)


def begin(folder: Path, *command: str | Path) -> Running:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY.parent)}  # the tasks are processes of their own
    return start_vidatt("submit", "local", "--tasks", "2", "--json", "--", *command, cwd=folder, env=environment)


def until(condition: Callable[[], object], running: Running, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.stderr
        assert time.monotonic() < deadline, running.stderr
        time.sleep(0.02)


def tasks_of(running: Running) -> list[int]:
    """Processes of the tasks: they are started in sessions of their own."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"--shard" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_killed_task_is_told_and_the_same_command_continues(
    shapes: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    first = begin(tmp_path, *extract(shapes, store))
    until(lambda: len(list(store.glob("rgb/.done/[0-9]*.json"))) >= 2, first)
    os.kill(tasks_of(first)[1], signal.SIGKILL)
    assert first.wait() == 1, first.stderr
    told = json.loads(first.stdout)
    assert [task["exit_code"] for task in told["tasks"]] == [0, -signal.SIGKILL]
    assert "task 1 of 2 ended with SIGKILL" in first.stderr
    assert len(list(store.glob("rgb/.done/[0-9]*.json"))) < 24
    again = begin(tmp_path, *extract(shapes, store))
    assert again.wait() == 0, again.stderr
    assert (json.loads(again.stdout)["unit"], json.loads(again.stdout)["parts"]) == ("shards", 24)
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"vidatt-s-0.log", "vidatt-s-1.log"}
    assert vidatt("status", store, "--check").returncode == 0
    assert content(store) == reference


def test_stop_signal_reaches_all_tasks_once(shapes: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    running = begin(tmp_path, *extract(shapes, store))
    until(lambda: any(store.glob("rgb/.done/[0-9]*.json")), running)
    tasks = tasks_of(running)
    running.send_signal(signal.SIGTERM)
    assert running.wait() == 75, running.stderr
    assert [line for line in running.stderr.splitlines() if line.startswith("vidatt: ")] == [
        "vidatt: Interrupted: 0 of 2 tasks are finished, what they committed stays; see logs. "
        "Run the same command again."
    ]
    for index in (0, 1):
        assert "SIGTERM: finishing the shards in work" in (tmp_path / f"logs/vidatt-s-{index}.log").read_text()
    assert not [pid for pid in tasks if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize(
    ("codes", "code"), [([0, 0], 0), ([0, 75], 75), ([1, 75], 1), ([2, 2], 2), ([0, -9], 1), ([3, 0], 3)]
)
def test_exit_code_is_that_of_the_tasks_where_they_agree(codes: list[int], code: int) -> None:
    tasks = tuple(LocalTask(index=i, exit_code=c, log="", last="") for i, c in enumerate(codes))
    assert LocalRun(name="", work="", unit="shards", parts=2, tasks=tasks, seconds=0.0).exit_code == code
