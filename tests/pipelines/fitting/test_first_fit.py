"""The first fit: a preset by videos and device, said with its cost; early stopping; rows and words by the clock."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import zarr
from safetensors.torch import load_file
from testkit.commands import start_program, vidatt
from testkit.planted import planted_store
from testkit.stores import filled_store

from vidatt.cache.store import Store
from vidatt.errors import UsageError
from vidatt.heads.contract import FitDefaults, StreamShape
from vidatt.heads.registry import HEADS, head_names, resolve_settings, trained_head_names
from vidatt.pipelines.durations import duration_text, rough_text
from vidatt.pipelines.fitting import training
from vidatt.pipelines.fitting.choice import Choice, Material, choice_line, choose_preset, step_seconds
from vidatt.pipelines.fitting.fit import fit
from vidatt.pipelines.fitting.plan import FitConfig, plan_fit
from vidatt.pipelines.fitting.sweep import SweepConfig, members
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.runs import progress
from vidatt.pipelines.runs.run import Run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty videos of three classes, forty to train on."""
    return planted_store(tmp_path_factory.mktemp("stores") / "s.zarr", videos=range(60)).path


def config(store: Path, out: Path, **changes: object) -> FitConfig:
    given: dict[str, object] = {"head": "mean", "preset": None, "device": "cpu", **changes}
    return FitConfig(store=store, out=out, **given)  # type: ignore[arg-type]


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("head", "videos", "device", "preset"),
    [
        ("stan", 40, "cpu", "small"),
        ("stan", 9_537, "cpu", "small"),
        ("stan", 40, "cuda", "small"),
        ("stan", 9_537, "cuda", "paper"),
        ("where-and-when", 9_537, "cuda", "default"),
        ("svm-pool5-mean", 40, "cpu", "paper"),
    ],
)
def test_preset_is_chosen_by_videos_and_device(head: str, videos: int, device: str, preset: str) -> None:
    choice = choose_preset(head, videos=videos, device=torch.device(device))
    assert choice.preset == preset
    assert choice.settings == ({"early_stopping": "6"} if preset == "small" else {})


def test_an_explicit_preset_is_what_it_was(store: Path, tmp_path: Path) -> None:
    plan = plan_fit(config(store, tmp_path / "r", preset="small"))
    assert (plan.settings.preset, plan.automatic) == ("small", False)
    for head in trained_head_names():
        for preset in HEADS[head].presets:
            fitted = resolve_settings(head, preset).fit
            assert isinstance(fitted, FitDefaults)
            assert fitted.early_stopping is None
    assert FitConfig(head="mean", store=store, out=tmp_path).preset == "paper"  # from Python


@pytest.mark.slow
def test_the_chosen_fit_is_that_of_its_settings_bit_by_bit(store: Path, tmp_path: Path) -> None:
    settings = {"steps": "40", "validate_every": "10"}
    fit(config(store, tmp_path / "chosen", settings=settings))
    fit(config(store, tmp_path / "named", preset="small", settings={**settings, "early_stopping": "6"}))
    fit(config(store, tmp_path / "plain", preset="small", settings=settings))
    chosen, named, plain = (tmp_path / n / "weights.safetensors" for n in ("chosen", "named", "plain"))
    assert chosen.read_bytes() == named.read_bytes() == plain.read_bytes()  # six validations are not reached
    assert Run.open(tmp_path / "chosen").identity == Run.open(tmp_path / "named").identity


def test_line_says_what_was_chosen_what_it_costs_and_what_else_there_is(store: Path, tmp_path: Path) -> None:
    fit(config(store, tmp_path / "r", settings={"steps": "4"}))
    line = (tmp_path / "r" / "log.txt").read_text().splitlines()[0]
    cost = r"about \d+(\.\d)? (s|min|h)"
    assert re.search(
        rf"40 training videos, cpu: preset small, at most 4 steps of 32 videos, {cost}; --preset paper is the paper's "
        rf"4 steps of 32 videos, {cost}$",
        line,
    )


