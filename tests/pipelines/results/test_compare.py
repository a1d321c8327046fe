"""Runs side by side: matched by id, tested in pairs, refused where they cannot be compared."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from testkit.commands import vidatt

from vidatt.errors import MissingFileError, RefusedError, UsageError
from vidatt.pipelines.results.compare import compare
from vidatt.pipelines.runs.identity import FitEnvironment, FitIdentity
from vidatt.pipelines.runs.run import Run

CLASSES = ["a", "b", "c"]


def evaluated(path: Path, predicted: str, truth: str, *, ids: list[str] | None = None, **changes) -> Path:
    """A run with scores on the test part of split 1 whose best classes and labels are the given letters."""
    identity = {
        "head": "mean", "preset": "small", "stream_names": ["rgb"], "settings": {"config": {}, "fit": {}},
        "streams": {"rgb": {"grid": 1, "channels": 2, "fingerprint": "f" * 64, "recipe": {}}},
        "split": "1", "seed": 0, "classes": CLASSES, "multi_label": False,
        "views": 1, "allow_truncated": True, "validation_share": 0.2,
        "train": {"videos": 1, "digest": "t"}, "validation": {"videos": 1, "digest": "v"}, **changes,
    }  # fmt: skip
    environment = FitEnvironment(store="s.zarr", device="cpu", versions={}, notes=())
    run = Run.create(path, identity=FitIdentity.from_dict(identity, "identity"), environment=environment)
    best = np.array([identity["classes"].index(letter) for letter in predicted])
    labels = np.array([[identity["classes"].index(letter) if letter != "-" else -1] for letter in truth])
    scores = np.full((len(best), len(identity["classes"])), 0.1)
    scores[np.arange(len(best)), best] = 0.8
    names = np.array(ids or [f"v{i}" for i in range(len(best))])
    run.write_scores("1-test", ids=names, scores=scores, labels=labels)
    return path


def test_pairs_are_matched_by_id_and_tested_exactly(tmp_path):
    one = evaluated(tmp_path / "one", "aaaaaaabbb", "aaaaaaaaaa")
    other = evaluated(
        tmp_path / "two", "baaabbbbbb"[::-1], "aaaaaaaaaa", ids=[f"v{i}" for i in range(9, -1, -1)], seed=3
    )
    result = compare([one, other])
    # right: v0..v6 in one; v1..v3 in the other
    pair = result.pairs[0]
    assert (pair.shared, pair.top1_a, pair.top1_b) == (10, 0.7, 0.3)
    assert (pair.a_right_b_wrong, pair.b_right_a_wrong) == (4, 0)
    assert pair.p_value == pytest.approx(2 * binom.pmf(0, 4, 0.5))
    assert [run.metrics.top1 for run in result.runs] == pytest.approx([0.7, 0.3])
    assert (result.split, result.fingerprints_equal, result.runs[1].seed) == ("1", True, 3)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 5), (12, 3), (30, 10)])
def test_p_value_is_that_of_a_fair_coin(tmp_path, gained, lost):
    both = 7
    one = evaluated(tmp_path / "a", "a" * (both + gained) + "b" * lost, "a" * (both + gained + lost))
    other = evaluated(tmp_path / "b", "a" * both + "b" * gained + "a" * lost, "a" * (both + gained + lost))
    n, k = gained + lost, min(gained, lost)
    expected = min(1.0, 2 * binom.cdf(k, n, 0.5)) if gained != lost else 1.0
    pair, swapped = (compare(runs).pairs[0] for runs in ([one, other], [other, one]))
    assert (pair.a_right_b_wrong, pair.b_right_a_wrong) == (gained, lost)
    assert pair.p_value == pytest.approx(expected)
    assert swapped.p_value == pytest.approx(expected)


def test_only_shared_videos_are_tested_and_the_others_counted(tmp_path):
    one = evaluated(tmp_path / "one", "aab", "aaa", ids=["x", "y", "z"])
    other = evaluated(tmp_path / "two", "bab", "aaa", ids=["y", "z", "w"])
    pair = compare([one, other]).pairs[0]
    assert (pair.shared, pair.only_a, pair.only_b) == (2, 1, 1)
    assert (pair.a_right_b_wrong, pair.b_right_a_wrong, pair.top1_a) == (1, 1, 0.5)
    third = evaluated(tmp_path / "three", "a", "a", ids=["q"])
    with pytest.raises(UsageError, match=r"one and .*three share no video"):
        compare([one, third])


def test_three_runs_give_three_pairs_and_unlabelled_videos_are_not_tested(tmp_path):
    runs = [evaluated(tmp_path / name, best, "aa-") for name, best in (("x", "aba"), ("y", "aab"), ("z", "bbb"))]
    result = compare(runs)
    assert [(p.a, p.b) for p in result.pairs] == [(0, 1), (0, 2), (1, 2)]
    assert [(p.a_right_b_wrong, p.b_right_a_wrong) for p in result.pairs] == [(0, 1), (1, 0), (2, 0)]


def test_what_cannot_be_compared_is_refused(tmp_path):
    one = evaluated(tmp_path / "one", "ab", "aa")
    for classes, words in (
        (["a", "b", "d"], "three has other classes than .*one: 3 and 3, the first difference is 'd' for 'c'"),
        (["a", "b"], "2 and 3, the first difference is None for 'c'"),
    ):
        name = "three" if len(classes) == 3 else "two"
        with pytest.raises(RefusedError, match=words):
            compare([one, evaluated(tmp_path / name, "ab", "aa", classes=classes)])
    with pytest.raises(RefusedError, match="have other labels for video 'v1'"):
        compare([one, evaluated(tmp_path / "labels", "ab", "ab")])
    with pytest.raises(UsageError, match="at least two runs"):
        compare([one])
    with pytest.raises(MissingFileError, match=r"has no scores-2-test\.npz; make it by `vidatt evaluate .*--split 2`"):
        compare([one, one], split="2")
    with pytest.raises(MissingFileError, match=r"make it by `vidatt evaluate .*one --part train --allow-seen`"):
        compare([one, one], part="train")
    with pytest.raises(MissingFileError, match=r"its fit held out no video of that split; fit with --validation 0\.2"):
        compare([one, one], part="validation")


def test_fingerprints_that_differ_are_told(tmp_path):
    one = evaluated(tmp_path / "one", "ab", "aa")
    shape = {"grid": 1, "channels": 2, "recipe": {}}
    other = evaluated(tmp_path / "two", "ab", "aa", streams={"rgb": shape | {"fingerprint": "0" * 64}})
    streams = {"flow": shape | {"fingerprint": "1" * 64}}
    flow = evaluated(tmp_path / "flow", "ab", "aa", stream_names=["flow"], streams=streams)
    assert compare([one, flow]).fingerprints_equal is True
    assert compare([one, flow, other]).fingerprints_equal is False


@pytest.mark.slow
def test_command_prints_a_table_and_json(tmp_path):
    one = evaluated(tmp_path / "one", "aab", "aaa")
    other = evaluated(tmp_path / "two", "bbb", "aaa", ids=["v0", "v1", "x"])
    done = vidatt("compare", one, other)
    assert done.returncode == 0, done.stderr
    assert "1.000 : 0.000" in done.stdout
    assert "runs 1 and 2 share 2 videos; 1 and 1 others are left out of their test" in done.stdout
    done = vidatt("compare", one, other, "--json")
    assert json.loads(done.stdout)["pairs"][0]["p_value"] == 0.5


@pytest.mark.slow
def test_tables_for_other_programs_say_what_the_comparison_says(tmp_path):
    runs = [evaluated(tmp_path / "a_1, b&c|d", "aabb", "aaaa"), evaluated(tmp_path / "50%", "abbb", "aaaa", seed=3)]
    told = json.loads(vidatt("compare", *runs, "--json").stdout)["runs"]
    rows = list(csv.DictReader(io.StringIO(vidatt("compare", *runs, "--csv").stdout)))
    for row, run in zip(rows, told, strict=True):
        assert (row["run"], int(row["seed"]), int(row["videos"])) == (run["run"], run["seed"], 4)
        assert float(row["top1"]) == run["metrics"]["top1"]
        assert float(row["mAP"]) == run["metrics"]["map"]
        assert "seen" not in row
    lines = vidatt("compare", *runs, "--markdown").stdout.splitlines()
    assert len(lines) == 4
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {12}
    latex = vidatt("compare", *runs, "--latex").stdout
    assert latex.startswith(r"\begin{tabular}{lllllrrrrr}")
    assert r"a\_1, b\&c|d & mean & small & rgb & 1 & 0 & 4 & 0.500" in latex
    assert r"50\% & mean" in latex
    assert latex.count(r" \\") == 3
    both = vidatt("compare", *runs, "--latex", "--csv")
    assert (both.returncode, both.stderr) == (
        2, "vidatt: --csv and --latex: one table is printed; give one of them.\n",
    )  # fmt: skip
