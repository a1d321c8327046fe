"""`vidatt cache repair` as a user runs it: every kind of damage to a real store, and the very bytes come back."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from testkit.commands import run, start_vidatt, vidatt
from testkit.stores import content

from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of eight short videos, and their store of two streams in four shards."""
    folder = tmp_path_factory.mktemp("repair")
    generate(folder / "videos", videos=8, shapes=2, motions=1, frames=12, n_jobs=2)
    (folder / "videos" / "actionshapes.json").touch()
    run("extract", "--dataset", "actionshapes", "--videos", folder / "videos", "--store", folder / "s.zarr", "--recipe",
        "hands", "--streams", "rgb,clip", "--resize", "short:28", "--crop", "28", "--sampler", "centre:4",
        "--shard-videos", "2", "--workers", "1")  # fmt: skip
    return folder / "videos", folder / "s.zarr"


@pytest.fixture
def store(made: tuple[Path, Path], tmp_path: Path) -> Path:
    shutil.copytree(made[1], tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def swap(one: Path, two: Path) -> None:
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def damage_all(store: Path) -> None:
    """One shard of each kind of damage, in both streams."""
    flip(store / "rgb/cubes/c.0.0.0.0")
    (store / "rgb/frames/c.1.0").unlink()
    (store / "rgb/.done/2.json").write_bytes(b"\0garbage")
    (store / "rgb/.done/3.json").unlink()
    swap(store / "clip/cubes/c.0.0.0.0", store / "clip/cubes/c.1.0.0.0")
    edit(store / "clip/.done/2.json", '"outcome":"ok"', '"outcome":"missing"')
    (store / "clip/.done/3.intent-0.json").write_bytes(b"not an intent")


def test_every_damaged_shard_comes_back_byte_for_byte_and_no_other_is_touched(
    made: tuple[Path, Path], store: Path
) -> None:
    damage_all(store)
    before = {p: p.stat().st_mtime_ns for p in store.rglob("c.3*") if "clip" in str(p)}
    told = run("cache", "repair", store, "--dry-run", code=1)
    assert {(bad["stream"], bad["shard"]) for bad in told["bad"]} == {
        *(("rgb", shard) for shard in range(4)), *(("clip", shard) for shard in range(3)),
    }  # fmt: skip
    assert shlex.split(told["command"]) == ["vidatt", "cache", "repair", str(store)]
    mended = run("cache", "repair", store, "--videos", made[0], "--workers", "1")
    # of a shard whose marker was damaged nobody knows the bytes of before
    assert (mended["repaired"], mended["identical"], mended["different"], mended["garbage"]) == (7, 4, [], 1)
    assert content(store) == content(made[1])
    assert before
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert run("cache", "verify", store)["bad"] == []


def lose_done(store: Path) -> None:
    shutil.rmtree(store / "clip/.done")


def lose_metadata(store: Path) -> None:
    (store / "rgb/cubes/zarr.json").unlink()
    (store / "rgb/frames/zarr.json").write_text("{}")


def edit_metadata(store: Path) -> None:
    edit(store / "clip/seconds/zarr.json", '"float64"', '"float32"')
    edit(store / "clip/cubes/zarr.json", '"separator": "."', '"separator": "/"')


def edit_root(store: Path) -> None:
    edit(store / "zarr.json", '"shard_rows": 8', '"shard_rows": 16')


def lose_root(store: Path) -> None:
    (store / "zarr.json").unlink()


@pytest.mark.parametrize("damage", [lose_done, lose_metadata, edit_metadata, edit_root, lose_root])
def test_metadata_that_can_be_known_is_written_again(
    made: tuple[Path, Path], store: Path, damage: Callable[[Path], None]
) -> None:
    damage(store)
    broken = vidatt("cache", "info", store)
    assert broken.returncode == 1, broken.stderr
    assert broken.stderr.count("\n") == 1
    assert f"vidatt cache repair {store}" in broken.stderr
    mended = run("cache", "repair", store, "--videos", made[0], "--workers", "1")
    assert mended["mended"]
    assert content(store) == content(made[1])


def test_what_stands_nowhere_else_is_said(made: tuple[Path, Path], store: Path) -> None:
    flip(store / "index/id/c.0")
    told = run("cache", "repair", store, "--videos", made[0], code=1)["error"]
    assert "restore" in told
    assert "from a copy" in told
    shutil.rmtree(store)
    shutil.copytree(made[1], store)
    edit(store / "rgb/zarr.json", '"hog"', '"hug"')
    told = run("cache", "repair", store, "--videos", made[0], code=1)["error"]
    assert "vidatt cache rm" in told


def test_without_videos_bad_shards_are_dropped_and_extracted_later(
    made: tuple[Path, Path], store: Path, tmp_path: Path
) -> None:
    damage_all(store)
    told = run("cache", "repair", store, "--videos", tmp_path / "nowhere", code=2)["error"]
    assert "--videos DIR" in told
    assert "--drop" in told
    dropped = run("cache", "repair", store, "--drop")
    assert dropped["dropped"] == 7
    assert Store.open(store)["rgb"].missing_shards() == [0, 1, 2, 3]
    assert Store.open(store)["clip"].missing_shards() == [0, 1, 2]
    assert run("cache", "verify", store)["bad"] == []
    run("extract", "--dataset", "actionshapes", "--videos", made[0], "--store", store, "--recipe", "hands", "--streams",
        "rgb,clip", "--resize", "short:28", "--crop", "28", "--workers", "1")  # fmt: skip
    assert content(store) == content(made[1])


def test_a_repair_that_is_killed_goes_on_and_two_at_once_do_no_harm(made: tuple[Path, Path], store: Path) -> None:
    damage_all(store)
    command = ["cache", "repair", store, "--videos", made[0], "--workers", "1"]
    process = start_vidatt(*command)
    while not list(store.glob("*/.done/*replace*")) and not list(store.glob(".tmp/*")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(9)
    process.wait()
    both = [start_vidatt(*command) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0], [one.stderr for one in both]
    run(*command)
    assert content(store) == content(made[1])


def test_a_changed_video_is_told(made: tuple[Path, Path], store: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(made[0], videos)
    index = Store.open(store).index
    shutil.copy(videos / str(index.paths[7]), videos / str(index.paths[0]))
    flip(store / "rgb/cubes/c.0.0.0.0")
    mended = run("cache", "repair", store, "--videos", videos, "--workers", "1")
    assert (mended["repaired"], mended["identical"], mended["different"]) == (1, 0, ["rgb/0"])
    assert run("cache", "verify", store)["bad"] == []


def test_an_imported_stream_cannot_be_made_again(made: tuple[Path, Path], store: Path, tmp_path: Path) -> None:
    assert vidatt("cache", "export", store, tmp_path / "npy", "--format", "npy").returncode == 0
    copy = tmp_path / "imported.zarr"
    done = vidatt(
        "cache", "import", tmp_path / "npy" / "rgb", copy, "--format", "npy", "--manifest", manifest(tmp_path, store)
    )
    if done.returncode:
        pytest.fail(done.stderr)
    flip(next(copy.glob("features/cubes/c.0.*")))
    told = run("cache", "repair", copy, "--videos", made[0], code=3)["error"]
    assert "imported" in told or "does not say how its segments were placed" in told


def manifest(folder: Path, store: Path) -> Path:
    index = Store.open(store).index
    rows = [f"{id}.npy,{index.classes[int(index.labels[p, 0])]}" for p, id in enumerate(index.ids.tolist())]
    (folder / "m.csv").write_text("\n".join(["path,label", *rows, ""]))
    return folder / "m.csv"
