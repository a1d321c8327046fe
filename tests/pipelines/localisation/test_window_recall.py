"""`vidatt window-recall`: how windows are cut, and the number as a user gets it on a store whose truth is planted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat
from testkit.acting import T, acting_store, active, command, fitted
from testkit.commands import vidatt

from vidatt.cache.index import Index
from vidatt.cache.layout import Layout
from vidatt.cache.ledger import VideoOutcome
from vidatt.cache.store import Store
from vidatt.extract.datasets.registry import load_catalogue
from vidatt.pipelines.localisation.windows import cut_window
from vidatt.pipelines.runs.reload import load_head
from vidatt.pipelines.runs.run import Run


def spelled(segments: np.ndarray) -> str:
    """Segments as stretches of one step: 5-9 20-40/2."""
    told, rest = [], segments.tolist()
    while rest:
        step = rest[1] - rest[0] if len(rest) > 1 else 1
        n = next((i for i in range(1, len(rest)) if rest[i] - rest[i - 1] != step), len(rest))
        told.append(f"{rest[0]}-{rest[n - 1]}" + (f"/{step}" if step != 1 else ""))
        rest = rest[n:]
    return " ".join(told)


@pytest.mark.parametrize(
    ("first", "last", "segments", "wanted", "annotated"),
    [
        (100, 109, 861, "80-129", "100-109"),
        (568, 597, 861, "558-607", "568-597"),
        (223, 253, 861, "213-262", "223-253"),
        (492, 535, 1492, "482-521 536-545", "492-521"),
        (400, 465, 900, "380-458/2 466-484/2", "400-458/2"),
        (700, 1000, 1200, "600-990/10 1001-1091/10", "700-990/10"),
        (2000, 2450, 3000, "1850-2435/15 2451-2586/15", "2000-2435/15"),
    ],
)
def test_windows_are_those_of_the_authors_code(
    first: int, last: int, segments: int, wanted: str, annotated: str
) -> None:
    """Numbers that get_lstm_50_img_sequence.py gives (num_frames=30) for frames at 10 a second."""
    found, own = cut_window(first, last, segments=segments, window=50)
    assert len(found) == len(own) == 50
    assert (spelled(found), spelled(found[own])) == (wanted, annotated)


def test_windows_at_the_ends_of_a_video_are_filled_from_behind() -> None:
    found, own = cut_window(3, 12, segments=200, window=50)
    assert (spelled(found), spelled(found[own])) == ("0-49", "3-12")
    found, own = cut_window(30, 39, segments=42, window=50)
    assert found.tolist() == [*range(10, 42), *[41] * 18]
    assert spelled(found[own]) == "30-39"


@given(st.integers(1, 3000), st.integers(0, 3000), st.integers(0, 3000), st.integers(5, 80))
def test_every_window_lies_in_its_video_and_shows_its_interval(segments: int, a: int, b: int, window: int) -> None:
    first, last = sorted((a % segments, b % segments))
    found, own = cut_window(first, last, segments=segments, window=window)
    assert found.shape == own.shape == (window,)
    assert 0 <= found.min() <= found.max() < segments
    assert (np.diff(found) >= 0).all()
    assert found[own][0] == first
    assert found[own][-1] <= last
    assert 1 <= own.sum() <= window * 3 // 5 + 1
    assert not np.isin(found[~own][found[~own] < first], found[own]).any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("windows")
    acting_store(path / "s.zarr", several=[0, 3, 9])
    fitted(path / "s.zarr", path / "stan")
    return path


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "stan", tmp_path / "stan"))


WINDOW, LIMIT = 10, 0.1
ASKED = ("--window", WINDOW, "--limit", LIMIT)


def recalls(run: Path, store: Store, videos: Sequence[int]) -> tuple[list[float], float, float]:
    """Count as the authors' evaluate_temporal_attention.py does, frame by frame, on cubes read and cut here."""
    head = load_head(Run.open(run), store)
    shares, right, kept = [], 0, 0
    for v in videos:
        position = store.index.position(f"v{v:03}")
        cubes = store.stream("rgb").reader().read_video(position)
        span = list(active(v))
        start = max(0, span[0] - 3)  # 10 segments, of which 4 and the one in which the interval ends are annotated
        chosen = [min(t, T - 1) for t in range(start, start + WINDOW)]
        output = head([torch.from_numpy(cubes[chosen][None].copy())], torch.ones(1, WINDOW, dtype=torch.bool))
        weights = output.temporal[0].tolist()
        good = [chosen[j] for j in range(WINDOW) if weights[j] > LIMIT]
        kept += len(good)
        annotated = [t for t in [*span, span[-1] + 1] if t < T]
        correct = int(output.logits[0].argmax()) == int(store.index.labels[position, 0])
        right += correct
        shares.append(sum(t in annotated for t in good) / len(annotated) if correct else -1.0)
    n = len(videos)
    return [sum(share > t for share in shares) / n for t in (0.1, 0.2, 0.3, 0.4, 0.5)], right / n, kept / n / WINDOW


