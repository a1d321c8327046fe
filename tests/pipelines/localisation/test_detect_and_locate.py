"""`vidatt detect` and `vidatt locate` as a user runs them: on a store whose truth is planted, and on real videos."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from testkit.acting import (
    CLASSES,
    CROP,
    FPS,
    LEFT,
    STRIDE,
    TOP,
    UNCLEAR,
    T,
    acting_store,
    active,
    box,
    command,
    fitted,
    interval,
)

from vidatt.cache.store import Store
from vidatt.cli.main import main
from vidatt.extract.datasets.generator import generate
from vidatt.extract.streams import StreamConfig
from vidatt.pipelines.extraction.config import ExtractConfig
from vidatt.pipelines.extraction.extract import extract
from vidatt.pipelines.localisation.box_evaluation import BoxEvaluationConfig, evaluate_boxes
from vidatt.pipelines.localisation.segment_scores import FILE
from vidatt.pipelines.localisation.submission import evaluate_detections
from vidatt.pipelines.runs.attention import attention
from vidatt.pipelines.runs.views import central_view
from vidatt.pipelines.truth import TruthSource

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return acting_store(tmp_path_factory.mktemp("planted") / "p.zarr").path


@pytest.fixture(scope="module")
def made(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(store, tmp_path_factory.mktemp("runs") / "stan")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A fitted STAN of one's own."""
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.mark.slow
def test_detect_finds_the_planted_intervals(run: Path) -> None:
    found = {kind: command("detect", run, "--attention", kind) for kind in ("head", "uniform", "random")}
    best = found["head"]
    assert (best["rule"], best["videos"], best["listed"]) == ("stan", 20, 20)
    official, other = best["measures"]["thumos14"], best["measures"]["activitynet"]
    assert official["thresholds"] == other["thresholds"] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert (official["instances"], official["classes"]) == (20, 3)
    assert official["map"][-1] > 0.9
    assert official["map"][-1] > found["random"]["measures"]["thumos14"]["map"][-1]
    assert len({result["out"] for result in found.values()}) == 3
    for line in Path(best["out"]).read_text().splitlines():
        video, start, stop, label, _ = line.split()
        assert 0 <= float(start) < float(stop) <= (STRIDE * T + 3) / FPS
        assert float(start) * FPS % STRIDE == pytest.approx(0, abs=1e-6)
        assert video in {f"v{i:03}" for i in range(0, 60, 3)}
        assert best["class_ids"][label] in CLASSES


