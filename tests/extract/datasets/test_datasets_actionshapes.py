"""The generated data set: real encoded files that show what their truth says."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from vidatt.errors import MissingFileError, RefusedError, UsageError
from vidatt.extract.datasets.catalogue import TEST, TRAIN, Catalogue
from vidatt.extract.datasets.generator import generate
from vidatt.extract.datasets.registry import check, load_catalogue
from vidatt.extract.datasets.scenes import make_scene
from vidatt.extract.datasets.shapes import DISTRACTORS, MOTIONS, SHAPES, ShapesOptions

pytestmark = pytest.mark.slow


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module", params=["trimmed", "untrimmed"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Catalogue, ShapesOptions]:
    folder = tmp_path_factory.mktemp(request.param)
    options = ShapesOptions(variant=request.param, videos=24, seed=3)
    return folder, generate(folder, variant=request.param, videos=24, seed=3, n_jobs=1), options


Made = tuple[Path, Catalogue, ShapesOptions]


@pytest.mark.slow
def test_actionshapes_files_hold_the_frames_they_promise(made: Made) -> None:
    folder, catalogue, options = made
    assert check("actionshapes", catalogue, folder).missing == ()
    assert Counter(Path(video.path).suffix for video in catalogue.videos) == {".mp4": 18, ".avi": 6}
    for video in catalogue.videos[:8]:
        with av.open(str(folder / video.path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == ("h264" if video.path.endswith("mp4") else "mpeg4")
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert stream.average_rate == options.fps
            seconds = [frame.time for frame in container.decode(stream)]
        assert len(seconds) == options.frame_count == (45 if options.variant == "trimmed" else 150)
        np.testing.assert_allclose(seconds, np.arange(len(seconds)) / options.fps, atol=1e-4)


def test_actionshapes_object_is_visible_in_its_box_and_interval_only(made: Made) -> None:
    """Beside the same frames drawn without the object, the decoded ones differ inside the box and nowhere else."""
    folder, catalogue, options = made
    for index in (0, 1, 2, 3, 9, 15):
        video = catalogue.videos[index]
        scene = make_scene(options, index)
        frames = decode(folder / video.path)
        boxes = {box.frame: box for box in video.boxes}
        (interval,) = video.intervals
        assert sorted(boxes) == list(range(scene.first, scene.stop))
        assert interval.start_seconds == scene.first / options.fps
        assert interval.stop_seconds == scene.stop / options.fps
        for number in range(0, options.frame_count, 4):
            plain = scene.render(number, with_object=False).astype(int)
            changed = np.abs(frames[number].astype(int) - plain).mean(axis=2)
            if number not in boxes:
                assert changed.mean() < 6  # what the codec loses
                continue
            box = boxes[number]
            x1, x2 = box.x1 * options.width, box.x2 * options.width
            y1, y2 = box.y1 * options.height, box.y2 * options.height
            inside = np.zeros(changed.shape, dtype=bool)
            inside[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
            near = np.zeros(changed.shape, dtype=bool)
            near[max(int(y1) - 3, 0) : int(y2) + 4, max(int(x1) - 3, 0) : int(x2) + 4] = True
            assert changed[inside].mean() > 12
            assert changed[~near].mean() < 6


@pytest.mark.parametrize("shape", SHAPES)
def test_actionshapes_boxes_are_tight(shape: str) -> None:
    options = ShapesOptions(videos=60, shapes=6, motions=3, seed=1)
    index = 3 * list(SHAPES).index(shape) + 2
    scene = make_scene(options, index)
    white = replace(scene.thing, colour=(255, 255, 255))
    scene = replace(scene, thing=white, distractors=(), background=np.zeros_like(scene.background))
    for number in range(scene.first, scene.stop, 3):
        drawn = scene.render(number)[:, :, 0] >= 128
        rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=float)
        box = scene.box(number)
        assert box is not None
        promised = np.array(box) * [options.width, options.height, options.width, options.height]
        np.testing.assert_allclose(promised, found, atol=0.7)  # rounding to whole pixels


def test_actionshapes_object_is_there_for_the_promised_share(made: Made) -> None:
    _, catalogue, options = made
    shares = np.array([len(video.boxes) for video in catalogue.videos]) / options.frame_count
    low, high = (0.6, 1.0) if options.variant == "trimmed" else (0.15, 0.35)
    assert low - 0.02 <= shares.min() < shares.max() <= high + 0.02
    assert len({video.boxes[0].frame for video in catalogue.videos}) > 3


def test_actionshapes_split_is_stratified(made: Made) -> None:
    _, catalogue, _ = made
    roles = catalogue.splits["1"]
    labels = np.array([video.labels[0] for video in catalogue.videos])
    assert catalogue.classes[:2] == ("square-leftright", "square-updown")
    for label in range(6):
        assert Counter(roles[labels == label].tolist()) == {TRAIN: 3, TEST: 1}


def test_actionshapes_catalogue_is_read_back(made: Made) -> None:
    folder, catalogue, _ = made
    assert load_catalogue("actionshapes", videos=folder).digest() == catalogue.digest()
    assert load_catalogue("actionshapes", videos=folder.parent, annotations=folder).digest() == catalogue.digest()


@pytest.mark.slow
def test_actionshapes_same_seed_same_bytes_whatever_the_processes(tmp_path: Path) -> None:
    small = {"videos": 24, "shapes": 2, "motions": 2, "seed": 5, "frames": 30}
    one = generate(tmp_path / "one", n_jobs=1, **small)
    two = generate(tmp_path / "two", n_jobs=2, **small)
    assert one.digest() == two.digest()
    for video in one.videos:
        assert (tmp_path / "one" / video.path).read_bytes() == (tmp_path / "two" / video.path).read_bytes(), video.path
    other = generate(tmp_path / "other", n_jobs=1, **(small | {"seed": 6}))
    assert other.digest() != one.digest()
    first = one.videos[0].path
    assert (tmp_path / "other" / first).read_bytes() != (tmp_path / "one" / first).read_bytes()


def test_actionshapes_reuses_what_is_there_and_writes_what_is_missing(tmp_path: Path) -> None:
    options = {"videos": 12, "shapes": 2, "motions": 2, "frames": 10, "n_jobs": 1}
    catalogue = generate(tmp_path, **options)
    gone, kept = (tmp_path / catalogue.videos[index].path for index in (0, 1))
    content, stamp = gone.read_bytes(), kept.stat().st_mtime_ns
    gone.unlink()
    assert generate(tmp_path, **options).digest() == catalogue.digest()
    assert gone.read_bytes() == content
    assert kept.stat().st_mtime_ns == stamp
    with pytest.raises(
        RefusedError, match=r"made with other options: videos 12 \(asked for 15\), seed 0 \(asked for 1\)"
    ):
        generate(tmp_path, **(options | {"seed": 1, "videos": 15}))


def test_actionshapes_finishes_after_a_kill_and_refuses_foreign_files(tmp_path: Path) -> None:
    options = {"videos": 12, "shapes": 2, "motions": 2, "frames": 10, "n_jobs": 1}
    catalogue = generate(tmp_path / "whole", **options)
    half = tmp_path / "half" / "square-leftright"
    half.mkdir(parents=True)
    (half / "00000.mp4").write_bytes(b"from a run that was killed")
    (half / ".00004.part.mp4").write_bytes(b"half a video")
    assert generate(tmp_path / "half", **options).digest() == catalogue.digest()
    assert (half / "00000.mp4").read_bytes() == (tmp_path / "whole/square-leftright/00000.mp4").read_bytes()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.mp4").touch()
    with pytest.raises(RefusedError, match=r"holds other files, such as .*holiday\.mp4"):
        generate(tmp_path / "mine", **options)
    with pytest.raises(RefusedError, match="is a file"):
        generate(tmp_path / "mine" / "holiday.mp4", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "cut"}, "variant must be trimmed or untrimmed, not 'cut'"),
        ({"videos": 17}, "6 classes need at least 18 videos"),
        ({"shapes": 7}, r"shapes must be 1\.\.6, not 7"),
        ({"shapes": 1, "motions": 1}, "make one class"),
        ({"width": 161}, "must be even"),
        ({"frames": 2}, r"frames must be 8\.\.100000"),
        ({"n_jobs": 0}, "n_jobs must be 1 or more"),
    ],
)
def test_actionshapes_bad_options_are_refused(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(tmp_path / "new", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_actionshapes_missing_or_damaged_truth_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"holds no annotations\.json; `vidatt demo` generates"):
        load_catalogue("actionshapes", videos=tmp_path)
    for text, message in (
        ("{", "is damaged"),
        ('{"format": "coco"}', "is not an actionshapes file of version 1"),
        (json.dumps({"format": "actionshapes", "version": 1, "classes": ["a"], "videos": [{}]}), "an entry is damaged"),
    ):
        (tmp_path / "annotations.json").write_text(text)
        with pytest.raises(UsageError, match=message):
            load_catalogue("actionshapes", videos=tmp_path)


def test_actionshapes_motions_share_their_places_at_any_one_moment() -> None:
    """A single frame tells nothing about the motion: x, y and zoom have one distribution over random phases."""
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, size=4000)
    stills = np.sin(rng.uniform(0, 2 * np.pi, size=(4000, 3)))
    reference = np.quantile(np.sin(rng.uniform(0, 2 * np.pi, size=100_000)), np.linspace(0.1, 0.9, 9))
    for motion in MOTIONS.values():
        places = np.array([motion(angle, still) for angle, still in zip(angles, stills, strict=True)])
        quantiles = np.quantile(places, np.linspace(0.1, 0.9, 9), axis=0)
        np.testing.assert_allclose(quantiles, np.repeat(reference[:, None], 3, axis=1), atol=0.08)


def test_actionshapes_motions_move_differently() -> None:
    options = ShapesOptions(videos=15, shapes=1, motions=5)
    scenes = [replace(make_scene(options, label), shake=np.zeros((2, 3))) for label in range(5)]
    spans = []
    for scene in scenes:
        outlines = [np.concatenate(scene.thing.outline(second)) for second in np.linspace(0, 1.2, 60)]
        centres = np.array([(o.min(axis=0) + o.max(axis=0)) / 2 for o in outlines])
        sides = np.array([np.ptp(o, axis=0).max() for o in outlines])
        spans.append([*np.ptp(centres, axis=0), np.ptp(sides)])
    moving = np.array(spans) > 12
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 0]]
    np.testing.assert_array_equal(moving, np.array(expected, dtype=bool))


def test_actionshapes_scenes_hold_two_or_three_distractors_and_contrast() -> None:
    options = ShapesOptions(videos=40)
    scenes = [make_scene(options, index) for index in range(40)]
    assert {len(scene.distractors) for scene in scenes} == {2, 3}
    kinds = {id(figure.contours) for scene in scenes for figure in scene.distractors}
    assert kinds == {id(contours) for contours in DISTRACTORS}
    luma = np.array([0.299, 0.587, 0.114])
    for scene in scenes:
        paper = scene.background.reshape(-1, 3).mean(axis=0)
        assert abs((np.array(scene.thing.colour) - paper) @ luma) > 54
