"""Extraction rate over the bare backbone's rate, in one process and one thread.

The reference is the same frozen backbone on batches that lie ready in memory; the extraction decodes real files in its
child process, prepares, batches and collects. Rounds alternate, medians are compared.

    python benchmarks/extract.py --videos DIR [--backbone vgg16] [--segments 10] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from vidatt.extract.datasets.video_files import walk_videos
from vidatt.extract.extractor import Extractor
from vidatt.extract.sampling import Sampler
from vidatt.extract.segments import ShardJob, VideoJob
from vidatt.extract.streams import StreamConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--limit", type=int, default=16, help="videos")
    parser.add_argument("--segments", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    setup = StreamConfig(name="rgb", backbone=given.backbone, weights="random").setup(given.device)
    T = given.segments
    jobs = tuple(
        VideoJob(id=path, path=given.videos / path, sampler=Sampler.parse(f"centre:{T}"), window_frames=1, segments=T)
        for path in sorted(walk_videos(given.videos, allow_links_outside=True))[: given.limit]
    )
    shard = ShardJob(0, T * len(jobs), jobs, tuple(range(0, T * len(jobs), T)))
    frames = torch.randint(0, 256, (given.batch, *(setup.input.geometry.crop_px,) * 2, 3), dtype=torch.uint8)
    bare, whole = [], []
    with Extractor([setup], device=given.device, batch_segments=given.batch) as extractor:
        list(extractor.run([shard]))  # starts the decoder and warms the page cache and the backbone
        for _ in range(given.rounds):
            begun = time.perf_counter()
            done = 0
            while done < shard.rows:
                with torch.inference_mode():
                    setup.backbone(frames.to(given.device)).to(torch.float16).cpu()
                done += given.batch
            bare.append(done / (time.perf_counter() - begun))
            begun = time.perf_counter()
            list(extractor.run([shard]))
            whole.append(shard.rows / (time.perf_counter() - begun))
    result = {
        "backbone": setup.recipe["backbone"],
        "precision": setup.recipe["precision"],
        "videos": len(jobs),
        "bare_per_second": statistics.median(bare),
        "extract_per_second": statistics.median(whole),
        "ratio": statistics.median(w / b for w, b in zip(whole, bare, strict=True)),
    }
    if given.json:
        print(json.dumps(result))
    else:
        print(f"{result['backbone']}, {result['precision']}, {len(jobs)} videos x {T} segments, {given.device}")
        print(f"bare backbone {result['bare_per_second']:8.2f} segments/s")
        print(f"extraction    {result['extract_per_second']:8.2f} segments/s   ratio {result['ratio']:.3f}")


if __name__ == "__main__":
    main()
