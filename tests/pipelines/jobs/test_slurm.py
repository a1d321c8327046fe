"""Job arrays of Slurm: their scripts as texts, and on a real Slurm with kills, a power cut and time that is up."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from testkit.commands import start_vidatt, vidatt
from testkit.slurm import Cluster, slurm_cluster
from testkit.stores import content, filled_store

from vidatt.errors import UsageError
from vidatt.extract.datasets.generator import generate
from vidatt.pipelines.jobs import slurm
from vidatt.pipelines.jobs.slurm import SlurmConfig, check_script, prepare, task_script
from vidatt.pipelines.jobs.work import Work, checked

RECORDED = Path(__file__).parent / "recorded"
REPOSITORY = Path(__file__).resolve().parents[3]


def work(store: str = "/cache/ucf101.zarr", *more: str, parts: int = 101) -> Work:
    return Work(
        command=("extract", "--dataset", "ucf101", "--store", store, *more),
        subject=Path(store),
        unit="shards",
        parts=parts,
        to_do=parts,
        finally_=(("status", store, "--check"), ("cache", "verify", store)),
    )


def config(**given: Any) -> SlurmConfig:
    return SlurmConfig(**{"tasks": 8, "logs": Path("/home/me/logs"), **given})


AWKWARD = "/scratch/my \"quoted\" 'store' é $HOME `x` #1; 100% \\ *.zarr"
CASES = {
    "plain": (config(), work(), Path("/home/me")),
    "full": (
        config(
            at_once=4, gpus="a100:1", cpus=8, memory="32G", time="12:00:00", partition="gpu", account="lab",
            grace_seconds=300, restarts=5, setup=("module load ffmpeg", 'export VIDATT_DATA="$SCRATCH/videos"'),
            options=("--constraint=a100", "--mail-type=END"),
        ),
        work(),
        Path("/home/me"),
    ),
    "awkward": (
        config(tasks=3, logs=Path("/home/me/my \"logs\" é 100%")), work(AWKWARD, "--option", ""), Path("/home/a 'b'"),
    ),
}  # fmt: skip


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter stands in the scripts; those on record name one that is nobody's."""
    monkeypatch.setattr(slurm, "PROGRAM", ("/env/bin/python", "-m", "vidatt"))


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("case", sorted(CASES))
def test_scripts_are_those_on_record(case: str) -> None:
    asked, what, folder = CASES[case]
    assert task_script(asked, what, folder) == (RECORDED / f"{case}.sbatch").read_text()
    assert check_script(asked, what, folder) == (RECORDED / f"{case}-check.sbatch").read_text()


@pytest.mark.parametrize("case", sorted(CASES))
def test_scripts_are_bash_and_hold_the_command_word_for_word(case: str, tmp_path: Path) -> None:
    asked, what, _ = CASES[case]
    asked = replace(asked, setup=())
    for script in (task_script(asked, what, tmp_path), check_script(asked, what, tmp_path)):
        file = tmp_path / "job"
        file.write_text(script)
        assert subprocess.run(["bash", "-n", file], capture_output=True, check=False, text=True).stderr == ""
    told = tmp_path / "vidatt"  # stands in for the interpreter: says its arguments
    told.write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    told.chmod(0o755)
    script = task_script(asked, what, tmp_path)
    own = shlex.join(slurm.PROGRAM)
    file.write_text(script.replace(own, str(told)))
    done = subprocess.run(["bash", file], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == list(what.command)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "to_shell", "restarts", "code", "queued"),
    [
        ("trap 'exit 75' USR1; touch begun; while :; do sleep 0.1; done", "USR1", 0, 75, 1),
        ("trap 'exit 0' USR1; touch begun; while :; do sleep 0.1; done", "USR1", 0, 0, 0),
        ("touch begun; exec sleep 60", "USR1", 0, 128 + signal.SIGUSR1, 1),  # before it catches signals
        ("trap 'exit 75' USR1; touch begun; while :; do sleep 0.1; done", "USR1", 100, 75, 0),
        ("trap '' USR1; touch begun; sleep 4; exit 0", "USR1", 0, 0, 1),  # too late: back to the queue meanwhile
        ("touch begun; sleep 1; exit 75", "TERM", 0, 75, 0),
        ("touch begun; exit 75", "", 0, 75, 0),
        ("touch begun; exit 3", "", 0, 3, 0),
    ],
)
def test_task_goes_back_to_the_queue_when_its_time_is_up_and_only_then(
    task: str, to_shell: str, restarts: int, code: int, queued: int, tmp_path: Path
) -> None:
    """Against programs that stand in for vidatt and scontrol; the real ones are below."""
    (tmp_path / "vidatt").write_text(f"#!/bin/bash\n{task}\n")
    (tmp_path / "scontrol").write_text('#!/bin/bash\necho "$@" >> queued\n')
    script = task_script(config(grace_seconds=30), work(), tmp_path).replace("sleep 15 ", "sleep 1 ")
    (tmp_path / "job").write_text(script.replace(shlex.join(slurm.PROGRAM), "./vidatt"))
    for name in ("vidatt", "scontrol"):
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_RESTART_COUNT": str(restarts),
        "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3",
    }  # fmt: skip
    shell = subprocess.Popen(["bash", tmp_path / "job"], env=environment, stderr=subprocess.DEVNULL)
    until((tmp_path / "begun").exists, "the task did not begin")
    if to_shell:
        shell.send_signal(signal.Signals[f"SIG{to_shell}"])
    assert shell.wait(60) == code
    asked = (tmp_path / "queued").read_text() if (tmp_path / "queued").exists() else ""
    assert asked == "requeue 7_3\n" * queued


