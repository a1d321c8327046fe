"""A job array of Slurm: its script, that of the job which checks afterwards, and both handed to sbatch."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError, VidattError
from ..record import Record
from .place import COUNT
from .work import PROGRAM, Work, checked, require_forms, require_least

LATE_SECONDS = 15
"""So long before the time is up, a task that is still finishing goes back to the queue as it is."""

_QUEUE_AGAIN = """\
queue_again() {{
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
        scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
    else
        echo "queued {restarts} times: not again" >&2
    fi
}}
# {grace} s before the time is up Slurm sends USR1 to this shell alone: the task finishes
# what it has begun, ends with 75 and goes back to the queue; so it does if it cannot finish in time.
# TERM (scancel) reaches the task itself.
caught=0 time_is_up=0
time_is_up() {{
    caught=1
    [ "$time_is_up" = 0 ] || return
    time_is_up=1
    kill -USR1 "$task"
    (sleep {late} && queue_again) &
    late=$!
}}
trap time_is_up USR1
trap 'caught=1' TERM
"""
_WAIT = """\
task=$!
while wait "$task"; code=$?; [ "$caught" = 1 ]; do caught=0; done
if [ "$time_is_up" = 1 ]; then
    kill "$late"
    if [ "$code" = 75 ] || [ "$code" -gt 128 ]; then queue_again; fi
fi
exit "$code"
"""

_FORMS = {
    "gpus": (r"([A-Za-z][\w.-]*:)?\d+", "a number such as 1, or TYPE:NUMBER such as a100:1"),
    "memory": (r"\d+[KMGT]?", "a number with K, M, G or T, such as 32G"),
    "time": (r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", "minutes, H:MM:SS or D-HH:MM:SS, such as 12:00:00"),
    "partition": (r"[\w.,+-]+", "a name"),
    "account": (r"[\w.,+@-]+", "a name"),
}


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What a task asks of Slurm; None leaves it to the site.

    Raises
    ------
    UsageError
        On numbers out of range and texts that Slurm would read as something else.
    """

    tasks: int
    logs: Path  # absolute
    at_once: int | None = None  # tasks; None = as many as there is room for
    gpus: str | None = None  # of a task
    cpus: int | None = None  # of a task
    memory: str | None = None  # of a task
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    grace_seconds: int = 120  # before the time is up
    restarts: int = 100  # after which a task is not queued again
    setup: tuple[str, ...] = ()  # lines of shell ahead of the command, such as `module load ffmpeg`
    options: tuple[str, ...] = ()  # more of sbatch's own, such as --constraint=a100

    def __post_init__(self) -> None:
        require_least(self, "Slurm", {"tasks": 1, "at_once": 1, "cpus": 1, "grace_seconds": 30, "restarts": 0})
        require_forms(self, _FORMS)
        checked((*self.setup, *self.options, str(self.logs)))
        if odd := [option for option in self.options if not option.startswith("-")]:
            raise UsageError(f"--sbatch {odd[0]!r}: write an option of sbatch, such as --sbatch=--constraint=a100.")
        if "\\" in str(self.logs):
            raise UsageError(
                f"--logs {self.logs}: Slurm cannot write logs below a name with a backslash; take another."
            )


@dataclass(frozen=True, kw_only=True)
class SlurmSubmission(Record):
    """A job array and the job that checks afterwards."""

    name: str
    work: str  # its store, or the folder of its runs
    unit: str  # "shards" or "fits"
    parts: int
    to_do: int
    tasks: int
    script: str
    script_file: str
    check_script: str
    check_file: str
    job: str | None  # None: not submitted
    check_job: str | None


def prepare(config: SlurmConfig, work: Work, folder: Path) -> SlurmSubmission:
    """Write the scripts as texts; nothing is submitted.

    Parameters
    ----------
    folder : where the tasks run, against which the command's paths are meant
    """
    name = work.name
    return SlurmSubmission(
        name=name,
        work=str(work.subject),
        unit=work.unit,
        parts=work.parts,
        to_do=work.to_do,
        tasks=min(config.tasks, work.parts),
        script=task_script(config, work, folder),
        script_file=str(config.logs / f"{name}.sbatch"),
        check_script=check_script(config, work, folder),
        check_file=str(config.logs / f"{name}-check.sbatch"),
        job=None,
        check_job=None,
    )


