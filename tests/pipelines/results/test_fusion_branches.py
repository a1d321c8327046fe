"""Branches: TCLSTA's headline row, collaborative and adaptively weighted learning together, from store to score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from testkit.commands import vidatt
from testkit.stores import filled_store

from vidatt.cache.store import Store
from vidatt.errors import UnknownNameError, UsageError
from vidatt.heads.fusion import awl
from vidatt.pipelines.fitting.fit import fit
from vidatt.pipelines.fitting.plan import FitConfig
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.results.fusion import FuseConfig, fuse
from vidatt.pipelines.runs.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    cubes = {"rgb": (3, 3, 5), "flow": (3, 3, 5)}
    return filled_store(tmp_path_factory.mktemp("two") / "s.zarr", [4] * 40, cubes, videos_per_shard=8)


def _run(store: Store, out: Path, head: str, **settings: str) -> Path:
    fit(
        FitConfig(
            store=store.path,
            out=out,
            head=head,
            streams=("rgb", "flow"),
            preset="small",
            device="cpu",
            validation_share=0.3,
            settings={"steps": "5", **settings},
        )
    )
    evaluate(out, device="cpu")
    return out


@pytest.fixture(scope="module")
def cln(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(store, tmp_path_factory.mktemp("cln") / "run", "tclsta-cln", cam="6", lstm="5", cln="4")


def _kept(run: Path, part: str) -> dict[str, np.ndarray]:
    name = next(path for path in run.glob(f"scores-*-{part}.npz"))
    with np.load(name) as content:
        return {key: content[key] for key in content.files}


def test_branches_are_kept_beside_the_fused_scores(cln: Path) -> None:
    for part in ("test", "validation"):
        kept = _kept(cln, part)
        assert kept["branches"].tolist() == ["rgb", "flow"]
        np.testing.assert_allclose(kept["branch_scores"].mean(1), kept["scores"], atol=1e-6)


def test_awl_of_the_branches_of_collaborative_learning(cln: Path, tmp_path: Path) -> None:
    parts = (Path(f"{cln}:rgb"), Path(f"{cln}:flow"))
    result = fuse(
        FuseConfig(parts=parts, method="awl", out=tmp_path / "f", settings={"strength": "0.1", "penalty": "0.005"})
    )
    held, test = _kept(cln, "validation"), _kept(cln, "test")
    learned = awl.learn_weights(held["branch_scores"].transpose(1, 0, 2), held["labels"][:, 0])
    expected = awl.predict(learned, test["branch_scores"].transpose(1, 0, 2))
    made = _kept(tmp_path / "f", "test")
    by_id = dict(zip(test["ids"], expected, strict=True))
    np.testing.assert_allclose(made["scores"], [by_id[id] for id in made["ids"]], atol=1e-6)
    np.testing.assert_allclose(result.learned["weights"], learned.weights, atol=1e-6)
    assert [part.branch for part in Run.open(tmp_path / "f").identity.parts] == ["rgb", "flow"]
    mean = fuse(FuseConfig(parts=parts, method="mean", out=tmp_path / "mean"))
    assert mean.metrics == Run.open(cln).evaluation("1-test").metrics


def test_models_of_glka_are_branches_too(store: Store, tmp_path: Path) -> None:
    run = _run(store, tmp_path / "glka", "glka-late", hidden="6")
    assert _kept(run, "test")["branches"].tolist() == ["gp", "sa", "la"]


def test_command_takes_branches_and_refuses_others_in_one_line(cln: Path, store: Store, tmp_path: Path) -> None:
    done = vidatt("fuse", f"{cln}:rgb", f"{cln}:flow", "--method", "mean", "--out", tmp_path / "f")
    assert done.returncode == 0, done.stderr
    wrong = vidatt("fuse", f"{cln}:rgb", f"{cln}:flwo", "--method", "mean", "--out", tmp_path / "g")
    assert wrong.returncode == 2
    assert "Did you mean 'flow'?" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    plain = _run(store, tmp_path / "mean", "mean")
    with pytest.raises(UsageError, match="has no scores of branches"):
        fuse(FuseConfig(parts=(Path(f"{plain}:rgb"), cln), method="mean", out=tmp_path / "h"))
    with pytest.raises(UnknownNameError):
        fuse(FuseConfig(parts=(Path(f"{cln}:clip"), cln), method="mean", out=tmp_path / "h"))
    assert not (tmp_path / "h").exists()