def test_script_has_a_share_for_each_task_and_no_task_without() -> None:
    assert "#SBATCH --array=0-2\n" in task_script(config(), work(parts=3), Path("/"))
    assert "export VIDATT_SHARDS=3\n" in task_script(config(), work(parts=3), Path("/"))
    assert prepare(config(), work(parts=3), Path("/")).tasks == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": 0}, "tasks of a Slurm job is 0: must be 1 or more"),
        ({"grace_seconds": 20}, "grace_seconds of a Slurm job is 20: must be 30 or more"),
        ({"gpus": "two"}, "--gpus 'two': write a number such as 1, or TYPE:NUMBER"),
        ({"memory": "32 GB"}, "--memory '32 GB': write a number with K, M, G or T"),
        ({"time": "12h"}, "--time '12h': write minutes, H:MM:SS or D-HH:MM:SS"),
        ({"partition": "gpu --x"}, "--partition 'gpu --x': write a name"),
        ({"account": ""}, "--account '': write a name"),
        ({"setup": ("a\nb",)}, "holds a line break"),
        ({"options": ("constraint=a100",)}, "--sbatch 'constraint=a100': write an option of sbatch"),
        ({"logs": Path("/a\\b")}, "Slurm cannot write logs below a name with a backslash"),
        ({"logs": Path("/a\nb")}, "holds a line break"),
    ],
)
def test_what_slurm_would_misread_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        config(**given)


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x00b", "a\udcffb", "a\u2028b"])
def test_words_that_no_script_can_hold_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="rename it, or use a link"):
        checked([text])
    assert checked(["a b", "\u3000é'\""]) == ("a b", "\u3000é'\"")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["evaluate", "runs/x"], "`evaluate runs/x` cannot be divided among tasks"),
        (["extract", "--dataset", "folder", "--shard", "0/2"], "--shard is what each task is told by itself"),
        (["extract", "--dataset", "folder", "--dry-run"], "leave --dry-run out behind `--`"),
        (["extract", "--datset", "folder"], "No such option"),
        (["extract", "--dataset", "folder", "--videos", "nowhere"], "There is no folder nowhere"),
        (["fit-head", "--head", "mean", "--store", "s.zarr"], "One fit cannot be divided among tasks"),
        (["fit-head", "--head", "mean", "--store", "s.zarr", "--seeds", "2"], "No vidatt store at s.zarr"),
        ([], "Missing argument"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_commands_that_cannot_be_divided_are_told_in_one_line(command: list[str], message: str, tmp_path: Path) -> None:
    done = vidatt("submit", "slurm", "--dry-run", "--", *command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "my 'videos' é"
    generate(folder, videos=24, shapes=2, motions=2, n_jobs=2)
    return folder


def extract(videos: Path, store: Path) -> list[str | Path]:
    return ["extract", "--dataset", "actionshapes", "--videos", videos, "--store", store, "--streams", "rgb",
            "--backbone", "hog", "--sampler", "centre:6", "--shard-videos", "1", "--workers", "1"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.long
def test_without_slurm_the_store_is_planned_and_one_line_says_what_is_missing(shapes: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    environment = {**os.environ, "PATH": str(tmp_path)}
    dry = vidatt("submit", "slurm", "--dry-run", "--", *extract(shapes, store), cwd=tmp_path, env=environment)
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=vidatt-s\n#SBATCH --array=0-7\n")
    assert list(tmp_path.iterdir()) == []
    done = vidatt("submit", "slurm", "--", *extract(shapes, store), cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert "There is no `sbatch` on this machine" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "s.zarr"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm_cluster() as started:
        yield started


@pytest.fixture(scope="module")
def reference(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one undisturbed process makes."""
    store = tmp_path_factory.mktemp("reference") / "s.zarr"
    done = vidatt(*extract(shapes, store))
    assert done.returncode == 0, done.stderr
    return content(store)


def submitted(cluster: Cluster, folder: Path, *command: str | Path, tasks: int = 4) -> tuple[str, str, Path]:
    """Submit a job: its number, that of the check, and its script."""
    environment = {**cluster.environment, "PYTHONPATH": str(REPOSITORY.parent), "OMP_NUM_THREADS": "1"}
    done = vidatt("submit", "slurm", "--tasks", tasks, "--grace", "30", "--logs", folder / "my logs é", "--", *command,
                  cwd=folder, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    jobs = re.search(r"job (\d+): \d+ tasks; job (\d+) checks", done.stdout)
    assert jobs, done.stdout
    return jobs[1], jobs[2], folder / "my logs é" / "vidatt-s.sbatch"


def until(condition: Any, what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def logs(folder: Path) -> str:
    return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted((folder / "my logs é").glob("*.log")))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_array_with_kills_a_power_cut_and_requeues_makes_the_same_bytes_in_one_submission(
    cluster: Cluster, shapes: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    job, check, _ = submitted(cluster, tmp_path, *extract(shapes, store), tasks=8)
    assert (store / "zarr.json").exists()  # before any task
    until(lambda: len(list(store.glob("rgb/.done/[0-9]*.json"))) >= 2, "no shard was committed")
    cluster.run("scancel", "--signal=USR1", "--batch", f"{job}_0")  # the time of task 0 is up
    workers = cluster.processes("extraction.worker")
    assert workers
    os.kill(workers[-1], signal.SIGKILL)
    cluster.cut_node("node2")
    cluster.start_node("node2")
    assert set(cluster.wait(job)) == {"COMPLETED"}, logs(tmp_path)
    assert cluster.wait(check) == ["COMPLETED"], logs(tmp_path)
    said = logs(tmp_path)
    assert "SIGUSR1: finishing the shards in work" in said
    assert "s.zarr: complete; 24 videos in 24 shards" in said
    assert "s.zarr: all good" in said
    assert content(store) == reference


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_cancelled_array_continues_in_part_with_the_same_slices(
    cluster: Cluster, shapes: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    job, check, script = submitted(cluster, tmp_path, *extract(shapes, store))
    until(lambda: any(store.glob("rgb/.done/[0-9]*.json")), "no shard was committed")
    cluster.run("scancel", f"{job}_1", f"{job}_3")
    states = cluster.wait(job)
    assert sorted(states) == ["CANCELLED", "CANCELLED", "COMPLETED", "COMPLETED"]
    assert cluster.wait(check) == ["FAILED"], "the check must see that it is not complete"
    again = cluster.run("sbatch", "--parsable", "--array=1,3", str(script)).strip()
    assert set(cluster.wait(again)) == {"COMPLETED"}
    said = (tmp_path / "my logs é" / f"vidatt-s-{again}_3.log").read_text()
    assert "slice 3 of 4, counted from 0, by SLURM_ARRAY_TASK_ID and VIDATT_SHARDS" in said
    assert content(store) == reference


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_sweep_is_an_array_and_the_job_behind_it_gathers_the_table(cluster: Cluster, tmp_path: Path) -> None:
    filled_store(tmp_path / "store.zarr", [4] * 24, {"rgb": (3, 3, 8)})
    command = ["fit-head", "--head", "mean", "--preset", "small", "--set", "steps=2", "--store", "store.zarr",
               "--device", "cpu", "--sweep", "lr=1e-3,1e-4", "--seeds", "2", "--out", "s"]  # fmt: skip
    job, gather, _ = submitted(cluster, tmp_path, *command)
    assert set(cluster.wait(job)) == {"COMPLETED"}, logs(tmp_path)
    assert cluster.wait(gather) == ["COMPLETED"], logs(tmp_path)
    told = (tmp_path / "my logs é" / f"vidatt-s-check-{gather}.log").read_text()
    assert "slice 0 of 1, counted from 0, by --shard 0/1" in told
    assert [row.split()[:2] for row in told.splitlines() if row.startswith("1e-")] == [["1e-3", "2/2"], ["1e-4", "2/2"]]
    assert "4 of 4 runs are done (4 were before) in s" in told


@pytest.mark.slow
@pytest.mark.long
def test_task_that_is_refused_is_told_by_sbatch_in_one_line(cluster: Cluster, shapes: Path, tmp_path: Path) -> None:
    done = start_vidatt("submit", "slurm", "--partition", "none", "--", *extract(shapes, tmp_path / "s.zarr"),
                        cwd=tmp_path, env=cluster.environment)  # fmt: skip
    assert done.wait() == 1
    assert "vidatt: sbatch refused: sbatch: error: invalid partition specified: none" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("vidatt: ")]) == 1
