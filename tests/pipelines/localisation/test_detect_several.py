"""`vidatt detect` with several runs, and the settings smooth and bridge: real commands on a planted store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from testkit.acting import CROP, FPS, STRIDE, T, acting_store, command, fitted
from testkit.commands import vidatt

from vidatt.pipelines.localisation.proposals import UntrimmedNetRule, untrimmednet_proposals
from vidatt.pipelines.runs.attention import attention

pytestmark = pytest.mark.slow
RULE = ("--rule", "untrimmednet", "--set", "annotated_only=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two streams with a run of head `untrimmed` on each: one learned much, the other little."""
    path = tmp_path_factory.mktemp("two")
    acting_store(path / "s.zarr", crops={"rgb": CROP, "flow": CROP})
    for name, steps in (("rgb", "60"), ("flow", "20")):
        fit(path / "s.zarr", path / name, streams=name, steps=steps)
    return path


def fit(store: Path, out: Path, *, streams: str, steps: str = "2", head: str = "untrimmed") -> None:
    done = vidatt(
        "fit-head", "--head", head, "--streams", streams, "--store", store, "--out", out, "--preset", "small",
        "--set", f"steps={steps}", "--set", "validate_every=10", "--set", "lr=0.02", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def lines(path: str | Path) -> dict[tuple[str, str, str, str], float]:
    """Score by video, start, stop and class."""
    parts = [line.split() for line in Path(path).read_text().splitlines()]
    return {(video, start, stop, label): float(score) for video, start, stop, label, score in parts}


def test_scores_of_the_segments_of_two_streams_are_averaged(folder: Path) -> None:
    done = vidatt("detect", "rgb", "flow", *RULE, "--out", "two.txt", "--device", "cpu", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert (result["run"], result["runs"]) == ("rgb", ["rgb", "flow"])
    assert result["class_scores"] == "of the segments, by the head, averaged over 2 runs"
    assert result["measures"]["thumos14"]["instances"] == 20
    found = lines(folder / "two.txt")
    wanted = {}
    looks = [attention(folder / name, device="cpu", with_segments=True) for name in ("rgb", "flow")]
    pairs = [sorted(look, key=lambda video: video.id) for look in looks]
    for rgb, flow in zip(*pairs, strict=True):
        scores = (rgb.segment_probabilities.astype(float) + flow.segment_probabilities) / 2
        of_video = (rgb.probabilities.astype(float) + flow.probabilities) / 2
        made = untrimmednet_proposals(scores, of_video, UntrimmedNetRule())
        for a, b, label, score in zip(made.first, made.last, made.labels, made.scores, strict=True):
            stop = (b + 1) * STRIDE / FPS if b < T - 1 else (STRIDE * T + 3) / FPS
            wanted[rgb.id, round(a * STRIDE / FPS, 6), round(stop, 6), int(label) + 1] = score
    told = {(v, round(float(a), 6), round(float(b), 6), int(c)): score for (v, a, b, c), score in found.items()}
    assert told == pytest.approx(wanted, rel=1e-5)
    # not what either says alone, and nothing is left in a run
    alone = [command("detect", folder / name, *RULE) for name in ("rgb", "flow")]
    assert all(lines(one["out"]) != found for one in alone)
    assert all("runs" not in one for one in alone)
    assert len(list((folder / "rgb").glob("detections-*"))) == 2
    # in the other order the same
    again = command("detect", folder / "flow", folder / "rgb", *RULE, "--out", folder / "again.txt")
    assert lines(again["out"]) == pytest.approx(found)
    said = vidatt("detect", "rgb", "flow", *RULE, "--out", "two.txt", "--device", "cpu", cwd=folder)
    assert "\nruns rgb, flow\n" in said.stdout


def test_stores_of_one_stream_each_give_what_one_store_of_both_gives(folder: Path, tmp_path: Path) -> None:
    acting_store(tmp_path / "other.zarr", crops={"rgb": CROP, "flow": CROP})  # the same videos, in a store of its own
    fit(tmp_path / "other.zarr", tmp_path / "flow", streams="flow", steps="20")
    one = command("detect", folder / "rgb", folder / "flow", *RULE, "--out", tmp_path / "one.txt")
    two = command("detect", folder / "rgb", tmp_path / "flow", *RULE, "--out", tmp_path / "two.txt")
    assert Path(one["out"]).read_bytes() == Path(two["out"]).read_bytes()


@pytest.mark.parametrize("rule", ["stan", "where-and-when"])
def test_attention_of_several_runs_is_averaged(folder: Path, tmp_path: Path, rule: str) -> None:
    """Two fits of one stream that differ by their steps; the mean of the weights and of the normalised raw scores."""
    more = ("--rule", rule, *(("--set", "normalise_k=minmax", "--set", "k_threshold=0.5") if rule == "stan" else ()))
    result = command("detect", folder / "rgb", folder / "flow", *more, "--out", tmp_path / "a.txt")
    runs = [{v.id: v for v in attention(folder / name, device="cpu", with_segments=True)} for name in ("rgb", "flow")]
    for id, start, stop, label, score in (line.split() for line in Path(result["out"]).read_text().splitlines()):
        own = slice(round(float(start) * FPS / STRIDE), min(T, round(float(stop) * FPS / STRIDE)))
        seen = [run[id] for run in runs]
        if rule == "where-and-when":
            w = np.mean([video.temporal for video in seen], axis=0)
            p = np.mean([video.probabilities for video in seen], axis=0)
            assert float(score) == pytest.approx(p.max() * w[own].mean(), rel=1e-4)
        else:
            k = np.mean([(v.temporal_raw - v.temporal_raw.min()) / np.ptp(v.temporal_raw) for v in seen], axis=0)
            k = (k - k.min()) / np.ptp(k)
            s = np.mean([v.segment_probabilities for v in seen], axis=0)[:, int(label) - 1]
            assert float(score) == pytest.approx(k[own] @ s[own], rel=1e-4)
    assert result["proposals"] > 0


@pytest.mark.long
def test_runs_that_do_not_fit_each_other_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    rgb, flow, out = folder / "rgb", folder / "flow", ("--out", tmp_path / "o.txt")

    def refused(*runs: Path, code: int, more: tuple[Any, ...] = out) -> str:
        said = command("detect", *runs, *RULE, *more, code=code)["error"]
        assert len(said.splitlines()) == 1
        return said

    def made(name: str, **other: Any) -> Path:
        fit(acting_store(tmp_path / f"{name}.zarr", **other).path, tmp_path / name, streams="rgb")
        return tmp_path / name

    assert "belong to none of them: say with --out" in refused(rgb, flow, code=2, more=())
    assert "A run is given twice" in refused(rgb, flow, rgb, code=2)
    assert "is no run" in refused(rgb, tmp_path / "none", code=2)
    fewer = made("fewer", videos=54)
    said = refused(flow, fewer, code=3)
    assert "can be held to other videos: 'v054' and 1 more are of one only" in said
    assert f"not of {fewer} in {tmp_path / 'fewer.zarr'}" in said
    assert "see other segments of video 'v0" in (said := refused(flow, made("wider", stride=7), code=3))
    assert "with the same --sampler" in said
    assert "have other classes" in refused(flow, made("classes", classes=("Jump", "Walk", "Sit")), code=3)
    assert "are of splits 1 and 2" in refused(flow, made("split", split_name="2"), code=3)
    assert not (tmp_path / "o.txt").exists()


def test_what_any_of_the_runs_has_seen_is_said(folder: Path, tmp_path: Path) -> None:
    rgb, flow = folder / "rgb", folder / "flow"
    out = ("--out", tmp_path / "seen.txt")
    refused = command("detect", rgb, flow, "--part", "train", *RULE, *out, code=3)["error"]
    assert "numbers on them say nothing" in refused
    result = command("detect", rgb, flow, "--part", "train", "--allow-seen", *RULE, *out)
    assert result["seen"] == result["videos"] == 40
    assert str(rgb) in result["seen_note"]
    assert str(flow) in result["seen_note"]


def test_smooth_and_bridge_are_settings_and_named_in_the_result(folder: Path, tmp_path: Path) -> None:
    run = fitted(folder / "s.zarr", tmp_path / "run")
    plain = command("detect", run, "--out", tmp_path / "plain.txt")
    assert (plain["settings"]["smooth"], plain["settings"]["bridge"]) == (1, 0)
    short = command("detect", run, "--smooth", "3", "--bridge", "2", "--out", tmp_path / "short.txt")
    assert (short["settings"]["smooth"], short["settings"]["bridge"]) == (3, 2)
    long = command("detect", run, "--set", "smooth=3", "--set", "bridge=2", "--out", tmp_path / "long.txt")
    assert Path(short["out"]).read_bytes() == Path(long["out"]).read_bytes() != Path(plain["out"]).read_bytes()
    said = vidatt("detect", run, "--bridge", "1", "--out", tmp_path / "b.txt", "--device", "cpu")
    assert "smooth=1, bridge=1" in said.stdout
    for given, wanted in (
        (("--smooth", "0"), "Setting smooth=0: must be at least 1"),
        (("--bridge", "-1"), "Setting bridge=-1: must be at least 0"),
        (("--bridge", "x"), "bridge"),
        (("--smooth", "2", "--set", "smooth=3"), "smooth is given twice, as '3' and '2'"),
    ):
        error = command("detect", run, *given, code=2)["error"]
        assert wanted in error
        assert len(error.splitlines()) == 1
