"""The run folder: created once, recognised again, damaged files named."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from vidatt.cache.scratch import write_atomically
from vidatt.errors import MissingFileError, RefusedError, UsageError
from vidatt.heads.contract import FitDefaults
from vidatt.pipelines.fitting.training import Plateau, learning_rate
from vidatt.pipelines.runs.identity import FitEnvironment, FitIdentity
from vidatt.pipelines.runs.measured import FitMeasures, FitResult
from vidatt.pipelines.runs.run import Run, changes


def identity(**changes) -> FitIdentity:
    plain = {
        "head": "stan", "preset": "paper", "settings": {"config": {}, "fit": {}}, "stream_names": ["rgb"],
        "streams": {"rgb": {"grid": 7, "channels": 2, "fingerprint": "f", "recipe": {"layer": "fc6"}}}, "split": "1",
        "seed": 0, "classes": ["a", "b"], "multi_label": False, "views": 1, "allow_truncated": True,
        "validation_share": 0.2, "train": {"videos": 1, "digest": "t"}, "validation": {"videos": 1, "digest": "v"},
    }  # fmt: skip
    return FitIdentity.from_dict(plain | changes, "identity")


def create(path, device: str = "cpu", **changes) -> Run:
    environment = FitEnvironment(store="s.zarr", device=device, versions={}, notes=())
    return Run.create(path, identity=identity(**changes), environment=environment)


def test_run_is_created_with_parents_and_taken_up_again(tmp_path):
    settings = {"config": {"sizes": (1, 2)}, "fit": {}}
    run = create(tmp_path / "a" / "b", settings=settings)
    again = create(tmp_path / "a" / "b", settings=settings)
    assert again.identity == run.identity
    assert again.identity.settings.config == {"sizes": [1, 2]}
    assert not run.finished


def test_run_may_be_created_in_an_empty_folder_but_in_no_other(tmp_path):
    (tmp_path / "empty").mkdir()
    create(tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"full exists and is no run \(it has no config.json\); use another --out"):
        create(tmp_path / "full")
    with pytest.raises(UsageError, match="exists and is no run"):
        create(tmp_path / "full" / "letter.txt")


def test_run_of_another_fit_is_refused_with_the_changes(tmp_path):
    create(tmp_path / "r", settings={"config": {}, "fit": {"lr": 0.1, "steps": 5}})
    with pytest.raises(RefusedError, match=r"fit\.lr: 0\.1 -> 0\.2; seed: 0 -> 1 \(there -> asked\)") as caught:
        create(tmp_path / "r", seed=1, settings={"config": {}, "fit": {"lr": 0.2, "steps": 5}})
    assert caught.value.exit_code == 3


def test_run_environment_may_change(tmp_path):
    create(tmp_path / "r")
    assert create(tmp_path / "r", device="cuda").environment.device == "cpu"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda i: i.pop("seed"), "config.json: identity has no 'seed'"),
        (lambda i: i.update(seed="0"), "config.json: identity.seed must be an integer, and is '0'"),
        (lambda i: i.update(multi_label=1), "config.json: identity.multi_label must be true or false, and is '1'"),
        (lambda i: i["streams"]["rgb"].pop("grid"), "config.json: identity.streams.rgb has no 'grid'"),
        (lambda i: i["classes"].append(3), r"config.json: identity.classes\[2\] must be text, and is '3'"),
        (lambda i: i.update(parts=[{}]), "config.json: identity has no 'scores'"),
    ],
)
def test_run_with_a_field_missing_or_of_another_type_is_refused_by_its_name(tmp_path, change, said):
    create(tmp_path / "r")
    content = json.loads((tmp_path / "r" / "config.json").read_text())
    change(content["identity"])
    (tmp_path / "r" / "config.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=said):
        Run.open(tmp_path / "r")


def test_run_config_holds_what_the_identity_says_in_its_order(tmp_path):
    made = create(tmp_path / "r", on={"identity": identity(head="san").to_dict(), "weights": "w"})
    content = json.loads((tmp_path / "r" / "config.json").read_text())
    assert json.dumps(content["identity"]) == json.dumps(made.identity.to_dict())
    assert list(content["identity"])[:9] == [
        "head", "preset", "settings", "stream_names", "streams", "split", "seed", "classes", "multi_label",
    ]  # fmt: skip
    assert "on" not in json.loads(json.dumps(identity().to_dict()))
    assert Run.open(tmp_path / "r").identity.base.head == "san"


def test_run_open_refuses_what_is_no_run(tmp_path):
    with pytest.raises(MissingFileError, match=r"is no run: there is no config\.json"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json is damaged"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UsageError, match="no run of this version"):
        Run.open(tmp_path)


def test_run_weights_missing_or_damaged_are_one_line(tmp_path):
    run = create(tmp_path / "r")
    with pytest.raises(MissingFileError, match=r"has no weights\.safetensors: repeat its fit-head command"):
        run.weights()
    run.write_weights({"w": torch.arange(6.0).view(2, 3).T})
    assert torch.equal(run.weights()["w"], torch.arange(6.0).view(2, 3).T)
    path = tmp_path / "r" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UsageError, match=r"weights\.safetensors is damaged"):
        run.weights()


def test_run_checkpoint_holds_tensors_and_plain_types(tmp_path):
    run = create(tmp_path / "r")
    assert run.checkpoint() is None
    state = {"step": 3, "weights": {"w": torch.ones(2)}, "best": None, "plateau": [1.0, math.inf, 0]}
    run.write_checkpoint(state)
    loaded = run.checkpoint()
    assert torch.equal(loaded["weights"]["w"], torch.ones(2))
    assert {k: v for k, v in loaded.items() if k != "weights"} == {k: v for k, v in state.items() if k != "weights"}
    run.drop_checkpoint()
    run.drop_checkpoint()
    assert run.checkpoint() is None


def test_run_scores_are_float32_and_readable_without_pickle(tmp_path):
    run = create(tmp_path / "r")
    ids = np.array(["b/ä.avi", "a"], np.dtypes.StringDType())
    run.write_scores("1-test", ids=ids, scores=np.eye(2), labels=np.array([[0, -1], [1, 0]]))
    with np.load(tmp_path / "r" / "scores-1-test.npz", allow_pickle=False) as scores:
        assert scores["ids"].tolist() == ["b/ä.avi", "a"]
        assert (scores["scores"].dtype, scores["labels"].dtype) == (np.float32, np.int32)


def test_run_history_writes_empty_fields_for_none(tmp_path):
    run = create(tmp_path / "r")
    run.write_history([{"step": 1, "top1": None}, {"step": 2, "top1": 0.5}])
    assert (tmp_path / "r" / "history.csv").read_text() == "step,top1\n1,\n2,0.5\n"


def result(seconds: float) -> FitResult:
    return FitResult(
        run="r", head="stan", streams=("rgb",), metrics=FitMeasures(validation=None), seconds=seconds,
        selected_by="last", train_videos=1, validation_videos=0, notes=(),
    )  # fmt: skip


def test_run_metrics_refuse_nan_and_leave_the_old_file(tmp_path):
    run = create(tmp_path / "r")
    run.finish(result(1.0))
    with pytest.raises(ValueError, match="Out of range"):
        run.finish(result(math.nan))
    assert run.fit_result() == result(1.0)
    assert run.metrics()["fit"].keys().isdisjoint({"steps", "C", "cross_validation", "svm"})
    assert run.evaluation("1-test") is None


def test_run_metrics_that_are_damaged_are_named(tmp_path):
    run = create(tmp_path / "r")
    empty = '{"fit": {}, "evaluations": {}}'
    for text, said in (("{", "metrics.json is damaged"), ("[]", "it has no fit"), (empty, "fit has no 'run'")):
        (tmp_path / "r" / "metrics.json").write_text(text)
        with pytest.raises(UsageError, match=said):
            run.fit_result()


def test_atomic_write_that_fails_leaves_nothing_behind(tmp_path):
    def fail(_: object) -> None:
        raise OSError("disk full")

    (tmp_path / "f").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "f", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


def test_differences_name_nested_keys_and_shorten_long_values():
    assert changes({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": "x" * 99}) == [
        "a.c: 2 -> 3", f'd: null -> "{"x" * 56}...',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        (FitDefaults(), {0: 1e-3, 3999: 1e-3, 4000: 1e-4, 8000: 1e-5, 14_999: 1e-6}),
        (FitDefaults(schedule="cosine", steps=100, lr=1.0), {0: 1.0, 50: 0.5, 100: 0.0}),
        (FitDefaults(schedule="plateau", lr=0.3), {0: 0.3, 9999: 0.3}),
    ],
    ids=["steps", "cosine", "plateau"],
)
def test_learning_rate_follows_its_schedule(fit, expected):
    assert {step: learning_rate(fit, step) for step in expected} == pytest.approx(expected)


def test_plateau_lowers_after_patience_and_survives_a_checkpoint():
    plateau = Plateau(0.1, patience=2)
    for loss in (3.0, 2.0, 2.0, 2.5):
        plateau.see(loss)
    assert plateau.scale == 1.0
    again = Plateau(0.1, patience=2)
    again.load(plateau.state())
    again.see(2.2)
    assert again.scale == pytest.approx(0.1)
    again.see(1.0)
    assert again.waited == 0
