"""`vidatt cache verify`: every kind of damage of every kind of file is found, named, and nothing else is."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from testkit.commands import vidatt
from testkit.stores import filled_store

from vidatt.cache.layout import plan_layout
from vidatt.cache.ledger import VideoOutcome
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_index
from vidatt.errors import CorruptStoreError, UsageError, VidattError
from vidatt.extract.datasets.generator import generate
from vidatt.extract.sampling import Sampler
from vidatt.pipelines.stores.status import store_status
from vidatt.pipelines.stores.verify import verify_store

MIXED = [7, 1, 0, 12, 40, 3, 3, 3, 90, 8, 2, 2]
CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "garbage": lambda content: random.Random(3).randbytes(len(content)),
    "deleted": lambda content: None,
    "first bit": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "some bit": lambda content: _flipped(content, 1),
    "another bit": lambda content: _flipped(content, 2),
}


def _flipped(content: bytes, seed: int) -> bytes:
    at = random.Random(seed + len(content)).randrange(len(content))
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def link_tree(source: Path, target: Path) -> Path:
    """A copy whose files are links, so that it costs nothing; `put` replaces one."""
    shutil.copytree(source, target, copy_function=os.link)
    return target


def put(path: Path, content: bytes | None) -> None:
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def everything(path: Path) -> dict[str, Any]:
    """All that a user can read from a store."""
    store = Store.open(path)
    told: dict[str, Any] = {"index": store.index.content_digest(), "attributes": store.attributes}
    for name in store.stream_names:
        stream = store.stream(name)
        told[f"{name} outcomes"] = stream.outcomes()
        told[f"{name} usable"] = store.usable([name]).tolist()
        for video in range(len(store.index)):
            for view in range(store.views):
                read = stream.video(video, view=view)
                told[f"{name} {video} {view}"] = (read.cubes.tobytes(), read.frames.tobytes(), read.seconds.tobytes())
    return told


def found(path: Path) -> str:
    """What verify says is wrong; empty = nothing."""
    try:
        return "; ".join(bad.reason for bad in verify_store(path).bad)
    except VidattError as error:
        return str(error)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that a real extraction made: videos that are whole, broken and missing."""
    folder = tmp_path_factory.mktemp("extracted")
    generate(folder / "videos", videos=12, shapes=2, motions=2, frames=20, n_jobs=1)
    videos = sorted((folder / "videos").rglob("*.mp4"))
    videos[0].unlink()
    videos[1].write_bytes(videos[1].read_bytes()[:2000])
    options = ["--streams", "rgb", "--backbone", "hog", "--sampler", "centre:3", "--shard-videos", "4"]
    where = ("--videos", folder / "videos", "--store", folder / "s.zarr")
    done = vidatt("extract", "--dataset", "actionshapes", *where, *options)
    assert done.returncode == 1, done.stderr  # for two videos are not whole
    assert str(folder) not in json.dumps([o.to_dict() for o in Store.open(folder / "s.zarr").stream("rgb").outcomes()])
    return folder / "s.zarr"


@pytest.mark.slow
@pytest.mark.long
def test_every_damage_of_every_file_is_found_and_nothing_is_read_wrongly(extracted, tmp_path):
    truth, wrong, files = everything(extracted), [], sorted(p for p in extracted.rglob("*") if p.is_file())
    assert found(extracted) == ""
    assert len(files) > 40
    for number, file in enumerate(files):
        name = file.relative_to(extracted)
        for kind, change in CHANGES.items():
            store = link_tree(extracted, tmp_path / f"{number}-{kind}")
            put(store / name, change(file.read_bytes()))
            told = found(store)
            try:
                same: bool | None = everything(store) == truth
            except VidattError as error:
                same = False if "\n" in str(error) else None
            # Of Zarr's own metadata some keys say nothing about ours: damage there may change nothing at all.
            if same is False or not (told or (same and name.name == "zarr.json")):
                wrong.append((str(name), kind, told, same))
            shutil.rmtree(store)
    assert not wrong


