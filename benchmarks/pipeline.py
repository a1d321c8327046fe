"""Stage one end to end, three streams from one decoding pass: wall time, where it goes, and with OpenCV's flow.

One worker thread for the backbones and one decoding child for decoding and flow: two cores. The parts are timed on the
same clips in the same run, each alone on one core; both flow engines go through the same pipeline.

    python benchmarks/pipeline.py VIDEO ... [--rounds 1] [--clip-crop 112] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vidatt.extract.extractor import Extractor, StreamSetup
from vidatt.extract.sampling import Sampler
from vidatt.extract.segments import Message, ShardJob, VideoJob, read_segments
from vidatt.extract.streams import StreamConfig
from vidatt.extract.video import VideoReader
from vidatt.extract.windows import Chunk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--segments", type=int, default=25)
    parser.add_argument("--clip-crop", type=int, default=112, help="side of the C3D clips: 112 or 224")
    parser.add_argument("--engines", default="numba,opencv")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    clip_layer = "pool5" if given.clip_crop == 224 else "conv5b"
    setups = {
        engine: [
            StreamConfig(name="rgb", backbone="vgg16", weights="random").setup("cpu"),
            StreamConfig(name="flow", backbone="vgg16", weights="random", flow_engine=engine).setup("cpu"),
            StreamConfig(
                name="clip", backbone="c3d", layer=clip_layer, weights="random", crop_px=given.clip_crop
            ).setup("cpu"),
        ]
        for engine in given.engines.split(",")
    }
    T, videos = given.segments, given.videos
    jobs = tuple(
        VideoJob(id=path.name, path=path, sampler=Sampler.parse(f"uniform:{T}"), window_frames=16, segments=T)
        for path in videos
    )
    first = next(iter(setups.values()))
    parts = _parts(first, jobs)
    wall = {engine: _whole(streams, jobs, T) for engine, streams in setups.items()}
    reference = wall.get("opencv")
    result: dict[str, Any] = {
        "videos": len(videos),
        "segments": T,
        "seconds_per_clip_alone": parts,
        "seconds_per_clip": wall,
        "times_faster_than_opencv_flow": reference / next(iter(wall.values())) if reference else None,
    }
    if given.json:
        print(json.dumps(result))
        return
    total = sum(parts.values())
    print(f"{len(videos)} clips, {T} segments; each part alone on one core, seconds per clip:")
    for name, seconds in parts.items():
        print(f"  {name:<22} {seconds:8.3f}  {seconds / total:6.1%}")
    print(f"  {'sum':<22} {total:8.3f}")
    print("the whole pipeline on two cores, seconds per clip:")
    for engine, seconds in wall.items():
        versus = f"  {reference / seconds:5.2f} x OpenCV's" if reference else ""
        print(f"  flow by {engine:<14} {seconds:8.3f}{versus}")


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _parts(setups: list[StreamSetup], jobs: tuple[VideoJob, ...]) -> dict[str, float]:
    """Seconds per clip of each part, alone."""

    def decode() -> None:
        for job in jobs:
            with VideoReader(job.path) as reader:
                for frame in reader.frames():
                    frame.rgb()

    messages: dict[str, list[Message]] = {s.name: [] for s in setups}

    def collect(stream: StreamSetup) -> None:
        messages[stream.name].clear()
        for job in jobs:
            read_segments(job, (stream.input,), messages[stream.name].append)

    for stream in setups:
        collect(stream)  # compiles the flow, warms the page cache
    decoding = _timed(decode)
    found = {"decode to RGB": decoding}
    found["resize, crop (rgb)"] = max(0.0, _timed(lambda: collect(setups[0])) - decoding)
    found["TV-L1 and gray (flow)"] = max(0.0, _timed(lambda: collect(setups[1])) - decoding)
    found["resize, crop (clip)"] = max(0.0, _timed(lambda: collect(setups[2])) - decoding)
    for stream in setups:
        chunks = [m for m in messages[stream.name] if isinstance(m, Chunk)]
        inputs = torch.cat([torch.from_numpy(c.inputs[:, 0]) for c in chunks])

        def run(stream: StreamSetup = stream, inputs: torch.Tensor = inputs) -> None:
            with torch.inference_mode():
                for batch in inputs.split(max(1, 8 // stream.input.kind.batch_weight)):
                    stream.backbone(batch)

        found[f"{stream.recipe['backbone']} ({stream.name})"] = _timed(run)
    return {name: seconds / len(jobs) for name, seconds in found.items()}


def _whole(setups: list[StreamSetup], jobs: tuple[VideoJob, ...], T: int) -> float:
    shard = ShardJob(0, T * len(jobs), jobs, tuple(range(0, T * len(jobs), T)))
    with Extractor(setups) as extractor:
        warm = ShardJob(0, T, jobs[:1], (0,))
        list(extractor.run([warm]))
        return _timed(lambda: list(extractor.run([shard]))) / len(jobs)


if __name__ == "__main__":
    main()
