"""`vidatt reproduce` with real commands: rows from a store, by hand the same, stopped and continued."""

from __future__ import annotations

import csv
import json
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from testkit.acting import acting_store
from testkit.commands import start_vidatt, vidatt
from testkit.stores import fill

from vidatt.cache.layout import plan_layout
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_index
from vidatt.extract.datasets.generator import generate
from vidatt.pipelines.reproduce.report import ReproducedCell, figure
from vidatt.pipelines.reproduce.tables import load_table

pytestmark = [pytest.mark.slow, pytest.mark.long]
CUBES = {"rgb": (2, 2, 6), "flow": (2, 2, 6), "clip": (2, 2, 6)}
NEEDS = "needs the extraction"
SMALL = ("--preset", "small", "--set", "steps=3", "--device", "cpu")


def _store(path: Path, dataset: str, streams: tuple[str, ...] = ("rgb", "flow", "clip")) -> Path:
    """A store of synthetic cubes that says of which dataset it is."""
    index = synthetic_index([4] * 36)
    layout = plan_layout(index.length, views=1, videos_per_shard=64)
    store = Store.create(path, index=index, views=1, layout=layout, attributes={"dataset": dataset, "seed": 0})
    fill(store, {name: CUBES[name] for name in streams})
    return path


def _reproduce(table: str, *arguments: object, code: int = 0, cwd: Path) -> dict[str, Any]:
    done = vidatt("reproduce", table, *arguments, *SMALL, "--json", cwd=cwd)
    assert done.returncode == code, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _cells(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["label"], cell["column"]): cell for row in result["rows"] for cell in row["cells"]}