@pytest.mark.slow
def test_number_is_what_counting_by_hand_gives(folder: Path, run: Path) -> None:
    result = command("window-recall", run, *ASKED)
    wanted, accuracy, kept = recalls(run, Store.open(folder / "s.zarr"), range(0, 60, 3))
    assert result["thresholds"] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert result["window_recall"] == pytest.approx(wanted)
    assert (result["accuracy"], result["kept"]) == (pytest.approx(accuracy), pytest.approx(kept))
    assert (result["windows"], result["videos"], result["listed"], result["outside"]) == (20, 20, 20, 0)
    assert result["window_recall"][0] > 0
    assert "map" not in json.dumps(result).lower()


@pytest.mark.slow
def test_videos_of_a_single_label_are_chosen_and_results_lie_beside_each_other(folder: Path, run: Path) -> None:
    everything = command("window-recall", run, *ASKED)
    single = command("window-recall", run, *ASKED, "--single-label")
    assert (single["windows"], single["videos"], single["listed"], single["single_label"]) == (17, 17, 20, True)
    numbers = [v for v in range(0, 60, 3) if v not in (0, 3, 9)]
    wanted, *_ = recalls(run, Store.open(folder / "s.zarr"), numbers)
    assert single["window_recall"] == pytest.approx(wanted)
    other = acting_store(run.parent / "other.zarr", videos=30).path
    command("window-recall", run, *ASKED, "--store", other, "--attention", "random")
    names = sorted(path.name for path in run.glob("window-recall-*"))
    assert names[:2] == [
        "window-recall-1-test-10-above-0.1-single-label.json",
        "window-recall-1-test-10-above-0.1.json",
    ]
    assert json.loads((run / names[1]).read_text()) == everything
    assert len(names) == 3
    assert "@" in names[2]
    assert names[2].endswith("-random.json")


