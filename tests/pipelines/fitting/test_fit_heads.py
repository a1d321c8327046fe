"""Heads that bring more than a loss into a fit: trained attention to start from, and numbers for the history."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from testkit.stores import filled_store

from vidatt.heads.contract import FitDefaults, StreamShape
from vidatt.heads.registry import build_head, default_preset, head_names, preset_names
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.fitting.training import build_optimiser
from vidatt.pipelines.results.evaluate import evaluate


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled_store(tmp_path_factory.mktemp("store") / "s.zarr", [6] * 48, {"rgb": (3, 3, 8)}).path


def _fit(store: Path, out: Path, head: str, **settings: str) -> Path:
    settings = {"steps": "6", "validate_every": "3", **settings}
    fit(FitConfig(head=head, store=store, out=out, preset="small", settings=settings, device="cpu"))
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("head", "column"), [("where-and-when", "mask_mean"), ("tclsta", "entropy")])
def test_history_tells_what_the_head_watches(store: Path, tmp_path: Path, head: str, column: str) -> None:
    run = _fit(store, tmp_path / "run", head)
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(0 < float(row[column]) < 1 for row in rows)


@pytest.mark.slow
def test_glka_takes_its_attention_from_a_finished_run_and_keeps_it(store: Path, tmp_path: Path) -> None:
    source = _fit(store, tmp_path / "la", "glka-la")
    run = _fit(store, tmp_path / "gl", "glka-gl", attention_from=str(source), freeze_attention="true")
    trained, taken = (load_file(r / "weights.safetensors") for r in (source, run))
    names = [name for name in taken if name.startswith("attention.")]
    assert names
    assert all(torch.equal(taken[name], trained[name]) for name in names)
    shutil.rmtree(source)
    assert evaluate(run, device="cpu").metrics.top1 >= 0


def test_default_preset_is_the_papers_except_where_its_print_is_known_wrong() -> None:
    chosen = {name: default_preset(name) for name in head_names()}
    assert {name for name, preset in chosen.items() if preset != "paper"} == {"where-and-when"}
    assert all(preset in preset_names(name) for name, preset in chosen.items())


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_optimisers_lower_the_loss(name: str) -> None:
    head = build_head("mean", streams=[StreamShape(name="rgb", grid=2, channels=4)], classes=2)
    optimiser = build_optimiser(head, FitDefaults(optimiser=name, lr=0.05, weight_decay=0.0))
    cubes, valid = [torch.randn(8, 3, 2, 2, 4) + 1], torch.ones(8, 3, dtype=torch.bool)
    target = torch.arange(8) % 2
    cubes[0][target == 1] -= 2
    losses = []
    for _ in range(20):
        loss = head.eval().loss(head(cubes, valid), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
