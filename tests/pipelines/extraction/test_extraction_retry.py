"""`vidatt extract --retry`, `--extend` and `--reuse` as a user runs them: real processes on real files."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from testkit.commands import run, start_vidatt, vidatt
from testkit.stores import content

from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate

pytestmark = [pytest.mark.slow, pytest.mark.long]

SIZE = ("--resize", "short:28", "--crop", "28")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten short generated videos."""
    folder = tmp_path_factory.mktemp("shapes") / "videos"
    generate(folder, videos=10, shapes=2, motions=1, frames=12, n_jobs=2)
    return folder


@pytest.fixture
def videos(shapes: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may break, with the CSV of the `list` dataset beside."""
    folder = tmp_path / "videos"
    shutil.copytree(shapes, folder)
    write_csv(folder, names(folder))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix in (".mp4", ".avi"))


def write_csv(folder: Path, paths: list[str], labels: dict[str, str] | None = None) -> None:
    rows = [
        f"{p},{(labels or {}).get(p, p.split('/')[0])},{'test' if i % 3 == 0 else 'train'}" for i, p in enumerate(paths)
    ]
    (folder.parent / "list.csv").write_text("\n".join(["path,label,split", *rows, ""]))


def extract(
    folder: Path, store: Path, *more: str | Path, streams: str = "rgb", sampler: str = "centre:4"
) -> list[str | Path]:
    return ["extract", "--dataset", "list", "--videos", folder, "--annotations", folder.parent / "list.csv",
            "--store", store, "--recipe", "hands", "--streams", streams, *SIZE, "--sampler", sampler,
            "--window", "16", "--shard-videos", "2", "--workers", "1", *more]  # fmt: skip


def break_some(folder: Path) -> dict[str, bytes]:
    """Take away one video, cut one short, make one unreadable; what they held."""
    chosen = names(folder)[1:8:3]
    held = {name: (folder / name).read_bytes() for name in chosen}
    (folder / chosen[0]).unlink()
    (folder / chosen[1]).write_bytes(held[chosen[1]][: len(held[chosen[1]]) // 2])
    (folder / chosen[2]).write_bytes(b"no video at all")
    return held


def mend(folder: Path, held: dict[str, bytes]) -> None:
    for name, data in held.items():
        (folder / name).write_bytes(data)


def test_mended_videos_are_retried_and_the_store_is_as_if_they_had_never_been_broken(
    videos: Path, tmp_path: Path
) -> None:
    whole, store = tmp_path / "whole.zarr", tmp_path / "s.zarr"
    run(*extract(videos, whole, streams="rgb,clip"))
    held = break_some(videos)
    first = run(*extract(videos, store, streams="rgb,clip"), code=1)
    assert sum(first["outcomes"].values()) - first["outcomes"]["ok"] == 3
    assert first["retryable"] == 2  # the missing one is not there to be looked at
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()}
    still = run(*extract(videos, store, "--retry", streams="rgb,clip"), code=1)
    assert (still["retried"], still["changed"], still["outcomes"]) == (2, 0, first["outcomes"])
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()} == before
    mend(videos, held)
    again = run(*extract(videos, store, streams="rgb,clip"), code=1)
    assert (again["retryable"], again["outcomes"]) == (3, first["outcomes"])
    planned = run(*shlex.split(again["retry_command"])[1:], "--dry-run")
    assert (planned["retried"], planned["shards_to_do"]) == (3, len({shard_of(store, name) for name in held}))
    untouched = {p for p in before if ".json" in p.name and p.parent.name == ".done"} - {
        store / stream / ".done" / f"{shard_of(store, name)}.json" for name in held for stream in ("rgb", "clip")
    }
    mended = run(*shlex.split(again["retry_command"])[1:])
    assert (mended["retried"], mended["changed"], mended["outcomes"], mended["retryable"]) == (3, 3, {"ok": 10}, 0)
    assert content(store) == content(whole)
    assert untouched
    assert all(p.stat().st_mtime_ns == before[p] for p in untouched), "only their shards are rewritten"


def shard_of(store: Path, name: str) -> int:
    opened = Store.open(store)
    return int(opened.index.offset[opened.index.position(name)]) // opened.shard_rows


def test_only_the_outcomes_that_are_named_are_retried_and_unknown_ones_refused(videos: Path, tmp_path: Path) -> None:
    held = break_some(videos)
    run(*extract(videos, tmp_path / "s.zarr"), code=1)
    mend(videos, held)
    some = run(*extract(videos, tmp_path / "s.zarr", "--retry", "missing"), code=1)
    assert (some["retried"], some["changed"]) == (1, 1)
    assert "missing" not in some["outcomes"]
    wrong = run(*extract(videos, tmp_path / "s.zarr", "--retry", "mising"), code=2)
    assert "Unknown outcome to retry 'mising'. Did you mean 'missing'?" in wrong["error"]
    nowhere = run(*extract(videos, tmp_path / "t.zarr", "--retry"), code=2)
    assert "There is no store" in nowhere["error"]
    assert not (tmp_path / "t.zarr").exists()


def test_a_retry_in_slices_at_once_and_one_that_is_killed_come_to_the_same(videos: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.zarr"
    run(*extract(videos, whole))
    held = break_some(videos)
    for store in (tmp_path / "slices.zarr", tmp_path / "killed.zarr"):
        run(*extract(videos, store), code=1)
    mend(videos, held)
    command = extract(videos, tmp_path / "slices.zarr", "--retry")
    slices = [start_vidatt(*command, "--shard", f"{i}/2") for i in range(2)]
    assert [s.wait() for s in slices] == [0, 0]
    assert content(tmp_path / "slices.zarr") == content(whole)
    killed = extract(videos, tmp_path / "killed.zarr", "--retry")
    for wait in (0.6, 1.0, 1.3):
        process = start_vidatt(*killed)
        time.sleep(wait)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.5)  # the children of the killed die with their parent
    run(*killed)
    assert content(tmp_path / "killed.zarr") == content(whole)


def test_a_mended_video_that_is_longer_than_its_row_is_left_and_reuse_is_the_way(videos: Path, tmp_path: Path) -> None:
    lost = videos / names(videos)[2]
    held = lost.read_bytes()
    lost.unlink()
    store, new = tmp_path / "s.zarr", tmp_path / "new.zarr"
    run(*extract(videos, store, sampler="every:4"), code=1)
    lost.write_bytes(held)
    left = run(*extract(videos, store, "--retry", sampler="every:4"), code=1)
    assert (left["retried"], left["longer"], left["retryable"]) == (0, [names(videos)[2]], 0)
    made = run(*extract(videos, new, "--reuse", store, sampler="every:4"))
    assert (made["reused"], made["outcomes"]) == (9, {"ok": 10})
    run(*extract(videos, tmp_path / "whole.zarr", sampler="every:4"))
    assert content(new) == content(tmp_path / "whole.zarr")


def test_a_grown_list_is_told_in_words_and_the_command_it_names_extends_the_store(videos: Path, tmp_path: Path) -> None:
    store, every = tmp_path / "s.zarr", names(videos)
    write_csv(videos, every[:7])
    run(*extract(videos, store, streams="rgb,clip"))
    old = {name: Store.open(store)["rgb"][name].cubes.tobytes() for name in every[:7]}
    files = {k: v for k, v in content(store).items() if "/c." in k and not k.startswith("index")}
    write_csv(videos, every, {every[0]: "something new"})
    told = run(*extract(videos, store, streams="rgb,clip"), code=3)["error"]
    assert f"3 videos added: {', '.join(every[7:])}; 1 label changed: {every[0]}" in told
    assert "1 class added or gone: something new" in told
    command = shlex.split(told.partition("`")[2].partition("`")[0])
    assert command[-1] == "--extend"
    planned = run(*command[1:], "--dry-run")
    assert (planned["added"], planned["videos"], planned["shards"], planned["shards_to_do"]) == (3, 10, 6, 2)
    assert len(Store.open(store).index) == 7
    made = run(*command[1:])
    assert (made["videos"], made["outcomes"]) == (10, {"ok": 10})
    wider = Store.open(store)
    assert {name: wider["rgb"][name].cubes.tobytes() for name in every[:7]} == old
    assert "something new" in wider.index.classes
    now = content(store)
    assert all(now[name] == data for name, data in files.items())
    assert run(*extract(videos, store, streams="rgb,clip"))["outcomes"] == {"ok": 10}
    assert vidatt("cache", "export", store, tmp_path / "all.h5", "--format", "hdf5").returncode == 0
    assert vidatt("cache", "import", tmp_path / "all.h5", tmp_path / "copy.zarr").returncode == 0
    copy = Store.open(tmp_path / "copy.zarr")
    assert all(copy["rgb"][name].cubes.tobytes() == wider["rgb"][name].cubes.tobytes() for name in every)


def test_what_a_store_cannot_follow_is_refused_with_the_way_out(videos: Path, tmp_path: Path) -> None:
    store, every = tmp_path / "s.zarr", names(videos)
    run(*extract(videos, store))
    write_csv(videos, every[1:])
    told = run(*extract(videos, store, "--extend"), code=3)["error"]
    assert f"1 video removed: {every[0]}" in told
    assert "--reuse" in told
    made = run(*extract(videos, tmp_path / "t.zarr", "--reuse", store))
    assert (made["reused"], made["outcomes"]) == (9, {"ok": 9})
    run(*extract(videos, tmp_path / "fresh.zarr"))
    assert content(tmp_path / "t.zarr") == content(tmp_path / "fresh.zarr")


def test_an_extension_that_is_killed_goes_on(videos: Path, tmp_path: Path) -> None:
    every = names(videos)
    write_csv(videos, every[:5])
    store, straight = tmp_path / "s.zarr", tmp_path / "straight.zarr"
    run(*extract(videos, store))
    shutil.copytree(store, straight)
    write_csv(videos, every)
    run(*extract(videos, straight, "--extend"))
    for condition in (
        (store / "index-2").exists,
        lambda: len(list(store.glob("rgb/.done/*.json"))) > 3,
    ):
        process = start_vidatt(*extract(videos, store, "--extend"))
        while not condition() and process.poll() is None:
            time.sleep(0.001)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.5)
    run(*extract(videos, store, "--extend"))
    assert content(store) == content(straight)


def test_reuse_copies_what_was_moved_and_decodes_what_was_changed(videos: Path, tmp_path: Path) -> None:
    store, new = tmp_path / "s.zarr", tmp_path / "new.zarr"
    run(*extract(videos, store, streams="rgb,clip"))
    every = names(videos)
    (videos / "moved").mkdir()
    (videos / every[0]).rename(videos / "moved" / Path(every[0]).name)
    (videos / every[1]).write_bytes((videos / every[2]).read_bytes())
    write_csv(videos, names(videos))
    planned = run(*extract(videos, new, "--reuse", store, "--dry-run", streams="rgb,clip"))
    assert planned["reusable"] == 10
    made = run(*extract(videos, new, "--reuse", store, streams="rgb,clip"))
    assert made["reused"] == 10  # all contents are known
    (videos / every[3]).write_bytes((videos / every[3]).read_bytes() + b"\0")
    shutil.rmtree(new)
    made = run(*extract(videos, new, "--reuse", store, streams="rgb,clip"))
    assert made["reused"] == 9
    run(*extract(videos, tmp_path / "fresh.zarr", streams="rgb,clip"))
    assert content(new) == content(tmp_path / "fresh.zarr")


@pytest.mark.parametrize(
    ("more", "streams", "told"),
    [
        (("--crop", "14"), "rgb", "its stream 'rgb' was made with another recipe: crop_px"),
        (("--sampler", "centre:5"), "rgb", "its segments are others (sampler centre:4 -> centre:5)"),
        ((), "rgb,clip", "it has no stream 'clip'"),
    ],
)
def test_a_store_that_gives_nothing_is_refused(
    videos: Path, tmp_path: Path, more: tuple[str, ...], streams: str, told: str
) -> None:
    run(*extract(videos, tmp_path / "s.zarr"))
    error = run(*extract(videos, tmp_path / "t.zarr", "--reuse", tmp_path / "s.zarr", *more, streams=streams), code=3)[
        "error"
    ]
    assert told in error
    assert not (tmp_path / "t.zarr").exists()


def test_a_retry_of_a_stream_that_came_later_mends_both(videos: Path, tmp_path: Path) -> None:
    whole, store = tmp_path / "whole.zarr", tmp_path / "s.zarr"
    run(*extract(videos, whole, streams="rgb,clip"))
    run(*extract(videos, store))
    held = break_some(videos)
    run(*extract(videos, store, streams="clip"), code=1)
    mend(videos, held)
    mended = run(*extract(videos, store, "--retry", streams="rgb,clip"))
    assert (mended["retried"], mended["outcomes"]) == (3, {"ok": 10})
    assert content(store) == content(whole)
    assert np.array_equal(Store.open(store).index.length, np.full(10, 4))
    assert os.path.isdir(store)
