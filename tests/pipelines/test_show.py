"""`vidatt show`, what runs and stores record of their making, and advice that works as it stands."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from testkit.commands import vidatt
from testkit.planted import planted_store

from vidatt.cache.made_by import commands_file, made_by, note_command
from vidatt.cache.store import Store
from vidatt.errors import MissingFileError, UsageError
from vidatt.extract.datasets.generator import generate
from vidatt.pipelines.fitting.fit import fit
from vidatt.pipelines.fitting.plan import FitConfig
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.runs.run import Run
from vidatt.pipelines.show import ShownFolder, ShownRun, ShownStore, show
from vidatt.pipelines.stores.status import store_status
from vidatt.version import __version__


def run(command: str, cwd: Path, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run an advised command as a shell would, in a folder that it was not made for."""
    first, _, rest = command.partition(" && ")
    if first.startswith("cd "):
        cwd, command = Path(shlex.split(first)[1]), rest
    done = vidatt(*shlex.split(command)[1:], cwd=cwd)
    assert done.returncode == code, (command, done.stderr)
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a planted store."""
    folder = tmp_path_factory.mktemp("made")
    planted_store(folder / "s.zarr", videos=range(36))
    return folder


FIT = ["fit-head", "--head", "mean", "--store", "s.zarr", "--preset", "small", "--set", "steps=20", "--device", "cpu"]


@pytest.mark.slow
def test_a_run_says_what_it_is_how_it_was_made_and_what_is_next_and_that_works(made: Path, tmp_path: Path) -> None:
    done = vidatt(*FIT, "--out", "r", cwd=made)
    assert done.returncode == 0, done.stderr
    environment = Run.open(made / "r").environment
    assert (environment.store, environment.folder) == (str(made / "s.zarr"), str(made))
    assert environment.command == shlex.join(["vidatt", *FIT, "--out", "r"])
    assert environment.versions["vidatt"] == __version__
    shown = vidatt("show", made / "r")
    assert shown.returncode == 0, shown.stderr
    for words in (
        "r: a run", "mean, preset small", "split     1, seed 0, 3 classes", f"store     {made / 's.zarr'}",
        "optimiser=adam", "validation: top1", environment.command, f"vidatt {__version__}, torch ",
    ):  # fmt: skip
        assert words in shown.stdout
    assert "top5" not in shown.stdout
    assert "momentum" not in shown.stdout
    first = json.loads(vidatt("show", made / "r", "--json").stdout)
    assert [step["what"] for step in first["next"]] == [
        "measure it on the test list", "put a support vector machine on its representation",
    ]  # fmt: skip
    for step in first["next"]:
        run(step["command"], tmp_path)
    second = show(made / "r")
    assert isinstance(second, ShownRun)
    assert set(second.evaluations) == {"1-test"}
    assert second.next[0].what == "look at it"
    run(second.next[0].command, tmp_path)
    assert (made / "r" / "report.html").is_file()
    shutil.move(made / "r-svm", tmp_path / "r-svm")
    assert Run.open(tmp_path / "r-svm").fit_result().C is not None


@pytest.mark.slow
def test_a_run_whose_store_is_gone_and_one_that_is_not_finished(made: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.zarr"
    shutil.copytree(made / "s.zarr", moved)
    settings = {"steps": "2", "validate_every": "1"}
    fit(FitConfig(head="mean", store=moved, out=tmp_path / "r", preset="small", settings=settings, device="cpu"))
    shutil.rmtree(moved)
    shown = show(tmp_path / "r")
    assert isinstance(shown, ShownRun)
    assert (shown.store, shown.store_there, shown.made_by, shown.next) == (str(moved), False, None, ())
    assert shown.again[0].startswith(f"vidatt fit-head --head mean --store {moved}")  # of a program: by its record
    (tmp_path / "r" / "metrics.json").unlink()
    unfinished = show(tmp_path / "r")
    assert isinstance(unfinished, ShownRun)
    assert not unfinished.finished
    assert unfinished.next[0].command == unfinished.again[0]


@pytest.mark.slow
def test_a_fit_that_was_not_finished_is_continued_by_what_the_message_says(made: Path, tmp_path: Path) -> None:
    done = vidatt(*FIT, "--out", "unfinished", cwd=made)
    assert done.returncode == 0, done.stderr
    (made / "unfinished" / "metrics.json").unlink()
    refused = vidatt("evaluate", made / "unfinished")
    assert refused.returncode == 2
    command = refused.stderr.split("continue with `")[1].split("`")[0]
    assert command.startswith(f"cd {made} && vidatt fit-head --head mean")
    run(command, tmp_path)
    assert Run.open(made / "unfinished").finished
    shutil.rmtree(made / "unfinished")


@pytest.mark.long
@pytest.mark.slow
def test_a_folder_of_runs_is_taken_wherever_runs_are(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    settings = {"steps": "4", "validate_every": "2"}
    for seed in (0, 1):
        out = folder / f"seed={seed}"
        fit(
            FitConfig(
                head="mean", store=made / "s.zarr", out=out, preset="small", settings=settings, device="cpu",
                seed=seed, validation_share=0.0,
            )
        )  # fmt: skip
        evaluate(out, device="cpu")
    begun = shutil.copytree(folder / "seed=1", folder / "seed=2")
    (begun / "metrics.json").unlink()
    shown = show(folder)
    assert isinstance(shown, ShownFolder)
    assert [(Path(r.run).name, r.finished) for r in shown.runs] == [
        ("seed=0", True), ("seed=1", True), ("seed=2", False),
    ]  # fmt: skip
    for step in shown.next:
        if step.what != "continue the fit":
            run(step.command, tmp_path)
    compared = json.loads(vidatt("compare", folder, "--json").stdout)
    assert [Path(r["run"]).name for r in compared["runs"]] == ["seed=0", "seed=1"]
    fused = vidatt("fuse", folder, "--method", "mean", "--out", tmp_path / "fused")
    assert fused.returncode == 0, fused.stderr
    assert "seed=2 is not finished and is left out" in fused.stderr
    assert "top5" not in fused.stdout.split("\n\n")[0].replace("top5 of 3 classes is always 1", "")
    assert vidatt("show", tmp_path / "fused").returncode == 0
    alone = vidatt("detect", folder)
    assert alone.returncode == 2
    assert f"name one of the 3 runs in it, such as {folder / 'seed=0'}" in alone.stderr
    shutil.rmtree(folder / "seed=1")
    shutil.rmtree(folder / "seed=2")
    assert vidatt("evaluate", folder, "--device", "cpu").returncode == 0
    (folder / "seed=0" / "metrics.json").unlink()
    none = vidatt("compare", folder)
    assert (none.returncode, "has no finished run in it (1 unfinished)" in none.stderr) == (2, True)


def test_what_is_none_of_these_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingFileError, match=r"is neither a run .*, nor a store .*, nor a folder of runs"):
            show(path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="is damaged"):
        show(tmp_path)


def _extract(videos: str, store: str, *more: str) -> list[str]:
    return ["extract", "--dataset", "actionshapes", "--videos", videos, "--store", store, "--recipe", "hands",
            "--resize", "short:28", "--crop", "28", "--segments", "2", "--window", "12", "--shard-videos",
            "2", "--workers", "1", *more]  # fmt: skip


def _content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
@pytest.mark.long
def test_a_store_keeps_its_commands_beside_it_and_they_continue_it_from_anywhere(tmp_path: Path) -> None:
    generate(tmp_path / "videos", videos=6, shapes=2, motions=1, frames=12, n_jobs=1)
    whole = vidatt(*_extract("videos", "whole.zarr", "--streams", "rgb,clip"), cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    for number in (0, 1):
        half = _extract("videos", "s.zarr", "--streams", "rgb", "--shard", f"{number}/3")
        assert vidatt(*half, cwd=tmp_path).returncode == 0
    assert vidatt(*_extract("videos", "s.zarr", "--streams", "clip"), cwd=tmp_path).returncode == 0
    store = tmp_path / "s.zarr"
    entries = made_by(store)
    assert [entry.streams for entry in entries] == [("rgb",), ("rgb",), ("clip",)]
    assert entries[0].command == shlex.join(
        ["vidatt", *_extract("videos", "s.zarr", "--streams", "rgb", "--shard", "0/3")]
    )
    assert {entry.vidatt for entry in entries} == {__version__}
    status = store_status(store)
    assert status.command == entries[0].again  # rgb is not complete, and clip is
    shown = show(store)
    assert isinstance(shown, ShownStore)
    assert not shown.complete
    assert [step.what for step in shown.next] == ["continue the extraction"]
    fitted = vidatt("fit-head", "--head", "mean", "--store", store)
    assert fitted.returncode == 1
    advised = fitted.stderr.split("continue with `")[1].split("`")[0]
    assert advised == shown.next[0].command == status.command
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(advised, elsewhere)
    done = show(store)
    assert isinstance(done, ShownStore)
    assert done.complete
    assert _content(store) == _content(tmp_path / "whole.zarr")  # a store's bytes say nothing of who made it
    text = vidatt("show", store).stdout
    for words in ("a store, complete", "actionshapes: 6 videos", "uniform:2", "rgb: hog", entries[0].command or "?"):
        assert words in text
    for step in done.next:
        if "fit-head" not in step.command:
            run(step.command, elsewhere)
    assert any(step.command == f"vidatt fit-head --head stan --store {store}" for step in done.next)


@pytest.mark.long
@pytest.mark.slow
def test_videos_that_failed_are_retried_by_what_status_says(tmp_path: Path) -> None:
    generate(tmp_path / "videos", videos=6, shapes=2, motions=1, frames=12, n_jobs=1)
    victim = next(p for p in sorted((tmp_path / "videos").rglob("*")) if p.suffix in (".mp4", ".avi"))
    content = victim.read_bytes()
    victim.write_bytes(b"no video")
    assert vidatt(*_extract("videos", "s.zarr", "--streams", "rgb"), cwd=tmp_path).returncode == 1
    said = vidatt("status", tmp_path / "s.zarr").stdout
    command = said.split("1 videos could be retried: `")[1].split("`")[0]
    victim.write_bytes(content)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(command, elsewhere)
    assert store_status(tmp_path / "s.zarr").retryable == 0


@pytest.mark.slow
def test_a_store_without_recorded_commands_says_that_options_are_missing(tmp_path: Path) -> None:
    store = planted_store(tmp_path / "s.zarr")
    (store.path / "rgb" / ".done" / "1.json").unlink()
    status = store_status(store.path)
    assert status.command == f"vidatt extract --dataset planted --store {store.path}"
    with pytest.raises(LookupError, match=r"continue with `vidatt extract .*` and the other options that it was made"):
        Store.open(store.path).usable(["rgb"])
    shown = show(store.path)
    assert isinstance(shown, ShownStore)
    assert (shown.made_by, shown.next) == ((), ())


@pytest.mark.slow
def test_imports_and_merges_are_recorded_too(made: Path, tmp_path: Path) -> None:
    done = vidatt("cache", "export", made / "s.zarr", tmp_path / "s.h5", "--format", "hdf5")
    assert done.returncode == 0, done.stderr
    for command in (
        ("cache", "import", "s.h5", "imported.zarr"),
        ("cache", "merge", "imported.zarr", "--into", "m.zarr"),
    ):
        assert vidatt(*command, cwd=tmp_path).returncode == 0
        shown = show(tmp_path / command[-1])
        assert isinstance(shown, ShownStore)
        assert [entry.command for entry in shown.made_by] == [shlex.join(["vidatt", *command])]
        assert shown.complete
    (tmp_path / "m.zarr" / "rgb" / ".done" / "1.json").unlink()
    assert (
        store_status(tmp_path / "m.zarr").command == f"vidatt extract --dataset planted --store {tmp_path / 'm.zarr'}"
    )


def test_commands_are_noted_once_and_half_lines_are_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: dict[str, Any] = {"command": "vidatt extract", "again": "vidatt extract --videos /v", "streams": ["rgb"]}
    note_command(tmp_path / "s.zarr", **told)
    first = commands_file(tmp_path / "s.zarr").read_bytes()
    note_command(tmp_path / "s.zarr", **told)
    assert commands_file(tmp_path / "s.zarr").read_bytes() == first
    with commands_file(tmp_path / "s.zarr").open("ab") as file:
        file.write(first[:20] + b"\n")
    note_command(tmp_path / "s.zarr", **{**told, "streams": ["flow"]})
    assert [entry.streams for entry in made_by(tmp_path / "s.zarr")] == [("rgb",), ("flow",)]
    assert made_by(tmp_path / "other.zarr") == ()
    caplog.set_level("WARNING", logger="vidatt")
    note_command(tmp_path / "gone" / "u.zarr", **told)  # where nothing can be written
    assert "the command is not recorded" in caplog.text
    assert time.strptime(made_by(tmp_path / "s.zarr")[0].time, "%Y-%m-%d %H:%M:%S")
