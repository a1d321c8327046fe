"""Sweeps: checked before they begin, one folder each, failures and signals survived, averages as stated."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from testkit.commands import start_vidatt, vidatt
from testkit.stores import fill

from vidatt.cache.layout import plan_layout
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_store
from vidatt.cli.fitting_tables import sweep_text
from vidatt.cli.main import main
from vidatt.errors import InterruptedRunError, ShardMissingError, UnknownNameError, UsageError
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.fitting.sweep import (
    Spread,
    SweepConfig,
    SweepFailure,
    SweepResult,
    SweepRun,
    average_runs,
    members,
    parse_sweep,
    sweep,
)
from vidatt.pipelines.metrics.classification import Measures
from vidatt.pipelines.results.evaluate import evaluate

QUICK = {"steps": "6", "validate_every": "3", "batch_videos": "16"}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """48 videos of noise, two streams, two splits."""
    folder = tmp_path_factory.mktemp("stores")
    plain = synthetic_store(folder / "plain.zarr", [3] * 48)
    made = Store.create(
        folder / "s.zarr",
        index=type(plain.index)(
            **{
                **{
                    name: getattr(plain.index, name)
                    for name in ("ids", "paths", "groups", "labels", "classes", "length")
                },
                "splits": {"a": np.where(np.arange(48) % 3 == 0, 2, 1), "b": np.where(np.arange(48) % 3 == 1, 2, 1)},
            }
        ),
        views=1,
        layout=plan_layout(plain.index.length, 1, 16),
        attributes={"dataset": "synthetic"},
    )
    return fill(made, {"rgb": (1, 1, 6), "flow": (1, 1, 6)}).path


def base(store: Path, out: Path, **changes) -> FitConfig:
    given = {"head": "mean", "preset": "small", "settings": QUICK, "device": "cpu", "streams": ("rgb",), **changes}
    return FitConfig(store=store, out=out, **given)


def test_parse_sweep_takes_lists_and_lists_of_lists():
    assert parse_sweep(["lr=1e-3, 1e-4", "milestones=1,2;3,4"]) == {
        "lr": ("1e-3", "1e-4"), "milestones": ("1,2", "3,4"),
    }  # fmt: skip
    for texts in (["lr"], ["=3"], ["lr=1", "lr=2"]):
        with pytest.raises(UsageError, match="write each key once, as KEY=VALUE,VALUE"):
            parse_sweep(texts)


@pytest.mark.slow
def test_members_are_every_combination_named_by_what_varies(store, tmp_path):
    config = SweepConfig(
        fit=base(store, tmp_path / "r", seed=5),
        vary={"lr": ("0.1", "0.2"), "streams": ("rgb", "rgb+flow")}, seeds=2, splits=("all",),
    )  # fmt: skip
    found = members(config)
    assert len({member.fit.out for member in found}) == len(found) == 16
    last = found[-1]
    assert last.fit.out == tmp_path / "r" / "lr=0.2,streams=rgb+flow,split=b,seed=6"
    assert (last.fit.settings, last.fit.streams) == ({**QUICK, "lr": "0.2"}, ("rgb", "flow"))
    assert (last.fit.split, last.fit.seed, last.setting) == ("b", 6, {"lr": "0.2", "streams": "rgb+flow"})
    one = members(SweepConfig(fit=base(store, tmp_path / "r"), vary={}, splits=("b",)))
    assert [(m.fit.out.name, m.fit.seed) for m in one] == [("split=b", 0)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vary": {"lrr": ("1",)}}, "Unknown setting of head 'mean' 'lrr'. Did you mean 'lr'"),
        ({"vary": {"lr": ("1", "x")}}, r"Setting lr='x': must be a number"),
        ({"vary": {"lr": ("1", "1")}}, "--sweep lr=1,1: give each value once"),
        ({"vary": {"lr": ("1", "")}}, "--sweep lr=1,: give each value once"),
        ({"vary": {"steps": ("1", "2")}}, "--set and --sweep both say steps"),
        ({"vary": {"head": ("mean", "men")}}, "Unknown head 'men'. Did you mean 'mean'"),
        ({"vary": {"preset": ("small", "smal")}}, "Did you mean 'small'"),
        ({"vary": {"streams": ("rgb", "rbg")}}, "Unknown stream 'rbg'. Did you mean 'rgb'"),
        ({"vary": {}, "splits": ("a", "c")}, "Unknown split 'c'"),
        ({"vary": {}, "splits": ("a", "a")}, "--splits a,a: give each split once"),
        ({"vary": {}, "seeds": 0}, "--seeds 0: must be 1 or more"),
        ({"vary": {"preset": ("a:b", "a;b")}}, "Unknown preset"),
    ],
)
def test_wrong_sweeps_are_refused_before_anything_begins(store, tmp_path, changes, words):
    with pytest.raises((UsageError, UnknownNameError), match=words):
        sweep(SweepConfig(fit=base(store, tmp_path / "r"), **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_equals_its_fits_one_by_one(store, tmp_path):
    config = SweepConfig(fit=base(store, tmp_path / "r"), vary={"lr": ("0.1", "0.01")}, seeds=2, splits=("a", "b"))
    result = sweep(config)
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == sorted(
        f"lr={lr},split={split},seed={seed}" for lr in ("0.1", "0.01") for split in "ab" for seed in (0, 1)
    )
    for row, lr in zip(result.rows, ("0.1", "0.01"), strict=True):
        alone = np.zeros((2, 2))
        for seed in (0, 1):
            for s, split in enumerate("ab"):
                out = tmp_path / f"{lr}{split}{seed}"
                fit(base(store, out, split=split, seed=seed, settings={**QUICK, "lr": lr}))
                alone[seed, s] = evaluate(out, device="cpu").metrics.top1
        assert (row.setting, row.runs, row.wanted, row.seeds) == ({"lr": lr}, 4, 4, (0, 1))
        assert row.test.mean == pytest.approx(alone.mean())
        assert row.test.spread == pytest.approx(np.std(alone.mean(1), ddof=1))
        assert row.test.splits == pytest.approx({"a": alone[:, 0].mean(), "b": alone[:, 1].mean()})
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "r").rglob("*")}
    again = sweep(config)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "r").rglob("*")} == before
    assert again.rows == result.rows
    assert all(run.finished_before for run in again.runs)


def _runs(values: dict[tuple[int, str], float | None]) -> list[SweepRun]:
    return [
        SweepRun(
            run="r", setting={}, seed=seed, split=split, status="failed" if value is None else "ok",
            test=Measures(top1=value, top5=None, class_mean=None, map=None),
        )
        for (seed, split), value in values.items()
    ]  # fmt: skip


def test_summary_averages_over_splits_first_and_counts_whole_seeds_only():
    runs = _runs({(0, "1"): 0.5, (0, "2"): 0.7, (1, "1"): 0.6, (1, "2"): 1.0, (2, "1"): 0.1, (2, "2"): None})
    row = average_runs(runs, "top1")[0]
    assert (row.runs, row.wanted, row.seeds) == (5, 6, (0, 1))
    assert row.test.mean == pytest.approx((0.6 + 0.8) / 2)
    assert row.test.spread == pytest.approx(np.std([0.6, 0.8], ddof=1))
    assert row.test.splits == pytest.approx({"1": 0.55, "2": 0.85})
    assert row.validation == Spread(mean=None, spread=None, splits={})
    assert average_runs(_runs({(0, "1"): 0.5}), "top1")[0].test == Spread(mean=0.5, spread=None, splits={"1": 0.5})
    assert average_runs(_runs({(0, "1"): None}), "top1")[0].test.mean is None


def options(store: Path, out: Path, **settings: str) -> list[object]:
    given = [f"--set={key}={value}" for key, value in {**QUICK, **settings}.items()]
    return [
        "fit-head",
        "--head",
        "mean",
        "--preset",
        "small",
        "--store",
        store,
        "--out",
        out,
        "--device",
        "cpu",
        *given,
    ]


@pytest.mark.long
@pytest.mark.slow
def test_command_runs_jobs_side_by_side_and_a_failing_fit_ends_no_other(store, tmp_path):
    extra = ["--streams", "rgb", "--set=optimiser=sgd", "--sweep", "lr=0.01,1e38", "--seeds", 2, "--jobs", 2, "--json"]
    done = vidatt(*options(store, tmp_path / "r", weight_decay="1"), *extra)
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert [(row["setting"]["lr"], row["runs"], row["wanted"]) for row in result["rows"]] == [
        ("0.01", 2, 2),
        ("1e38", 0, 2),
    ]
    assert [run["status"] for run in result["runs"]] == ["ok", "ok", "failed", "failed"]
    assert all("learning rate is too high" in failure["error"] for failure in result["failed"])
    assert result["rows"][0]["test"]["spread"] is not None
    plain = sweep(
        SweepConfig(
            fit=base(store, tmp_path / "alone", settings={**QUICK, "weight_decay": "1", "optimiser": "sgd"}),
            vary={"lr": ("0.01",)}, seeds=2,
        )
    )  # fmt: skip
    assert plain.rows[0].test.to_dict() == result["rows"][0]["test"]


def _resumed(folder: Path) -> None:
    """The history of a run that was stopped and continued has no gap."""
    steps = [int(row["step"]) for row in csv.DictReader((folder / "history.csv").read_text().splitlines())]
    assert steps == list(range(50, 601, 50))


@pytest.mark.slow
@pytest.mark.long
def test_a_stopped_sweep_leaves_checkpoints_and_continues(store, tmp_path):
    extra = ["--streams", "rgb", "--sweep", "lr=0.01,0.02,0.03", "--jobs", 2]
    out = tmp_path / "r"
    child = start_vidatt(*options(store, out, steps="600", validate_every="50"), *extra)
    deadline = time.monotonic() + 100
    while len(list(out.glob("*/history.csv"))) < 2:
        assert child.poll() is None, child.stderr
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait() == 75, child.stderr
    said = child.stderr
    assert "fits are finished; the same command continues" in said.splitlines()[-1]
    begun = [path for path in out.iterdir() if not (path / "metrics.json").exists()]
    assert begun
    assert all((path / "checkpoint.pt").exists() for path in begun)
    settings = {**QUICK, "steps": "600", "validate_every": "50"}
    fits = SweepConfig(fit=base(store, out, settings=settings), vary={"lr": ("0.01", "0.02", "0.03")})
    assert [row.runs for row in sweep(fits).rows] == [1] * 3
    for path in begun:
        _resumed(path)


@pytest.mark.slow
def test_a_stopped_sweep_of_one_process_continues(store, tmp_path):
    settings = {**QUICK, "steps": "600", "validate_every": "50"}
    fits = SweepConfig(fit=base(store, tmp_path / "r", settings=settings), vary={"lr": ("0.01", "0.02")})

    def stop() -> None:
        while not list((tmp_path / "r").glob("*/history.csv")):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(InterruptedRunError, match="Stopped: 0 of 2 fits are finished; the same command continues"):
        sweep(fits)
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["lr=0.01"]
    assert [run.status for run in sweep(fits).runs] == ["ok", "ok"]
    _resumed(tmp_path / "r" / "lr=0.01")


def test_a_sweep_asks_for_complete_streams_before_its_first_fit(store, tmp_path):
    lacking = shutil.copytree(store, tmp_path / "s.zarr")
    (lacking / "flow" / ".done" / "0.json").unlink()
    swept = SweepConfig(fit=base(lacking, tmp_path / "r"), vary={"streams": ("rgb", "rgb+flow")})
    with pytest.raises(ShardMissingError, match=r"Stream 'flow' of .* has 1 of \d+ shards not done"):
        sweep(swept)
    assert not (tmp_path / "r").exists()
    assert len(members(swept)) == 2  # laying them out, as `submit` does ahead of an extraction, needs no streams


@pytest.mark.slow
def test_heads_that_are_swept_need_no_head(store, tmp_path):
    given = ["--store", str(store), "--preset", "small", "--device", "cpu", "--out", str(tmp_path / "r"), "--json"]
    given += [f"--set={key}={value}" for key, value in QUICK.items()]
    done = CliRunner().invoke(main, ["fit-head", "--sweep", "head=mean,san", *given])
    assert done.exit_code == 0, done.output
    assert [row["setting"] for row in json.loads(done.stdout)["rows"]] == [{"head": "mean"}, {"head": "san"}]
    told = CliRunner().invoke(
        main, ["fit-head", "--sweep", "head=mean,san", *given[: -1 - len(QUICK)], *given[-len(QUICK) :]]
    )
    assert "2 of 2 runs are done (2 were before) in" in told.stdout
    without = CliRunner().invoke(main, ["fit-head", *given])
    assert without.exit_code == 2
    assert "--head is missing: give one of `vidatt heads`" in without.stderr


def test_the_summary_counts_the_runs_that_are_done():
    rows = _runs({(0, "1"): 0.5, (1, "1"): None, (2, "1"): 0.7})
    result = SweepResult(
        out="r", store="s", measure="top1", rows=average_runs(rows, "top1"), runs=tuple(rows),
        failed=(SweepFailure(run="r", error="no"),), seconds=1.0,
    )  # fmt: skip
    assert "2 of 3 runs are done in r; 1.0 s" in sweep_text(result).splitlines()


@pytest.mark.slow
def test_command_refuses_jobs_without_a_sweep(store, tmp_path):
    done = vidatt(*options(store, tmp_path / "r"), "--jobs", 2)
    assert (done.returncode, "--jobs is for several fits" in done.stderr) == (2, True)
