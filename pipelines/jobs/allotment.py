"""What of this machine is ours: the cores and the GPUs that the scheduler gave, not those that are built in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from joblib import cpu_count

_CORES = ("LSB_DJOB_NUMPROC", "NSLOTS", "NCPUS")
"""What LSF, SGE and PBS say of a job's cores; of one over several machines more than this one has."""
_BOUND = ("SLURM_GPUS_PER_TASK", "SLURM_GPU_BIND", "SLURM_TRES_PER_TASK")
"""With one of these, Slurm shows each task of a step its own GPUs alone."""


def given_cores(environment: Mapping[str, str], *, visible: int | None = None, root: Path = Path("/")) -> int:
    """Return the cores that this process may keep busy, at least 1.

    The fewest of: affinity and the quota of the outermost control group (joblib knows those), the quota of the
    groups that this process is in, and what the scheduler says; schedulers without control groups only say it.

    Parameters
    ----------
    visible : the cores by affinity and outermost quota; None = joblib says
    root : where /proc and /sys are
    """
    visible = visible or cpu_count()
    cores = [visible, *_quotas(root), *(int(environment[name]) for name in _CORES if _is_count(environment, name))]
    if _is_count(environment, "SLURM_CPUS_PER_TASK"):
        cores.append(int(environment["SLURM_CPUS_PER_TASK"]))
    elif _is_count(environment, "SLURM_CPUS_ON_NODE"):
        cores.append(int(environment["SLURM_CPUS_ON_NODE"]) // _neighbours(environment)[1])
    elif "LOCAL_WORLD_SIZE" in environment:  # torchrun binds no cores
        cores.append(visible // _neighbours(environment)[1])
    return max(1, min(cores))


def given_cards(cards: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return those of the visible GPUs that are this process's.

    Processes of one task that all see the same GPUs divide them; where there are fewer than processes they share them.
    """
    index, count = _neighbours(environment)
    if len(cards) < count or ("LOCAL_RANK" not in environment and any(name in environment for name in _BOUND)):
        return list(cards)
    return list(cards[index::count])


def _neighbours(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return this process's number among those of its job on this machine, and how many those are."""
    if _is_count(environment, "LOCAL_WORLD_SIZE") and environment.get("LOCAL_RANK", "").isdigit():
        return int(environment["LOCAL_RANK"]), int(environment["LOCAL_WORLD_SIZE"])
    if "SLURM_STEP_TASKS_PER_NODE" in environment and environment.get("SLURM_LOCALID", "").isdigit():
        counts = list(_slurm_counts(environment["SLURM_STEP_TASKS_PER_NODE"]))
        node = int(environment.get("SLURM_NODEID", "0"))
        if node < len(counts):
            return int(environment["SLURM_LOCALID"]), max(1, counts[node])
    return 0, 1


def _slurm_counts(text: str) -> Iterator[int]:
    """Read `2(x3),1` as 2, 2, 2, 1."""
    for part in text.split(","):
        count, _, times = part.partition("(x")
        yield from [int(count)] * int(times.rstrip(")") or 1)


def _is_count(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "")
    return text.isascii() and text.isdigit() and int(text) > 0


def _quotas(root: Path) -> Iterator[int]:
    """Read the quotas, in cores, of the control groups of this process, from its own up to the outermost."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux, or hidden: no group that limits
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("" if not controllers else "cpu")
        own = top / path.lstrip("/")
        for folder in (own, *own.parents):
            quota = _quota_v1(folder) if controllers else _quota_v2(folder)
            if quota is not None:
                yield quota
            if folder == top:
                break


def _quota_v2(folder: Path) -> int | None:
    words = _words(folder / "cpu.max")
    return None if len(words) != 2 or words[0] == "max" else math.ceil(int(words[0]) / int(words[1]))


def _quota_v1(folder: Path) -> int | None:
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    return None if not quota or not period or int(quota[0]) <= 0 else math.ceil(int(quota[0]) / int(period[0]))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # the outermost group has no such file, and others may be out of sight in a container
        return []
