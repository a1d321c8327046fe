"""`vidatt predict` as a user runs it: real files are made, extracted, fitted on, and predicted again from the files."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from testkit.commands import vidatt
from testkit.planted import planted_store
from torchvision.models import resnet18

from vidatt.cache.store import Store
from vidatt.errors import FingerprintMismatchError, UsageError, WeightsError
from vidatt.extract.datasets.generator import generate
from vidatt.pipelines.fitting.fit import fit
from vidatt.pipelines.fitting.plan import FitConfig
from vidatt.pipelines.prediction.clip_cubes import Clip, ClipExtractor
from vidatt.pipelines.prediction.making import Choices, making_of
from vidatt.pipelines.prediction.predictor import load_predictor
from vidatt.pipelines.prediction.weights_search import find_weights
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.runs.attention import attention, look
from vidatt.pipelines.runs.reload import load_head
from vidatt.pipelines.runs.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.long]

SAME = 2e-5
"""Between probabilities: cubes are kept in half precision, and batches of other videos round otherwise."""


def done(*arguments: object, code: int = 0, **more: Any) -> Any:
    ended = vidatt(*arguments, **more)
    assert ended.returncode == code, ended.stderr
    return json.loads(ended.stdout) if "--json" in arguments else ended


def line(*arguments: object, code: int, **more: Any) -> str:
    """The one line that a command ends with."""
    said: str = done(*arguments, code=code, **more).stderr.strip().splitlines()[-1]
    assert said.startswith("vidatt: ")
    return said


def scores_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as kept:
        return dict(zip(kept["ids"].tolist(), kept["scores"], strict=True))


def scores_in(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        return {row[0]: np.array(row[1:], np.float32) for row in list(csv.reader(file))[1:]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, stores of them and runs on these."""
    top = tmp_path_factory.mktemp("predict")
    generate(top / "videos", videos=16, shapes=2, motions=2, frames=20, width=96, height=80, n_jobs=1)
    common = ("--dataset", "actionshapes", "--videos", top / "videos", "--recipe", "hands", "--resize", "short:64",
              "--crop", "56", "--flow-preset", "fast", "-q")  # fmt: skip
    crops = ("--streams", "rgb,flow", "--views", "train:2+10crop", "--segments", "3")
    done("extract", *common, *crops, "--store", top / "crops.zarr")
    done("extract", *common, "--streams", "rgb", "--sampler", "random:2:2", "--views", "train:2", "--seed", "3",
         "--store", top / "drawn.zarr")  # fmt: skip
    done("extract", *common, "--streams", "rgb,clip", "--sampler", "every:4", "--store", top / "follows.zarr")
    for name, store, head, streams in (
        ("stan", "crops", "stan", ("rgb", "flow")), ("san", "crops", "san", ("flow",)),
        ("drawn", "drawn", "mean", ("rgb",)), ("follows", "follows", "where-and-when", ("rgb",)),
        ("plain", "follows", "mean", ("rgb", "clip")),
    ):  # fmt: skip
        fit(
            FitConfig(
                head=head,
                streams=streams,
                store=top / f"{store}.zarr",
                preset="small",
                settings={"steps": "6"},
                out=top / name,
            )
        )
        evaluate(top / name)
    tested = sorted(scores_of(top / "stan" / "scores-1-test.npz"))
    (top / "test.csv").write_text("path\n" + "".join(f"{id}\n" for id in tested))
    return top


def predicted(made: Path, *arguments: object) -> dict[str, np.ndarray]:
    out = made / "predicted.csv"
    done("predict", *arguments, made / "test.csv", "--videos", made / "videos", "--csv", out, "-q")
    return scores_in(out)


@pytest.mark.parametrize("run", ["stan", "san", "drawn", "follows", "plain"])
def test_videos_of_the_store_get_the_scores_that_the_store_gives(made: Path, run: str) -> None:
    kept = scores_of(made / run / "scores-1-test.npz")
    again = predicted(made, made / run)
    assert list(again) == sorted(kept)
    for id, scores in kept.items():
        np.testing.assert_allclose(again[id], scores, rtol=0, atol=SAME, err_msg=id)