def _lines(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shapes.zarr`: generated videos, extracted with hog, hof and hog3d."""
    folder = tmp_path_factory.mktemp("reproduce")
    generate(folder / "videos", videos=24, shapes=2, motions=2, frames=20, n_jobs=1)
    done = vidatt(
        "extract", "--dataset", "actionshapes", "--videos", "videos", "--store", "shapes.zarr", "--recipe", "hands",
        "--resize", "short:112", "--crop", "112", "--flow-preset", "fast", "--segments", "3", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("table", "measured", "left_out"),
    [
        ("stan-1", 15, {"fc6": "needs the extraction fc6, given as --store fc6=PATH"}),
        ("stan-2", 4, {}),
        ("glka-1", 3, {}),
        ("where-and-when-1", 7, {"VideoLSTM (Li et al., 2018b)": f"{NEEDS} vgg16, given as --store vgg16=PATH"}),
        ("tclsta-7", 4, {}),
        ("glka-5", 6, {}),
        ("tclsta-8", 4, {}),
    ],
)  # fmt: skip
def test_rows_of_a_table_are_made_from_a_store_of_generated_videos(
    shapes: Path, table: str, measured: int, left_out: dict[str, str]
) -> None:
    result = _reproduce(table, "--store", "shapes.zarr", "--out", "all tables", "--jobs", "2", cwd=shapes)
    cells = _cells(result)
    made = {key: cell for key, cell in cells.items() if cell["status"] == "measured"}
    assert len(made) == measured
    top = 100 if result["unit"] == "%" else 1
    assert all(0 <= cell["value"] <= top and cell["runs"] == 1 for cell in made.values())
    assert all(
        cell["printed"] is None and cell["difference"] is None for cell in cells.values()
    )  # not the paper's data
    assert not [cell for cell in cells.values() if cell["status"] == "failed"]
    for label, why in left_out.items():
        assert {cell["why"] for (row, _), cell in cells.items() if row == label} == {why}
    text = (shapes / "all tables" / f"{table}.md").read_text()
    rows = _lines(shapes / "all tables" / f"{table}.csv")
    assert len(rows) == len(cells)
    for line in rows:
        cell = cells[line["row"], line["column"]]
        assert (line["status"], line["value"]) == (cell["status"], "" if cell["value"] is None else str(cell["value"]))
        if cell["status"] == "measured":
            assert f"| {line['row']} |" in text
    assert all(command in text for command in result["commands"])


def test_speed_at_test_is_a_row(shapes: Path) -> None:
    (shapes / "data").mkdir()
    (shapes / "data" / "actionshapes").symlink_to(shapes / "videos")
    result = _reproduce("tclsta-9", "--store", "shapes.zarr", "--out", "all tables", cwd=shapes)
    cells = _cells(result)
    assert cells["Ours", "frames per second"]["status"] == "measured"
    assert cells["Ours", "frames per second"]["value"] > 0
    told = json.loads((shapes / "all tables" / "speed" / "split-1-seed-0.json").read_text())["result"]
    assert told["videos"] == 8
    assert cells["Ours", "frames per second"]["value"] == pytest.approx(told["frames_per_second"])


def test_numbers_are_those_of_the_runs_and_stand_beside_the_paper_s(tmp_path: Path) -> None:
    _store(tmp_path / "hmdb.zarr", "hmdb51")
    result = _reproduce("tclsta-7", "--store", "hmdb.zarr", "--out", "out", "--seeds", "2", cwd=tmp_path)
    assert result["splits"] == ["1"]
    cells = _cells(result)
    own = cells["Two-stream+STA", "accuracy or mAP"]
    seeds = [
        json.loads((tmp_path / "out" / "sta-two" / f"split-1-seed-{seed}" / "metrics.json").read_text())
        for seed in (0, 1)
    ]
    tops = [seed["evaluations"]["1-test"]["metrics"]["top1"] for seed in seeds]
    assert own["value"] == pytest.approx(sum(tops) / 2)
    assert own["spread"] == pytest.approx(abs(tops[0] - tops[1]) / 2**0.5)
    assert (own["printed"], own["runs"]) == (0.676, 2)
    assert own["difference"] == pytest.approx(own["value"] - 0.676)
    fusion = json.loads((tmp_path / "out" / "cln-awl" / "split-1-seed-0.json").read_text())["result"]
    assert fusion["parts"] == [f"out/cln/split-1-seed-0:{branch}" for branch in ("rgb", "flow")]
    text = (tmp_path / "out" / "tclsta-7.md").read_text()
    assert f"| Two-stream+STA | {own['value']:.3f} +- {own['spread']:.3f} | 0.676 | {own['difference']:+.3f} |" in text


def test_commands_of_a_dry_run_work_by_hand_and_their_runs_are_taken(tmp_path: Path) -> None:
    _store(tmp_path / "a store.zarr", "ucf101", ("rgb",))
    asked = ("--store", "a store.zarr", "--out", "by hand")
    planned = _reproduce("glka-3", *asked, "--dry-run", cwd=tmp_path)
    assert not (tmp_path / "by hand").exists()
    assert {cell["status"] for cell in _cells(planned).values()} == {"planned"}
    said = vidatt("reproduce", "glka-3", *asked, *SMALL, "--dry-run", cwd=tmp_path)
    assert said.stdout.splitlines() == planned["commands"]
    for line in planned["commands"]:
        name, *arguments = shlex.split(line)
        assert name == "vidatt"
        done = vidatt(*arguments, cwd=tmp_path)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.glob("by hand/*/*/weights.safetensors")}
    assert len(weights) == 7
    result = _reproduce("glka-3", *asked, cwd=tmp_path)
    assert {cell["status"] for cell in _cells(result).values()} == {"measured"}
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    # and all of it is taken as it is, by another table of the paper too
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("by hand/*/*.json")}
    assert _reproduce("glka-3", *asked, cwd=tmp_path)["rows"] == result["rows"]
    assert (
        _cells(_reproduce("glka-1", *asked, cwd=tmp_path))["Global Pooling", "accuracy"]["value"]
        == (_cells(result)["Global Pooling", "accuracy"]["value"])
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before


def _thumos14(path: Path, *streams: str) -> Path:
    """A store of three classes of THUMOS14 with true intervals."""
    classes = ("Diving", "LongJump", "PoleVault")
    acting_store(path, dataset="thumos14", classes=classes, crops=dict.fromkeys(streams, 40))
    return path


def test_table_4_is_measured_as_the_paper_did_and_each_row_says_by_what(tmp_path: Path) -> None:
    _thumos14(tmp_path / "fifty.zarr", "rgb")
    _thumos14(tmp_path / "fps10.zarr", "rgb")
    _thumos14(tmp_path / "every15.zarr", "rgb", "flow")
    stores = ("--store", "fifty.zarr", "--store", "fps10=fps10.zarr", "--store", "every15=every15.zarr")
    result = _reproduce("where-and-when-4", *stores, "--out", "out", cwd=tmp_path)
    cells = _cells(result)
    assert {cell["status"] for (row, _), cell in cells.items() if "Yeung" not in row} == {"measured"}
    assert cells["Ours", "0.1"]["measure"] == "window_recall@0.1"
    assert cells["(Wang et al., 2017)", "0.5"]["measure"] == "thumos14@0.5"
    assert (cells["Ours", "0.1"]["printed"], cells["(Wang et al., 2017)", "0.5"]["printed"]) == (70.0, 13.7)
    lines = [line for line in result["commands"] if not line.startswith(("vidatt fit-head", "vidatt evaluate"))]
    assert len(lines) == 2
    for line in lines:  # by hand the same
        done = vidatt(*shlex.split(line)[1:], "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        row, values = "Ours", said.get("window_recall")
        if values is None:
            row, values = "(Wang et al., 2017)", said["measures"]["thumos14"]["map"]
            assert said["runs"] == [f"out/untrimmed-{name}/split-1-seed-0" for name in ("rgb", "flow")]
        else:
            assert (said["store"], said["window"], said["limit"]) == ("fps10.zarr", 50, 0.023)
        assert [cells[row, f"0.{n}"]["value"] for n in range(1, 6)] == pytest.approx([100 * v for v in values])
    assert "Ours: no mAP but window recall" in (tmp_path / "out" / "where-and-when-4.md").read_text()
    # without the other stores the rows that need them are left out
    planned = _cells(_reproduce("where-and-when-4", *stores[:2], *stores[4:], "--dry-run", cwd=tmp_path))
    assert planned["(Wang et al., 2017)", "0.5"]["status"] == "planned"
    assert planned["Ours", "0.5"]["why"] == f"{NEEDS} fps10, given as --store fps10=PATH"


def test_untrimmednet_of_two_streams_is_a_row_of_stan_s_table(tmp_path: Path) -> None:
    _thumos14(tmp_path / "dense.zarr", "rgb", "flow", "clip")
    asked = ("--store", "dense.zarr", "--store", "every15=dense.zarr", "--out", "out")
    cells = _cells(_reproduce("stan-9", *asked, cwd=tmp_path))
    made = {row for (row, _), cell in cells.items() if cell["status"] == "measured"}
    assert made == {"UntrimmedNet [72]", "STAN"}


@pytest.mark.parametrize(("dataset", "own", "other"), [("kinetics400", "Kinetics-400*", "Kinetics-600"),
                                                       ("kinetics600", "Kinetics-600", "Kinetics-400*")])  # fmt: skip
def test_a_store_of_kinetics_gives_the_row_of_its_version(tmp_path: Path, dataset: str, own: str, other: str) -> None:
    _store(tmp_path / "k.zarr", dataset, ("rgb",))
    cells = _cells(_reproduce("glka-6", "--store", "k.zarr", "--out", "out", cwd=tmp_path))
    mine, theirs = (cells[f"Our model ({name})", "Top-1"] for name in (own, other))
    assert (mine["status"], mine["printed"]) == ("measured", 69.2 if own.endswith("*") else 70.0)
    assert theirs["status"] == "left out"
    assert theirs["why"].startswith(f"is of {other}")


def test_kinetics_400_star_is_the_videos_of_kinetics_400_that_kinetics_600_has_too(tmp_path: Path) -> None:
    """The option of the table's extraction, as a person gives it to a command that reads the lists."""
    lists = {"400_train": "abc", "400_val": "de", "600_train": "bx", "600_val": "cey"}
    for name, ids in lists.items():
        rows = [f"{'run' if name < '5' else 'jog'},{id},1,11\n" for id in ids]
        (tmp_path / f"kinetics-{name}.csv").write_text("label,youtube_id,time_start,time_end\n" + "".join(rows))
    option = load_table("glka-6").extractions["thirds"].for_dataset("kinetics400")["option"]
    (tmp_path / "videos").mkdir()
    asked = ("--annotations", ".", "--option", option, "--check", "videos", "--json")
    done = vidatt("datasets", "kinetics400", *asked, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["videos"] == 3, done.stderr
    assert told["missing"] == [f"{part}_000001_000011.mp4" for part in ("train/run/b", "train/run/c", "val/run/e")]


def test_what_is_given_goes_into_steps_and_rows_without_it_are_left_out(tmp_path: Path) -> None:
    """GLKA's Table VIII: a run on Kinetics to start from, and scores of another network by split."""
    kinetics = _store(tmp_path / "k.zarr", "kinetics600", ("rgb",))
    hmdb = Store.open(_store(tmp_path / "h.zarr", "hmdb51", ("rgb",)))
    fit = ("fit-head", "--head", "glka", "--streams", "rgb", "--store", kinetics, "--out", "kinetics run", *SMALL)
    assert vidatt(*fit, cwd=tmp_path).returncode == 0
    index = hmdb.index
    tested = np.flatnonzero(index.splits["1"] == 2)
    scores = np.random.default_rng(0).dirichlet(np.ones(len(index.classes)), len(tested)).astype(np.float32)
    np.savez(tmp_path / "i3d-1.npz", ids=np.array([str(id) for id in index.ids[tested]]), scores=scores)
    asked = ("--store", "h.zarr", "--out", "out")
    told = vidatt("reproduce", "glka-8", *asked, *SMALL, cwd=tmp_path)
    assert told.returncode == 2
    assert "needs the run of Table VI, of head glka fitted on Kinetics-600, as --given kinetics=PATH" in told.stderr
    given = ("--given", "kinetics=kinetics run", "--given", "i3d=i3d-{split}.npz")
    result = _reproduce("glka-8", *asked, *given, cwd=tmp_path)
    cell = _cells(result)["Ours(early fusion) + I3D*, Kinetics", "accuracy"]
    assert (cell["status"], cell["printed"]) == ("measured", 81.1)
    start, _, fused = result["commands"]
    assert "--from 'kinetics run'" in start
    assert "out/early-from-kinetics/split-1-seed-0 i3d-1.npz --method mean --file-scores probabilities" in fused
    done = vidatt(*shlex.split(fused)[1:-2], "--out", "by hand", "--json", cwd=tmp_path)
    assert 100 * json.loads(done.stdout)["metrics"]["top1"] == pytest.approx(cell["value"])
    for wrong, said in (
        ("i3d=none-{split}.npz", "--given i3d=none-{split}.npz: there is no none-1.npz; it is class scores of I3D"),
        ("i3e=i3d-1.npz", "Unknown name in --given of glka-8: 'i3e'. Did you mean 'i3d'"),
        ("i3d", "--given 'i3d': write KEY=VALUE"),
    ):
        refused = vidatt("reproduce", "glka-8", *asked, "--given", wrong, *SMALL, cwd=tmp_path)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
        assert said in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_at_any_time_the_same_command_continues_to_the_same_result(
    tmp_path: Path, number: signal.Signals
) -> None:
    _store(tmp_path / "s.zarr", "ucf101")
    whole = _reproduce("stan-2", "--store", "s.zarr", "--out", "whole", cwd=tmp_path)
    command = ("reproduce", "stan-2", "--store", "s.zarr", "--out", "cut", *SMALL, "--jobs", "2")
    running = start_vidatt(*command, cwd=tmp_path)
    end = time.monotonic() + 120
    while len(list(tmp_path.glob("cut/*/*.json"))) < 2:
        assert running.poll() is None, running.stderr
        assert time.monotonic() < end
        time.sleep(0.02)
    running.send_signal(number)
    code = running.wait()
    if number == signal.SIGTERM:
        assert code == 75, running.stderr
        assert "steps are finished in cut; the same command continues" in running.stderr
    assert not (tmp_path / "cut" / "stan-2.md").exists()
    time.sleep(1)  # a killed one's commands die with it, a moment later
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cut/*/*.json")}
    assert 2 <= len(kept) < 8
    cut = _reproduce("stan-2", "--store", "s.zarr", "--out", "cut", "--jobs", "2", cwd=tmp_path)
    assert cut["rows"] == whole["rows"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(tmp_path.glob("cut/**/*.part"))


def test_a_failed_row_is_named_the_others_go_on_and_the_exit_code_is_1(tmp_path: Path) -> None:
    _store(tmp_path / "s.zarr", "ucf101")
    (tmp_path / "out" / "san-rgb" / "split-1-seed-0").mkdir(parents=True)
    (tmp_path / "out" / "san-rgb" / "split-1-seed-0" / "notes.txt").write_text("mine")
    done = vidatt("reproduce", "stan-2", "--store", "s.zarr", "--out", "out", *SMALL, cwd=tmp_path)
    assert done.returncode == 1
    assert "san-rgb (split 1, seed 0) failed: " in done.stderr
    assert "failed: SAN (LF): san-rgb failed, on which it stands" in done.stdout
    rows = _lines(tmp_path / "out" / "stan-2.csv")
    assert [(row["row"], row["column"], row["status"]) for row in rows] == [
        ("SAN", "EF", "measured"), ("SAN", "LF", "failed"), ("STAN", "EF", "measured"), ("STAN", "LF", "measured"),
    ]  # fmt: skip
    (tmp_path / "out" / "san-rgb" / "split-1-seed-0" / "notes.txt").unlink()
    assert vidatt("reproduce", "stan-2", "--store", "s.zarr", "--out", "out", *SMALL, cwd=tmp_path).returncode == 0


def test_rows_whose_streams_a_store_lacks_are_left_out_and_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    _store(tmp_path / "rgb.zarr", "ucf101", ("rgb",))
    result = _reproduce("stan-1", "--store", "rgb.zarr", "--out", "out", "--set", "C=1", cwd=tmp_path)
    cells = _cells(result)
    assert cells["STAN", "FRA"]["status"] == "measured"
    assert cells["STAN", "OPF"]["why"] == "rgb.zarr has no stream flow"
    assert cells["STAN", "OPF"]["printed"] == 86.6
    again = _reproduce("stan-1", "--store", "rgb.zarr", "--out", "out", "--set", "C=2", code=1, cwd=tmp_path)
    assert "is of another fit" in _cells(again)["pool5_512+ave", "FRA"]["why"]
    assert _cells(again)["STAN", "FRA"] == cells["STAN", "FRA"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("stan-10",), "Unknown table 'stan-10'. Did you mean 'stan-1'?"),
        (("stan-1", "--store", "none.zarr"), "No vidatt store at none.zarr"),
        (("stan-1",), "by `vidatt extract --dataset ucf101 --recipe stan --store ucf101.zarr`"),
        (("stan-1", "--store", "s.zarr", "--set", "stepz=3"), "any head in the table: 'stepz'. Did you mean 'steps'?"),
        (("stan-1", "--store", "s.zarr", "--preset", "tiny"), "stan-1.toml: fit.fc6-rgb: Unknown preset"),
        (("stan-1", "--store", "s.zarr", "--splits", "7"), "Unknown split '7'"),
        (("stan-1", "--store", "s.zarr", "--out", "a,b"), "--out a,b: settings list runs by commas"),
        (("--store", "s.zarr"), "TABLE is missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_begins(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    _store(tmp_path / "s.zarr", "ucf101")
    done = vidatt("reproduce", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("vidatt: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


def test_figure_reads_what_commands_print() -> None:
    metrics = {"metrics": {"top1": 0.5, "top5": 0.7, "map": None}}
    assert figure(metrics, "top1") == 0.5
    assert figure(metrics, "average") == pytest.approx(0.6)
    assert figure(metrics, "map") is None
    assert figure({"measures": None}, "thumos14@0.5") is None
    detections = {"thumos14": {"thresholds": [0.1, 0.5], "map": [0.3, 0.2]}}
    assert figure({"measures": detections}, "thumos14@0.5") == 0.2
    boxes = {"thresholds": [0.05, 0.1], "frame_hit": [0.9, 0.8]}
    assert figure({"measures": boxes}, "frame_hit@0.05") == 0.9
    windows = {"thresholds": [0.1, 0.5], "window_recall": [0.7, 0.2], "accuracy": 0.8}
    assert figure(windows, "window_recall@0.5") == 0.2


def test_list_names_every_table_and_a_store_at_hand(tmp_path: Path) -> None:
    (tmp_path / "cache-store").mkdir()
    _store(tmp_path / "cache-store" / "hmdb51.zarr", "hmdb51", ("rgb",))
    done = vidatt("reproduce", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tables = {table["name"]: table for table in json.loads(done.stdout)["tables"]}
    assert tables["glka-1"]["stores"] == ["cache-store/hmdb51.zarr"]
    assert tables["stan-1"]["stores"] == []
    assert tables["stan-1"]["extractions"]["fc6"] == (
        "vidatt extract --dataset ucf101 --recipe stan --layer fc6 --store ucf101-fc6.zarr"
    )
    # without --store the one at hand is taken
    planned = json.loads(vidatt("reproduce", "glka-1", "--dry-run", "--json", *SMALL, cwd=tmp_path).stdout)
    assert planned["stores"] == {"windows": "cache-store/hmdb51.zarr"}
    assert planned["out"] == "reproduced/hmdb51-glka"


def test_cells_have_the_columns_of_the_csv() -> None:
    from vidatt.pipelines.reproduce.report import CSV_COLUMNS

    assert {"table", "dataset", "row", *ReproducedCell.__dataclass_fields__} == set(CSV_COLUMNS)
