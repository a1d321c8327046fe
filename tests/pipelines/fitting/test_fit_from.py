"""`fit-head --from RUN`: from one data set to another, as GLKA goes from Kinetics to UCF101 and HMDB51."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from testkit.commands import vidatt
from testkit.stores import filled_store

from vidatt.cache.store import Store
from vidatt.errors import RefusedError, UsageError
from vidatt.pipelines.fitting.fit import fit
from vidatt.pipelines.fitting.plan import FitConfig
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.runs.measured import FitResult
from vidatt.pipelines.runs.run import Run
from vidatt.pipelines.runs.seen import read_seen

pytestmark = pytest.mark.slow

STILL = {"steps": "2", "lr": "1e-30", "hidden": "6", "la_hidden": "4"}
"""Weights stay as they start; biases that are 0 move by 1e-30."""


def _fit(store: Store, out: Path, start: Path | None = None, head: str = "glka", **settings: str) -> FitResult:
    return fit(
        FitConfig(
            store=store.path, out=out, head=head, preset="small", device="cpu", start=start, settings=STILL | settings
        )
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """Two data sets of the same features; the second one has more videos."""
    folder = tmp_path_factory.mktemp("two")
    return tuple(  # type: ignore[return-value]
        filled_store(folder / f"{name}.zarr", [4] * videos, {"rgb": (3, 3, 5)}, videos_per_shard=8)
        for name, videos in (("kinetics", 24), ("ucf", 32))
    )


def test_what_fits_is_taken_and_the_rest_is_new(stores: tuple[Store, Store], tmp_path: Path) -> None:
    _fit(stores[0], tmp_path / "before")
    wide = {"hidden": "8"}  # the recurrent layers of other sizes stay as they start
    result = _fit(stores[1], tmp_path / "after", tmp_path / "before", **wide)
    fresh = _fit(stores[1], tmp_path / "fresh", **wide)
    before, after, new = (Run.open(tmp_path / name).weights() for name in ("before", "after", "fresh"))
    taken = [name for name in after if before[name].shape == after[name].shape]
    for name, tensor in after.items():
        start = before[name] if name in taken else new[name]
        np.testing.assert_allclose(tensor, start, rtol=0, atol=1e-20, err_msg=name)
    assert any(name.startswith("attention") for name in taken)
    assert "models.gp.temporal.layers.0.weight" not in taken
    said = "\n".join(result.notes)
    assert f"{len(taken)} tensors taken" in said
    assert f"new are {len(after) - len(taken)} tensors (models)" in said
    assert fresh.notes != result.notes
    assert "tensors taken" in (tmp_path / "after" / "log.txt").read_text()


def test_the_run_that_it_starts_from_is_part_of_what_the_fit_is(stores: tuple[Store, Store], tmp_path: Path) -> None:
    _fit(stores[0], tmp_path / "before")
    _fit(stores[1], tmp_path / "after", tmp_path / "before")
    assert _fit(stores[1], tmp_path / "after", tmp_path / "before").finished_before
    with pytest.raises(RefusedError, match="is of another fit: start"):
        _fit(stores[1], tmp_path / "after")


def test_what_the_run_before_has_seen_this_one_has_seen(stores: tuple[Store, Store], tmp_path: Path) -> None:
    _fit(stores[0], tmp_path / "before")
    _fit(stores[0], tmp_path / "after", tmp_path / "before")
    run = Run.open(tmp_path / "after")
    seen, before = read_seen(run), read_seen(Run.open(tmp_path / "before"))
    assert seen is not None
    assert before is not None
    assert set(before.ids) <= set(seen.ids)
    assert evaluate(tmp_path / "after", device="cpu").seen is None


def test_a_run_that_cannot_be_started_from_is_told_in_one_line(stores: tuple[Store, Store], tmp_path: Path) -> None:
    for arguments, said in (
        ((tmp_path / "nowhere",), "is no run"),
        ((stores[0].path,), "is no run"),
    ):
        told = vidatt(
            "fit-head", "--head", "glka", "--store", stores[0].path, "--from", *arguments, "--out", tmp_path / "r"
        )
        assert told.returncode == 2
        assert said in told.stderr
        assert told.stderr.count("\n") == 1
    fit(FitConfig(store=stores[0].path, out=tmp_path / "mean", head="mean", preset="small", device="cpu",
                  settings={"steps": "1"}))  # fmt: skip
    with pytest.raises(UsageError, match="nothing of its head 'mean' fits this one"):
        _fit(stores[0], tmp_path / "r2", tmp_path / "mean")
    with pytest.raises(UsageError, match="--from is for heads that are trained step by step"):
        fit(FitConfig(store=stores[0].path, out=tmp_path / "svm", head="svm-pool5-mean", device="cpu",
                      start=tmp_path / "mean"))  # fmt: skip
    assert np.all([not (tmp_path / name).exists() for name in ("r", "svm")])
