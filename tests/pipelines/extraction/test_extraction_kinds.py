"""A new kind of stream is one entry: it goes through planning, workers, decoders and a backbone into a store."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vidatt.cache.store import Store
from vidatt.extract.datasets.generator import generate
from vidatt.extract.kinds import KINDS, register_kind
from vidatt.extract.streams import StreamConfig
from vidatt.extract.video import VideoReader
from vidatt.extract.views import CENTER
from vidatt.extract.windows import StreamKind
from vidatt.pipelines.extraction.config import ExtractConfig
from vidatt.pipelines.extraction.extract import extract


@pytest.fixture
def difference(monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamKind]:
    """The difference of neighbouring frames, registered from a module of its own."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    kind: StreamKind = importlib.import_module("difference_kind").DIFFERENCE
    register_kind(kind)
    yield kind
    del KINDS[kind.name]


@pytest.mark.slow
def test_a_registered_kind_is_extracted_beside_the_others(difference: StreamKind, tmp_path: Path) -> None:
    generate(tmp_path / "videos", videos=6, shapes=2, motions=1, frames=12, n_jobs=1)
    size = {"backbone": "hog", "resize": "short:56", "crop_px": 56}
    streams = (StreamConfig(name="difference", **size), StreamConfig(name="rgb", **size))
    summary = extract(
        ExtractConfig(
            dataset="actionshapes",
            videos=tmp_path / "videos",
            store=tmp_path / "s.zarr",
            streams=streams,
            sampler="every:4",
            device="cpu",
            workers=1,
        )
    )
    assert summary.outcomes == {"ok": 6}
    assert summary.streams["difference"].cube == (7, 7, 36)
    printed = json.loads(json.dumps(summary.to_dict()))
    assert list(printed)[:7] == ["store", "videos", "outcomes", "failed", "streams", "seconds", "given_up"]
    assert list(printed["streams"]["rgb"]) == ["fingerprint", "cube", "segments", "bytes"]

    store = Store.open(tmp_path / "s.zarr")
    assert store.plan.window_frames == 2
    stream = store.stream("difference")
    assert (stream.recipe["stream"], stream.recipe["window_frames"]) == ("difference", 2)
    setup = streams[0].setup("cpu")
    for position in range(2):
        with VideoReader(tmp_path / "videos" / str(store.index.paths[position])) as reader:
            pictures = np.stack([setup.input.geometry.resized(frame.rgb()) for frame in reader.frames()])
        frames = stream.reader().frames(position)
        assert frames.tolist() == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]
        pairs = [CENTER.cut(pictures[f : f + 2], setup.input.geometry, key=())[0] for f in frames[:, 0]]
        changes = np.stack([(b.astype(int) - a.astype(int) + 256) // 2 for a, b in pairs]).astype(np.uint8)
        assert (changes != 128).any()
        with torch.inference_mode():
            expected = setup.backbone(torch.from_numpy(changes)).numpy()
        assert np.allclose(stream.reader().read_video(position), expected, atol=2e-3)
