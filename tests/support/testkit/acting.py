"""A store on which an action is planted in some segments and one cell of each video, fits on it, and commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.ledger import VideoOutcome
from vidatt.cache.store import Store
from vidatt.cli.main import main
from vidatt.extract.datasets.catalogue import AMBIGUOUS
from vidatt.pipelines.fitting.fit import FitConfig, fit

CLASSES, T, K, D = ("Jump", "Run", "Sit"), 12, 5, 8
FPS, STRIDE, WIDTH, HEIGHT, CROP = 10.0, 5, 64, 48, 40
LEFT, TOP = (WIDTH - CROP) // 2, (HEIGHT - CROP) // 2
UNCLEAR = [0.0, 0.6]  # seconds in which nothing is judged
QUICK = {
    "conv6": "24", "kernel": "1", "lstm": "8", "dropout": "0.2", "steps": "120", "validate_every": "60", "lr": "0.005",
}  # fmt: skip


def active(video: int) -> range:
    """The segments in which the action happens."""
    return range(2 + video % 5, 6 + video % 5)


def interval(video: int) -> list[float]:
    """Start and stop of the action, seconds."""
    return [active(video)[0] * STRIDE / FPS, (active(video)[-1] + 1) * STRIDE / FPS]


def cell(video: int) -> tuple[int, int]:
    """Row and column of the cell in which it happens."""
    return divmod(7 * video % (K * K), K)


def box(video: int) -> list[float]:
    """The cell of a video in pixels of the frame."""
    y, x = cell(video)
    side = CROP / K
    return [LEFT + x * side, TOP + y * side, LEFT + (x + 1) * side, TOP + (y + 1) * side]


def acting_store(
    path: Path,
    *,
    videos: int = 60,
    truth: bool = True,
    crops: dict[str, int] | None = None,
    fps: float = FPS,
    split: int = 0,
    views: str = "center",
    broken: int | None = None,
    stride: int = STRIDE,
    several: Sequence[int] = (),
    classes: tuple[str, str, str] = CLASSES,
    split_name: str = "1",
    dataset: str = "planted",
) -> Store:
    """A marked cell with the code of the class in some segments, noise elsewhere; every third video is tested.

    Parameters
    ----------
    stride : frames from segment to segment
    several : videos that have a second label
    """
    crops = crops or {"rgb": CROP}
    generator = np.random.default_rng(0)
    codes = 6 * np.eye(D)[1 : 1 + len(CLASSES)]
    length = np.full(videos, T)
    seen = [(v, t) for v in range(videos) for t in active(v)] if truth else []
    spans = [(v, interval(v), v // 3 % len(CLASSES)) for v in range(videos)] if truth else []
    spans += [(v, UNCLEAR, AMBIGUOUS) for v in range(videos)] if truth else []
    labels = np.stack([np.arange(videos) // 3 % len(CLASSES), np.full(videos, -1)], axis=1)
    labels[list(several), 1] = (labels[list(several), 0] + 1) % len(CLASSES)
    index = Index(
        ids=np.array([f"v{i:03}" for i in range(videos)]),
        paths=np.array([f"v{i:03}.avi" for i in range(videos)]),
        groups=np.array([f"g{i}" for i in range(videos)]),
        labels=labels,
        multi_label=bool(len(several)),
        classes=classes,
        splits={split_name: np.where(np.arange(videos) % 3 == split, 2, 1)},
        length=length,
        interval_video=np.array([v for v, *_ in spans], int),
        interval_seconds=np.array([seconds for _, seconds, _ in spans]).reshape(-1, 2),
        interval_label=np.array([label for *_, label in spans], int),
        box_video=np.array([v for v, _ in seen], int),
        box_frame=np.array([STRIDE * t + 2 for _, t in seen], int),
        box_xyxy=np.array([np.array(box(v)) / [WIDTH, HEIGHT, WIDTH, HEIGHT] for v, _ in seen]).reshape(-1, 4),
        box_label=np.array([v // 3 % len(CLASSES) for v, _ in seen], int),
    )
    count = 10 if views == "10crop" else 1
    attributes = {"dataset": dataset, "view_rule": views}
    store = Store.create(path, index=index, views=count, layout=plan_layout(length, count, 64), attributes=attributes)
    for name, crop in crops.items():
        recipe = {"stream": name, "resize": f"short:{HEIGHT}", "crop_px": crop}
        stream = store.add_stream(name, cube_shape=(K, K, D), recipe=recipe)
        for shard in range(store.shard_count):
            start, stop = store.shard_row_range(shard)
            cubes = (0.3 * generator.standard_normal((stop - start, K, K, D))).astype(np.float16)
            frames, outcomes = np.full((stop - start, 3), -1, np.int32), []
            for v in store.shard_videos(shard):
                first = int(store.index.offset[v]) - start
                for view in range(count):
                    row = first + view * T
                    frames[row : row + T] = stride * np.arange(T)[:, None] + [0, 2, 5]
                    if v == broken:
                        cubes[row] = np.nan
                    for t in active(v):
                        cubes[(row + t, *cell(v))] += codes[int(store.index.labels[v, 0])] + 4 * np.eye(D)[0]
                outcomes.append(
                    VideoOutcome(
                        id=str(store.index.ids[v]), outcome="ok", segments=T, fps=fps, width=WIDTH, height=HEIGHT,
                        decoded_frames=stride * T + 3,
                    )
                )  # fmt: skip
            seconds = np.where(frames[:, 1] >= 0, frames[:, 1] / FPS, 0.0)
            stream.publish(shard, cubes=cubes, frames=frames, seconds=seconds, outcomes=outcomes)
    return store


def fitted(store: Path, out: Path, head: str = "stan", **settings: str) -> Path:
    chosen = QUICK if head == "stan" else {"steps": "4", "validate_every": "2"}
    fit(FitConfig(head=head, store=store, out=out, preset="small", settings=chosen | settings, device="cpu"))
    return out


def command(name: str, run: Path, *more: str | Path, code: int = 0) -> dict[str, Any]:
    """Run a command; return its JSON object, or its error."""
    arguments = [name, str(run), *map(str, more), "--device", "cpu", "--json", "-qq"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else {"error": done.stderr}
