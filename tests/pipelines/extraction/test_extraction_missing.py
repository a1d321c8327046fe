"""Videos that are not there cost nothing: no bytes, and `--dry-run` says so before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from testkit.commands import vidatt

from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of 400 videos, two of which are there."""
    folder = tmp_path_factory.mktemp("listed")
    generate(folder / "made", videos=12, shapes=2, motions=2, frames=20, n_jobs=1)
    (folder / "videos").mkdir()
    names = []
    for number, path in enumerate(sorted((folder / "made").rglob("*.mp4"))[:2]):
        names.append(f"there{number}.mp4")
        shutil.copy(path, folder / "videos" / names[-1])
    names += [f"gone/{number:04}.mp4" for number in range(398)]
    (folder / "list.csv").write_text("path,label\n" + "".join(f"{name},x\n" for name in names))
    return folder


@pytest.mark.parametrize("sampler", ["uniform:5", "every:4"])
def test_a_catalogue_of_missing_videos_takes_no_space(listed: Path, tmp_path: Path, sampler: str) -> None:
    store = tmp_path / "s.zarr"
    command = ["extract", "--dataset", "list", "--annotations", listed / "list.csv", "--videos", listed / "videos",
               "--store", store, "--streams", "rgb", "--backbone", "hog", "--sampler", sampler, "--json"]  # fmt: skip
    planned = vidatt(*command, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    told = json.loads(planned.stdout)
    done = vidatt(*command)
    assert done.returncode == 1, done.stderr  # for videos are missing
    assert json.loads(done.stdout)["outcomes"] == {"missing": 398, "ok": 2}
    stream = Store.open(store).stream("rgb")
    rows = [(stream.video(f"there{n}.mp4").cubes, stream.video(f"there{n}.mp4").valid) for n in (0, 1)]
    assert all(valid.all() and cubes.any() for cubes, valid in rows)
    gone = stream.video("gone/0007.mp4")
    assert not gone.valid.any()
    assert not gone.cubes.any()
    assert np.isnan(gone.seconds).all()
    assert stream.outcome(stream.store.index.position("gone/0007.mp4")).detail == "no such file"

    shards = list(store.glob("rgb/*/c.*"))
    assert len(shards) <= 6
    assert told["files"] == len(shards) + stream.store.shard_count
    content = sum(len(cubes) for cubes, _ in rows) * (7 * 7 * 36 * 2 + 12 + 8)
    size = sum(path.stat().st_size for path in shards)
    assert content <= size < 1.3 * content + 6 * 16 * 200  # the rest are checksums and the shards' own indices
    assert content <= told["streams"]["rgb"]["bytes"] <= 1.5 * content
    checked = vidatt("cache", "verify", store)
    assert checked.returncode == 0, checked.stdout
