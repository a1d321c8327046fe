"""TCLSTA in the paper's two stages: a branch per stream is fitted first, the collaborative network starts from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from testkit.stores import filled_store

from vidatt.cache.store import Store
from vidatt.errors import RefusedError, UsageError, WeightsError
from vidatt.pipelines.fitting.fit import fit
from vidatt.pipelines.fitting.plan import FitConfig
from vidatt.pipelines.runs.run import Run

pytestmark = pytest.mark.slow

SMALL = {"cam": "6", "lstm": "5", "steps": "3"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled_store(
        tmp_path_factory.mktemp("two") / "s.zarr", [4] * 12, {"rgb": (3, 3, 5), "flow": (3, 3, 5)}, videos_per_shard=4
    )


def _fit(store: Store, out: Path, streams: tuple[str, ...], head: str = "tclsta", **settings: str) -> Run:
    fit(
        FitConfig(
            store=store.path,
            out=out,
            head=head,
            streams=streams,
            preset="small",
            device="cpu",
            settings=SMALL | settings,
        )
    )
    return Run.open(out)


def _branch(run: Run, place: int) -> dict[str, list[float]]:
    prefix = f"branches.{place}."
    return {k.removeprefix(prefix): v.tolist() for k, v in run.weights().items() if k.startswith(prefix)}


def test_frozen_branches_are_those_of_the_runs_whatever_their_order(store: Store, tmp_path: Path) -> None:
    rgb = _fit(store, tmp_path / "rgb", ("rgb",))
    flow = _fit(store, tmp_path / "flow", ("flow",))
    assert _branch(rgb, 0) != _branch(flow, 0)
    for order in ([rgb, flow], [flow, rgb]):
        names = ",".join(str(run.path) for run in order)
        made = _fit(
            store, tmp_path / f"cln-{order[0].path.name}", ("rgb", "flow"), "tclsta-cln", cln="4", branches=names,
            freeze_branches="yes",
        )  # fmt: skip
        assert _branch(made, 0) == _branch(rgb, 0)
        assert _branch(made, 1) == _branch(flow, 0)


def test_branches_of_one_run_of_both_streams_are_taken_and_trained_on(store: Store, tmp_path: Path) -> None:
    both = _fit(store, tmp_path / "both", ("flow", "rgb"))
    frozen = _fit(
        store, tmp_path / "frozen", ("rgb", "flow"), "tclsta-cln", branches=str(both.path), freeze_branches="yes"
    )
    assert (_branch(frozen, 0), _branch(frozen, 1)) == (_branch(both, 1), _branch(both, 0))
    trained = _fit(store, tmp_path / "trained", ("rgb", "flow"), "tclsta-cln", branches=str(both.path))
    assert _branch(trained, 0) != _branch(both, 1)


def test_branches_that_do_not_fit_are_refused(store: Store, tmp_path: Path) -> None:
    rgb = _fit(store, tmp_path / "rgb", ("rgb",))
    with pytest.raises(WeightsError, match="no run of stream 'flow' among them"):
        _fit(store, tmp_path / "a", ("rgb", "flow"), "tclsta-cln", branches=str(rgb.path))
    flow = _fit(store, tmp_path / "flow", ("flow",), cam="7")
    with pytest.raises(WeightsError, match="was it fitted on other streams, classes or sizes"):
        _fit(store, tmp_path / "b", ("rgb", "flow"), "tclsta-cln", branches=f"{rgb.path},{flow.path}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="is no run of a head"):
        _fit(store, tmp_path / "c", ("rgb", "flow"), "tclsta-cln", branches=str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="freeze_branches=true: needs branches"):
        _fit(store, tmp_path / "d", ("rgb", "flow"), "tclsta-cln", freeze_branches="yes")
    assert not issubclass(WeightsError, RefusedError)
