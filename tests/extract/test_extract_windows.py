"""Flow segments: every distinct pair once, clamped at the end, in TSN's channel order, wherever it is computed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vidatt.extract.flow.engines import tvl1
from vidatt.extract.flow.levels import quantise
from vidatt.extract.kinds import FLOW
from vidatt.extract.views import Geometry, Views
from vidatt.extract.windows import Chunk, FlowCollector, FlowSettings, FrameStore, GrayChunk, StreamInput, collect_flow

GEOMETRY = Geometry(resize="none", crop_px=16)


def _stream(views: str = "center", engine: str = "numba") -> StreamInput:
    return StreamInput(
        name="flow", kind=FLOW, geometry=GEOMETRY, views=Views.parse(views), flow=FlowSettings(engine=engine)
    )


def _frames(count: int) -> list[FrameStore]:
    random = np.random.default_rng(0)
    return [FrameStore(random.integers(0, 256, (20, 24, 3), dtype=np.uint8), (24, 20)) for _ in range(count)]


class _Counting:
    """A flow whose value says which pair it is: x = first frame's number, y = second's, read off the frames."""

    def __init__(self, grays: list[np.ndarray]) -> None:
        self._grays = grays
        self.pairs: Counter[tuple[int, int]] = Counter()

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        fields = np.zeros((len(first), 2, *first.shape[1:]), np.float32)
        for field, one, two in zip(fields, first, second, strict=True):
            a, b = (next(i for i, g in enumerate(self._grays) if np.array_equal(g, f)) for f in (one, two))
            self.pairs[a, b] += 1
            field[0], field[1] = a / 10, b / 10
        return fields


@pytest.mark.parametrize(
    ("count", "firsts"),
    [
        pytest.param(30, [0, 3, 6, 15], id="overlapping"),
        pytest.param(30, [25, 29], id="clamped"),
        pytest.param(30, [0, 1, 2, 0, 1, 2], id="windows-that-step-back"),
        pytest.param(2, [0, 0, 1], id="two-frames"),
    ],
)
def test_each_pair_is_computed_once_and_stacked_in_order(count: int, firsts: list[int]) -> None:
    frames = _frames(count)
    flow = _Counting([f.get(GEOMETRY, gray=True) for f in frames])
    chunks: list[Chunk] = []
    flows = FlowCollector(_stream(), np.array(firsts), (0, count - 1), (0,), chunks.append, flow)
    for index, frame in enumerate(frames):
        if flows.wants(index):
            flows.add(index, frame)
    flows.flush()
    assert set(flow.pairs.values()) == {1}
    segments = np.concatenate([c.segments for c in chunks])
    assert sorted(segments.tolist()) == list(range(len(firsts)))
    inputs = np.concatenate([c.inputs for c in chunks])[np.argsort(segments)]
    assert inputs.shape == (len(firsts), 1, 16, 16, 20)
    for first, stack in zip(firsts, inputs[:, 0, 8, 8], strict=True):
        pairs = [min(first + j, count - 2) for j in range(10)]
        expected = quantise(np.array([v / 10 for p in pairs for v in (p, p + 1)], np.float32))
        assert stack.tolist() == expected.tolist()


def test_a_single_frame_has_no_motion() -> None:
    chunks: list[Chunk] = []
    flows = collect_flow(_stream(), np.array([0, 0]), (0, 0), (0,), chunks.append)
    flows.add(0, _frames(1)[0])
    flows.flush()
    assert (chunks[0].inputs == 128).all()


def test_flow_in_the_worker_is_fed_the_same_frames() -> None:
    frames, firsts = _frames(25), np.array([0, 4, 12])
    grays: list[GrayChunk] = []
    sender = collect_flow(_stream(engine="torch"), firsts, (0, 24), (0,), grays.append)
    for index, frame in enumerate(frames):
        if sender.wants(index):
            sender.add(index, frame)
    sender.flush()
    sent = np.concatenate([g.frames for g in grays]).tolist()
    assert sent == list(range(23))

    def compute(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return tvl1(first, second, engine="torch")

    got: list[Chunk] = []
    flows = FlowCollector(_stream(), firsts, (0, 24), (0,), got.append, compute)
    for g in grays:
        flows.add_grays(g.frames.tolist(), g.grays)
    flows.flush()
    direct = compute(
        np.stack([frames[i].get(GEOMETRY, gray=True) for i in range(4, 14)]),
        np.stack([frames[i].get(GEOMETRY, gray=True) for i in range(5, 15)]),
    )
    expected = quantise(direct)[:, :, 2:18, 4:20].transpose(2, 3, 0, 1).reshape(16, 16, 20)
    assert np.array_equal(np.concatenate([c.inputs for c in got])[1, 0], expected)


def test_frames_are_resized_once_for_streams_of_one_size() -> None:
    frame = FrameStore(np.zeros((240, 320, 3), np.uint8), (320, 240))
    geometry = Geometry(resize="short:256", crop_px=224)
    other = Geometry(resize="341x256", crop_px=112)
    assert frame.get(geometry, gray=False) is frame.get(other, gray=False)
    assert frame.get(geometry, gray=True).shape == (256, 341)
