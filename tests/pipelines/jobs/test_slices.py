"""Slices at work: one plan for all tasks of an array, each reads its own markers, sweeps are divided too."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from testkit.commands import start_vidatt, vidatt
from testkit.stores import content, filled_store

from vidatt.cache.made_by import made_by
from vidatt.cache.publish import SCRATCH
from vidatt.cache.scratch import scratch_name
from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate
from vidatt.pipelines.extraction.planning import planning
from vidatt.pipelines.jobs.place import Place

pytestmark = [pytest.mark.slow, pytest.mark.long]


def extract(videos: Path, store: Path, *more: str | Path) -> list[str | Path]:
    return ["extract", "--dataset", "actionshapes", "--videos", videos, "--store", store, "--streams", "rgb",
            "--backbone", "hog", "--sampler", "every:8", "--shard-videos", "1", "--workers", "1", *more]  # fmt: skip


def task(number: int, count: int, *, first: int = 0) -> dict[str, str]:
    """What Slurm and the script tell a task."""
    return {**os.environ, "VIDATT_SHARDS": str(count), "SLURM_ARRAY_TASK_ID": str(number),
            "SLURM_ARRAY_TASK_MIN": str(first)}  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "videos"
    generate(folder, videos=8, shapes=2, motions=1, n_jobs=2)
    return folder


def test_part_of_an_array_again_takes_the_same_slices(shapes: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    for number in (5, 3):
        done = vidatt(*extract(shapes, store, "--json"), env=task(number, 8, first=3))
        assert done.returncode == 0, done.stderr
        said = f"slice {number} of 8, counted from 0, by SLURM_ARRAY_TASK_ID and VIDATT_SHARDS"
        assert sum(said in line for line in done.stderr.splitlines()) == 1
        assert json.loads(done.stdout)["videos"] == 1
    stream = Store.open(store).stream("rgb")
    assert [shard for shard in range(8) if stream.is_done(shard)] == [3, 5]


def test_tasks_that_start_before_the_store_is_there_wait_for_the_first(shapes: Path, tmp_path: Path) -> None:
    alone = vidatt(*extract(shapes, tmp_path / "alone.zarr"))
    assert alone.returncode == 0, alone.stderr
    store = tmp_path / "s.zarr"
    sign = tmp_path / f"s.zarr{SCRATCH}-{scratch_name()}"  # this process is seen to plan
    sign.mkdir()
    others = [start_vidatt(*extract(shapes, store), env=task(number, 3)) for number in (1, 2)]
    deadline = time.monotonic() + 60
    while not all("another task plans it" in other.stderr for other in others):
        assert time.monotonic() < deadline, [other.stderr for other in others]
        time.sleep(0.05)
    first = vidatt(*extract(shapes, store), env=task(0, 3))
    assert first.returncode == 0, first.stderr
    sign.rmdir()
    assert [other.wait() for other in others] == [0, 0]
    assert content(store) == content(tmp_path / "alone.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alone.zarr", "alone.zarr.commands.jsonl", "s.zarr", "s.zarr.commands.jsonl",
    ]  # fmt: skip
    assert len({entry.command for entry in made_by(store)}) == 1  # of three tasks


def test_task_without_a_living_first_one_plans_itself(shapes: Path, tmp_path: Path) -> None:
    dead = start_vidatt("--version")
    dead.wait()
    host = scratch_name().rsplit("-", 2)[0]
    (tmp_path / f"s.zarr{SCRATCH}-{host}-{dead.pid}-0").mkdir()
    done = vidatt(*extract(shapes, tmp_path / "s.zarr"), env=task(1, 3), timeout=120)
    assert done.returncode == 0, done.stderr
    assert Store.open(tmp_path / "s.zarr").stream("rgb").is_done(1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "s.zarr.commands.jsonl"]


def test_planner_is_seen_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with planning(tmp_path / "s.zarr", Place(index=0, count=2)):
        assert [path.name.startswith(f"s.zarr{SCRATCH}-") for path in tmp_path.iterdir()] == [True]
    assert list(tmp_path.iterdir()) == []
    with planning(tmp_path / "s.zarr", Place()):
        assert list(tmp_path.iterdir()) == []


def test_slice_reads_no_marker_of_another(shapes: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    whole = vidatt(*extract(shapes, store, "--json"))
    assert whole.returncode == 0, whole.stderr
    for marker in (store / "rgb/.done").glob("*.json"):
        if marker.name != "1.json":
            marker.write_text("not to be read")
    one = vidatt(*extract(shapes, store, "--shard", "1/8", "--json"))
    assert one.returncode == 0, one.stderr
    summary = json.loads(one.stdout)
    assert summary["outcomes"] == {"ok": 1}
    assert 0 < summary["streams"]["rgb"]["segments"] < json.loads(whole.stdout)["streams"]["rgb"]["segments"]


def test_sweep_is_divided_among_tasks_and_gathered_by_the_same_command(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    filled_store(store, [4] * 24, {"rgb": (3, 3, 8)})
    command = ["fit-head", "--head", "mean", "--preset", "small", "--set", "steps=2", "--store", store,
               "--device", "cpu", "--json", "--out", tmp_path / "sweep"]  # fmt: skip
    vary = ["--sweep", "lr=1e-3,1e-4", "--seeds", "2"]
    for number, runs in ((0, ["lr=1e-3,seed=0", "lr=1e-4,seed=1"]), (2, ["lr=1e-4,seed=0"])):
        done = vidatt(*command, *vary, env=task(number, 3))
        assert done.returncode == 0, done.stderr
        assert f"slice {number} of 3" in done.stderr
        assert [Path(run["run"]).name for run in json.loads(done.stdout)["runs"]] == runs
    gathered = vidatt(*command, *vary)
    assert gathered.returncode == 0, gathered.stderr
    result = json.loads(gathered.stdout)
    assert len(result["runs"]) == 4
    assert [run["finished_before"] for run in result["runs"]] == [True, False, True, True]
    none = vidatt(*command, *vary, env=task(5, 6))
    assert (none.returncode, json.loads(none.stdout)["runs"]) == (0, [])
    alone = vidatt(*command, "--shard", "0/2")
    assert (alone.returncode, "--shard is for several fits" in alone.stderr) == (2, True)
