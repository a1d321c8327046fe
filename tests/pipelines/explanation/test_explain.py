"""`vidatt explain` as a command: what it writes of stored and of new videos, and what it refuses, in one line."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from testkit.commands import vidatt
from testkit.planted import planted_store

from vidatt.cache.store import Store
from vidatt.pipelines.fitting.fit import fit
from vidatt.pipelines.fitting.plan import FitConfig
from vidatt.pipelines.runs.attention import attention

REPOSITORY = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.long]


def explain(*arguments: object, code: int = 0) -> dict[str, Any]:
    done = vidatt("explain", *arguments, "--device", "cpu", "--json", "-qq")
    assert done.returncode == code, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def frames_in(film: str) -> int:
    with av.open(film) as container:
        return sum(1 for _ in container.decode(video=0))


def ids_of_tests(folder: Path) -> list[str]:
    index = Store.open(folder / "s.zarr").index
    return [str(id) for id in index.ids[index.splits["1"] == 2]]


def test_a_stored_video_gives_a_picture_a_film_and_arrays(made: Path, tmp_path: Path) -> None:
    run, (one, two, *_) = made / "runs" / "stan", ids_of_tests(made)
    result = explain(run, "--id", one, "--id", two, "--out", tmp_path, "--npz", "--boxes", "threshold")
    assert result["maps"] == ["mean", "rgb", "clip"]
    assert result["failed"] == 0
    assert [video["id"] for video in result["videos"]] == [one, two]
    store = Store.open(made / "s.zarr")
    for video, seen in zip(
        result["videos"], attention(run, videos=[store.index.position(v) for v in (one, two)]), strict=True
    ):
        with Image.open(video["picture"]) as picture:
            assert picture.size[0] > 700
            assert np.asarray(picture.convert("L")).std() > 20
        assert frames_in(video["film"]) == 40
        assert seen.spatial is not None
        arrays = np.load(video["arrays"])
        assert np.allclose(arrays["temporal"], seen.temporal, atol=1e-6)
        assert np.allclose(arrays["spatial"], seen.spatial, atol=1e-6)
        assert arrays["frames"].tolist() == [0, 8, 16, 24, 32]
        assert arrays["regions"].shape == (2, 4)
        position = store.index.position(video["id"])
        assert len(arrays["boxes"]) == len(store.index.boxes(position)) > 0
        assert arrays["intervals"].shape == (1, 2)
        assert video["truth"] == [store.index.classes[store.index.labels[position, 0]]]
        assert video["probabilities"][0] == pytest.approx(float(seen.probabilities.max()), abs=1e-5)
    assert len(list(tmp_path.iterdir())) == 6


def test_a_new_video_looks_as_the_store_of_the_same_file_does(made: Path, tmp_path: Path) -> None:
    run, one = made / "runs" / "stan", ids_of_tests(made)[0]
    clip, broken = tmp_path / "new clip.mp4", tmp_path / "broken.mp4"
    shutil.copy(made / "videos" / one, clip)
    broken.write_bytes(b"no video")
    done = vidatt(
        "explain", run, clip, broken, tmp_path / "none.mp4", "--out", tmp_path / "o", "--npz", "--device", "cpu", "-q"
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("cannot be read (unreadable: ") == 1
    assert done.stdout.count("cannot be read (missing: no such file)") == 1
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        f"new clip.{kind}" for kind in ("mp4", "npz", "png")
    ]
    explain(run, "--id", one, "--out", tmp_path / "s", "--npz", "--no-png", "--no-mp4")  # arrays need no video
    (stored,) = (np.load(path) for path in (tmp_path / "s").glob("*.npz"))
    new = np.load(tmp_path / "o" / "new clip.npz")
    for name in ("temporal", "temporal_raw", "spatial", "probabilities"):
        assert np.abs(new[name] - stored[name]).max() < 1e-3
    for name in ("frames", "seconds", "bounds", "regions"):
        assert np.array_equal(new[name], stored[name])
    assert not len(new["truth"])
    assert frames_in(str(tmp_path / "o" / "new clip.mp4")) == 40


def test_videos_are_picked_and_drawn_together(made: Path, tmp_path: Path) -> None:
    run = made / "runs" / "stan"
    common = (run, "--videos", made / "videos", "--out", tmp_path, "--no-mp4", "--together")
    result = explain(*common, "--count", "3")
    assert len(result["videos"]) == 3
    assert {video["id"] for video in result["videos"]} <= set(ids_of_tests(made))
    assert [path.name for path in tmp_path.iterdir()] == ["attention.png"]
    again = explain(*common, "--count", "3", "--seed", "0")
    assert [video["id"] for video in again["videos"]] == [video["id"] for video in result["videos"]]
    refused = vidatt("explain", *common, "--pick", "right", "-qq")
    assert refused.returncode == 2
    assert f"vidatt evaluate {run} --split 1 --part test" in refused.stderr
    assert vidatt("evaluate", run, "--split", "1", "--part", "test", "-qq").returncode == 0
    for pick in ("right", "wrong"):
        done = vidatt("explain", *common, "--pick", pick, "--json", "-qq")
        if done.returncode == 2:
            assert "has no such video" in done.stderr
            continue
        for video in json.loads(done.stdout)["videos"]:
            assert (video["said"][0] in video["truth"]) == (pick == "right")


def test_every_kind_of_head_is_shown(made: Path, tmp_path: Path) -> None:
    one = ids_of_tests(made)[0]
    common = ("--id", one, "--videos", made / "videos", "--out", tmp_path)
    assert explain(made / "runs" / "glka", *common, "--no-mp4")["maps"] == ["mean", "rgb", "clip", "sa", "la"]
    for head in ("mean", "untrimmed"):
        result = explain(made / "runs" / head, *common)
        assert result["maps"] == []
        assert "attends to no cells" in result["notes"][0]
        assert frames_in(result["videos"][0]["film"]) == 40
    apart = explain(made / "runs" / "san", *common)
    assert apart["maps"] == ["rgb", "clip"]  # which show different parts of the frame
    assert apart["notes"] == []


def test_a_video_that_is_gone_damaged_or_another_one_is_one_line_and_the_others_are_drawn(
    made: Path, tmp_path: Path
) -> None:
    gone, damaged, other, whole = ids_of_tests(made)[:4]
    videos = Path(shutil.copytree(made / "videos", tmp_path / "videos"))
    (videos / gone).unlink()
    (videos / damaged).write_bytes(b"no video")
    shutil.copy(videos / whole, videos / other)
    ids = [word for id in (gone, damaged, other, whole) for word in ("--id", id)]
    result = explain(made / "runs" / "stan", *ids, "--videos", videos, "--out", tmp_path / "o", code=1)
    problems = [video["problem"] for video in result["videos"]]
    assert "missing: no such file" in problems[0]
    assert "cannot be read (unreadable" in problems[1]
    assert "is another file than the one that the store's features were made of" in problems[2]
    assert problems[3] is None
    assert result["failed"] == 3
    assert all("\n" not in problem for problem in problems[:3])
    assert len(list((tmp_path / "o").iterdir())) == 2


def test_what_cannot_be_is_refused_in_one_line(made: Path, tmp_path: Path) -> None:
    stan, videos, out = made / "runs" / "stan", ("--videos", made / "videos"), ("--out", tmp_path / "o")
    (tmp_path / "file").write_text("")
    copy = shutil.copytree(made / "s.zarr", tmp_path / "copy.zarr")  # without the commands that made it
    for said, *arguments in (
        ("There is no folder data/actionshapes with the videos of", stan, "--store", copy, *out),
        ("The store has no video 'x'; its ids are like", stan, "--id", "x", *videos, *out),
        ("Unknown row of the picture 'rbg'. Did you mean 'rgb'?", stan, "--rows", "rbg", *videos, *out),
        ("--boxes minmax: head 'mean' attends to no cells", made / "runs" / "mean", "--boxes", "minmax", *videos, *out),
        ("the streams rgb, clip show different parts", made / "runs" / "san", "--boxes", "minmax", *videos, *out),
        ("Unknown rule of boxes 'treshold'. Did you mean 'threshold'?", stan, "--boxes", "treshold", *videos, *out),
        ("Unknown pick 'rihgt'. Did you mean 'right'?", stan, "--pick", "rihgt", *videos, *out),
        ("--seconds '3': write A:B", stan, "--seconds", "3", *videos, *out),
        ("Nothing is to be made", stan, "--no-png", "--no-mp4", *videos, *out),
        ("is a file; give the name of a folder", stan, *videos, "--out", tmp_path / "file"),
        ("is no folder; give the one that holds the video files", stan, "--videos", tmp_path / "file", *out),
        ("--id, --store and --split name videos of a store", stan, "clip.mp4", "--id", "x", *out),
        ("--weights are for new videos", stan, "--weights", "rgb=x", *videos, *out),
        ("is no run: there is no config.json in it", tmp_path / "none", *videos, *out),
    ):
        done = vidatt("explain", *arguments, "-qq")
        assert done.returncode == 2, (arguments, done.stderr)
        assert said.lower() in done.stderr.lower(), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not (tmp_path / "o").exists()


def test_a_stretch_without_segments_is_told_of_the_video(made: Path, tmp_path: Path) -> None:
    one = ids_of_tests(made)[0]
    common = (made / "runs" / "stan", "--id", one, "--videos", made / "videos", "--out", tmp_path, "--no-mp4")
    assert "no segment of" in explain(*common, "--seconds", "50:60", code=1)["videos"][0]["problem"]
    assert explain(*common, "--seconds", "0.5:2")["failed"] == 0


def test_a_refusal_ends_at_once_whatever_is_decoded_ahead(made: Path, tmp_path: Path) -> None:
    done = vidatt(
        "explain", made / "runs" / "stan", made / "videos", "--rows", "rbg", "--out", tmp_path, "-qq", timeout=200
    )
    assert done.returncode == 2
    assert "Unknown row of the picture 'rbg'" in done.stderr


def test_odd_real_files_are_shown_or_are_one_line(made: Path, tmp_path: Path, shared_data: Path) -> None:
    odd = shared_data / "videos" / "odd"
    names = {
        "derived__v_ApplyEyeMakeup_g01_c01.truncated.avi": None, "decord__video_90.mov": None,
        "torchcodec__var_fps_video.mp4": None, "torchcodec__testsrc2_odd_height_and_width_444.mp4": None,
        "moviepy__result_empty.webm": "unreadable",
    }  # fmt: skip
    run = made / "runs" / "stan"
    result = explain(run, *(odd / name for name in names), "--out", tmp_path, "--rows", "rgb", code=1)
    for video, (name, problem) in zip(result["videos"], names.items(), strict=True):
        assert Path(video["id"]).name == name
        if problem is None:
            with av.open(video["film"]) as film, av.open(str(odd / name)) as whole:
                times = [float(frame.time) for frame in film.decode(video=0)]
                assert (np.diff(times) > 0).all()
                assert abs(len(times) - sum(1 for _ in decodable(whole))) <= 1
        else:
            assert problem in video["problem"]


def decodable(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """The frames up to where a file breaks off."""
    with contextlib.suppress(av.error.FFmpegError):
        yield from container.decode(video=0)


def test_the_commands_of_the_papers_figures_work(made: Path, tmp_path: Path) -> None:
    """As they stand in docs/explain.md, on other runs and videos."""
    page = (REPOSITORY / "docs" / "explain.md").read_text()
    lines = re.findall(r"^\| (.*?) \| .*? \| `vidatt (explain|report) (\S+) (.*?)` \|$", page, re.MULTILINE)
    assert len(lines) == 11
    runs, ids = {"glka": "glka", "tclsta": "stan"}, dict(zip("AB", ids_of_tests(made), strict=False))
    for name in ("glka", "stan"):
        assert vidatt("evaluate", made / "runs" / name, "--device", "cpu", "-qq").returncode == 0
    for figure, command, run, options in lines:
        words = [ids.get(word, word).replace("flow,", "") for word in options.split()]
        words[words.index("--out") + 1] = str(tmp_path / re.sub(r"\W+", "-", figure))
        own = made / "runs" / runs.get(run.removeprefix("runs/"), "stan")
        more = ["--videos", made / "videos", "--device", "cpu", "-qq"]
        done = vidatt(command, own, *words, *more)
        none = done.returncode == 2 and "has no such video" in done.stderr  # it has made no mistake, or nothing else
        assert done.returncode == 0 or none, (figure, done.stderr)
        out = tmp_path / re.sub(r"\W+", "-", figure)
        assert none or out.is_file() or list(out.glob("*.png")), figure


def test_cubes_without_geometry_or_times_are_shown_beside_the_frames(made: Path, tmp_path: Path) -> None:
    store = planted_store(tmp_path / "p.zarr")
    run = tmp_path / "run"
    quick = {"steps": "4", "validate_every": "2"}
    fit(FitConfig(head="stan", store=store.path, out=run, preset="small", settings=quick, device="cpu"))
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(sorted((made / "videos").rglob("*.avi"))[0], videos / "v03.avi")
    result = explain(run, "--id", "v03.avi", "--videos", videos, "--out", tmp_path / "o", "--npz")
    assert any("imported without its geometry" in note for note in result["notes"])
    assert any("time is told in segments" in note for note in result["notes"])
    (video,) = result["videos"]
    assert video["seconds"] is None
    assert frames_in(video["film"]) == 40
    arrays = np.load(video["arrays"])
    assert not {"regions", "seconds", "bounds"} & set(arrays)
    assert arrays["frames"].tolist() == [4, 12, 20]
    with Image.open(video["picture"]) as picture:
        assert np.asarray(picture.convert("L")).std() > 20