@pytest.mark.slow
def test_what_detect_says_is_what_its_file_is_worth(run: Path, tmp_path: Path) -> None:
    result = command("detect", run, "--out", tmp_path / "deep" / "submission.txt", "--set", "score_threshold=0.2")
    truth = tmp_path / "truth"
    truth.mkdir()
    (truth / "detclasslist.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(CLASSES, 1)))
    for label, name in enumerate(CLASSES):
        mine = [v for v in range(0, 60, 3) if v // 3 % len(CLASSES) == label]
        lines = ["v{:03} {} {}\n".format(v, *interval(v)) for v in mine]
        (truth / f"{name}_test.txt").write_text("".join(lines))
    unclear = ["v{:03} {} {}\n".format(v, *UNCLEAR) for v in range(0, 60, 3)]
    (truth / "Ambiguous_test.txt").write_text("".join(unclear))
    official = evaluate_detections(Path(result["out"]), truth=truth, rule="thumos14").to_dict()
    assert official["map"] == result["measures"]["thumos14"]["map"]
    assert official["ambiguous"] == result["measures"]["thumos14"]["ambiguous"] == 20
    assert official["detections"] == result["proposals"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["thumos14", "activitynet"])
def test_the_store_says_the_same_of_the_file_of_detect_by_either_rule(run: Path, store: Path, rule: str) -> None:
    result = command("detect", run, "--set", "score_threshold=0.2")
    again = evaluate_detections(
        Path(result["out"]), source=TruthSource(store=store), rule=rule, thresholds=(0.1, 0.2, 0.3, 0.4, 0.5)
    )
    told = result["measures"][rule]
    assert {key: value for key, value in again.to_dict().items() if key in told} == told


def test_the_store_says_the_same_of_the_file_of_locate(run: Path, store: Path) -> None:
    result = command("locate", run, "--rule", "minmax")
    config = {"result": Path(result["out"]), "source": TruthSource(store=store)}
    again = evaluate_boxes(BoxEvaluationConfig(**config, frames="file"))
    told = result["measures"]
    assert (again.frames, again.true_boxes, again.frames_without) == (80, told["true_boxes"], told["frames_without"])
    assert list(again.frame_hit) == told["frame_hit"]  # the file has hundredths of pixels
    assert list(again.frame_map) == pytest.approx(told["frame_map"], abs=1e-3)
    every = evaluate_boxes(BoxEvaluationConfig(**config))
    assert (every.frames, every.frame_hit) == (again.frames, again.frame_hit)  # truth is in sampled frames only here


@pytest.mark.slow
def test_a_second_call_writes_the_same_bytes_with_the_kept_classifier_and_without(run: Path) -> None:
    first = Path(command("detect", run)["out"]).read_bytes()
    kept = (run / FILE).read_bytes()
    assert Path(command("detect", run)["out"]).read_bytes() == first
    assert (run / FILE).read_bytes() == kept
    (run / FILE).unlink()
    assert Path(command("detect", run)["out"]).read_bytes() == first
    assert (run / FILE).read_bytes() == kept
    command("detect", run, "--set", "classifier_C=1")
    assert (run / FILE).read_bytes() != kept
    (run / FILE).write_bytes(b"nonsense")
    assert "segment-classifier.safetensors is damaged" in command("detect", run, code=2)["error"]


@pytest.mark.slow
def test_random_attention_follows_its_seed(run: Path) -> None:
    one, again, other = (
        Path(command("detect", run, "--attention", "random", "--seed", seed)["out"]).read_bytes() for seed in "334"
    )
    assert one == again != other


def test_where_and_when_rule_finds_one_stretch_of_the_videos_class(run: Path) -> None:
    result = command("detect", run, "--rule", "where-and-when")
    assert result["class_scores"] == "of the video"
    assert result["measures"]["thumos14"]["map"][0] > 0.9
    assert not (run / FILE).exists()
    looked = {video.id: video for video in attention(run, device="cpu")}
    lines = [line.split() for line in Path(result["out"]).read_text().splitlines()]
    assert {line[0] for line in lines} == set(looked)
    for video, start, stop, label, score in lines:
        a, b = round(float(start) * FPS / STRIDE), round(float(stop) * FPS / STRIDE)
        w, p = looked[video].temporal, looked[video].probabilities
        assert int(label) == p.argmax() + 1
        assert (w[a : min(b, T)] >= 0.5 * w.max()).all()
        assert float(score) == pytest.approx(p.max() * w[a : min(b, T)].mean(), rel=1e-4)


def test_untrimmednet_rule_reads_no_attention(run: Path) -> None:
    assert command("detect", run, "--rule", "untrimmednet")["proposals"] > 0
    refused = command("detect", run, "--rule", "untrimmednet", "--attention", "random", code=2)
    assert "reads no attention" in refused["error"]


@pytest.mark.slow
def test_locate_finds_the_planted_cells(run: Path) -> None:
    result = command("locate", run)
    measures, floor = result["measures"], command("locate", run, "--attention", "uniform")["measures"]
    assert result["maps"] == "distributions over cells"
    assert (measures["frames"], measures["videos"], measures["frames_without"]) == (80, 20, 160)
    assert measures["frame_hit"][3] > 0.9
    assert measures["frame_hit"][3] > floor["frame_hit"][3]
    with Path(result["out"]).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["boxes"] == result["frames"] == 20 * T
    found = {(r["video"], int(r["frame"])): [float(r[c]) for c in ("x1", "y1", "x2", "y2")] for r in rows}
    overlaps = []
    for v in range(0, 60, 3):
        for t in active(v):
            a, b = found[f"v{v:03}", STRIDE * t + 2], box(v)
            w, h = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1) for i in (0, 1))
            areas = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
            overlaps.append(w * h / (sum(areas) - w * h))
    assert measures["frame_hit"] == [np.mean(np.array(overlaps) >= t) for t in THRESHOLDS]
    assert all(LEFT <= a[0] < a[2] <= LEFT + CROP and TOP <= a[1] < a[3] <= TOP + CROP for a in found.values())
    weighted = command("locate", run, "--set", "confidence_temporal=true")["measures"]
    assert weighted["frame_map"][1] > measures["frame_map"][1]  # boxes where nothing happens rank last


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["threshold", "minmax", "contour"])
def test_uniform_attention_is_the_whole_crop(run: Path, rule: str) -> None:
    result = command("locate", run, "--attention", "uniform", "--rule", rule)
    with Path(result["out"]).open() as file:
        corners = {tuple(float(row[c]) for c in ("x1", "y1", "x2", "y2")) for row in csv.DictReader(file)}
    assert corners == {(LEFT, TOP, LEFT + CROP, TOP + CROP)}


