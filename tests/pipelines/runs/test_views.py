"""Which views of a store a job reads, and that it reads no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidatt.cache.layout import plan_layout
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_index, synthetic_shard
from vidatt.errors import CorruptStoreError, NotFiniteError, UnknownNameError, UsageError
from vidatt.pipelines.fitting.fit import fit
from vidatt.pipelines.fitting.plan import FitConfig
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.runs.places import Place
from vidatt.pipelines.runs.run import Run
from vidatt.pipelines.runs.views import central_name, central_view, choose_views, shows_centre


def _empty(path: Path, rule: str | None, views: int) -> Store:
    """Make a store of 18 videos without streams."""
    layout = plan_layout(np.full(18, 3), views, 6)
    told = {"dataset": "synthetic", "seed": 7, "sampler": "uniform:3", "window_frames": 1}
    attributes = told | ({} if rule is None else {"view_rule": rule})
    return Store.create(path, index=synthetic_index([3] * 18), views=views, layout=layout, attributes=attributes)


def _store(path: Path, rule: str, views: int, *, bad: range = range(0)) -> Store:
    """Make a filled store whose cubes in some views are not finite."""
    store = _empty(path, rule, views)
    stream = store.add_stream("rgb", cube_shape=(2, 2, 4), recipe={"layer": "x", "views": rule})
    for shard in range(store.shard_count):
        rows = synthetic_shard(stream, shard)
        of_view = np.arange(len(rows["cubes"])) // 3 % views
        rows["cubes"][np.isin(of_view, bad)] = np.nan
        stream.publish(shard, **rows)
    return store


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "views", "asked", "train", "chosen"),
    [
        pytest.param("center", 1, None, True, ("center", 0, 1), id="one-set-is-for-all"),
        pytest.param("center", 1, None, False, ("center", 0, 1), id="one-set-is-for-all-2"),
        pytest.param("train:3", 3, None, False, ("train:3", 0, 3), id="only-random-ones"),
        pytest.param("train:3+10crop", 13, None, True, ("train:3", 0, 3), id="a-fit"),
        pytest.param("train:3+10crop", 13, None, False, ("10crop", 3, 13), id="an-evaluation"),
        pytest.param("10crop+train:3", 13, None, True, ("train:3", 10, 13), id="in-any-order"),
        pytest.param("train:2+center+10crop", 13, None, False, ("center", 2, 3), id="the-first-of-two"),
        pytest.param("train:2+center+10crop", 13, "10crop", False, ("10crop", 3, 13), id="asked-for"),
        pytest.param("train:2+center", 3, "train", False, ("train:2", 0, 2), id="by-rule"),
        pytest.param("train:2+center", 3, "train:2", False, ("train:2", 0, 2), id="by-spelling"),
        pytest.param("train:2+center", 3, "center", True, ("center", 2, 3), id="a-fit-that-asks"),
        pytest.param("center+10crop", 11, None, True, ("center", 0, 1), id="a-fit-without-random-ones"),
        pytest.param(None, 4, None, True, (None, 0, 4), id="a-store-that-does-not-say"),
    ],
)
def test_choose_views(
    tmp_path: Path, rule: str | None, views: int, asked: str | None, train: bool, chosen: tuple[str | None, int, int]
) -> None:
    found = choose_views(_empty(tmp_path / "s.zarr", rule, views), asked, train=train)
    assert (found.name, found.views.start, found.views.stop) == chosen
    assert found.told == (found.name if rule and "+" in rule else None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "views", "asked", "error", "message"),
    [
        ("train:2+center", 3, "train:3", UnknownNameError, r"Unknown set of views of .*s\.zarr: 'train:3'\. Did you"),
        ("train:2+center", 3, "10crop", UnknownNameError, "Known: center, train, train:2"),
        (None, 2, "center", UsageError, "does not say which views it has; leave it out"),
        ("train:2+center", 4, None, CorruptStoreError, r"has 4 views, and its view_rule train:2\+center are 3"),
        ("sideways", 1, None, CorruptStoreError, "its view_rule is none .*restore its zarr.json"),
    ],
)
def test_views_that_are_not_there_are_one_line(
    tmp_path: Path, rule: str | None, views: int, asked: str | None, error: type[Exception], message: str
) -> None:
    store = _empty(tmp_path / "s.zarr", rule, views)
    with pytest.raises(error, match=message) as caught:
        choose_views(store, asked)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "views", "central", "name"),
    [
        ("center", 1, 0, "center"),
        ("10crop", 10, 4, "center"),
        ("train:3+10crop", 13, 7, "center"),
        ("train:3+center", 4, 3, "center"),
        ("train:3", 3, 0, "train:3"),
        (None, 2, 0, None),
    ],
)
def test_the_centre_is_found_in_any_set(
    tmp_path: Path, rule: str | None, views: int, central: int, name: str | None
) -> None:
    store = _empty(tmp_path / "s.zarr", rule, views)
    assert (central_view(store), central_name(store)) == (central, name)
    assert shows_centre(store) == (rule != "train:3")


@pytest.fixture
def head() -> dict[str, object]:
    """Return a head of few parameters."""
    return {"head": "stan", "preset": "small", "settings": {"steps": "4", "batch_videos": "4"}, "device": "cpu"}


@pytest.mark.slow
def test_a_fit_reads_no_view_but_its_own(tmp_path: Path, head: dict[str, object]) -> None:
    store = _store(tmp_path / "s.zarr", "train:3+center", 4, bad=range(3, 4))
    done = fit(FitConfig(store=store.path, out=tmp_path / "r", validation_share=0, **head))  # type: ignore[arg-type]
    assert done.notes[0] == "fitted on views train:3, validated on views center"
    identity = Run.open(tmp_path / "r").config["identity"]
    assert (identity["views"], identity["view_set"]) == (3, "train:3")
    with pytest.raises(NotFiniteError):
        fit(FitConfig(store=store.path, out=tmp_path / "c", views="center", validation_share=0, **head))  # type: ignore[arg-type]


@pytest.mark.slow
def test_validation_and_evaluation_read_no_view_but_theirs(tmp_path: Path, head: dict[str, object]) -> None:
    store = _store(tmp_path / "s.zarr", "center+train:3", 4, bad=range(2, 4))
    done = fit(FitConfig(store=store.path, out=tmp_path / "r", views="center", **head))  # type: ignore[arg-type]
    assert done.metrics.validation is not None
    found = evaluate(tmp_path / "r", device="cpu")
    assert found.sampled is not None
    assert found.sampled.to_dict() == {"views": "center", "sampler": "uniform:3", "window_frames": 1, "seed": None}
    assert "; view center; segments uniform:3, window 1; " in found.protocol
    with pytest.raises(NotFiniteError):
        evaluate(tmp_path / "r", views="train", device="cpu")


@pytest.mark.slow
def test_results_of_other_views_lie_beside_each_other(tmp_path: Path, head: dict[str, object]) -> None:
    store = _store(tmp_path / "s.zarr", "train:3+center", 4)
    fit(FitConfig(store=store.path, out=tmp_path / "r", **head))  # type: ignore[arg-type]
    usual, other = evaluate(tmp_path / "r", device="cpu"), evaluate(tmp_path / "r", views="train", device="cpu")
    assert other.sampled is not None
    assert (other.sampled.views, other.sampled.seed) == ("train:3", 7)
    assert "averaged over 3 views (train:3); segments uniform:3, window 1; drawn by seed 7" in other.protocol
    assert (usual.scores, other.scores) == tuple(
        str(tmp_path / "r" / Place(split="1", part="test", views=views).scores) for views in (None, "train")
    )
    run = Run.open(tmp_path / "r")
    assert {name: found["sampled"]["views"] for name, found in run.metrics()["evaluations"].items()} == {
        "1-test": "center", "1-test@train": "train:3",
    }  # fmt: skip
    by_name = evaluate(tmp_path / "r", views="center", device="cpu")
    assert by_name.scores == usual.scores


@pytest.mark.slow
def test_a_store_of_one_set_is_fitted_and_told_as_ever(tmp_path: Path, head: dict[str, object]) -> None:
    store = _store(tmp_path / "s.zarr", "train:3", 3)
    done = fit(FitConfig(store=store.path, out=tmp_path / "r", **head))  # type: ignore[arg-type]
    identity = Run.open(tmp_path / "r").config["identity"]
    assert identity["views"] == 3
    assert "view_set" not in identity
    assert not any("views" in note for note in done.notes)
    assert done.selected_by == "top1 of the first view, ties by lower loss"