@pytest.mark.parametrize("run", ["stan", "drawn", "plain"])
def test_cubes_in_memory_are_those_of_the_store(made: Path, run: str) -> None:
    opened = Run.open(made / run)
    streams, store = making_of(opened, Choices()), Store.open(Path(opened.environment.store))
    id = (made / "test.csv").read_text().splitlines()[1]
    with ClipExtractor(streams, device=torch.device("cpu")) as extractor:
        (cubes,) = extractor.run(extractor.plan([Clip(id=id, path=made / "videos" / id)]))
    first = store.views - streams[0].sampling.views.count  # the set to test on comes last
    for stream in streams:
        for view in range(streams[0].sampling.views.count):
            ours, theirs = cubes.video(stream, view=view), store[stream.name].video(id, view=first + view)
            np.testing.assert_allclose(ours.cubes.astype(float), theirs.cubes.astype(float), rtol=2e-3, atol=1e-6)
            for name in ("frames", "seconds", "valid"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    batch = cubes.batch(streams)
    assert batch.valid.tolist() == [cubes.valid.tolist()]
    assert [tuple(c.shape[:2]) for c in batch.cubes] == [(1, len(cubes.valid))] * len(streams)


def test_head_looks_at_a_new_video_as_at_the_stores(made: Path) -> None:
    opened = Run.open(made / "follows")
    streams, store = making_of(opened, Choices()), Store.open(made / "follows.zarr")
    (kept,) = attention(opened.path, videos=[3])
    clip = Clip(id=kept.id, path=made / "videos" / kept.id)
    with ClipExtractor(streams, device=torch.device("cpu")) as extractor:
        (cubes,) = extractor.run(extractor.plan([clip]))
    (seen,) = look(load_head(opened, store), cubes.batch(streams), [kept.id])
    for name in ("probabilities", "temporal", "spatial"):
        np.testing.assert_allclose(getattr(seen, name), getattr(kept, name), rtol=0, atol=SAME)


def test_several_runs_are_fused_as_fuse_does_it(made: Path) -> None:
    done("fuse", made / "stan", made / "san", "--method", "mean", "--out", made / "fused", "-q")
    kept, again = scores_of(made / "fused" / "scores-1-test.npz"), predicted(made, made / "stan", made / "san")
    for id, scores in kept.items():
        np.testing.assert_allclose(again[id], scores, rtol=0, atol=SAME)
    told = done("predict", made / "stan", made / "follows", made / "videos" / next(iter(kept)), "--json", "-q")
    assert told["fusion"].startswith("mean of the class probabilities of 2 runs")
    assert told["notes"] == ["runs of 2 samplings: each video is decoded 2 times"]
    assert line("predict", made / "fused", "x.mp4", code=3) == (
        f"vidatt: Run {made / 'fused'} is a fusion of other runs' scores and holds no head; name its parts, whose "
        f"probabilities are averaged: `vidatt predict {made / 'stan'} {made / 'san'} VIDEO`."
    )


def test_csv_of_scores_is_read_by_evaluate(made: Path) -> None:
    predicted(made, made / "stan")
    measured = done("evaluate", made / "predicted.csv", "--store", made / "crops.zarr", "--split", "1", "--json", "-q")
    assert measured["videos"] == len((made / "test.csv").read_text().splitlines()) - 1


def test_a_broken_video_is_a_line_and_the_others_go_on(made: Path, tmp_path: Path) -> None:
    good = made / "videos" / (made / "test.csv").read_text().splitlines()[1]
    (tmp_path / "a.mp4").write_bytes(b"no video")
    shutil.copy(good, tmp_path / f"b{good.suffix}")
    (tmp_path / "c.mp4").write_bytes(good.read_bytes()[:60])
    told = done("predict", made / "stan", tmp_path, tmp_path / "none.mp4", "--json", "--top", "2", "-q", code=1)
    assert told["outcomes"] == {"missing": 1, "ok": 1, "unreadable": 2}
    by_id = {Path(one["id"]).name: one for one in told["predictions"]}
    assert [len(one["classes"]) for one in told["predictions"]] == [0, 2, 0, 0]
    assert by_id["none.mp4"]["detail"] == "no such file"
    text = done("predict", made / "stan", tmp_path / "a.mp4", good, "-q", code=1).stdout
    assert f"{tmp_path / 'a.mp4'}: unreadable: " in text
    assert "2 videos, 1 ok, 1 unreadable" in text


def test_windows_are_predicted_each_as_a_video_and_averaged(made: Path) -> None:
    video = made / "videos" / (made / "test.csv").read_text().splitlines()[1]
    told = done("predict", made / "stan", video, "--window", "1", "--json", "-q")
    (one,) = told["predictions"]
    spans = [(round(w["start"], 3), round(w["stop"], 3)) for w in one["windows"]]
    assert spans == [(0, 1), (0.333, 1.333)]  # 20 frames, 15 a second
    assert one["segments"] == 2 * 3
    best = one["classes"][0]
    of_windows = [c["score"] for w in one["windows"] for c in w["classes"] if c["name"] == best["name"]]
    assert best["score"] == pytest.approx(np.mean(of_windows), abs=1e-6)
    (made / "stretch.csv").write_text(f"path,start,stop\n{video.name},0,1\n")
    (alone,) = done("predict", made / "stan", made / "stretch.csv", "--videos", video.parent, "--json", "-q")[
        "predictions"
    ]
    assert [c["name"] for c in alone["classes"]] == [c["name"] for c in one["windows"][0]["classes"]]
    for ours, theirs in zip(alone["classes"], one["windows"][0]["classes"], strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=SAME)


def test_windows_come_in_pieces_of_bounded_memory(made: Path) -> None:
    streams = making_of(Run.open(made / "stan"), Choices())
    id = (made / "test.csv").read_text().splitlines()[1]
    clips = [Clip(id=id, path=made / "videos" / id)]
    found = []
    for size in (1 << 30, 1):
        with ClipExtractor(streams, device=torch.device("cpu"), slide=(0.6, 0.3), piece_bytes=size) as extractor:
            pieces = extractor.plan(clips)
            found.append(list(extractor.run(pieces)))
        assert len(pieces) == (1 if size > 1 else 4)
    for whole, part in zip(*found, strict=True):
        assert (whole.window, whole.windows, whole.span) == (part.window, part.windows, part.span)
        for key in whole.cubes:
            np.testing.assert_array_equal(whole.frames[key], part.frames[key])
            np.testing.assert_allclose(whole.cubes[key].astype(float), part.cubes[key].astype(float), atol=1e-3)


def test_a_video_too_large_for_memory_is_said_before_it_is_begun(made: Path) -> None:
    (stream,) = making_of(Run.open(made / "san"), Choices(sampler="uniform:1000000000"))
    with ClipExtractor([stream], device=torch.device("cpu")) as extractor:
        (cubes,) = extractor.run(extractor.plan([Clip(id="x", path=made / "x.mp4")]))
    assert cubes.report.outcome == "out_of_memory"
    assert cubes.report.detail.endswith("cut it into windows with --window SECONDS")


def test_intervals_are_those_of_detect(made: Path) -> None:
    done("detect", made / "follows", "--out", made / "detections.txt", "-q")
    listed = [row.split() for row in (made / "detections.txt").read_text().splitlines()]
    told = done("predict", made / "follows", made / "test.csv", "--videos", made / "videos", "--json", "-q")
    ours = [[one["id"], i["start"], i["stop"], i["score"]] for one in told["predictions"] for i in one["intervals"]]
    assert len(ours) == len(listed) > 0
    spans = sorted((round(row[1], 1), round(row[2], 1)) for row in ours)
    assert spans == sorted((round(float(row[1]), 1), round(float(row[2]), 1)) for row in listed)


def test_rules_that_make_no_intervals_say_so(made: Path) -> None:
    video = made / "videos" / (made / "test.csv").read_text().splitlines()[1]
    told = done("predict", made / "plain", video, "--json", "-q")
    assert told["notes"] == ["no intervals: head 'mean' weighs all segments alike"]
    assert "intervals" not in told["predictions"][0]
    said = line("predict", made / "plain", video, "--rule", "where-and-when", code=2)
    assert said == f"vidatt: Run {made / 'plain'}: {video}: head 'mean' weighs all segments alike."


def test_stores_without_labels_are_predicted_from_their_cubes(made: Path) -> None:
    done("extract", "--dataset", "folder", "--option", "unlabelled=true", "--videos", made / "videos", "--recipe",
         "hands", "--resize", "short:64", "--crop", "56", "--flow-preset", "fast", "-q", "--streams", "rgb,flow",
         "--views", "10crop", "--segments", "3", "--store", made / "heap.zarr")  # fmt: skip
    out = made / "heap.csv"
    told = done("predict", made / "stan", "--store", made / "heap.zarr", "--csv", out, "--json", "-q")
    assert told["videos"] == 16
    kept, found = scores_of(made / "stan" / "scores-1-test.npz"), scores_in(out)
    for id, scores in kept.items():
        np.testing.assert_allclose(found[id], scores, rtol=0, atol=SAME)
    said = line("predict", made / "drawn", "--store", made / "heap.zarr", "--window", "2", code=2)
    assert "are for videos; with --store the cubes are made" in said


def test_a_support_vector_machine_gives_its_decisions_and_probabilities_in_a_fusion(made: Path) -> None:
    done("fit-head", "--head", "svm", "--on", made / "san", "--set", "C=1", "--out", made / "svm", "-q")
    done("evaluate", made / "svm", "-q")
    kept, again = scores_of(made / "svm" / "scores-1-test.npz"), predicted(made, made / "svm")
    for id, scores in kept.items():
        np.testing.assert_allclose(again[id], scores, rtol=0, atol=1e-3)
    done("fuse", made / "svm", made / "san", "--method", "mean", "--out", made / "fused-svm", "-q")
    kept, again = scores_of(made / "fused-svm" / "scores-1-test.npz"), predicted(made, made / "svm", made / "san")
    for id, scores in kept.items():
        np.testing.assert_allclose(again[id], scores, rtol=0, atol=1e-3)


def test_runs_that_do_not_say_where_their_segments_lie(made: Path, tmp_path: Path) -> None:
    """As version 0.1.0 left them: the store says it; where that is gone, the user."""
    run, video = tmp_path / "run", made / "videos" / (made / "test.csv").read_text().splitlines()[1]
    shutil.copytree(made / "stan", run)
    config = json.loads((run / "config.json").read_text())
    assert config["environment"].pop("sampled")["views"] == "10crop"
    (run / "config.json").write_text(json.dumps(config))
    there = done("predict", run, video, "--json", "-q")
    config["environment"]["store"] = str(tmp_path / "gone.zarr")
    (run / "config.json").write_text(json.dumps(config))
    said = line("predict", run, video, code=2)
    assert said.endswith("name the rule with --sampler, such as --sampler uniform:25.")
    given = done("predict", run, video, "--sampler", "uniform:3", "--views", "10crop", "--json", "-q")
    # flow's window of 11 frames is what the store kept free; nobody says it now, and the recipes do
    assert given["sampled"] == there["sampled"]
    assert given["predictions"] == there["predictions"]


def test_weights_are_found_by_their_digest(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "mine.pth")
    store, run, away = tmp_path / "s.zarr", tmp_path / "run", tmp_path / "away"
    done("extract", "--dataset", "actionshapes", "--videos", made / "videos", "--streams", "rgb", "--backbone",
         "resnet18", "--weights", tmp_path / "mine.pth", "--resize", "short:64", "--crop", "56", "--segments", "2",
         "--store", store, "-q")  # fmt: skip
    fit(FitConfig(head="mean", store=store, preset="small", settings={"steps": "2"}, out=run))
    evaluate(run)
    id, kept = next(iter(scores_of(run / "scores-1-test.npz").items()))
    away.mkdir()
    (tmp_path / "mine.pth").rename(away / "renamed.pth")
    (away / "other.pth").write_bytes(b"other")
    recipe = Run.open(run).identity.streams["rgb"].recipe
    monkeypatch.setenv("VIDATT_WEIGHTS", str(away / "renamed.pth"))
    assert find_weights("rgb", recipe) == away / "renamed.pth"
    monkeypatch.setenv("VIDATT_WEIGHTS", str(tmp_path / "nowhere"))
    assert find_weights("rgb", recipe, away / "renamed.pth") == away / "renamed.pth"
    with pytest.raises(WeightsError, match=r"other.pth has SHA-256 .* name that file"):
        find_weights("rgb", recipe, away / "other.pth")
    with pytest.raises(WeightsError, match="there is no such file"):
        find_weights("rgb", recipe, tmp_path / "mine.pth")
    said = line("predict", run, made / "videos" / id, code=2)
    assert "'mine.pth' (SHA-256 " in said
    assert "name the file with --weights rgb=FILE" in said
    monkeypatch.setenv("VIDATT_WEIGHTS", str(away))
    assert find_weights("rgb", recipe) == away / "renamed.pth"
    done("predict", run, made / "videos" / id, "--csv", tmp_path / "scores.csv", "-q")
    (found,) = scores_in(tmp_path / "scores.csv").values()
    np.testing.assert_allclose(found, kept, rtol=0, atol=1e-4)


def test_descriptors_take_no_weights(made: Path) -> None:
    said = line("predict", made / "stan", made / "x.mp4", "--weights", "rgb=x.pth", code=2)
    assert said == "vidatt: --weights rgb=x.pth: stream 'rgb' was made without a file; leave it out."
    assert "Unknown stream in --weights 'clip'" in line("predict", made / "stan", "x", "--weights", "clip=x", code=2)


def test_predictor_in_python(made: Path) -> None:
    id, kept = next(iter(scores_of(made / "stan" / "scores-1-test.npz").items()))
    with load_predictor(made / "stan") as predictor:
        prediction = predictor(made / "videos" / id)
        np.testing.assert_allclose(prediction.scores, kept, rtol=0, atol=SAME)
        best = prediction.top(1)[0]
        assert best[0] == prediction.classes[int(kept.argmax())]
        nothing = predictor(made / "test.csv")
        assert (nothing.scores, nothing.top(), nothing.report.outcome) == (None, [], "unreadable")
        assert replace(prediction, window=1).window == 1
    with pytest.raises(UsageError, match="stride no longer than the window"):
        load_predictor(made / "stan", window_seconds=1.0, stride_seconds=2.0)


def test_speed_is_measured_end_to_end_and_by_part(made: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    folder = made / "videos" / "disc-updown"
    count = len(list(folder.iterdir()))
    told = done("benchmark", made / "stan", made / "san", folder, tmp_path / "bad.mp4", "--json", "-q", code=1)
    assert (told["videos"], told["failed"], told["frames"]) == (count, 1, 20 * count)
    assert told["frames_per_second"] == pytest.approx(told["frames"] / told["seconds"], rel=0.01)
    parts = {one["part"]: one["seconds"] for one in told["parts"]}
    assert set(parts) == {"decode", "inputs", "flow", "backbone rgb", "backbone flow", f"head {made / 'stan'}",
                          f"head {made / 'san'}"}  # fmt: skip
    assert all(seconds > 0 for seconds in parts.values())
    assert told["processor"]
    drawn = done("benchmark", made / "san", folder, "--store", made / "crops.zarr", "--json", "-q")
    assert drawn["sampled"][0]["views"] == "10crop"
    assert "views 10crop, segments uniform:3" in done("benchmark", made / "san", folder, "-q").stdout
    said = line("benchmark", made / "san", tmp_path / "bad.mp4", code=2)
    assert said == "vidatt: None of the 1 videos can be read; see `vidatt predict`."
    said = line("benchmark", made / "san", "--store", made / "crops.zarr", "--videos", made / "nowhere", code=2)
    assert said.endswith("name it with --videos DIR, or name videos.")
    assert "give --store, and no videos" in line("benchmark", made / "san", folder, "--split", "1", code=2)
    assert "no stream 'flow'" in line("benchmark", made / "san", folder, "--store", made / "follows.zarr", code=2)


def test_an_engine_that_does_not_run_here_gives_way_and_is_said(made: Path) -> None:
    _, flow = making_of(Run.open(made / "stan"), Choices())
    recipe = {**flow.recipe, "flow": {**flow.recipe["flow"], "engine": "triton"}}
    other = replace(flow, recipe=recipe, config=replace(flow.config, flow_engine="triton"))
    made_here, note = other.setup(torch.device("cpu"))
    assert made_here.input.flow.engine in ("numba", "torch")
    assert note.startswith(f"stream 'flow': flow by the engine {made_here.input.flow.engine}, the run's by triton")


def test_cubes_that_cannot_be_made_as_the_runs_are_refused(made: Path) -> None:
    (rgb,) = making_of(Run.open(made / "drawn"), Choices())
    with pytest.raises(FingerprintMismatchError, match=r"resize: \"short:65\" -> \"short:64\" \(run -> here\)"):
        replace(rgb, recipe={**rgb.recipe, "resize": "short:65"}).setup(torch.device("cpu"))


def test_streams_that_no_extraction_made_are_refused(tmp_path: Path) -> None:
    planted_store(tmp_path / "s.zarr")
    fit(FitConfig(head="mean", store=tmp_path / "s.zarr", preset="small", settings={"steps": "2"}, out=tmp_path / "r"))
    said = line("predict", tmp_path / "r", "x.mp4", code=3)
    assert "Stream 'rgb' of run" in said
    assert "name the store with --store" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "Name a run", id="nothing"),
        pytest.param(["{stan}"], "Name videos", id="no-video"),
        pytest.param(["{stan}", "x.mp4", "--store", "{crops.zarr}"], "or else a store", id="both"),
        pytest.param(["{stan}", "x.mp4", "--top", "0"], "--top 0: must be 1 or more", id="top"),
        pytest.param(["{stan}", "x.mp4", "--csv", "x.txt"], "must end with .csv", id="csv"),
        pytest.param(["{stan}", "x.mp4", "--stride", "1"], "give --window SECONDS too", id="stride"),
        pytest.param(["{stan}", "x.mp4", "--rule", "stam"], "Did you mean 'stan'?", id="rule"),
        pytest.param(["{stan}", "x.mp4", "--set", "a=b"], "name it with --rule", id="set"),
        pytest.param(["{stan}", "x.mp4", "x.mp4"], "is named twice", id="twice"),
        pytest.param(["{videos}", "x.mp4"], "is no run", id="no-run"),
        pytest.param(["{stan}", "{stan}/../nobody.csv"], "There is no CSV file", id="no-csv"),
        pytest.param(["{stan}", "x.mp4", "--views", "11crop"], "Unknown views", id="views"),
    ],
)
def test_wrong_use_is_one_line(made: Path, arguments: list[str], said: str) -> None:
    places = {name: str(made / name) for name in ("stan", "crops.zarr", "videos")}
    given = []
    for text in arguments:
        for name, path in places.items():
            text = text.replace(f"{{{name}}}", path)  # noqa: PLW2901
        given.append(text)
    assert said in line("predict", *given, code=2)
