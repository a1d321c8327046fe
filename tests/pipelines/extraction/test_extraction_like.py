"""`extract --like`: what a store or a run has, made again of the same videos, is the same to the last byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from testkit.commands import run
from testkit.stores import content

from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "videos"
    generate(folder, videos=8, shapes=2, motions=1, frames=20, n_jobs=2)
    return folder


@pytest.fixture(scope="module")
def first(videos: Path) -> Path:
    store = videos.parent / "first.zarr"
    options = "--streams rgb,flow --backbone rgb=resnet18 --backbone flow=hof --weights rgb=random --layer rgb=layer3 "
    options += "--resize short:56 --crop 56 --pool rgb=2 --sampler random:3:1 --views train:2+center --seed 5 "
    options += "--flow-preset fast --precision float32"
    run("extract", *where(videos), "--store", store, *options.split())
    return store


def where(videos: Path) -> list[str | Path]:
    return ["--dataset", "actionshapes", "--videos", videos, "--workers", "1"]


def test_like_a_store_is_that_store(videos: Path, first: Path, tmp_path: Path) -> None:
    run("extract", *where(videos), "--store", tmp_path / "again.zarr", "--like", first)
    assert content(tmp_path / "again.zarr") == content(first)


def test_like_a_run_is_what_it_was_fitted_on(videos: Path, first: Path, tmp_path: Path) -> None:
    fitted = run("fit-head", "--head", "mean", "--store", first, "--streams", "flow", "--set", "steps=4", "--set",
                 "validate_every=2", "--preset", "small", "--validation", "0", "--out", tmp_path / "run")  # fmt: skip
    run("extract", *where(videos), "--store", tmp_path / "again.zarr", "--like", tmp_path / "run")
    again, wanted = Store.open(tmp_path / "again.zarr"), Store.open(first)
    assert again.stream_names == ["flow"]
    assert again.stream("flow").recipe["crop_px"] == wanted.stream("flow").recipe["crop_px"]
    assert run("evaluate", fitted["run"], "--store", tmp_path / "again.zarr", "--split", "1")["videos"] > 0


def test_what_it_says_is_not_said_twice(videos: Path, first: Path, tmp_path: Path) -> None:
    line = ["extract", *where(videos), "--store", tmp_path / "n.zarr", "--like", first, "--dry-run"]
    for option in (["--sampler", "uniform:3"], ["--backbone", "hog"], ["--seed", "7"], ["--recipe", "glka"]):
        told = run(*line, *option, code=2)["error"]
        assert told == f"vidatt: {option[0]}: --like {first} says it; leave one of them out."
    assert "no stream 'clip'; it has rgb, flow" in run(*line, "--streams", "clip", code=2)["error"]
    assert run(*line, "--streams", "flow")["streams"].keys() == {"flow"}
    assert "nowhere" in run(*line[:-2], tmp_path / "nowhere", "--dry-run", code=2)["error"]
    assert not (tmp_path / "n.zarr").exists()
