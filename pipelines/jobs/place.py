"""Where am I? Which slice of the work is this process's, told by an option or by what the scheduler set.

A *part* is one task of a job array, a *rank* one of several processes of a task. The count of parts travels in the
script, as `VIDATT_SHARDS`: what schedulers say of an array (`SLURM_ARRAY_TASK_COUNT`) changes when a part of it is
submitted again, and with it all slices would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import UsageError

COUNT = "VIDATT_SHARDS"
"""The variable that says how many slices there are, that is, tasks of the array."""

_ARRAYS = (  # scheduler, the variable with the task's number, its lowest number, what it holds outside an array
    ("Slurm", "SLURM_ARRAY_TASK_ID", 0, ""),
    ("Kubernetes", "JOB_COMPLETION_INDEX", 0, ""),
    ("PBS", "PBS_ARRAY_INDEX", 0, ""),
    ("Torque", "PBS_ARRAYID", 0, ""),
    ("LSF", "LSB_JOBINDEX", 1, "0"),
    ("SGE", "SGE_TASK_ID", 1, "undefined"),
)
_WAY_OUT = "Set what is meant, or give the slice as --shard I/N (0/1 for all of it)."


@dataclass(frozen=True, kw_only=True)
class Place:
    """A slice: of all shards (or fits of a sweep) those with number `index` modulo `count`."""

    index: int = 0
    count: int = 1
    source: str = ""  # what said so; empty if nothing did
    first: bool = True  # whether the others of the same job may wait for what this one makes once for all

    def __str__(self) -> str:
        return f"slice {self.index} of {self.count}, counted from 0, by {self.source or 'default'}"


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One way of counting: a task of an array, or a rank."""

    index: int
    count: int | None  # None: the scheduler does not say
    source: str
    first: bool
    engine: str


def parse_slice(text: str) -> tuple[int, int]:
    """Read `I/N`.

    Raises
    ------
    UsageError
    """
    index, _, count = text.partition("/")
    if not (_is_whole(index) and _is_whole(count) and int(index) < int(count)):
        raise UsageError(f"--shard {text!r}: write I/N with 0 <= I < N, such as 0/4.")
    return int(index), int(count)


def find_place(given: str | None, environment: Mapping[str, str]) -> Place:
    """Return the slice of this process.

    Parameters
    ----------
    given : `--shard I/N`; what it says counts, whatever the environment says
    environment : of the process: arrays of Slurm, Kubernetes, PBS, LSF and SGE with `VIDATT_SHARDS`; ranks of a Slurm
        step or of torchrun, alone or within a task of an array

    Raises
    ------
    UsageError
        If variables contradict each other, or do not say which of how many.
    """
    if given is not None:
        index, count = parse_slice(given)
        return Place(index=index, count=count, source=f"--shard {given}")
    stated = _number(environment, COUNT)
    if stated == 0:
        raise UsageError(f"{COUNT} is 0: it is the number of slices, 1 or more. {_WAY_OUT}")
    array, rank = _array(environment, stated), _torchrun(environment) or _step(environment)
    if array is None:
        if stated is not None and stated != (rank.count if rank else 1):
            said = f"{rank.source} count {rank.count}" if rank else "nothing says which of them this process is"
            raise UsageError(f"{COUNT} is {stated}, but {said}. {_WAY_OUT}")
        if rank is None or rank.count is None:
            return Place()
        return Place(index=rank.index, count=rank.count, source=rank.source, first=rank.first)
    if array.count is None:
        raise UsageError(
            f"This is task {array.index} of a {array.engine} array ({array.source}), and nothing says of how many: "
            f"`export {COUNT}=N` in the job's script, with the tasks numbered from {_lowest(array.engine)}; or give "
            "the slice as --shard I/N (0/1 for all of it)."
        )
    if array.index >= array.count:
        raise UsageError(
            f"This is task {array.index + _lowest(array.engine)} of a {array.engine} array, but {COUNT} is "
            f"{array.count}: number the tasks from {_lowest(array.engine)}. {_WAY_OUT}"
        )
    if rank is None or rank.count is None:
        return Place(index=array.index, count=array.count, source=array.source, first=array.first)
    if array.engine == "Kubernetes" and environment.get("GROUP_WORLD_SIZE", "1") != "1":
        raise UsageError(
            f"{array.source} and {rank.source} both count the pods of this job: torchrun runs over several. {_WAY_OUT}"
        )
    return Place(
        index=array.index * rank.count + rank.index,
        count=array.count * rank.count,
        source=f"{array.source}, {rank.source}",
        first=array.first and rank.first,
    )