@pytest.mark.slow
@pytest.mark.long
def test_files_in_the_place_of_others_are_found_and_not_read(extracted, tmp_path):
    truth = everything(extracted)
    files = sorted(p for p in (extracted / "rgb").rglob("*") if p.is_file())
    pairs = [(a, b) for a in files for b in files if a.parent == b.parent and a.read_bytes() != b.read_bytes()]
    pairs = [(a, b) for a, b in pairs if "zarr.json" not in (a.name, b.name)]
    assert len(pairs) > 12
    for number, (a, b) in enumerate(pairs):
        store = link_tree(extracted, tmp_path / str(number))
        put(store / a.relative_to(extracted), b.read_bytes())
        assert found(store), f"{a} replaced by {b}"
        try:
            assert everything(store) == truth
        except CorruptStoreError as error:
            assert "vidatt cache repair" in str(error)  # noqa: PT017
        shutil.rmtree(store)


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("length", [[3] * 9, MIXED], ids=["trimmed", "untrimmed"])
def test_what_is_whole_is_good(tmp_path, length, views):
    cubes = {"rgb": (2, 2, 4), "flow": (1, 1, 4)}
    store = filled_store(tmp_path / "s.zarr", length, cubes, views=views, videos_per_shard=4)
    result = verify_store(store.path)
    assert result.bad == ()
    assert result.command is None
    files = [p for p in store.path.glob("*/*/c.*") if p.parent.parent.name != "index"]
    assert result.bytes == sum(p.stat().st_size for p in files)
    assert [s.shards_done for s in result.streams.values()] == [store.shard_count] * 2
    (store.path / "rgb" / ".done" / "0.json").unlink()
    for path in store.path.glob("rgb/*/c.0*"):
        path.unlink()
    assert verify_store(store.path).bad == ()  # a shard that is not done is no damage
    assert verify_store(store.path).streams["rgb"].shards_done == store.shard_count - 1


@pytest.mark.slow
@pytest.mark.long
def test_damage_is_named_by_shard_file_and_video(tmp_path):
    store = filled_store(tmp_path / "s.zarr", [3] * 12, {"rgb": (2, 2, 4)}, videos_per_shard=4)
    path = store.path / "rgb" / "cubes" / "c.1.0.0.0"
    content = bytearray(path.read_bytes())
    content[2 * (3 * 32 + 4) + 5] ^= 1  # in the third chunk, of the third video
    path.write_bytes(content)
    (store.path / "rgb" / ".done" / "2.json").unlink()
    (bad, lost) = sorted(verify_store(store.path).bad, key=lambda b: b.shard or 0)
    assert (bad.stream, bad.shard, bad.files, bad.videos) == ("rgb", 1, ("rgb/cubes/c.1.0.0.0",), ("v0006.avi",))
    assert "Chunk 2 of" in bad.reason
    assert lost.shard == 2
    assert "the commit marker of files that are there, is gone" in lost.reason
    assert lost.videos == tuple(store.index.ids[8:].tolist())
    done = vidatt("cache", "verify", store.path)
    assert done.returncode == 1
    assert "rgb shard 1: Chunk 2 of" in done.stdout
    assert "videos v0006.avi" in done.stdout
    assert done.stdout.endswith(f"mend it with `vidatt cache repair {store.path}`\n")
    told = json.loads(vidatt("cache", "verify", store.path, "--json", "--streams", "rgb").stdout)
    assert {b["shard"] for b in told["bad"]} == {1, 2}
    assert told["command"] == f"vidatt cache repair {store.path}"
    with pytest.raises(UsageError, match="no stream 'flow'; it has rgb"):
        verify_store(store.path, ["flow"])


def test_a_damaged_stream_does_not_hide_the_others(tmp_path):
    store = filled_store(tmp_path / "s.zarr", [3] * 8, {"rgb": (2, 2, 4), "flow": (2, 2, 4)}, videos_per_shard=4)
    shutil.rmtree(store.path / "rgb" / ".done")
    (store.path / "flow" / "seconds" / "c.1").write_bytes(b"x")
    result = verify_store(store.path)
    assert [(b.stream, b.shard) for b in result.bad] == [("rgb", None), ("flow", 1)]
    assert "the folder of the commit markers, is gone" in result.bad[0].reason


