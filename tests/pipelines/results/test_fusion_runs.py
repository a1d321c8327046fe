"""`vidatt fuse` on run folders: weights from validation scores, foreign files, refusals that name the item."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import softmax
from sklearn.metrics import accuracy_score

from vidatt.cli.main import main
from vidatt.errors import MissingFileError, RefusedError, UnknownNameError, UsageError
from vidatt.heads.fusion import awl
from vidatt.heads.fusion.score_rules import to_probabilities
from vidatt.pipelines.results.compare import compare
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.results.fusion import FuseConfig, fuse
from vidatt.pipelines.runs.identity import FitEnvironment, FitIdentity
from vidatt.pipelines.runs.run import Run

pytestmark = pytest.mark.slow

CLASSES = ("run", "jump, high", "sit")
TEST, VALIDATION = 45, 30


def ids(part: str, n: int) -> np.ndarray:
    return np.array([f"{part}/v{i:02}.avi" for i in range(n)])


def labels(n: int) -> np.ndarray:
    return (np.arange(n) % 3)[:, None]


def make(
    path: Path,
    *,
    seed: int,
    skill: float = 2.0,
    head: str = "mean",
    classes: tuple[str, ...] = CLASSES,
    validation_ids: np.ndarray | None = None,
    test_ids: np.ndarray | None = None,
    parts: tuple[str, ...] = ("test", "validation"),
    weak: int | None = None,
    multi_label: bool = False,
) -> Path:
    """A finished and evaluated run as `fit` and `evaluate` leave it, with scores of a given skill, made up.

    `weak` is a class that the run cannot tell.
    """
    random = np.random.default_rng(seed)
    identity = {
        "head": head, "preset": "paper", "settings": {"config": {}, "fit": {}}, "stream_names": ["rgb"],
        "streams": {"rgb": {"fingerprint": "f", "recipe": {}, "grid": 1, "channels": 2}},
        "split": "1", "seed": 0, "classes": list(classes), "multi_label": multi_label,
        "views": 1, "allow_truncated": True, "validation_share": 0.2,
        "train": {"videos": 1, "digest": "t"}, "validation": {"videos": 1, "digest": "v"},
    }  # fmt: skip
    environment = FitEnvironment(store="s.zarr", device="cpu", versions={}, notes=())
    run = Run.create(path, identity=FitIdentity.from_dict(identity, "identity"), environment=environment)
    listed = {"test": test_ids, "validation": validation_ids}
    for part, n in (("test", TEST), ("validation", VALIDATION)):
        if part not in parts:
            continue
        names = ids(part, n) if listed[part] is None else listed[part]
        number = np.array([int(name[-6:-4]) for name in names])
        truth = labels(100)[number]
        strength = np.where(truth == weak, 0, skill)
        logits = random.standard_normal((len(names), len(classes))) + strength * np.eye(len(classes))[truth[:, 0]]
        scores = logits / 5 if head.startswith("svm") else softmax(logits, 1)
        order = random.permutation(len(names))  # every run has its own
        run.write_scores(f"1-{part}", ids=names[order], scores=scores[order], labels=truth[order])
    evaluation = {
        "run": str(path), "split": "1", "part": "test", "videos": TEST, "listed": TEST, "missing": 0,
        "protocol": "made up", "metrics": dict.fromkeys(("top1", "top5", "class_mean", "map")), "confusion": None,
        "per_class": [], "denominators": {"top": TEST, "map": TEST, "classes": 3},
    }  # fmt: skip
    evaluations = {"1-test": evaluation} if "test" in parts else {}
    (path / "metrics.json").write_text(json.dumps({"fit": {}, "evaluations": evaluations}))
    return path


def scores_of(run: Path, part: str = "test") -> dict[str, np.ndarray]:
    """Scores by id, sorted."""
    with np.load(run / f"scores-1-{part}.npz") as content:
        order = np.argsort(content["ids"])
        return {name: content[name][order] for name in content.files}


def fused(out: Path, *parts: Path, method: str = "mean", **changes):
    return fuse(FuseConfig(parts=parts, method=method, out=out, **changes))


@pytest.fixture
def runs(tmp_path) -> tuple[Path, Path]:
    return make(tmp_path / "a", seed=1), make(tmp_path / "b", seed=2)


def test_mean_matches_videos_by_id_and_leaves_a_run(runs, tmp_path):
    result = fused(tmp_path / "f", *runs)
    a, b, both = (scores_of(path)["scores"] for path in (*runs, tmp_path / "f"))
    np.testing.assert_allclose(both, (a + b) / 2, atol=1e-6)
    made = scores_of(tmp_path / "f")
    assert result.metrics.top1 == accuracy_score(made["labels"][:, 0], made["scores"].argmax(1))
    assert result.metrics.top1 >= min(evaluate_by_hand(run) for run in runs)
    assert (result.videos, result.split, result.method) == (TEST, "1", "mean")
    run = Run.open(tmp_path / "f")
    assert run.metrics()["evaluations"]["1-test"]["metrics"] == result.metrics.to_dict()
    assert run.config["environment"]["parts"] == [str(path) for path in runs]
    assert [part.head for part in run.identity.parts] == ["mean", "mean"]
    assert run.metrics()["fit"]["metrics"]["validation"]["top1"] > 0.5
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["per_class"][1]["name"] == "jump, high"


def evaluate_by_hand(run: Path) -> float:
    scores = scores_of(run)
    return accuracy_score(scores["labels"][:, 0], scores["scores"].argmax(1))


def test_fused_run_can_be_compared_and_fused_again_but_not_evaluated(runs, tmp_path):
    fused(tmp_path / "f", *runs)
    assert compare([tmp_path / "f", runs[0]]).runs[0].head == "fusion-mean"
    again = fused(tmp_path / "g", tmp_path / "f", runs[0], method="weighted")
    assert again.videos == TEST
    with pytest.raises(UsageError, match="is a fusion of other runs' scores and holds no head"):
        evaluate(tmp_path / "f")


def test_fuse_again_gives_the_same_and_other_parts_are_refused(runs, tmp_path):
    first = fused(tmp_path / "f", *runs)
    assert fused(tmp_path / "f", *runs).metrics == first.metrics
    other = make(tmp_path / "c", seed=3)
    with pytest.raises(RefusedError, match=r"is of another fit: parts"):
        fused(tmp_path / "f", runs[0], other)


def test_weighted_learns_on_validation_and_never_looks_at_test(runs, tmp_path):
    noise = make(tmp_path / "noise", seed=9, skill=0.0)
    result = fused(tmp_path / "f", runs[0], noise, method="weighted")
    weights = result.learned["weights"]
    assert sum(weights) == pytest.approx(1)
    assert weights[0] > 0.5
    a, b = scores_of(runs[0])["scores"], scores_of(noise)["scores"]
    np.testing.assert_allclose(scores_of(tmp_path / "f")["scores"], weights[0] * a + weights[1] * b, atol=1e-6)
    assert not (tmp_path / "f" / "scores-1-validation.npz").exists()  # learned on them
    with np.load(noise / "scores-1-test.npz") as content:  # turn the test scores of the noise into the truth
        perfect = np.eye(3)[content["labels"][:, 0]]
        Run.open(noise).write_scores("1-test", ids=content["ids"], scores=perfect, labels=content["labels"])
    again = fused(tmp_path / "g", runs[0], noise, method="weighted")
    assert again.learned["weights"] == weights


def test_awl_equals_its_solver_on_the_validation_scores(tmp_path):
    parts = [make(tmp_path / f"r{weak}", seed=weak, weak=weak) for weak in (0, 1)]
    settings = {"strength": "0.1", "penalty": "0.005"}
    result = fused(tmp_path / "f", *parts, method="awl", settings=settings)
    held = [scores_of(part, "validation") for part in parts]
    learned = awl.learn_weights(np.stack([h["scores"] for h in held]), held[0]["labels"][:, 0])
    np.testing.assert_allclose(result.learned["weights"], learned.weights, atol=1e-9)
    expected = awl.predict(learned, np.stack([scores_of(part)["scores"] for part in parts]))
    np.testing.assert_allclose(scores_of(tmp_path / "f")["scores"], expected, atol=1e-6)
    assert np.argmax(learned.weights[0]) == 1  # the first run cannot tell class 0
    assert np.argmax(learned.weights[1]) == 0
    chosen = fused(tmp_path / "g", *parts, method="awl").learned
    assert chosen["strength"] in (1.0, 0.3, 0.1, 0.03, 0.01)
    assert fused(tmp_path / "h", *parts, method="awl", settings={"solver": "lp"}).learned["one_hot_share"] == 1.0


def test_mkl_weighs_the_run_that_knows_more(tmp_path):
    good, noise = make(tmp_path / "good", seed=1, skill=4), make(tmp_path / "noise", seed=2, skill=0)
    result = fused(tmp_path / "f", good, noise, method="mkl")
    assert result.learned["weights"][0] > result.learned["weights"][1]
    assert result.learned["converged"]
    assert result.metrics.top1 > 0.8
    assert Run.open(tmp_path / "f").identity.scores == "decision values"


def test_decision_values_become_probabilities_by_the_validation_scores(runs, tmp_path):
    svm = make(tmp_path / "svm", seed=5, head="svm-fc6")
    result = fused(tmp_path / "f", runs[0], svm)
    nothing, temperature = result.learned["temperatures"]
    assert nothing is None
    assert 0.01 < temperature < 1
    theirs = to_probabilities(scores_of(svm)["scores"], temperature, multi_label=False)
    np.testing.assert_allclose(
        scores_of(tmp_path / "f")["scores"], (scores_of(runs[0])["scores"] + theirs) / 2, atol=1e-6
    )
    bare = make(tmp_path / "bare", seed=6, head="svm-fc6", parts=("test",))
    with pytest.raises(RefusedError, match=r"bare has no validation scores"):
        fused(tmp_path / "g", runs[0], bare)


def test_learning_needs_the_same_validation_videos(runs, tmp_path):
    other = make(tmp_path / "o", seed=4, validation_ids=np.append(ids("validation", 29), "validation/v77.avi"))
    assert fused(tmp_path / "mean", runs[0], other).videos == TEST  # which learns nothing
    with pytest.raises(RefusedError, match=r"different videos \(2 are in one only, such as 'validation/v29\.avi'\)"):
        fused(tmp_path / "f", runs[0], other, method="weighted")
    assert not (tmp_path / "f").exists()


def test_runs_that_are_not_alike_are_refused(runs, tmp_path):
    fewer = make(tmp_path / "fewer", seed=4, test_ids=ids("test", TEST)[1:])
    with pytest.raises(RefusedError, match=r"1 are in one only, such as 'test/v00\.avi'"):
        fused(tmp_path / "f", runs[0], fewer)
    other = make(tmp_path / "other", seed=4, classes=("run", "sit", "jump, high"))
    with pytest.raises(RefusedError, match="cannot be fused: classes"):
        fused(tmp_path / "f", runs[0], other)
    unscored = make(tmp_path / "unscored", seed=4, parts=("validation",))
    with pytest.raises(MissingFileError, match=r"no test scores of split '1' yet: run `vidatt evaluate .*unscored`"):
        fused(tmp_path / "f", runs[0], unscored)
    with pytest.raises(UsageError, match="is given twice"):
        fused(tmp_path / "f", runs[0], runs[0])
    with pytest.raises(UsageError, match="two or more parts"):
        fused(tmp_path / "f", runs[0])
    many = make(tmp_path / "many", seed=4, multi_label=True)
    more = make(tmp_path / "more", seed=5, multi_label=True)
    with pytest.raises(UsageError, match="calibrate=true of --method awl: is defined for one label per video"):
        fused(tmp_path / "f", many, more, method="awl", settings={"calibrate": "yes"})
    for method in ("awl", "mkl"):
        assert 0 < fused(tmp_path / method, many, more, method=method).metrics.map <= 1
    assert fused(tmp_path / "m", many, more, method="weighted").metrics.class_mean is None
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": "maen"}, UnknownNameError, "Unknown method 'maen'. Did you mean 'mean'"),
        ({"settings": {"step": "0.1"}}, UnknownNameError, "setting of --method mean 'step'"),
        ({"method": "weighted", "settings": {"step": "0.3"}}, UsageError, "must be 1 divided by a whole number"),
        ({"method": "awl", "settings": {"solver": "magic"}}, UsageError, "must be one of lp, lp_bounded"),
        ({"method": "mkl", "settings": {"p": "0.5"}}, UsageError, "p=0.5: must be at least 1"),
        ({"file_scores": "odds"}, UnknownNameError, "kind of file scores 'odds'"),
    ],
    ids=["method", "setting", "step", "solver", "p", "kind"],
)
def test_wrong_requests_are_refused_before_writing(runs, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        fused(tmp_path / "f", *runs, **changes)
    assert not (tmp_path / "f").exists()


def foreign(part: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    return ids(part, n), softmax(2 * np.eye(3)[labels(n)[:, 0]] + np.random.randn(n, 3), 1)


def write_csv(path: Path, names, scores, header=("id", "sit", "run", "jump, high")) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([name, *row] for name, row in zip(names, scores, strict=True))
    return path


def test_files_join_by_id_as_npz_and_as_csv_with_columns_in_any_order(runs, tmp_path):
    names, scores = foreign("test", TEST)
    order = np.random.permutation(TEST)
    np.savez(tmp_path / "i3d.npz", ids=names[order], scores=scores[order].astype(np.float32))
    write_csv(tmp_path / "i3d.csv", names[order], scores[order][:, [2, 0, 1]])
    fused(tmp_path / "n", runs[0], tmp_path / "i3d.npz")
    fused(tmp_path / "c", runs[0], tmp_path / "i3d.csv")
    expected = (scores_of(runs[0])["scores"] + scores) / 2
    for out in ("n", "c"):
        np.testing.assert_allclose(scores_of(tmp_path / out)["scores"], expected, atol=1e-6)


def test_npy_joins_by_its_list_of_ids_which_is_part_of_what_makes_two_fusions_the_same(runs, tmp_path):
    names, scores = foreign("test", TEST)
    np.save(tmp_path / "i3d.npy", scores)
    one, other = tmp_path / "ids.txt", tmp_path / "other.txt"
    one.write_text("\n".join(names))
    other.write_text("\n".join(names[::-1]))
    fused(tmp_path / "f", runs[0], tmp_path / "i3d.npy", ids=(one,))
    np.testing.assert_allclose(scores_of(tmp_path / "f")["scores"], (scores_of(runs[0])["scores"] + scores) / 2)
    with pytest.raises(RefusedError, match="another"):
        fused(tmp_path / "f", runs[0], tmp_path / "i3d.npy", ids=(other,))
    with pytest.raises(UsageError, match=r"i3d\.npy has scores without ids; give --ids"):
        fused(tmp_path / "g", runs[0], tmp_path / "i3d.npy")
    with pytest.raises(UsageError, match=r"there are 1 lists and 0 \.npy files"):
        fused(tmp_path / "g", *runs, ids=(one,))


def test_file_that_takes_part_in_learning_needs_the_validation_videos_too(runs, tmp_path):
    names, scores = foreign("test", TEST)
    np.savez(tmp_path / "i3d.npz", ids=names, scores=scores)
    with pytest.raises(RefusedError, match=r"i3d\.npz has no scores of video 'validation/v\d+\.avi' \(30 of 30"):
        fused(tmp_path / "f", runs[0], tmp_path / "i3d.npz", method="weighted")
    more, their = foreign("validation", VALIDATION)
    np.savez(tmp_path / "i3d.npz", ids=np.append(names, more), scores=np.append(scores, their, axis=0))
    assert fused(tmp_path / "f", runs[0], tmp_path / "i3d.npz", method="weighted").videos == TEST


def test_file_of_logits_must_be_called_that(runs, tmp_path):
    names, scores = foreign("test", TEST)
    np.savez(tmp_path / "i3d.npz", ids=names, scores=np.log(scores) + 3)
    with pytest.raises(UsageError, match=r"'test/v00\.avi' are no probabilities in 0\.\.1; give --file-scores logits"):
        fused(tmp_path / "f", runs[0], tmp_path / "i3d.npz")
    fused(tmp_path / "f", runs[0], tmp_path / "i3d.npz", file_scores="logits")
    expected = (scores_of(runs[0])["scores"] + scores) / 2
    np.testing.assert_allclose(scores_of(tmp_path / "f")["scores"], expected, atol=1e-6)


NAMES, SCORES = foreign("test", TEST)
HEADER = ("id", *CLASSES)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: np.savez(p, ids=NAMES[1:], scores=SCORES[1:]), r"has no scores of video 'test/v00\.avi' \(1 of 45"),
        (lambda p: np.savez(p, ids=NAMES[[0, 0]], scores=SCORES[:2]), r"video 'test/v00\.avi' is there twice"),
        (lambda p: np.savez(p, ids=NAMES, scores=SCORES[:, :2]), "2 scores per video, and there are 3 classes"),
        (
            lambda p: np.savez(p, ids=NAMES, scores=SCORES[:3]),
            r"must be \[n, N\] beside 45 ids, and has shape \(3, 3\)",
        ),
        (lambda p: np.savez(p, ids=NAMES, scores=SCORES * np.nan), r"score of video 'test/v00\.avi' is not finite"),
        (lambda p: np.savez(p, names=NAMES, scores=SCORES), "has no array 'ids'; it has names, scores"),
        (lambda p: np.savez(p, ids=np.arange(TEST), scores=SCORES), "`ids` must be .n. texts"),
        (lambda p: np.savez(p, ids=NAMES.astype(object), scores=SCORES), "'ids' cannot be read .* Python objects"),
        (lambda p: p.write_bytes(b"PK broken"), "cannot be read as .npz"),
    ],
    ids=["missing", "twice", "classes", "rows", "nan", "names", "numbers", "pickle", "broken"],
)
def test_npz_that_cannot_be_used_is_refused_naming_the_item(runs, tmp_path, write, message):
    write(tmp_path / "x.npz")
    with pytest.raises((UsageError, RefusedError), match=message) as caught:
        fused(tmp_path / "f", runs[0], tmp_path / "x.npz")
    assert "x.npz" in str(caught.value)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (("name", *CLASSES), [], "the first line must be id and the 3 class names"),
        (("id", "run", "sit", "fly"), [], "does not name each of the 3 classes once: 'fly'"),
        (("id", "run", "sit", "run"), [], "does not name each of the 3 classes once: 'run'"),
        (HEADER, [["test/v00.avi", 1, 0]], r"line 2 \('test/v00.avi'\): 3 fields, not 4"),
        (HEADER, [["test/v00.avi", 1, 0, "much"]], r"line 2 \('test/v00.avi'\): could not convert .*'much'"),
        (HEADER, [["test/v00.avi", 1, 0, 0]] * 2, "'test/v00.avi' is there twice"),
        (HEADER, [], "has scores of no video"),
    ],
    ids=["id", "class", "double", "fields", "number", "twice", "empty"],
)
def test_csv_that_cannot_be_used_is_refused_naming_the_line(runs, tmp_path, header, rows, message):
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    with pytest.raises((UsageError, RefusedError), match=message):
        fused(tmp_path / "f", runs[0], tmp_path / "x.csv")


def test_fuse_command_prints_one_object_and_refuses_with_code_3(runs, tmp_path):
    command = ["fuse", *map(str, runs), "--method", "product", "--out", str(tmp_path / "f")]
    done = CliRunner().invoke(main, [*command, "--json", "-qq"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["metrics"]["top1"] > 0.5
    text = CliRunner().invoke(main, command)
    assert "product of 2 parts on 45 of 45 test videos of split 1" in text.stdout
    other = make(tmp_path / "o", seed=4, classes=("a", "b", "c"))
    refused = CliRunner().invoke(main, ["fuse", str(runs[0]), str(other), "--method", "mean", "--out", "x"])
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert refused.stderr.startswith("vidatt: Runs ")