def _lowest(engine: str) -> int:
    return next(lowest for name, _, lowest, _ in _ARRAYS if name == engine)


def _array(environment: Mapping[str, str], stated: int | None) -> _Part | None:
    found = []
    for engine, variable, lowest, outside in _ARRAYS:
        if environment.get(variable, "") in ("", outside):
            continue
        number = _number(environment, variable)
        if number is None or number < lowest:
            raise UsageError(f"{variable} is {number}, and {engine} counts from {lowest}. {_WAY_OUT}")
        found.append((engine, variable, number, number - lowest))
    if not found:
        return None
    if len({index for *_, index in found}) > 1:
        told = ", ".join(f"{variable}={number}" for _, variable, number, _ in found)
        raise UsageError(f"Two schedulers say which task this is: {told}. {_WAY_OUT}")
    engine, variable, number, index = found[0]
    if engine == "Slurm":
        return _slurm_array(environment, number, stated)
    source = f"{variable} and {COUNT}" if stated is not None else variable
    return _Part(index=index, count=stated, source=source, first=index == 0, engine=engine)


def _slurm_array(environment: Mapping[str, str], number: int, stated: int | None) -> _Part:
    """Take the count from the script, else from an array that is plainly whole: 0-7, or 1-8."""
    variable = "SLURM_ARRAY_TASK_ID"
    least, count = _number(environment, "SLURM_ARRAY_TASK_MIN"), _number(environment, "SLURM_ARRAY_TASK_COUNT")
    most = _number(environment, "SLURM_ARRAY_TASK_MAX")
    least = 0 if least is None else least
    first = number == least
    if stated is not None:
        return _Part(index=number, count=stated, source=f"{variable} and {COUNT}", first=first, engine="Slurm")
    whole = count is not None and least in (0, 1) and most in (None, least + count - 1) and number < least + count
    if not whole:
        return _Part(index=number, count=None, source=variable, first=first, engine="Slurm")
    source = f"{variable} (without {COUNT} a part of the array submitted again takes other slices)"
    return _Part(index=number - least, count=count, source=source, first=first, engine="Slurm")


def _torchrun(environment: Mapping[str, str]) -> _Part | None:
    return _rank(environment, "RANK", "WORLD_SIZE", "torchrun")


def _step(environment: Mapping[str, str]) -> _Part | None:
    """Return the rank within a step: a batch script has SLURM_PROCID=0 and SLURM_NTASKS too, but is alone."""
    if "SLURM_STEP_NUM_TASKS" in environment:
        return _rank(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "Slurm")
    if "SLURM_STEP_ID" in environment or environment.get("SLURM_PROCID", "0") != "0":
        return _rank(environment, "SLURM_PROCID", "SLURM_NTASKS", "Slurm")
    return None


def _rank(environment: Mapping[str, str], of: str, among: str, engine: str) -> _Part | None:
    index, count = _number(environment, of), _number(environment, among)
    if index is None and count is None:
        return None
    if index is None or count is None:
        there, absent = (of, among) if count is None else (among, of)
        raise UsageError(f"{there} is set and {absent} is not: {engine} sets both. {_WAY_OUT}")
    if index >= count:
        raise UsageError(f"{of} is {index}, but {among} is {count}: ranks count from 0. {_WAY_OUT}")
    if count == 1:
        return None
    return _Part(index=index, count=count, source=f"{of} and {among}", first=index == 0, engine=engine)


def _number(environment: Mapping[str, str], variable: str) -> int | None:
    text = environment.get(variable, "").strip()
    if text and not _is_whole(text):
        raise UsageError(f"{variable} is {text!r}: it is a whole number, 0 or more. {_WAY_OUT}")
    return int(text) if text else None


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit()