def submit(prepared: SlurmSubmission) -> SlurmSubmission:
    """Write the scripts to their files and submit them.

    Raises
    ------
    UsageError
        Where there is no sbatch.
    VidattError
        With what sbatch says, if it refuses.
    """
    script, check = Path(prepared.script_file), Path(prepared.check_file)
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(prepared.script, encoding="utf-8")
    check.write_text(prepared.check_script, encoding="utf-8")
    job = _sbatch(str(script))
    try:
        check_job = _sbatch(f"--dependency=afterany:{job}", str(check))
    except VidattError as error:
        raise VidattError(
            f"Job {job} is submitted, the check behind it is not: {error} Submit it by hand: "
            f"`sbatch --dependency=afterany:{job} {shlex.quote(str(check))}`."
        ) from error
    return SlurmSubmission(**{**vars(prepared), "job": job, "check_job": check_job})


def _sbatch(*arguments: str) -> str:
    """Submit a script; the number of the job."""
    try:
        done = subprocess.run(["sbatch", "--parsable", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UsageError(
            "There is no `sbatch` on this machine: run the same command on a login node of the cluster, or print the "
            "script with --dry-run."
        ) from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise VidattError(f"sbatch refused: {said or f'exit code {done.returncode}'}.")
    return done.stdout.strip().split(";")[0]


def task_script(config: SlurmConfig, work: Work, folder: Path) -> str:
    """Return the script of the array: every task does its slice, and goes on in the queue when its time is up."""
    tasks = min(config.tasks, work.parts)
    most = f"%{config.at_once}" if config.at_once else ""
    directives = [
        f"--job-name={work.name}",
        f"--array=0-{tasks - 1}{most}",
        f"--output={quote(f'{literal(config.logs)}/{work.name}-%A_%a.log')}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{config.grace_seconds}",
        *_resources(config),
    ]
    return "\n".join(
        [
            *_head(directives, folder),
            "# The number of slices is written here: of the same file a part again, as in `sbatch --array=3,5 FILE`,",
            "# takes the same slices.",
            f"export {COUNT}={tasks}",
            *config.setup,
            "",
            _QUEUE_AGAIN.format(
                restarts=config.restarts, grace=config.grace_seconds, late=config.grace_seconds - LATE_SECONDS
            ),
            f"{line((*PROGRAM, *work.command))} &",
            _WAIT,
        ]
    )


def check_script(config: SlurmConfig, work: Work, folder: Path) -> str:
    """Return the script of the job that runs when all tasks have ended, however they did."""
    directives = [
        f"--job-name={work.name}-check",
        f"--output={quote(f'{literal(config.logs)}/{work.name}-check-%j.log')}",
        *(_resources(config) if work.unit == "fits" else _site(config)),
    ]
    return "\n".join(
        [
            *_head(directives, folder),
            *config.setup,
            "code=0",
            *(f"{line((*PROGRAM, *command))} || code=$?" for command in work.finally_),
            'exit "$code"',
            "",
        ]
    )


def _head(directives: Sequence[str], folder: Path) -> list[str]:
    place = checked([str(folder)])[0]
    return [
        "#!/bin/bash",
        *(f"#SBATCH {directive}" for directive in directives),
        "",
        f"cd {shlex.quote(place)} || exit 2",
    ]


def _resources(config: SlurmConfig) -> list[str]:
    asked = (
        ("cpus-per-task", config.cpus),
        ("gres", f"gpu:{config.gpus}" if config.gpus else None),
        ("mem", config.memory),
        ("time", config.time),
    )
    return ["--ntasks=1", *(f"--{option}={value}" for option, value in asked if value is not None), *_site(config)]


def _site(config: SlurmConfig) -> list[str]:
    named = (("partition", config.partition), ("account", config.account))
    return [*(f"--{option}={value}" for option, value in named if value is not None), *config.options]


def line(command: Sequence[str]) -> str:
    """Return a command as bash takes it."""
    return shlex.join(command)


def quote(text: str) -> str:
    r"""Return a text as sbatch takes it in a `#SBATCH` line: in double quotes, with \ before `"` and `\`."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def literal(path: Path) -> str:
    """Return a path that Slurm takes as it is: % begins a replacement."""
    return str(path).replace("%", "%%")
