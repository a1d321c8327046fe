"""Peak memory of `vidatt extract` on one long video: all three streams, every process of the tree counted.

    python benchmarks/memory.py [--seconds 180] [--width 1280 --height 720] [--sampler uniform:25] [--video FILE]

Without --video a moving texture is encoded to h264 first. Memory is the proportional set size (pages shared between
processes are counted once), summed over the process tree, sampled twenty times a second; Linux only.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--sampler", default="uniform:25")
    parser.add_argument("--recipe", default="stan")
    parser.add_argument("--video", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        videos.mkdir()
        if given.video:
            shutil.copy(given.video, videos / given.video.name)
        else:
            encode(videos / "long.mp4", given.seconds, given.width, given.height)
        command = [sys.executable, "-m", "vidatt", "extract", "--dataset", "folder", "--option", "unlabelled=true",
                   "--videos", str(videos), "--store", f"{folder}/s.zarr", "--recipe", given.recipe,
                   "--weights", "random", "--sampler", given.sampler, "--workers", "1"]  # fmt: skip
        begun = time.perf_counter()
        peak = 0
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                peak = max(peak, tree_bytes(process.pid))
                time.sleep(0.05)
        seconds = time.perf_counter() - begun
        print(f"peak {peak / 1e9:.2f} GB over all processes, {seconds:.0f} s, exit {process.returncode}")


def encode(path: Path, seconds: int, width: int, height: int) -> None:
    """Write a textured video with a slow pan."""
    random = np.random.default_rng(0)
    texture = cv2.GaussianBlur(random.integers(0, 256, (height + 400, width + 400, 3), dtype=np.uint8), (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "30"}
        for i in range(seconds * 25):
            x, y = int(200 + 190 * np.sin(i / 40)), int(200 + 190 * np.cos(i / 55))
            picture = np.ascontiguousarray(texture[y : y + height, x : x + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def tree_bytes(root: int) -> int:
    """Return the proportional set size of a process and its descendants."""
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended between two looks
        total += sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


if __name__ == "__main__":
    main()
