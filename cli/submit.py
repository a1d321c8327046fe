"""Jobs of many tasks: `vidatt submit slurm|k8s|local -- COMMAND`, where COMMAND is `extract ...` or a sweep of fits."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .door import assignments, common
from .extraction import extract, extract_config
from .fitting import fit_config, fit_head

if TYPE_CHECKING:
    from ..pipelines.extraction.config import ExtractConfig
    from ..pipelines.fitting.sweep import SweepConfig
    from ..pipelines.jobs.k8s import KubernetesManifest
    from ..pipelines.jobs.local import LocalRun
    from ..pipelines.jobs.slurm import SlurmSubmission
    from ..pipelines.jobs.work import Work

_LOGS = Path("logs")


def _command(task: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("command", nargs=-1, required=True, metavar="-- extract ... | fit-head ... --sweep ...")(task)


@click.group()
def submit() -> None:
    """Divide an extraction or a sweep among the tasks of a job: on Slurm, on Kubernetes or on this machine."""


@submit.command("slurm")
@click.option("--tasks", type=click.IntRange(1), default=8, show_default=True, metavar="N", help="Tasks of the array.")
@click.option("--at-once", type=click.IntRange(1), metavar="N", help="Tasks that may run at a time [all].")
@click.option("--gpus", metavar="[TYPE:]N", help="GPUs of a task [none].")
@click.option("--cpus", type=click.IntRange(1), metavar="N", help="Cores of a task [the site's default].")
@click.option("--memory", metavar="SIZE", help="Memory of a task, such as 32G [the site's default].")
@click.option("--time", metavar="TIME", help="Time limit of a task, such as 12:00:00 [the site's default].")
@click.option("--partition", metavar="NAME")
@click.option("--account", metavar="NAME")
@click.option(
    "--logs", type=click.Path(path_type=Path), default=_LOGS, show_default=True, help="Folder: scripts, logs."
)
@click.option("--grace", type=click.IntRange(30), default=120, show_default=True, metavar="S", help="To stop in order.")
@click.option(
    "--restarts", type=click.IntRange(0), default=100, show_default=True, metavar="N", help="Of a task, at most."
)
@click.option("--setup", multiple=True, metavar="LINE", help="A line of shell ahead of the command; repeatable.")
@click.option("--sbatch", multiple=True, metavar="OPTION", help="Another option of sbatch; repeatable.")
@click.option("--dry-run", is_flag=True, help="Print the scripts; make and submit nothing.")
@_command
@common
def submit_slurm(command: tuple[str, ...], dry_run: bool, **given: Any) -> tuple[SlurmSubmission, str, int]:
    """Submit a job array, and a job behind it that checks whether all is done.

    The plan and the store are made first, here. A task whose time is up stops in good order and goes on in the queue.

    \b
    Example:
      vidatt submit slurm --tasks 8 --gpus 1 --cpus 8 --time 12:00:00 -- extract --dataset ucf101 --store ucf101.zarr
      vidatt submit slurm --tasks 12 --gpus 1 -- fit-head --head stan --store ucf101.zarr --sweep lr=1e-3,1e-4 --seeds 6
    """
    from ..pipelines.jobs.slurm import SlurmConfig, prepare
    from ..pipelines.jobs.slurm import submit as hand_over

    config = SlurmConfig(
        tasks=given["tasks"],
        at_once=given["at_once"],
        gpus=given["gpus"],
        cpus=given["cpus"],
        memory=given["memory"],
        time=given["time"],
        partition=given["partition"],
        account=given["account"],
        logs=Path(os.path.abspath(given["logs"])),
        grace_seconds=given["grace"],
        restarts=given["restarts"],
        setup=given["setup"],
        options=given["sbatch"],
    )
    job = prepare(config, _work(command, make=not dry_run), Path.cwd())
    if dry_run:
        behind = f"sbatch --dependency=afterany:JOB {shlex.quote(job.check_file)}"
        return job, f"{job.script}\n# ---- {job.check_file}, submitted with `{behind}`:\n{job.check_script.rstrip()}", 0
    job = hand_over(job)
    text = (
        f"{job.work}: {job.to_do} of {job.parts} {job.unit} are to do\n"
        f"  job {job.job}: {job.tasks} tasks; job {job.check_job} checks when they have ended; logs in {config.logs}\n"
        f"  a part again: `sbatch --array=3,5 {shlex.quote(job.script_file)}`"
    )
    return job, text, 0


@submit.command("k8s")
@click.option("--image", required=True, metavar="IMAGE", help="Of containers, with vidatt in it.")
@click.option("--tasks", type=click.IntRange(1), default=8, show_default=True, metavar="N", help="Indexes of the Job.")
@click.option("--at-once", type=click.IntRange(1), metavar="N", help="Pods that may run at a time [all].")
@click.option("--claim", multiple=True, metavar="CLAIM=/FOLDER", help="A volume claim and where it is mounted.")
@click.option("--gpus", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="GPUs of a pod.")
@click.option("--gpu-resource", default="nvidia.com/gpu", show_default=True, metavar="NAME")
@click.option("--cpus", metavar="N", help="Cores of a pod.")
@click.option("--memory", metavar="SIZE", help="Memory of a pod, such as 32Gi.")
@click.option("--name", default="vidatt", show_default=True, help="Of the Job.")
@click.option("--namespace", metavar="NAME")
@click.option(
    "--retries", type=click.IntRange(0), default=3, show_default=True, metavar="N", help="Of a task that fails."
)
@click.option("--grace", type=click.IntRange(1), default=120, show_default=True, metavar="S", help="To stop in order.")
@click.option("--out", type=click.Path(path_type=Path), help="File of the manifest [it is printed].")
@_command
@common
def submit_k8s(command: tuple[str, ...], out: Path | None, **given: Any) -> tuple[KubernetesManifest, str, int]:
    """Write the manifest of an Indexed Job, for `kubectl apply -f FILE`. Paths in COMMAND are those in the pods.

    \b
    Example:
      vidatt submit k8s --image lab/vidatt --claim data=/data --gpus 1 -- extract --dataset ucf101 --store /data/u.zarr
    """
    from ..pipelines.jobs.k8s import KubernetesConfig, manifest_text, write_manifest

    command, _ = _parsed(command)
    config = KubernetesConfig(
        name=given["name"],
        image=given["image"],
        tasks=given["tasks"],
        at_once=given["at_once"],
        claims=assignments("--claim", given["claim"]),
        gpus=given["gpus"],
        gpu_resource=given["gpu_resource"],
        cpus=given["cpus"],
        memory=given["memory"],
        namespace=given["namespace"],
        retries=given["retries"],
        grace_seconds=given["grace"],
    )
    job = write_manifest(config, command, out)
    text = (
        f"{out}: hand it over with `kubectl apply -f {shlex.quote(str(out))}`" if out else manifest_text(job.manifest)
    )
    return job, text.rstrip("\n"), 0


@submit.command("local")
@click.option("--tasks", type=click.IntRange(1), required=True, metavar="N", help="Processes side by side.")
@click.option("--logs", type=click.Path(path_type=Path), default=_LOGS, show_default=True, help="Folder of the logs.")
@_command
@common
def submit_local(command: tuple[str, ...], tasks: int, logs: Path) -> tuple[LocalRun, str, int]:
    """Run the tasks as processes of this machine, each with its share of cores and GPUs, and wait for them.

    \b
    Example:
      vidatt submit local --tasks 4 -- extract --dataset ucf101 --store ucf101.zarr
    """
    from ..pipelines.jobs.local import run
    from .tables import duration

    result = run(_work(command), tasks=tasks, logs=logs)
    lines = [f"{result.work}: {result.parts} {result.unit}, {len(result.tasks)} tasks; {duration(result.seconds)}"]
    lines += [
        f"  task {task.index}: exit code {task.exit_code}, {task.log}: {task.last}"
        for task in result.tasks
        if task.exit_code
    ]
    return result, "\n".join(lines), result.exit_code


def _work(command: tuple[str, ...], *, make: bool = True) -> Work:
    """Make ready what the command is to do."""
    from ..pipelines.extraction.config import ExtractConfig
    from ..pipelines.jobs.work import extraction_work, sweep_work

    command, config = _parsed(command)
    return (
        extraction_work(config, command, make=make)
        if isinstance(config, ExtractConfig)
        else sweep_work(config, command)
    )


def _parsed(command: tuple[str, ...]) -> tuple[tuple[str, ...], ExtractConfig | SweepConfig]:
    """Read a command as its own door would; it without a leading `vidatt`, and its configuration.

    Raises
    ------
    UsageError
        If it is no command that can be divided, or says itself which slice it is.
    """
    from ..pipelines.fitting.plan import FitConfig

    command = command[1:] if command[0] == "vidatt" else command
    known = {"extract": extract, "fit-head": fit_head}
    if not command or command[0] not in known:
        raise UsageError(
            f"`{shlex.join(command)}` cannot be divided among tasks: write `-- extract ...`, or `-- fit-head ...` with "
            "--sweep, --seeds or --splits."
        )
    context = known[command[0]].make_context(f"vidatt {command[0]}", list(command[1:]))
    given = context.params
    if given["shard"] is not None:
        raise UsageError("--shard is what each task is told by itself; leave it out.")
    if given.get("dry_run"):
        raise UsageError("`extract --dry-run` does nothing that could be divided; leave --dry-run out behind `--`.")
    config = extract_config(given) if command[0] == "extract" else fit_config(given)
    if isinstance(config, FitConfig):
        raise UsageError("One fit cannot be divided among tasks: give --sweep, --seeds or --splits.")
    return command, config
