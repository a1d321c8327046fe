"""Run folders that were damaged or edited: one line that names the file, never a figure from what was not written."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file
from testkit.commands import start_program
from testkit.planted import planted_store
from testkit.runs import without_digests

from vidatt.cli.main import main
from vidatt.errors import NotFiniteError, UsageError, VidattError
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.results.compare import compare
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.results.fusion import FuseConfig, fuse
from vidatt.pipelines.results.score_evaluation import evaluate_scores
from vidatt.pipelines.runs.reload import load_head
from vidatt.pipelines.runs.run import Run

SCORES = "scores-1-test.npz"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    store = planted_store(folder / "own.zarr", videos=range(18))
    settings = {"steps": "20"}
    config = FitConfig(head="mean", preset="small", settings=settings, split="1", device="cpu", store=store.path,
                       out=folder / "run")  # fmt: skip
    fit(config)
    evaluate(folder / "run", device="cpu")
    return folder / "run"


@pytest.fixture
def run(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def again(made: Path, run: Path) -> FitConfig:
    """What the fit of the run was asked to do, in another folder."""
    store = made.parent / "own.zarr"
    return FitConfig(
        head="mean", preset="small", settings={"steps": "20"}, split="1", device="cpu", store=store, out=run
    )


READERS: dict[str, Callable[[Path, Path], object]] = {
    "evaluate": lambda run, _: evaluate(run, device="cpu"),
    "load_head": lambda run, _: load_head(run),
    "compare": lambda run, made: compare([run, made]),
    "fuse": lambda run, made: fuse(FuseConfig(parts=(run, made), method="mean", out=run.parent / "f")),
    "scores": lambda run, _: evaluate_scores(run / SCORES),
    "read": lambda run, _: (Run.open(run).fit_result(), Run.open(run).evaluation("1-test")),
    "fit": lambda run, made: fit(again(made, run)),
}
READ = {
    "weights.safetensors": ("evaluate", "load_head"),
    SCORES: ("compare", "fuse", "scores"),
    "scores-1-validation.npz": ("fuse",),
    "videos.npz": ("evaluate", "compare"),
    "metrics.json": tuple(READERS),
    "config.json": tuple(READERS),
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", READ)
def test_one_flipped_bit_anywhere_is_one_line_of_every_reader(made, tmp_path, name):
    content = (made / name).read_bytes()
    choice = random.Random(0)
    for place in [0, len(content) - 1, *(choice.randrange(len(content)) for _ in range(6))]:
        run = shutil.copytree(made, tmp_path / f"{place}")
        damaged = bytearray(content)
        damaged[place] ^= 1 << choice.randrange(7)
        (run / name).write_bytes(damaged)
        try:
            same = json.loads(damaged) == json.loads(content)
        except ValueError:
            same = False
        # where the fit was made, is no part of what it is: paths, versions, the device
        free = name == "config.json" and b'"environment"' in content[:place]
        for reader in READ[name] if not (same or free) else ():
            with pytest.raises(VidattError) as caught:
                READERS[reader](run, made)
            assert "\n" not in str(caught.value)
            assert str(run) in str(caught.value)
        shutil.rmtree(run)


@pytest.mark.slow
def test_a_flipped_bit_in_the_weights_ends_the_command(run):
    content = bytearray((run / "weights.safetensors").read_bytes())
    content[-3] ^= 4
    (run / "weights.safetensors").write_bytes(content)
    done = CliRunner().invoke(main, ["evaluate", str(run), "--device", "cpu"])
    assert done.exit_code == 2
    assert "weights.safetensors is damaged: it is not what the run wrote" in done.stderr
    assert done.stderr.count("\n") == 1


def test_scores_that_were_damaged_are_mended_by_evaluating_again(run, made):
    (run / SCORES).write_bytes((run / SCORES).read_bytes()[:-1])
    with pytest.raises(UsageError, match="is damaged: it is not what the run wrote; restore it, or evaluate again"):
        compare([run, made])
    evaluate(run, device="cpu")
    assert compare([run, made]).pairs[0].a_right_b_wrong == 0


def test_nan_weights_are_the_heads_fault(run):
    without_digests(run)
    weights = {name: tensor.copy() for name, tensor in load_file(run / "weights.safetensors").items()}
    next(iter(weights.values())).flat[0] = np.nan
    save_file(weights, run / "weights.safetensors")
    for read in (lambda: evaluate(run, device="cpu"), lambda: load_head(run)):
        with pytest.raises(NotFiniteError, match=r"hold NaN \('.*the head is at fault, not the store"):
            read()
    # numbers so large that the scores are not finite: the cubes are looked at before they are blamed
    save_file({name: np.full_like(t, 3e38) for name, t in weights.items()}, run / "weights.safetensors")
    with pytest.raises(NotFiniteError, match=r"its cubes in .* are: the head is at fault"):
        evaluate(run, device="cpu")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"weights", "is damaged"),
        (b"", "is damaged"),
        (b"\xff" * 64, "is damaged"),
        (b"\x08" + b"\0" * 7 + b"{}      ", "do not fit its head"),
    ],
)
def test_weights_that_are_none_are_one_line(run, content, words):
    without_digests(run)
    (run / "weights.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        load_head(run)
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_one_line(made, tmp_path):
    run = Run.create(tmp_path / "r", identity=Run.open(made).identity, environment=Run.open(made).environment)
    run.write_checkpoint({"step": 3})
    good = (tmp_path / "r" / "checkpoint.pt").read_bytes()
    assert run.checkpoint() == {"step": 3}
    for place in range(0, len(good), 17):
        (tmp_path / "r" / "checkpoint.pt").write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        if good.index(b"\0vidatt sha256\0") <= place < len(good) - 32:
            assert run.checkpoint() == {"step": 3}  # what is damaged is the mark between it and its digest
            continue
        with pytest.raises(UsageError, match=r"checkpoint\.pt is damaged .*delete it, and the fit begins again"):
            run.checkpoint()


@pytest.mark.slow
@pytest.mark.long
def test_scratch_of_dead_writers_is_swept(run):
    program = """