def thumos14(path: Path, annotations: Path) -> None:
    """A store of THUMOS14's annotated test videos at 10 frames a second, of noise, with some validation videos."""
    catalogue = load_catalogue("thumos14", annotations=annotations)
    roles = catalogue.splits["1"]
    seconds: dict[str, float] = {}
    for name in ("validation_set", "test_set_meta"):
        records = next(v for k, v in loadmat(annotations / f"{name}.mat", simplify_cells=True).items() if k[0] != "_")
        seconds |= {record["video_name"]: float(record["video_duration_seconds"]) for record in records}
    test = [n for n, video in enumerate(catalogue.videos) if video.intervals and roles[n] == 2]
    chosen = [*test, *np.flatnonzero(roles == 1)[::50].tolist()]
    videos = [catalogue.videos[n] for n in chosen]
    length = np.array([int(np.ceil(10 * seconds[v.id])) if n < len(test) else 4 for n, v in enumerate(videos)])
    labels = np.full((len(videos), max(len(v.labels) for v in videos)), -1)
    for row, video in zip(labels, videos, strict=True):
        row[: len(video.labels)] = video.labels
    spans = [(n, i) for n, video in enumerate(videos) for i in video.intervals]
    names = np.array([video.id for video in videos])
    index = Index(
        ids=names, paths=names, groups=names, labels=labels, classes=catalogue.classes, multi_label=True,
        splits={"1": roles[chosen]}, length=length, interval_video=np.array([n for n, _ in spans]),
        interval_seconds=np.array([[i.start_seconds, i.stop_seconds] for _, i in spans]),
        interval_label=np.array([i.label for _, i in spans]),
    )  # fmt: skip
    own = -(-length // 500) * 500
    rows = int(own.sum())  # in one shard, in large chunks: so many small ones would take minutes
    layout = Layout(offset=np.cumsum(own) - own, rows=rows, chunk_rows=500, shard_rows=rows)
    store = Store.create(path, index=index, views=1, layout=layout, attributes={"dataset": "thumos14"})
    stream = store.add_stream("rgb", cube_shape=(1, 1, 2), recipe={"made": "noise"})
    for shard in range(store.shard_count):
        start, stop = store.shard_row_range(shard)
        frames, outcomes = np.full((stop - start, 3), -1, np.int32), []
        for v in store.shard_videos(shard):
            first, T = int(store.index.offset[v]) - start, int(store.index.length[v])
            frames[first : first + T] = np.arange(T)[:, None] + [0, 0, 1]
            id = str(store.index.ids[v])
            outcomes.append(VideoOutcome(id=id, outcome="ok", segments=T, fps=10.0, decoded_frames=T))
        cubes = np.random.default_rng(shard).standard_normal((stop - start, 1, 1, 2)).astype(np.float16)
        stream.publish(shard, cubes=cubes, frames=frames, seconds=np.maximum(frames[:, 1], 0) / 10, outcomes=outcomes)


@pytest.mark.slow
def test_thumos14_has_as_many_windows_as_the_authors_lists(shared_data: Path, tmp_path: Path) -> None:
    """final_thumos_14_20_one_label_temporal_test.txt: 2,326 lines of 174 videos; 26 instances begin behind theirs."""
    thumos14(tmp_path / "s.zarr", shared_data / "annotations" / "thumos14")
    run = fitted(tmp_path / "s.zarr", tmp_path / "run", "untrimmed", steps="2")
    single = command("window-recall", run, "--single-label")
    assert (single["windows"], single["videos"], single["outside"], single["window"]) == (2326, 174, 26, 50)
    everything = command("window-recall", run)
    assert (everything["windows"], everything["videos"], everything["outside"]) == (3358 - 26, 212, 26)
    assert everything["listed"] == 213


@pytest.mark.slow
def test_floors(run: Path) -> None:
    """Uniform attention keeps nothing above its own weight, and everything below: then it is the accuracy."""
    nothing = command("window-recall", run, *ASKED, "--attention", "uniform")
    assert (nothing["kept"], nothing["window_recall"]) == (0, [0] * 5)
    everything = command("window-recall", run, "--window", WINDOW, "--limit", 0.09, "--attention", "uniform")
    assert everything["kept"] == 1
    assert everything["window_recall"] == [everything["accuracy"]] * 5
    one, again, other = (
        command("window-recall", run, *ASKED, "--attention", "random", "--seed", seed)["kept"] for seed in (3, 3, 4)
    )
    assert one == again != other


@pytest.mark.slow
def test_what_cannot_be_measured_is_one_line(run: Path, tmp_path: Path) -> None:
    def refused(*more: Any, code: int) -> str:
        said: str = command("window-recall", run, *more, code=code)["error"]
        assert len(said.splitlines()) == 1
        return said

    bare = acting_store(tmp_path / "bare.zarr", truth=False).path
    assert f"{bare} knows no true interval of these 20 videos" in refused("--store", bare, code=2)
    still = acting_store(tmp_path / "still.zarr", fps=0.0).path
    assert "without a time map or a frame rate" in refused("--store", still, code=2)
    assert "numbers on them say nothing" in refused("--part", "train", code=3)
    assert "Setting window=4: must be at least 5" in refused("--window", "4", code=2)
    assert "Setting limit=1.0: must be at least 0 and less than 1" in refused("--limit", "1", code=2)
    broken = acting_store(tmp_path / "nan.zarr", broken=6).path
    assert "of video 'v006' is not finite" in refused("--store", broken, "--window", 12, code=1)


@pytest.mark.slow
def test_command_says_what_it_is_and_that_it_is_no_map(folder: Path, run: Path) -> None:
    done = vidatt("window-recall", run, *ASKED, "--device", "cpu", "--part", "train", "--allow-seen")
    assert done.returncode == 0, done.stderr
    assert "40 windows of 10 segments around the true intervals of 40 of 40 listed videos" in done.stdout
    assert "window recall (SEEN)" in done.stdout
    assert "SEEN: 40 of 40 train videos" in done.stdout
    assert "no mAP, the truth says where the windows are" in done.stdout