@pytest.mark.slow
def test_files_that_no_marker_tells_of_are_found(tmp_path):
    store = filled_store(tmp_path / "s.zarr", [1, 2] * 6, {"rgb": (1, 1, 4)}, videos_per_shard=1)
    assert store.stream("rgb").marker(10)["files"] == {}  # the video is missing
    shutil.copy(store.path / "rgb" / "cubes" / "c.9.0.0.0", store.path / "rgb" / "cubes" / "c.10.0.0.0")
    (bad,) = verify_store(store.path).bad
    assert bad.shard == 10
    assert "its commit marker tells of no such file" in bad.reason


def test_swaps_in_a_store_of_an_earlier_version_are_found(tmp_path):
    """Its markers know no chunks, so reading alone cannot know; their SHA-256 does."""
    store = filled_store(tmp_path / "s.zarr", [3] * 8, {"rgb": (2, 2, 4)}, videos_per_shard=4)
    for path in store.path.glob("rgb/.done/*.json"):
        marker = json.loads(path.read_bytes())
        for key in ("stream", "fingerprint", "plan", "seal"):
            del marker[key]
        for told in marker["files"].values():
            told.pop("chunks", None)
        path.write_text(json.dumps(marker))
    assert verify_store(store.path).bad == ()
    a, b = (store.path / "rgb" / "cubes" / f"c.{shard}.0.0.0" for shard in (0, 1))
    content = a.read_bytes(), b.read_bytes()
    assert len(content[0]) == len(content[1])
    a.write_bytes(content[1])
    assert [bad.shard for bad in verify_store(store.path).bad] == [0]
    a.write_bytes(content[0])
    edit = store.path / "rgb" / ".done" / "0.json"
    edit.write_text(edit.read_text().replace('"segments": 3', '"segments": 2', 1))
    assert "its rows have other segments than the 2" in found(store.path)


@pytest.mark.slow
@pytest.mark.long
def test_a_store_of_0_1_0_is_good_and_its_damage_is_found(tmp_path):
    with zipfile.ZipFile(Path(__file__).parents[1] / "runs" / "made_by_0_1_0.zip") as archive:
        archive.extractall(tmp_path, [name for name in archive.namelist() if name.startswith("shapes.zarr/")])
    store = Store.open(tmp_path / "shapes.zarr")
    assert "layout_digest" not in store.attributes
    assert verify_store(store.path).bad == ()
    assert store_status(store.path).complete
    path = store.path / "rgb" / "frames" / "c.3.0"
    path.write_bytes((store.path / "rgb" / "frames" / "c.4.0").read_bytes()[:-1] + b"x")
    assert [(bad.stream, bad.shard) for bad in verify_store(store.path).bad] == [("rgb", 3)]


PLAN = {"dataset": "x", "sampler": "uniform:4", "window_frames": 2, "view_rule": "center", "seed": 0, "shard_videos": 2}


def planned(path: Path, change: Callable[[dict[str, Any]], object], **plan: Any) -> Store:
    """A store of two videos of four segments as an extraction makes it, but for what `change` does to its rows."""
    index = synthetic_index([4, 4])
    layout = plan_layout(index.length, 1, 2)
    store = Store.create(path, index=index, views=1, layout=layout, attributes={**PLAN, **plan})
    stream = store.add_stream("rgb", cube_shape=(1, 1, 2), recipe={"window_frames": 3})
    asked = plan.get("sampler", "")
    rule = asked if asked.startswith("random") else PLAN["sampler"]  # the others are wrong on purpose
    sampler = Sampler.parse(rule, seed=store.plan.seed)
    first = np.concatenate([sampler.first_frames(50, 25.0, window=2, video=str(id)) for id in index.ids])
    frames = np.stack([first, np.minimum(first + 1, 49), np.minimum(first + 3, 50)], axis=1)
    content: dict[str, Any] = {
        "cubes": np.ones((8, 1, 1, 2), np.float16),
        "frames": frames.astype(np.int32),
        "seconds": frames[:, 1] / 25,
        "outcomes": [
            VideoOutcome(id=str(id), outcome="ok", decoded_frames=50, header_frames=50, fps=25.0, segments=4)
            for id in index.ids
        ],
    }
    change(content)
    stream.publish(0, **content)
    return store