def test_line_on_a_gpu_names_no_time_and_an_impossible_preset_says_why() -> None:
    streams = [StreamShape(name="rgb", grid=2, channels=6)]
    on_gpu = Material(
        streams=streams, classes=3, multi_label=False, segments=3, listed=12_000, videos=9_600,
        device=torch.device("cuda"),
    )  # fmt: skip
    assert choice_line(resolve_settings("stan"), {}, on_gpu) == (
        "12000 training videos, cuda: preset paper, the paper's 15,000 steps of 128 videos; --preset small is 600 "
        "steps of 32 videos"
    )
    here = Material(
        streams=streams, classes=3, multi_label=True, segments=3, listed=40, videos=32, device=CPU
    )  # fmt: skip
    before = torch.random.get_rng_state()
    with pytest.raises(UsageError, match="needs 2 streams"):
        step_seconds(resolve_settings("tclsta-cln", "small"), here)
    assert 0 < step_seconds(resolve_settings("mean", "small"), here) < 60
    assert torch.equal(torch.random.get_rng_state(), before)
    line = choice_line(resolve_settings("mean", "small"), {"batch_videos": "many"}, here)
    assert "--preset paper is not possible here: Setting batch_videos='many': must be a whole number" in line


@pytest.mark.slow
def test_what_continues_a_run_does_not_choose_again(store: Path, tmp_path: Path) -> None:
    settings = {"steps": "4", "validate_every": "2"}
    fit(config(store, tmp_path / "r", preset="paper", settings=settings))
    assert fit(config(store, tmp_path / "r", settings=settings)).finished_before
    fit(config(store, tmp_path / "chosen", settings=settings))
    again = fit(config(store, tmp_path / "chosen", settings=settings))
    assert again.finished_before
    started = plan_fit(config(store, tmp_path / "new", start=tmp_path / "r"))
    assert (started.settings.preset, started.automatic) == ("paper", False)


def test_a_sweep_chooses_for_each_fit(store: Path, tmp_path: Path) -> None:
    swept = SweepConfig(fit=config(store, tmp_path / "r"), vary={"head": ("mean", "svm-pool5-mean")})
    chosen = {member.fit.head: plan_fit(member.fit).settings.preset for member in members(swept)}
    assert chosen == {"mean": "small", "svm-pool5-mean": "paper"}
    assert choose_preset("mean", videos=1, device=CPU) == Choice(
        preset="small", settings={"early_stopping": "6"}, automatic=True
    )


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing can be learned here: validation gets worse."""
    return filled_store(tmp_path_factory.mktemp("stores") / "n.zarr", [3] * 60, {"rgb": (1, 1, 6)}).path


STOPPING = {"steps": "400", "validate_every": "4", "early_stopping": "3", "lr": "0.1"}


@pytest.mark.slow
def test_early_stopping_ends_a_fit_that_gets_no_better_and_keeps_the_best(noise: Path, tmp_path: Path) -> None:
    result = fit(config(noise, tmp_path / "r", preset="small", settings=STOPPING))
    rows = history(tmp_path / "r")
    assert result.steps == int(rows[-1]["step"]) < 400
    assert result.best_step is not None
    assert [int(row["step"]) for row in rows if int(row["step"]) > result.best_step] == [
        result.best_step + 4 * n for n in (1, 2, 3)
    ]
    assert any(f"stopped early at step {result.steps} of 400: 3 validations without" in note for note in result.notes)
    whole = fit(config(noise, tmp_path / "w", preset="small", settings={**STOPPING, "early_stopping": "none"}))
    assert whole.steps == 400
    same = fit(
        config(noise, tmp_path / "v", validation_share=0.0, preset="small", settings={**STOPPING, "steps": "40"})
    )
    assert same.steps == 40  # nothing to go by


def test_early_stopping_is_one_or_more() -> None:
    with pytest.raises(UsageError, match="early_stopping=0: must be at least 1"):
        resolve_settings("mean", "small", {"early_stopping": "0"})


CHILD = """
import json, sys
from pathlib import Path
from vidatt.pipelines.fitting.fit import FitConfig, fit
store, out, settings = json.loads(sys.argv[1])
fit(FitConfig(head="mean", store=Path(store), out=Path(out), preset="small", settings=settings, device="cpu",
              checkpoint_seconds=0.0))
