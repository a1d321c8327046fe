"""Detection files: the official truth recounted, a published result reproduced, bad lines refused, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from vidatt.cli.main import main
from vidatt.errors import MissingFileError, UnknownNameError, UsageError
from vidatt.pipelines.localisation.submission import (
    evaluate_detections,
    read_activitynet,
    read_activitynet_truth,
    read_thumos14,
    read_thumos14_truth,
    write_thumos14,
)
from vidatt.pipelines.metrics.detection import Intervals, detection_ap

PUBLISHED = [0.71428571, 0.71428571, 0.71428571, 0.6875, 0.6875, 0.59722222, 0.52083333, 0.52083333, 0.52083333, 0.5]
"""mAP at 0.5, 0.55, ..., 0.95 of the shared ActivityNet result, as its repository's own test has it."""


@pytest.fixture
def official(shared_data: Path) -> Path:
    return shared_data / "annotations" / "thumos14" / "test" / "annotation"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A truth of two classes in the official form."""
    files = {
        "detclasslist.txt": "7 BaseballPitch\n9 BasketballDunk\n",
        "BaseballPitch_test.txt": "video_test_0000324  0.0 10.0\nvideo_test_0000664  5.0 7.5\n",
        "BasketballDunk_test.txt": "video_test_0000324  20 30\n",
        "Ambiguous_test.txt": "video_test_0000270  1.0 2.0\n",
    }
    made = tmp_path / "truth"
    made.mkdir()
    for name, text in files.items():
        (made / name).write_text(text)
    return made


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["evaluate-detections", *map(str, words)])
    return done.exit_code, done.output


def test_official_test_set_recounted(official):
    truth = read_thumos14_truth(official)
    segments = truth.segments
    assert truth.class_ids == (7, 9, 12, 21, 22, 23, 24, 26, 31, 33, 36, 40, 45, 51, 68, 79, 85, 92, 93, 97)
    instances, ambiguous = segments[segments.labels >= 0], segments[segments.labels == -1]
    assert (len(instances), len(ambiguous), len(truth.names)) == (3358, 99, 20)
    with_instances = set(instances.videos.tolist())
    assert len(with_instances) == 212
    assert set(ambiguous.videos.tolist()) - with_instances == {"video_test_0001292"}
    assert len(set(segments.videos.tolist())) == 213
    of_video = {video: set(instances.labels[instances.videos == video].tolist()) for video in with_instances}
    assert sum(len(labels) > 1 for labels in of_video.values()) == 34
    per_class = {name: int((segments.labels == label).sum()) for label, name in enumerate(truth.names)}
    assert (per_class["CliffDiving"], per_class["Diving"]) == (217, 388)
    rows = {
        name: {
            (v, *s.tolist())
            for v, s, n in zip(segments.videos, segments.seconds, segments.labels, strict=True)
            if n == truth.names.index(name)
        }
        for name in ("CliffDiving", "Diving")
    }
    assert rows["CliffDiving"] <= rows["Diving"], "every CliffDiving instance is one of Diving too"


def test_instances_that_start_after_the_end_of_their_video(official, shared_data):
    """Known faults of the official files, for which many works leave videos 270 and 1496 out."""
    from scipy.io import loadmat

    meta = loadmat(shared_data / "annotations" / "thumos14" / "test_set_meta.mat", squeeze_me=True)
    rows = next(value for key, value in meta.items() if not key.startswith("__"))
    duration = {str(row["video_name"]): float(row["video_duration_seconds"]) for row in rows}
    segments = read_thumos14_truth(official).segments
    instances = segments[segments.labels >= 0]
    late = [
        video
        for video, (start, _) in zip(instances.videos.tolist(), instances.seconds, strict=True)
        if start > duration[video]
    ]
    counted = {video: late.count(video) for video in set(late)}
    assert counted == {"video_test_0000270": 22, "video_test_0000814": 3, "video_test_0001081": 1}


@pytest.mark.parametrize("rule", ["thumos14", "activitynet"])
def test_the_official_truth_as_a_submission_is_perfect(official, rule):
    truth = read_thumos14_truth(official)
    true = truth.segments[truth.segments.labels >= 0]
    scores = np.random.default_rng(0).permutation(len(true)) / len(true)
    found = Intervals(videos=true.videos, seconds=true.seconds, labels=true.labels, scores=scores)
    table = detection_ap(truth.segments, found, labels=range(20), thresholds=[0.1, 0.5, 0.9], rule=rule)
    assert table == pytest.approx(1.0)


@pytest.mark.parametrize(("exclude", "videos"), [((), 213), (("270", "1496"), 211), (("270", "1496", "1292"), 210)])
def test_videos_left_out_of_the_official_truth_are_stated(official, tmp_path, exclude, videos):
    (tmp_path / "r.txt").write_text("video_test_0000270 0 1 31 0.5\n")
    result = evaluate_detections(tmp_path / "r.txt", truth=official, rule="thumos14", exclude=exclude)
    assert result.videos == videos
    assert list(result.excluded) == sorted(f"video_test_{int(number):07d}" for number in exclude)
    assert result.detections == (0 if exclude else 1)


def test_published_activitynet_result_is_reproduced(shared_data):
    files = shared_data / "annotations" / "detection_eval"
    result = evaluate_detections(files / "result.json", truth=files / "gt.json", rule="activitynet")
    assert result.map == pytest.approx(PUBLISHED, abs=5e-9)
    assert result.average_map == pytest.approx(0.6177579365079365, abs=1e-15)
    assert (result.rule, result.videos, result.classes) == ("activitynet", 2, 2)
    assert [row.name for row in result.per_class] == ["Cleaning shoes", "Wakeboarding"]


def test_submission_files_come_back_as_they_were_written(tmp_path):
    generator = np.random.default_rng(0)
    found = Intervals(
        videos=np.array([f"video_test_{n:07d}" for n in generator.integers(0, 9, 50)]),
        seconds=np.sort(generator.random((50, 2)) * 100, axis=1),
        labels=generator.integers(0, 3, 50),
        scores=generator.standard_normal(50),
    )
    names = ["a", "b", "c"]
    write_thumos14(tmp_path / "r.txt", found, [7, 9, 12])
    assert len((tmp_path / "r.txt").read_text().splitlines()[0].split()) == 5
    listed: dict[str, list[dict]] = {}
    for video, span, label, score in zip(found.videos, found.seconds, found.labels, found.scores, strict=True):
        entry = {"label": names[label], "score": float(score), "segment": span.tolist()}
        listed.setdefault(str(video), []).append(entry)
    write(tmp_path / "r.json", {"version": "VERSION 1.3", "results": listed})
    for again in (read_thumos14(tmp_path / "r.txt", [7, 9, 12]), read_activitynet(tmp_path / "r.json", names)):
        order, other = (np.argsort(part.scores) for part in (found, again))
        for field in ("videos", "seconds", "labels", "scores"):
            assert (getattr(found, field)[order] == getattr(again, field)[other]).all()
    spaced = Intervals(videos=np.array(["a b"]), seconds=np.zeros((1, 2)), labels=np.zeros(1, int), scores=np.zeros(1))
    with pytest.raises(UsageError, match="'a b' cannot stand in a file whose fields are parted by spaces"):
        write_thumos14(tmp_path / "s.txt", spaced, [7])


def test_file_suffix_of_a_video_is_stripped(folder, tmp_path):
    (tmp_path / "r.txt").write_text("video_test_0000324.mp4 0 10 7 0.5\n\n")
    assert read_thumos14(tmp_path / "r.txt", (7, 9)).videos.tolist() == ["video_test_0000324"]


def test_thumos14_end_to_end_with_videos_left_out(folder, tmp_path):
    lines = ["video_test_0000324 0 9 7 .9", "video_test_0000664 5 7 7 .8", "video_test_0000270 0 1.5 9 .7",
             "video_test_0000324 20 31 9 .6", "video_test_0000999 0 1 9 .5"]  # fmt: skip
    (tmp_path / "r.txt").write_text("\n".join(lines))
    code, text = run(tmp_path / "r.txt", "--truth", folder, "--rule", "thumos14")
    assert code == 0, text
    for words in (
        "THUMOS14 (TH14evalDet)", "3 videos with 3 true segments of 2 classes", "1 ambiguous segments",
        "1 detections in videos without truth are false", "average mAP 1.0000",
    ):  # fmt: skip
        assert words in text
    code, text = run(
        tmp_path / "r.txt", "--truth", folder, "--rule", "thumos14", "--exclude", "664,video_test_0000270", "--json"
    )
    result = json.loads(text)
    assert result["excluded"] == ["video_test_0000270", "video_test_0000664"]
    assert (result["videos"], result["instances"], result["detections"]) == (1, 2, 3)
    assert result["thresholds"] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert (result["rule"], result["subset"], result["average_map"]) == ("thumos14", "test", 1.0)
    code, text = run(tmp_path / "r.txt", "--truth", folder, "--rule", "thumos14", "--exclude", "271")
    assert (code, "--exclude 271: no such video" in text) == (2, True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("video_test_0000324 0 10 7", "line 2: 'video_test_0000324 0 10 7' is not `VIDEO START STOP CLASSID"),
        ("video_test_0000324 0 ten 7 1", "line 2: 'ten' is no number"),
        ("video_test_0000324 0 10 seven 1", "line 2: 'seven' is no number"),
        ("video_test_0000324 0 10 8 1", "line 2: class 8 is none of detclasslist.txt (7, 9)"),
        ("video_test_0000324 0 10 7 nan", "line 2: 'nan' is not finite"),
        ("video_test_0000324 0 inf 7 1", "line 2: 'inf' is not finite"),
        ("video_test_0000324 10 0 7 1", "line 2: a segment from 10.0 to 0.0 stops before it starts"),
    ],
)  # fmt: skip
def test_bad_lines_of_a_submission_are_refused_with_file_and_line(folder, tmp_path, line, words):
    path = tmp_path / "r.txt"
    path.write_text(f"video_test_0000324 0 9 7 .9\n{line}\n")
    code, text = run(path, "--truth", folder, "--rule", "thumos14")
    assert code == 2
    assert f"{path}, {words}" in text
    assert len(text.strip().splitlines()) == 1


def test_broken_truth_is_refused_with_the_file(folder, tmp_path):
    (tmp_path / "r.txt").write_text("")
    (folder / "BasketballDunk_test.txt").write_text("video_test_0000324  20\n")
    with pytest.raises(UsageError, match=r"BasketballDunk_test\.txt, line 1: .* is not `VIDEO START STOP`"):
        evaluate_detections(tmp_path / "r.txt", truth=folder, rule="thumos14")
    (folder / "BasketballDunk_test.txt").unlink()
    with pytest.raises(MissingFileError, match=r"There is no file .*BasketballDunk_test\.txt"):
        evaluate_detections(tmp_path / "r.txt", truth=folder, rule="thumos14")
    with pytest.raises(MissingFileError, match=r"BaseballPitch_val\.txt"):
        evaluate_detections(tmp_path / "r.txt", truth=folder, rule="thumos14", subset="val")
    (folder / "detclasslist.txt").write_text("7 BaseballPitch\n7 BaseballPitch\n")
    with pytest.raises(UsageError, match="must list each class once"):
        read_thumos14_truth(folder)
    (folder / "detclasslist.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"detclasslist\.txt is no text"):
        read_thumos14_truth(folder)
    with pytest.raises(MissingFileError, match="There is no file"):
        read_thumos14(folder, (7,))
    with pytest.raises(UnknownNameError, match="Did you mean 'thumos14'"):
        evaluate_detections(tmp_path / "r.txt", truth=folder, rule="thumos15")


TRUTH = {
    "database": {
        "one": {"subset": "validation", "annotations": [{"segment": [0, 10], "label": "run"}]},
        "two": {"subset": "training", "annotations": [{"segment": [0, 10], "label": "jump"}]},
    }
}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_activitynet_reads_one_subset_of_the_official_file(tmp_path):
    truth = write(tmp_path / "truth.json", TRUTH)
    assert read_activitynet_truth(truth).names == ("run",)
    assert read_activitynet_truth(truth, "training").names == ("jump",)
    result = write(tmp_path / "r.json", {"results": {"one": [{"segment": [0, 5], "label": "run", "score": 0.1}]}})
    code, text = run(result, "--truth", truth, "--rule", "activitynet", "--json")
    assert code == 0
    assert json.loads(text)["map"] == [1.0] + [0.0] * 9
    code, text = run(result, "--truth", truth, "--rule", "activitynet", "--subset", "testing")
    assert code == 2


def test_ids_that_begin_like_file_names_keep_their_own_letters(tmp_path):
    """Only where every id begins with v_ is it a prefix: ids of videos may begin so themselves."""
    content = {"v_abc": {"annotations": [{"segment": [0, 1], "label": "x"}]}}
    assert read_activitynet_truth(write(tmp_path / "a.json", content)).segments.videos.tolist() == ["abc"]
    content["other"] = content["v_abc"]
    assert read_activitynet_truth(write(tmp_path / "b.json", content)).segments.videos.tolist() == ["v_abc", "other"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"results":\n oops}', "line 2: no JSON"),
        ([1], "must hold one JSON object"),
        ({"outcome": {}}, "has no object of videos"),
        ({"results": {"one": {}}}, "'one': must have a list of segments"),
        ({"results": {"one": [3]}}, "'one', segment 1: must be an object"),
        ({"results": {"one": [{"label": "run", "segment": [1], "score": 1}]}}, r"segment 1: `segment` must be \[start"),
        ({"results": {"one": [{"label": "run", "segment": [1, 0], "score": 1}]}}, "segment 1: .* stops before it"),
        ({"results": {"one": [{"label": "run", "segment": [0, "x"], "score": 1}]}}, "segment 1: 'x' is no number"),
        ({"results": {"one": [{"label": "run", "segment": [0, 1]}]}}, "'one': None is no number"),
        ({"results": {"one": [{"label": "ran", "segment": [0, 1], "score": 1}]}}, "truth has no class 'ran'"),
    ],
)
def test_bad_activitynet_results_are_refused_with_the_entry(tmp_path, content, words):
    truth, result = write(tmp_path / "truth.json", TRUTH), write(tmp_path / "r.json", content)
    with pytest.raises(UsageError, match=rf"r\.json.*{words}"):
        evaluate_detections(result, truth=truth, rule="activitynet")


def test_missing_json_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match="There is no JSON file"):
        read_activitynet_truth(tmp_path / "none.json")
