"""Boxes and detections of other programs held to a dataset's annotations, without a store or a video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from testkit.commands import vidatt

from vidatt.cache.store import Store
from vidatt.cli.main import main
from vidatt.extract.datasets.registry import load_catalogue
from vidatt.pipelines.extraction.plan import make_index

CLASSES = ["circle-left", "square-up"]
COLUMNS = "video,frame,x1,y1,x2,y2,class,confidence"
WIDTH, HEIGHT, FPS = 200, 100, 10
FIRST, FRAMES = 4, 10
"""In each video an object is seen in frames 4 to 13."""


def box(frame: int) -> list[float]:
    """Corners in fractions of the frame: a fifth of the width, two fifths of the height, moving right."""
    x = 0.02 * frame
    return [x, 0.3, x + 0.2, 0.7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations of four videos that are nowhere: the last is for training, the others are tested."""
    path = tmp_path_factory.mktemp("shapes")
    videos = [
        {
            "path": f"{CLASSES[n % 2]}/{n:05}.mp4", "label": n % 2, "split": "train" if n == 3 else "test",
            "start": 2.0 + n, "stop": 8.0 + n, "first_frame": FIRST,
            "boxes": [box(frame) for frame in range(FIRST, FIRST + FRAMES)],
        }
        for n in range(4)
    ]  # fmt: skip
    content = {"format": "actionshapes", "version": 1, "classes": CLASSES, "videos": videos}
    (path / "annotations.json").write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that would be made of them; no stream is in it."""
    catalogue = load_catalogue("actionshapes", annotations=folder)
    index, layout = make_index(catalogue, np.full(4, 2, np.int32), views=1, shard_videos=2, seed=5)
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    return Store.create(path, index=index, views=1, layout=layout, attributes={"dataset": "actionshapes"}).path


def command(name: str, *arguments: object, code: int = 0) -> dict[str, Any]:
    """Run a command; return its JSON object, or its one line of error."""
    done = CliRunner().invoke(main, [name, *map(str, arguments), "--json", "-qq"], catch_exceptions=False)
    assert done.exit_code == code, done.output
    if code == 0:
        return json.loads(done.stdout)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return {"error": done.stderr}


def of(folder: Path) -> list[object]:
    return ["--dataset", "actionshapes", "--annotations", folder]


def pixels(corners: list[float]) -> str:
    return ",".join(str(x * side) for x, side in zip(corners, [WIDTH, HEIGHT] * 2, strict=True))


def video(n: int) -> str:
    return f"{CLASSES[n % 2]}/{n:05}.mp4"


def moved(frame: int, by: float) -> list[float]:
    x1, y1, x2, y2 = box(frame)
    return [x1 + by, y1, x2 + by, y2]


SAID = [
    *((0, frame, moved(frame, 0.0), 0, 0.9) for frame in range(FIRST, FIRST + FRAMES)),  # all ten right
    *((1, frame, moved(frame, 0.1), 1, 0.8) for frame in range(FIRST, FIRST + 5)),  # five, overlapping by a third
    (1, 0, box(0), 1, 0.95),  # a frame without a true box
    (0, FIRST, moved(FIRST, 0.5), 0, 0.1),  # a second box in a frame, elsewhere
    (3, FIRST, box(FIRST), 1, 1.0),  # a training video
]
"""Video, frame, corners, class, score."""


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    path = tmp_path / "ours.csv"
    lines = [
        f"{video(n)},{frame},{pixels(corners)},{CLASSES[label]},{score}" for n, frame, corners, label, score in SAID
    ]
    path.write_text("\n".join([COLUMNS, *lines]) + "\n")
    return path


@pytest.fixture
def ava(tmp_path: Path) -> Path:
    path = tmp_path / "ava.csv"
    rows = [[video(n), frame / FPS, *corners, label + 1, score] for n, frame, corners, label, score in SAID]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def test_boxes_are_measured_against_all_annotated_frames(folder: Path, ours: Path) -> None:
    """Class 0: 20 true boxes (video 2 has no box), ten right, ranked first; class 1: ten, five of overlap 1/3."""
    result = command("evaluate-boxes", ours, *of(folder), "--frame-px", "200x100", "--thresholds", ".3,.4")
    assert (result["videos"], result["listed"], result["videos_without"]) == (3, 3, 1)
    assert (result["boxes"], result["boxes_elsewhere"], result["frames_without"]) == (17, 1, 1)
    assert (result["frames"], result["true_boxes"], result["thresholds"]) == (30, 30, [0.3, 0.4])
    assert [row["ap"] for row in result["per_class"]] == [[0.5, 0.5], [pytest.approx(5 / 10 * 5 / 6), 0.0]]
    assert result["frame_map"] == pytest.approx([(0.5 + 5 / 12) / 2, 0.25])
    assert result["frame_hit"] == [15 / 30, 10 / 30]  # with the +1 of pixels 21 / 61 = .344 for those moved
    assert (result["form"], result["split"], result["part"]) == ("locate", "1", "test")
    assert result["truth"] == f"the annotations of 'actionshapes' in {folder}"
    text = (
        CliRunner().invoke(main, ["evaluate-boxes", str(ours), *map(str, of(folder)), "--frame-px", "200x100"]).output
    )
    assert "1 of these videos have no box in the file: all of theirs are missed" in text
    assert "1 boxes in other videos, or such without true boxes, are left out" in text


def test_only_frames_of_the_file_count_on_request(folder: Path, ours: Path) -> None:
    result = command("evaluate-boxes", ours, *of(folder), "--frame-px", "200x100", "--frames", "file")
    assert (result["frames"], result["true_boxes"], result["frames_without"]) == (15, 15, 1)
    assert result["frame_hit"][:4] == [1.0] * 4
    assert result["frame_map"][0] == pytest.approx((1 + 5 / 6) / 2)
    assert result["frames_judged"] == "file"


def test_avas_form_gives_what_ours_gives(folder: Path, store: Path, ours: Path, ava: Path) -> None:
    told = command("evaluate-boxes", ours, *of(folder), "--frame-px", "200x100")
    found = command("evaluate-boxes", ava, *of(folder), "--frame-px", "200x100", "--fps", FPS)
    assert found | {"result": "", "form": ""} == told | {"result": "", "form": ""}
    stored = command("evaluate-boxes", ava, "--store", store, "--frame-px", "200x100", "--fps", FPS)
    assert stored | {"truth": ""} == found | {"truth": ""}
    fractions = command("evaluate-boxes", ava, *of(folder), "--fps", FPS)
    assert fractions["frame_map"] == told["frame_map"]
    assert "continuous, as the size of the frames is not known" in fractions["rule_text"]
    assert fractions["frame_hit"][3] == 15 / 30  # 1/3 reaches .3, with or without the +1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: must be the header video,frame,x1,y1,x2,y2,class,confidence, or without one AVA's video_id,time"),
        ("a,b\n", "line 1: must be the header"),
        (f"{COLUMNS},more\n", "line 1: must be the header"),
        (f"{COLUMNS}\n{video(0)},1,2,3\n", "line 2: 4 fields, not video,frame"),
        (f"{COLUMNS}\n{video(0)},1,2,3,4,5,circle,1\n", "line 2: 'circle' is none of the 2 classes, such as 'circle-"),
        (f"{COLUMNS}\n{video(0)},1.5,2,3,4,5,square-up,1\n", "line 2: '1.5' is no frame number from 0 on"),
        (f"{COLUMNS}\n{video(0)},1,5,3,4,5,square-up,1\n", "line 2: the box 5, 3, 4, 5 ends before it starts"),
        (f"{COLUMNS}\n{video(0)},1,2,3,4,nan,square-up,1\n", "line 2: 'nan' is not finite"),
        (f"{COLUMNS}\n{video(0)},1,2,3,4,x,square-up,1\n", "line 2: 'x' is no number"),
        (f"{COLUMNS},seen\n{video(0)},1,2,3,4,5,square-up,1,maybe\n", "line 2: seen must be True or False"),
        (f"{video(0)},-1,.1,.1,.2,.2,1,1\n", "line 1: '-1' is no time in seconds from 0 on"),
        (f"{video(0)},1,10,10,20,20,1,1\n", "line 1: 10, 10, 20, 20 are no fractions of the frame"),
        (f"{video(0)},1,.1,.1,.2,.2,3,1\n", "line 1: '3' is no action_id; they count the 2 classes from 1"),
        (f"{video(0)},1,.1,.1,.2,.2,1\n{video(0)},1,.1,.1,.2,.2,1\n", "line 1: must be the header"),
        (
            f"{video(3)},1,.1,.1,.2,.2,1,1\n",
            "has boxes in none of the 3 test videos of split '1' of the annotations of",
        ),
        (f'"{video(3)},1,.1\n', "cannot be read as CSV"),
    ],
)
def test_bad_files_of_boxes_are_one_line(folder: Path, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "b.csv"
    path.write_text(text)
    options = [*of(folder), "--fps", FPS, "--frame-px", "200x100"]
    assert words in command("evaluate-boxes", path, *options, code=2)["error"]


def test_what_nobody_knows_is_asked_for(folder: Path, store: Path, ours: Path, ava: Path, tmp_path: Path) -> None:
    for options in (of(folder), ["--store", store]):
        assert "does not know the size of the frames" in command("evaluate-boxes", ours, *options, code=2)["error"]
        assert "are a second; give --fps" in command("evaluate-boxes", ava, *options, code=2)["error"]
    assert "Say what is true: --store STORE, or --dataset" in command("evaluate-boxes", ours, code=2)["error"]
    for option, value in (("--frame-px", "200"), ("--fps", 0), ("--thresholds", "0.5,2"), ("--thresholds", ".5,.5")):
        assert f"{option} " in command("evaluate-boxes", ours, *of(folder), option, value, code=2)["error"]
    assert (
        "Unknown choice of --frames 'all'"
        in command("evaluate-boxes", ours, *of(folder), "--frames", "all", code=2)["error"]
    )
    assert "There is no file of boxes" in command("evaluate-boxes", tmp_path / "none.csv", *of(folder), code=2)["error"]
    (tmp_path / "list.csv").write_text("path,label,split\na.avi,x,test\n")
    boxless = command("evaluate-boxes", ours, "--dataset", "list", "--annotations", tmp_path / "list.csv", code=2)
    assert "none of the 1 classes" in boxless["error"]
    (tmp_path / "empty.csv").write_text(COLUMNS + "\n")
    boxless = command(
        "evaluate-boxes", tmp_path / "empty.csv", "--dataset", "list", "--annotations", tmp_path / "list.csv", code=2
    )
    assert "knows no true box of the test videos of split '1'" in boxless["error"]
    nothing = command("evaluate-boxes", tmp_path / "empty.csv", *of(folder), "--frame-px", "200x100")
    assert (nothing["boxes"], nothing["frame_map"], nothing["videos_without"]) == (0, [0.0] * 5, 3)


def test_boxes_in_videos_that_a_run_has_seen_are_refused_unless_allowed(folder: Path, ours: Path) -> None:
    lines = ours.read_text().splitlines()
    ours.write_text("\n".join([lines[0] + ",seen", *(f"{line},{n < 3}" for n, line in enumerate(lines[1:]))]))
    options = [*of(folder), "--frame-px", "200x100"]
    assert "3 boxes of" in command("evaluate-boxes", ours, *options, code=3)["error"]
    result = command("evaluate-boxes", ours, *options, "--allow-seen")
    assert result["seen"] == 3
    text = CliRunner().invoke(main, ["evaluate-boxes", str(ours), *map(str, options), "--allow-seen"]).output
    assert "SEEN" in text


def submission(path: Path, rows: list[tuple[int, float, float, int, float]]) -> Path:
    path.write_text("".join(f"{video(n)} {a} {b} {label + 1} {score}\n" for n, a, b, label, score in rows))
    return path


FOUND = [(0, 2.0, 8.0, 0, 0.9), (2, 4.0, 8.5, 0, 0.8), (1, 3.0, 6.0, 1, 0.7), (0, 20.0, 30.0, 0, 0.95)]
"""Video, start, stop, class, score: of overlap 1, 3/4, 1/2 and 0."""


@pytest.mark.parametrize("rule", ["thumos14", "activitynet"])
def test_detections_are_measured_by_either_rule_at_any_overlaps(
    folder: Path, store: Path, tmp_path: Path, rule: str
) -> None:
    path = submission(tmp_path / "r.txt", FOUND)
    options = ["--rule", rule, "--thresholds", ".1,.5,.7"]
    result = command("evaluate-detections", path, *of(folder), *options)
    one = (1 / 2 + 2 / 3) / 2 if rule == "thumos14" else 2 / 3
    assert [row["ap"] for row in result["per_class"]] == [
        pytest.approx([one] * 3), [1.0, 0.0 if rule == "thumos14" else 1.0, 0.0],
    ]  # fmt: skip
    assert result["thresholds"] == [0.1, 0.5, 0.7]
    assert (result["truth"], result["subset"]) == (f"the annotations of 'actionshapes' in {folder}", "test")
    assert (result["split"], result["listed"], result["videos"]) == ("1", 3, 3)
    stored = command("evaluate-detections", path, "--store", store, *options)
    assert stored | {"truth": ""} == result | {"truth": ""}
    entries: dict[str, list[dict[str, Any]]] = {}
    for n, a, b, label, score in FOUND:
        entries.setdefault(video(n), []).append({"segment": [a, b], "label": CLASSES[label], "score": score})
    (tmp_path / "r.json").write_text(json.dumps({"results": entries}))
    as_json = command("evaluate-detections", tmp_path / "r.json", *of(folder), *options)
    assert as_json | {"result": ""} == result | {"result": ""}
    left = command("evaluate-detections", path, *of(folder), *options, "--exclude", video(0))
    assert (left["videos"], left["detections"], left["excluded"]) == (2, 2, [video(0)])
    assert command("evaluate-detections", path, *of(folder), *options, "--part", "train", code=2)["error"].count(
        "none of"
    )


def test_wrong_use_of_truths_of_detections_is_refused(folder: Path, store: Path, tmp_path: Path) -> None:
    path = submission(tmp_path / "r.txt", FOUND)
    rule = ["--rule", "thumos14"]
    for options, words in (
        ([], "Say who knows the true segments: one of --truth, --store and --dataset"),
        (["--truth", folder, *of(folder)], "Say who knows the true segments"),
        (["--truth", folder, "--part", "test"], "--split and --part are of a store or a dataset; of --truth say --sub"),
        ([*of(folder), "--subset", "val"], "--subset is of --truth; of a store or a dataset say --part and --split"),
        ([*of(folder), "--split", "2"], "Unknown split '2'"),
        ([*of(folder), "--thresholds", ".5,a"], "--thresholds '.5,a': 'a' is no overlap, or twice"),
    ):
        assert words in command("evaluate-detections", path, *options, *rule, code=2)["error"]
    submission(path, [(0, 0.0, 1.0, 2, 0.5)])
    wrong = command("evaluate-detections", path, *of(folder), *rule, code=2)["error"]
    assert "r.txt, line 1: class 3 is none of the annotations of 'actionshapes' in" in wrong


@pytest.mark.slow
def test_thumos14_annotations_are_the_official_truth(tmp_path: Path, shared_data: Path) -> None:
    """Against the folder of official files, the dataset's reader, in both tasks, and by both rules."""
    folder = shared_data / "annotations" / "thumos14"
    lines = (folder / "test" / "annotation" / "CliffDiving_test.txt").read_text().splitlines()
    spans = [line.split() for line in lines if line.strip()]
    random = np.random.default_rng(0)
    noise = random.normal(0, 1, (len(spans), 2))
    rows = [
        f"{name} {max(0.0, float(a) + da):.2f} {float(b) + abs(db):.2f} {22 if n % 3 else 26} {random.random():.4f}"
        for n, ((name, a, b), (da, db)) in enumerate(zip(spans, noise, strict=True))
        if float(b) > max(0.0, float(a) + da)
    ]
    path = tmp_path / "r.txt"
    path.write_text("\n".join(["video_test_0000001 0 5 22 0.99", *rows]) + "\n")
    options = ["--rule", "thumos14", "--exclude", "270,1496"]
    told = command("evaluate-detections", path, "--truth", folder / "test" / "annotation", *options)
    assert (told["videos"], 0 < told["average_map"] < 1) == (211, True)
    for task in ("classification", "detection"):
        done = vidatt(
            "evaluate-detections", path, "--dataset", "thumos14", "--annotations", folder, "--option", f"task={task}",
            *options, "--json", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["listed"] == {"classification": 1574, "detection": 213}[task]
        assert {key: found[key] for key in told if key != "truth"} == {key: told[key] for key in told if key != "truth"}


@pytest.mark.slow
@pytest.mark.long
def test_ucf101_24_boxes_of_another_program(tmp_path: Path, shared_data: Path) -> None:
    """The true boxes of every tenth frame of a video, as AVA has them and in pixels: all are right."""
    folder = shared_data / "annotations" / "ucf101_24"
    catalogue = load_catalogue("ucf101-24", annotations=folder)
    tested = next(v for v, role in zip(catalogue.videos, catalogue.splits["1"], strict=True) if role == 2)
    mine = [b for b in tested.boxes if b.frame % 10 == 0]
    ava, ours = tmp_path / "ava.csv", tmp_path / "ours.csv"
    ava.write_text("".join(f"{tested.id},{b.frame / 25},{b.x1},{b.y1},{b.x2},{b.y2},{b.label + 1},0.5\n" for b in mine))
    name = catalogue.classes[tested.labels[0]]
    rows = [f"{tested.id},{b.frame},{b.x1 * 320},{b.y1 * 240},{b.x2 * 320},{b.y2 * 240},{name},0.5" for b in mine]
    ours.write_text("\n".join([COLUMNS, *rows]) + "\n")
    options = ["--dataset", "ucf101-24", "--annotations", folder, "--thresholds", ".5,.9"]
    by_file = command("evaluate-boxes", ours, *options, "--frames", "file")
    assert by_file["frame_map"] == by_file["frame_hit"] == [1.0, 1.0]
    assert (by_file["true_boxes"], by_file["videos"], by_file["videos_without"]) == (len(mine), 910, 909)
    every = command("evaluate-boxes", ava, *options, "--fps", 25)
    row = next(row for row in every["per_class"] if row["name"] == name)
    assert row["ap"] == pytest.approx([len(mine) / sum(
        len(v.boxes) for v, role in zip(catalogue.videos, catalogue.splits["1"], strict=True)
        if role == 2 and v.labels == tested.labels
    )] * 2)  # fmt: skip