"""


@pytest.mark.slow
def test_a_fit_that_was_killed_stops_early_at_the_same_step(noise: Path, tmp_path: Path) -> None:
    whole = fit(config(noise, tmp_path / "whole", preset="small", settings=STOPPING))
    child = start_program(CHILD, json.dumps([str(noise), str(tmp_path / "r"), STOPPING]))
    while not (tmp_path / "r" / "checkpoint.pt").exists():
        assert child.poll() is None, child.stderr
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    again = fit(config(noise, tmp_path / "r", preset="small", settings=STOPPING))
    assert (again.steps, again.best_step) == (whole.steps, whole.best_step)
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "r"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_history_has_a_row_at_least_every_so_often_and_weights_are_the_same(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": "20", "validate_every": "10"}
    fit(config(noise, tmp_path / "seldom", head="where-and-when", preset="small", settings=settings))
    monkeypatch.setattr(training, "ROW_SECONDS", 0.0)
    fit(config(noise, tmp_path / "often", head="where-and-when", preset="small", settings=settings))
    rows = history(tmp_path / "often")
    assert [int(row["step"]) for row in rows] == list(range(1, 21))
    assert [int(row["step"]) for row in rows if row["validation_loss"]] == [10, 20]
    assert all(0 < float(row["mask_mean"]) < 1 for row in rows)
    told = {row["step"]: row["train_loss"] for row in rows}
    assert all(told[row["step"]] == row["train_loss"] for row in history(tmp_path / "seldom"))
    one, other = (tmp_path / name / "weights.safetensors" for name in ("seldom", "often"))
    assert one.read_bytes() == other.read_bytes()


def test_the_time_left_is_told_once_after_the_first_steps(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FIRST_SECONDS", 0.0)
    fit(config(noise, tmp_path / "r", preset="small", settings={"steps": "30", "validate_every": "30"}))
    said = [line for line in (tmp_path / "r" / "log.txt").read_text().splitlines() if " left, by the first " in line]
    assert len(said) == 1
    assert re.search(r"about \d+ s left, by the first 3 steps \(\S+ s each\)$", said[0])


def test_durations_are_told_as_people_say_them() -> None:
    assert [rough_text(s) for s in (0.01, 20, 89, 600, 5_399, 9_000, 68_400)] == [
        "1 s", "20 s", "89 s", "10 min", "90 min", "2.5 h", "19 h",
    ]  # fmt: skip
    assert [duration_text(s) for s in (0.5, 119, 600, 9_000)] == ["0.5 s", "119.0 s", "10 min", "2.5 h"]


def test_a_log_gets_a_line_when_it_is_time_and_none_for_what_is_quick(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="vidatt")
    with progress.Progress("solve", 14, unit="machine") as quick:
        for _ in range(14):
            quick.advance()
    assert not caplog.records
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    with progress.Progress("solve", 3, unit="machine", first_seconds=0.0) as slow:
        for _ in range(3):
            time.sleep(0.002)
            slow.advance()
    lines = [record.message for record in caplog.records]
    assert "solve: 1 of 3 machines" in lines[0]
    assert "left" in lines[0]
    assert "solve: 3 of 3 machines" in lines[-1]


@pytest.mark.slow
def test_command_without_a_preset_says_so_and_learns(store: Path, tmp_path: Path) -> None:
    done = vidatt("fit-head", "--head", "mean", "--store", store, "--out", tmp_path / "r", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert sum("40 training videos, cpu: preset small" in line for line in done.stderr.splitlines()) == 1
    assert evaluate(tmp_path / "r", device="cpu").metrics.top1 > 0.6
    again = vidatt("fit-head", "--head", "mean", "--store", store, "--out", tmp_path / "r", "--device", "cpu", "--json")
    assert json.loads(again.stdout)["finished_before"]
    assert "preset small" not in again.stderr


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("head", sorted(set(head_names()) - {"svm", "svm-fc6"}))
def test_every_head_learns_on_tens_of_videos_by_what_is_chosen_for_it(head: str, tmp_path: Path) -> None:
    path = planted_store(tmp_path / "s.zarr", videos=range(60)).path
    if HEADS[head].head.stream_count == 2:
        second = shutil.copytree(path, tmp_path / "two.zarr")
        path = _with_a_second_stream(second)
    settings = {"clusters": "4", "pca": "4"} if head == "svm-vlad" else {}
    fit(config(path, tmp_path / "r", head=head, settings=settings))
    assert evaluate(tmp_path / "r", device="cpu").metrics.top1 > 0.6  # chance is a third


def _with_a_second_stream(path: Path) -> Path:
    """Give a store of `rgb` the same cubes again as `flow`."""
    store = Store.open(path)
    rgb = store.stream("rgb")
    flow = store.add_stream("flow", cube_shape=rgb.cube_shape, recipe={"made": "planted again"})
    arrays = {name: zarr.open_array(str(rgb.path / name), mode="r") for name in ("cubes", "frames", "seconds")}
    for shard in range(store.shard_count):
        start, stop = store.shard_row_range(shard)
        ids = {str(store.index.ids[p]) for p in store.shard_videos(shard)}
        outcomes = [outcome for outcome in rgb.outcomes() if outcome.id in ids]
        flow.publish(shard, outcomes=outcomes, **{name: array[start:stop] for name, array in arrays.items()})
    return path
