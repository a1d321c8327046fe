"""Fit, extend, fit again: a run of before works on the store that has grown, and says why where it cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from testkit.commands import run

from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_fit_extend_fit_again(tmp_path: Path) -> None:
    generate(tmp_path / "made", videos=16, shapes=2, motions=1, frames=12, n_jobs=2)
    videos, store = tmp_path / "videos", tmp_path / "s.zarr"
    made = sorted(p for p in (tmp_path / "made").rglob("*") if p.suffix in (".mp4", ".avi"))
    labels = {p: i % 2 for i, p in enumerate(made)}
    videos.mkdir()

    def give(some: list[Path], more: str = "") -> None:
        lines = [f"{p.name},class {labels[p]},{'test' if made.index(p) % 4 < 2 else 'train'}" for p in some]
        (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines, *([more] if more else []), ""]))
        for p in some:
            shutil.copy(p, videos / p.name)

    extract = ["extract", "--dataset", "list", "--videos", videos, "--annotations", tmp_path / "list.csv",
               "--store", store, "--recipe", "hands", "--streams", "rgb", "--resize", "short:28", "--crop", "28",
               "--sampler", "centre:3", "--shard-videos", "3", "--workers", "1"]  # fmt: skip
    fit = ["fit-head", "--head", "mean", "--store", store, "--set", "steps=4", "--device", "cpu"]
    give(made[:8])
    run(*extract)
    run(*fit, "--out", tmp_path / "one")
    before = run("evaluate", tmp_path / "one", "--device", "cpu")
    give(made)
    run(*extract, "--extend")
    wider = Store.open(store)
    assert (len(wider.index), wider.layout.earlier_rows) == (16, (24,))
    # the same command fits anew, since it would train on other videos; the old run stands
    refused = run(*fit, "--out", tmp_path / "one", code=3)["error"]
    assert "train" in refused
    run(*fit, "--out", tmp_path / "two")
    after = run("evaluate", tmp_path / "two", "--device", "cpu")
    assert after["videos"] == 2 * before["videos"] == 8
    assert run("evaluate", tmp_path / "one", "--device", "cpu")["videos"] == 8
    shutil.copy(made[0], videos / "new.avi")
    give(made, "new.avi,a third class,train")
    run(*extract, "--extend")
    told = run("evaluate", tmp_path / "one", "--device", "cpu", code=3)["error"]
    assert "has other classes than run" in told
