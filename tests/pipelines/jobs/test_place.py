"""Which slice a process takes, over environments as schedulers set them (recorded where one was at hand)."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidatt.errors import UsageError
from vidatt.pipelines.jobs.allotment import given_cards, given_cores
from vidatt.pipelines.jobs.place import Place, find_place, parse_slice

# Slurm 22.05: the batch script of a task of `sbatch --array=3,5 --ntasks=2 --cpus-per-task=2 --gres=gpu:2`
SLURM_BATCH = {
    "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2",
    "SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MAX": "5", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_STEP": "1",
    "SLURM_CPUS_ON_NODE": "2", "SLURM_CPUS_PER_TASK": "2", "SLURM_GTIDS": "0", "SLURM_JOB_ID": "1",
    "SLURM_LOCALID": "0", "SLURM_NNODES": "2", "SLURM_NODEID": "0", "SLURM_NPROCS": "2", "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0", "SLURM_TASKS_PER_NODE": "1(x2)",
}  # fmt: skip
# the same, rank 1 of `srun -n 2` in it
SLURM_STEP = SLURM_BATCH | {
    "SLURM_GTIDS": "1", "SLURM_NODEID": "1", "SLURM_PROCID": "1", "SLURM_STEP_ID": "0", "SLURM_STEPID": "0",
    "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}  # fmt: skip
ALONE = {name: value for name, value in SLURM_STEP.items() if "ARRAY" not in name}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}
OF_8 = {"VIDATT_SHARDS": "8"}


def array(task: int, first: int, last: int, count: int) -> dict[str, str]:
    return {
        "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_MIN": str(first), "SLURM_ARRAY_TASK_MAX": str(last),
        "SLURM_ARRAY_TASK_COUNT": str(count), "SLURM_PROCID": "0", "SLURM_NTASKS": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "index", "count", "first", "source"),
    [
        pytest.param({}, 0, 1, True, "", id="nothing"),
        pytest.param(SLURM_BATCH | OF_8, 5, 8, False, "SLURM_ARRAY_TASK_ID and VIDATT_SHARDS", id="part again"),
        pytest.param(array(3, 3, 5, 2) | OF_8, 3, 8, True, "SLURM_ARRAY_TASK_ID and", id="first of a part"),
        pytest.param(array(7, 0, 7, 8), 7, 8, False, "SLURM_ARRAY_TASK_ID (without VIDATT_SHARDS", id="whole array"),
        pytest.param(array(3, 1, 4, 4), 2, 4, False, "SLURM_ARRAY_TASK_ID (without", id="whole array from 1"),
        pytest.param(
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"},
            2, 4, False, "SLURM_ARRAY_TASK_ID (without", id="whole array, as old Slurms say it",
        ),
        pytest.param(SLURM_STEP | OF_8, 11, 16, False, "VIDATT_SHARDS, SLURM_PROCID and", id="step in an array"),
        pytest.param(ALONE, 1, 2, False, "SLURM_PROCID and SLURM_STEP_NUM_TASKS", id="step"),
        pytest.param({"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}, 3, 8, False, "SLURM_PROCID and SLURM_NT", id="rank"),
        pytest.param({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, 0, 1, True, "", id="batch script for 8 ranks, alone"),
        pytest.param({"SLURM_PROCID": "3", "SLURM_NTASKS": "8"} | OF_8, 3, 8, False, "SLURM_PROCID", id="rank of 8"),
        pytest.param(TORCHRUN, 3, 4, False, "RANK and WORLD_SIZE", id="torchrun"),
        pytest.param(ALONE | TORCHRUN, 3, 4, False, "RANK and WORLD_SIZE", id="torchrun, started by srun"),
        pytest.param(array(1, 0, 1, 2) | TORCHRUN, 7, 8, False, "RANK and WORLD_SIZE", id="torchrun in an array"),
        pytest.param({"JOB_COMPLETION_INDEX": "0"} | OF_8, 0, 8, True, "JOB_COMPLETION_INDEX and", id="kubernetes"),
        pytest.param({"PBS_ARRAY_INDEX": "7"} | OF_8, 7, 8, False, "PBS_ARRAY_INDEX and VIDATT_SHARDS", id="pbs"),
        pytest.param({"PBS_ARRAYID": "7"} | OF_8, 7, 8, False, "PBS_ARRAYID and VIDATT_SHARDS", id="torque"),
        pytest.param({"LSB_JOBINDEX": "1", "LSB_JOBINDEX_END": "8"} | OF_8, 0, 8, True, "LSB_JOBINDEX and", id="lsf"),
        pytest.param({"LSB_JOBINDEX": "0", "LSB_JOBID": "5"}, 0, 1, True, "", id="lsf, no array"),
        pytest.param({"SGE_TASK_ID": "8", "SGE_TASK_LAST": "8"} | OF_8, 7, 8, False, "SGE_TASK_ID and", id="sge"),
        pytest.param({"SGE_TASK_ID": "undefined"}, 0, 1, True, "", id="sge, no array"),
        pytest.param({"VIDATT_SHARDS": "1"}, 0, 1, True, "", id="one slice"),
        pytest.param({"RANK": "0", "WORLD_SIZE": "1"}, 0, 1, True, "", id="one rank"),
    ],
)  # fmt: skip
def test_place_follows_the_environment(
    environment: dict[str, str], index: int, count: int, first: bool, source: str
) -> None:
    place = find_place(None, environment)
    assert (place.index, place.count, place.first) == (index, count, first)
    assert source in place.source
    assert bool(source) == bool(place.source)


def test_option_counts_whatever_the_environment_says() -> None:
    place = find_place("1/3", SLURM_STEP | TORCHRUN | {"VIDATT_SHARDS": "nonsense"})
    assert place == Place(index=1, count=3, source="--shard 1/3")
    assert str(place) == "slice 1 of 3, counted from 0, by --shard 1/3"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (array(5, 3, 5, 2), "task 5 of a Slurm array .* nothing says of how many: `export VIDATT_SHARDS=N`"),
        ({"JOB_COMPLETION_INDEX": "2"}, "task 2 of a Kubernetes array .*--shard I/N"),
        ({"PBS_ARRAY_INDEX": "1"}, "task 1 of a PBS array"),
        (array(8, 1, 8, 8) | OF_8, "task 8 of a Slurm array, but VIDATT_SHARDS is 8: number the tasks from 0"),
        ({"LSB_JOBINDEX": "9"} | OF_8, "task 9 of a LSF array, but VIDATT_SHARDS is 8: number the tasks from 1"),
        (OF_8, "VIDATT_SHARDS is 8, but nothing says which of them this process is"),
        (OF_8 | TORCHRUN, "VIDATT_SHARDS is 8, but RANK and WORLD_SIZE count 4"),
        ({"VIDATT_SHARDS": "0"}, "VIDATT_SHARDS is 0"),
        ({"VIDATT_SHARDS": "-1"}, "VIDATT_SHARDS is '-1': it is a whole number"),
        ({"VIDATT_SHARDS": "four", "SLURM_ARRAY_TASK_ID": "0"}, "VIDATT_SHARDS is 'four': it is a whole number"),
        ({"SLURM_ARRAY_TASK_ID": "x"} | OF_8, "SLURM_ARRAY_TASK_ID is 'x': it is a whole number"),
        ({"SLURM_ARRAY_TASK_ID": "3", "JOB_COMPLETION_INDEX": "4"} | OF_8, "SLURM_ARRAY_TASK_ID=3, JOB_COMPLETION"),
        ({"SGE_TASK_ID": "0"} | OF_8, "SGE_TASK_ID is 0, and SGE counts from 1"),
        ({"RANK": "1"}, "RANK is set and WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set and RANK is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, but WORLD_SIZE is 2: ranks count from 0"),
        ({"JOB_COMPLETION_INDEX": "1"} | OF_8 | TORCHRUN, "both count the pods of this job"),
    ],
)
def test_contradictions_and_nonsense_are_one_line(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as told:
        find_place(None, environment)
    assert "\n" not in str(told.value)
    assert "--shard I/N" in str(told.value)


def test_every_part_of_an_array_has_its_slice_and_no_slice_has_two() -> None:
    ranks = [array(task, 0, 2, 3) | {"RANK": str(rank), "WORLD_SIZE": "4"} for task in range(3) for rank in range(4)]
    places = [find_place(None, environment) for environment in ranks]
    assert [place.index for place in places] == list(range(12))
    assert {place.count for place in places} == {12}
    assert [place.first for place in places] == [True] + [False] * 11


@pytest.mark.parametrize("text", ["1", "4/4", "-1/4", "1/x", "1/4/2", "٣/٤", ""])
def test_slices_are_spelled_one_way(text: str) -> None:
    with pytest.raises(UsageError, match="write I/N"):
        parse_slice(text)


def _root(folder: Path, groups: str, **files: str) -> Path:
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_cores_are_those_of_the_scheduler(tmp_path: Path) -> None:
    bare = _root(tmp_path / "bare", "0::/\n")
    assert given_cores({}, visible=64, root=bare) == 64
    assert given_cores(SLURM_STEP, visible=64, root=bare) == 2
    assert given_cores({"SLURM_CPUS_ON_NODE": "12"}, visible=64, root=bare) == 12
    of_four = {"SLURM_CPUS_ON_NODE": "12", "SLURM_STEP_TASKS_PER_NODE": "2(x3),4", "SLURM_NODEID": "3"}
    assert given_cores(of_four | {"SLURM_LOCALID": "1"}, visible=64, root=bare) == 3
    assert (
        given_cores({"LSB_DJOB_NUMPROC": "6"}, visible=64, root=bare)
        == given_cores({"NSLOTS": "6"}, visible=64, root=bare)
        == 6
    )
    assert given_cores({"NCPUS": "200"}, visible=64, root=bare) == 64
    assert given_cores(TORCHRUN, visible=64, root=bare) == 32
    assert given_cores({"SLURM_CPUS_PER_TASK": "", "NSLOTS": "many"}, visible=64, root=bare) == 64


def test_cores_are_those_of_the_control_group(tmp_path: Path) -> None:
    two = _root(
        tmp_path / "2", "0::/job/step\n", **{"job__cpu.max": "250000 100000", "job__step__cpu.max": "max 100000"}
    )
    assert given_cores({}, visible=64, root=two) == 3
    one = _root(
        tmp_path / "1", "4:memory:/job\n3:cpu,cpuacct:/job\n",
        **{"cpu__job__cpu.cfs_quota_us": "400000", "cpu__job__cpu.cfs_period_us": "100000",
           "cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000"},
    )  # fmt: skip
    assert given_cores({}, visible=64, root=one) == 4
    assert given_cores({"SLURM_CPUS_PER_TASK": "2"}, visible=64, root=one) == 2


def test_gpus_are_divided_among_neighbours_that_see_the_same_ones() -> None:
    four = ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert given_cards(four, {}) == four
    assert given_cards(four, TORCHRUN) == ["cuda:1", "cuda:3"]
    assert given_cards(four[:1], TORCHRUN) == ["cuda:0"]
    step = {"SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_NODEID": "0", "SLURM_LOCALID": "2"}
    assert given_cards(four, step) == ["cuda:2"]
    assert given_cards(four, step | {"SLURM_GPUS_PER_TASK": "4"}) == four
    assert given_cards(four[:1], step) == ["cuda:0"]
    assert given_cards([], step) == []