@pytest.mark.slow
def test_masks_are_taken_literally_and_weigh_the_confidence(store: Path, tmp_path: Path) -> None:
    run = fitted(store, tmp_path / "ww", "where-and-when")
    result = command("locate", run, "--rule", "minmax")
    assert result["maps"] == "masks"
    looked = {video.id: video for video in attention(run, device="cpu")}
    with Path(result["out"]).open() as file:
        rows = list(csv.DictReader(file))
    for row in rows[::17]:
        video = looked[row["video"]]
        mask = video.spatial[int(row["frame"]) // STRIDE].mean()
        assert float(row["confidence"]) == pytest.approx(mask * video.probabilities.max(), abs=2e-6)
    few = command("locate", run, "--set", "threshold=0.999")
    assert few["boxes"] == 0
    assert few["measures"]["frame_hit"] == few["measures"]["frame_map"] == [0.0] * 5
    assert command("detect", run)["rule"] == "where-and-when"


@pytest.mark.slow
def test_a_head_that_classifies_segments_needs_no_classifier(store: Path, tmp_path: Path) -> None:
    run = fitted(store, tmp_path / "untrimmed", "untrimmed")
    result = command("detect", run, "--set", "score_threshold=0.1", "--set", "k_threshold=-9")
    assert (result["rule"], result["class_scores"]) == ("stan", "of the segments, by the head")
    assert result["proposals"] > 0
    assert not (run / FILE).exists()
    nothing = command("detect", run, "--set", "k_threshold=1e9")
    assert (nothing["proposals"], Path(nothing["out"]).read_text()) == (0, "")
    assert "known up to a constant only" in nothing["notes"][0]
    assert nothing["measures"]["thumos14"]["map"] == [0.0] * 5


@pytest.mark.slow
def test_a_head_without_attention_is_refused_and_has_a_floor(store: Path, tmp_path: Path) -> None:
    run = fitted(store, tmp_path / "mean", "mean")
    assert "head 'mean' weighs all segments alike" in command("detect", run, code=2)["error"]
    assert "head 'mean' gives no attention scores" in command("detect", run, "--rule", "stan", code=2)["error"]
    assert "head 'mean' attends to no cells" in command("locate", run, code=2)["error"]
    assert command("detect", run, "--attention", "uniform")["proposals"] == 20
    assert command("locate", run, "--attention", "random")["boxes"] == 20 * T


@pytest.mark.slow
def test_without_truth_the_files_are_written_and_it_is_said(run: Path, tmp_path: Path) -> None:
    bare = acting_store(tmp_path / "bare.zarr", truth=False).path
    for name in ("detect", "locate"):
        done = CliRunner().invoke(main, [name, str(run), "--store", str(bare), "--device", "cpu", "-q"])
        assert done.exit_code == 0, done.output
        assert "nothing was measured" in done.stdout
        result = command(name, run, "--store", bare)
        assert result["measures"] is None
        assert Path(result["out"]).stat().st_size > 0
    refused = command("detect", run, "--store", bare, "--set", "annotated_only=true", code=2)
    assert "annotated_only=true" in refused["error"]


@pytest.mark.slow
def test_classifier_is_learned_from_the_runs_own_training_videos_only(run: Path, store: Path, tmp_path: Path) -> None:
    other = acting_store(tmp_path / "other.zarr", videos=57).path
    refused = command("detect", run, "--store", other, code=3)
    assert "has not the 32 training videos" in refused["error"]
    command("detect", run)
    assert command("detect", run, "--store", other)["videos"] == 19


def test_wrong_use_is_refused_by_name(run: Path, tmp_path: Path) -> None:
    assert "Unknown rule 'sten'. Did you mean 'stan'?" in command("detect", run, "--rule", "sten", code=2)["error"]
    assert "Unknown rule 'countour'" in command("locate", run, "--rule", "countour", code=2)["error"]
    assert "Unknown attention 'none'" in command("detect", run, "--attention", "none", code=2)["error"]
    assert "write KEY=VALUE" in command("detect", run, "--set", "k", code=2)["error"]
    (run / "metrics.json").unlink()
    for name in ("detect", "locate"):
        assert "is not finished" in command(name, run, code=2)["error"]
        assert "is no run" in command(name, tmp_path / "nothing", code=2)["error"]


@pytest.mark.slow
def test_streams_that_show_different_parts_of_the_frame_are_refused(tmp_path: Path) -> None:
    store = acting_store(tmp_path / "two.zarr", videos=12, crops={"rgb": 40, "flow": 32})
    run = fitted(store.path, tmp_path / "run", steps="2", validate_every="2")
    assert "show different parts of the frame" in command("locate", run, code=3)["error"]
    assert command("detect", run)["videos"] == 4


@pytest.mark.slow
def test_unknown_times_and_places_are_refused(tmp_path: Path) -> None:
    store = acting_store(tmp_path / "still.zarr", videos=12, fps=0.0, views="train:1")
    run = fitted(store.path, tmp_path / "run", steps="2", validate_every="2")
    assert "imported without a time map or a frame rate" in command("detect", run, code=2)["error"]
    assert "random crops (views train:1)" in command("locate", run, code=2)["error"]


def test_attention_does_not_depend_on_how_many_videos_are_read_at_once(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = list(attention(made, device="cpu", with_segments=True))
    monkeypatch.setattr("vidatt.pipelines.runs.attention.SEGMENTS_AT_ONCE", 2 * T + 1)
    for one, other in zip(together, attention(made, device="cpu", with_segments=True), strict=True):
        assert one.id == other.id
        assert one.segments is not None
        np.testing.assert_allclose(one.segments, other.segments, atol=1e-5)
        np.testing.assert_allclose(one.temporal, other.temporal, atol=1e-6)


def test_cubes_that_are_not_finite_stop_with_the_video(run: Path, tmp_path: Path) -> None:
    store = acting_store(tmp_path / "nan.zarr", broken=6).path
    for name in ("detect", "locate"):
        assert "of video 'v006' is not finite" in command(name, run, "--store", store, code=1)["error"]


def test_the_central_view_of_ten_crops_is_looked_at(tmp_path: Path) -> None:
    assert central_view(acting_store(tmp_path / "ten.zarr", videos=3, views="10crop")) == 4


@pytest.mark.slow
def test_both_commands_on_generated_videos(tmp_path: Path) -> None:
    generate(tmp_path / "videos", variant="untrimmed", videos=6, shapes=2, motions=1, frames=60, n_jobs=1)
    stream = StreamConfig(name="rgb", backbone="hog", resize="short:112", crop_px=112)
    config = ExtractConfig(
        dataset="actionshapes", videos=tmp_path / "videos", store=tmp_path / "s.zarr", sampler="every:6",
        streams=(stream,), device="cpu", workers=1, decoders=1,
    )  # fmt: skip
    extract(config)
    run = fitted(config.store, tmp_path / "run", steps="4", validate_every="2")
    when, where = command("detect", run, "--set", "score_threshold=0.3"), command("locate", run)
    tested = int((Store.open(config.store).index.splits["1"] == 2).sum())
    assert when["measures"]["thumos14"]["instances"] == when["videos"] == tested
    for line in Path(when["out"]).read_text().splitlines():
        assert 0 <= float(line.split()[1]) < float(line.split()[2]) <= 60 / 15 + 1e-9
    truth = json.loads((tmp_path / "videos" / "annotations.json").read_text())["videos"]
    wanted = sum(
        frame % 6 == 0
        for video in truth
        if video["split"] == "test"
        for frame in range(video["first_frame"], video["first_frame"] + len(video["boxes"]))
    )
    assert where["measures"]["frames"] == wanted > 0
    assert where["frames"] == where["boxes"] == tested * 10