def _lose_the_second(content: dict[str, Any]) -> None:
    content["cubes"][4:], content["frames"][4:], content["seconds"][4:] = 0, -1, np.nan
    content["outcomes"][1] = VideoOutcome(id=content["outcomes"][1].id, outcome="missing")


def _told(content: dict[str, Any], **other: Any) -> None:
    content["outcomes"][0] = replace(content["outcomes"][0], **other)


def _gap(content: dict[str, Any]) -> None:
    content["frames"][1], content["cubes"][1], content["outcomes"][0] = (
        -1,
        0,
        replace(content["outcomes"][0], segments=3),
    )


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda c: None, _lose_the_second], ids=["whole", "one missing"])
def test_the_time_map_of_an_extraction_is_good(tmp_path, change):
    assert found(planned(tmp_path / "s.zarr", change).path) == ""


@pytest.mark.slow
def test_segments_that_were_drawn_are_those_of_the_store_s_seed_and_the_video(tmp_path):
    drawn = {"sampler": "random:2:2", "seed": 7}
    assert found(planned(tmp_path / "s.zarr", lambda c: None, **drawn).path) == ""
    moved = planned(tmp_path / "moved.zarr", lambda c: c["frames"].__setitem__(3, c["frames"][3] - 1), **drawn)
    assert "not stand where random:2:2 places them" in found(moved.path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["frames"].__setitem__((1, slice(None)), [17, 18, 20]), "not stand where uniform:4 places them"),
        (lambda c: c["frames"].__setitem__((1, 1), 16), "segments are not the 3 frames of its recipe"),
        (lambda c: c["frames"].__setitem__((3, 2), 51), "frames behind the 50 that were decoded"),
        (lambda c: c["frames"].__setitem__((1, 2), 30), "span more than the 3 frames"),
        (lambda c: c["frames"].__setitem__((1, 1), 40), "first <= centre < stop"),
        (lambda c: c["seconds"].__setitem__(2, 0.5), "times do not follow its frames"),
        (lambda c: c["seconds"].__setitem__(2, np.nan), "times of some of its segments are unknown"),
        (lambda c: c["seconds"].__setitem__(0, -1), "times do not follow its frames"),
        (_gap, "other segments than the 3"),
        (lambda c: _told(c, outcome="missing"), "outcome is missing, with 4"),
        (lambda c: _told(c, decoded_frames=40), "frames behind the 40"),
        (lambda c: _told(c, decoded_frames=60), "places them in 60"),
        (lambda c: (_lose_the_second(c), c["cubes"].__setitem__(5, 1)), "values in rows of padding"),
        (lambda c: (_lose_the_second(c), c["frames"].__setitem__((5, 2), 7)), "its padding has frames"),
    ],
)  # fmt: skip
def test_a_time_map_that_cannot_be_is_found(tmp_path, change, words):
    """The rows are sealed as they are: whoever wrote them was wrong."""
    store = planned(tmp_path / "s.zarr", change)
    (bad,) = verify_store(store.path).bad
    assert words in bad.reason
    assert bad.videos in (("v0000.avi",), ("v0001.avi",))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "words"),
    [({"sampler": "uniform:5"}, "uniform:5 do not give"), ({"view_rule": "10crop"}, "states 1 views"),
     ({"sampler": "often"}, "Unknown sampler"), ({"view_rule": "all"}, "views")],
)  # fmt: skip
def test_a_root_that_contradicts_itself_is_refused(tmp_path, plan, words):
    store = planned(tmp_path / "s.zarr", lambda c: None, **plan)
    with pytest.raises(CorruptStoreError, match=words):
        verify_store(store.path)