import os, signal, sys
from pathlib import Path
from vidatt.cache.scratch import write_atomically
write_atomically(Path(sys.argv[1]), lambda file: os.kill(os.getpid(), signal.SIGKILL))
"""
    killed = start_program(program, run / "scores-2-test.npz")
    killed.wait()
    left = [path for path in run.iterdir() if path.name.startswith(".")]
    assert len(left) == 1
    assert left[0].name.startswith(".scores-2-test.npz.tmp-")
    evaluate(run, device="cpu")
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.long
def test_two_evaluations_at_once_are_both_kept(run, made, tmp_path):
    lists = [range(30 + n, 36 + n) for n in range(4)]
    stores = [planted_store(tmp_path / f"{n}.zarr", videos=own, test=own) for n, own in enumerate(lists)]
    program = """
import sys
from pathlib import Path
from vidatt.pipelines.results.evaluate import evaluate
for _ in range(3):
    evaluate(Path(sys.argv[1]), Path(sys.argv[2]), device="cpu")
"""
    running = [start_program(program, run, store.path) for store in stores]
    assert [one.wait() for one in running] == [0] * 4, [one.stderr for one in running]
    kept = Run.open(run).metrics()
    assert len(kept["evaluations"]) == 5
    assert len([name for name in kept["files"] if "@" in name]) == 4


def fields(value: object, where: tuple = ()) -> Iterator[tuple]:
    """Every place in a JSON value; of a list the first two."""
    yield where
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        yield from fields(item, (*where, key))


WRONG = (None, True, -1, 2**70, float("nan"), "x", [None], {"a": 1})
GONE = object()


def edited(values: dict, where: tuple, value: object) -> dict:
    copy = json.loads(json.dumps(values))
    inner = copy
    for key in where[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[where[-1]]
    else:
        inner[where[-1]] = value
    return copy


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
@pytest.mark.parametrize("head", ["mean", "stan", "svm"])
def test_every_field_of_a_run_with_every_wrong_type_is_one_line(made, tmp_path, name, head):
    """As version 0.1.0 left them, without digests: what is said is what the types and the head itself say."""
    if head == "mean":
        run = shutil.copytree(made, tmp_path / "run")
    else:
        run = tmp_path / "run"
        quick = {"conv6": "8", "lstm": "8", "kernel": "1", "steps": "2", "validate_every": "1"}
        out, store = tmp_path / ("run" if head == "stan" else "base"), made.parent / "own.zarr"
        base = FitConfig(
            head="stan", preset="small", settings=quick, split="1", device="cpu", store=store, out=out
        )  # fmt: skip
        fit(base)
        if head == "svm":
            fit(FitConfig(head="svm", on=base.out, device="cpu", store=base.store, out=run))
        evaluate(run, device="cpu")
    without_digests(run)
    told = json.loads((run / name).read_text())
    read = READERS["load_head" if name == "config.json" else "read"]
    said = []
    for where in list(fields(told))[1:]:
        for value in (*WRONG, GONE):
            (run / name).write_text(json.dumps(edited(told, where, value)))
            try:
                read(run, made)
            except VidattError as error:
                said.append(str(error))
            except Exception as error:
                raise AssertionError(f"{where} = {value!r}") from error
    assert len(said) > 100
    assert not [line for line in said if "\n" in line or len(line) > 900]


def test_edited_configurations_are_told_apart_from_those_of_the_fit(run):
    config = json.loads((run / "config.json").read_text())
    config["identity"]["classes"] = config["identity"]["classes"][::-1]
    (run / "config.json").write_text(json.dumps(config))
    done: Result = CliRunner().invoke(main, ["evaluate", str(run), "--device", "cpu"])
    assert done.exit_code == 2
    assert "config.json is not the one that the run was fitted with" in done.stderr
