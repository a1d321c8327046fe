"""Writes the generated data set `actionshapes`: real encoded videos and their truth."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import av
from joblib import Parallel, delayed

from ...errors import RefusedError, UsageError
from .actionshapes import FORMAT_VERSION, TRUTH_FILE, catalogue_of, read_truth
from .catalogue import Catalogue
from .scenes import make_scene
from .shapes import ShapesOptions

_AVI_EVERY = 4  # of each class, every fourth video is an AVI file

# Without mbtree=0 one thread is not enough: with B-frames, x264's (core 165) assembly of the macroblock tree gave up to
# six different files in twelve encodings of the same frames; without it (or without assembly) always the same one.
_X264 = {"flags": "+bitexact", "preset": "veryfast", "crf": "18", "x264-params": "mbtree=0"}

_MPEG4 = {"flags": "+bitexact+qscale", "global_quality": str(3 * 118)}  # FF_QP2LAMBDA


def generate(
    folder: Path,
    *,
    variant: str = "trimmed",
    videos: int = 120,
    shapes: int = 3,
    motions: int = 2,
    seed: int = 0,
    frames: int | None = None,
    width: int = 160,
    height: int = 120,
    fps: int = 15,
    n_jobs: int = 2,
) -> Catalogue:
    """Make the videos of `actionshapes` below `folder`, or reuse them if they are there with the same options.

    Every video depends on the seed and its own number only: the files are the same bytes whatever `n_jobs` is, and
    whatever was there before a kill. A rerun writes only the files that are missing.

    Parameters
    ----------
    folder : created if needed; refused if it holds anything else
    variant : "trimmed" (the object is there in 60-100 % of the frames) or "untrimmed" (15-35 %)
    videos : number of files, spread evenly over the classes; two thirds train, one third test
    shapes, motions : how many of each; a class is a pair
    frames : per video; None = 45 trimmed, 150 untrimmed
    width, height : pixels, even
    fps : frames per second, constant
    n_jobs : processes; -1 = all cores

    Returns
    -------
    The catalogue with a box per visible frame, an interval per video, and the split "1"

    Raises
    ------
    UsageError
        For options out of range, or a damaged annotations.json.
    RefusedError
        If the folder holds videos made with other options, or foreign files.
    """
    options = ShapesOptions(
        variant=variant, videos=videos, shapes=shapes, motions=motions, seed=seed, frames=frames, width=width,
        height=height, fps=fps,
    )  # fmt: skip
    if n_jobs != -1 and n_jobs < 1:
        raise UsageError(f"actionshapes: n_jobs must be 1 or more, or -1 for all cores, not {n_jobs}.")
    paths = [_video_path(options, index) for index in range(options.videos)]
    truth, wanted = _what_is_there(folder, options, paths)
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    made = Parallel(n_jobs=min(n_jobs, max(len(wanted), 1)))(
        delayed(_write_video)(folder / paths[index], paths[index], options, index) for index in wanted
    )
    if not truth:
        truth = _truth_of(options, made)
        _write_last(folder / TRUTH_FILE, json.dumps(truth, indent=None, separators=(",", ":")))
    return catalogue_of(truth, folder / TRUTH_FILE)


def _truth_of(options: ShapesOptions, made: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": "actionshapes",
        "version": FORMAT_VERSION,
        "options": options.to_dict(),
        "classes": options.classes,
        "videos": made,
    }


def _what_is_there(folder: Path, options: ShapesOptions, paths: list[str]) -> tuple[dict[str, Any], list[int]]:
    """Return the truth, empty without one, and the videos to make; refuse a folder that is not ours."""
    truth_path = folder / TRUTH_FILE
    if truth_path.is_file():
        truth = read_truth(truth_path)
        _refuse_other_options(folder, truth.get("options", {}), options.to_dict())
        return truth, [index for index, path in enumerate(paths) if not (folder / path).is_file()]
    _refuse_foreign_files(folder, paths)
    return {}, list(range(options.videos))  # what is there may come from a killed run with other options


def _video_path(options: ShapesOptions, index: int) -> str:
    turn, label = divmod(index, len(options.classes))
    # Counted within each class and shifted by it: neither the class nor the split can be told from the container.
    suffix = "avi" if (turn + label) % _AVI_EVERY == _AVI_EVERY - 1 else "mp4"
    return f"{options.classes[label]}/{index:05d}.{suffix}"


def _refuse_other_options(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = [
        f"{name} {found.get(name)!r} (asked for {wanted[name]!r})" for name in wanted if found.get(name) != wanted[name]
    ]
    if differing:
        raise RefusedError(
            f"{folder} holds actionshapes videos made with other options: {', '.join(differing)}; "
            "name another folder, or delete this one."
        )


def _refuse_foreign_files(folder: Path, paths: list[str]) -> None:
    """Refuse a folder with anything but what a killed run with these options may have left."""
    if folder.exists() and not folder.is_dir():
        raise RefusedError(f"{folder} is a file; name a folder for the generated videos.")
    ours = {folder / path for path in paths} | {_part(folder / path) for path in (*paths, TRUTH_FILE)}
    foreign = next((path for path in sorted(folder.rglob("*")) if not path.is_dir() and path not in ours), None)
    if foreign is not None:
        raise RefusedError(f"{folder} holds other files, such as {foreign}; name a new or empty folder.")


def _part(path: Path) -> Path:
    """Return where a file is written before it is renamed; hidden, and with the suffix the muxer goes by."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


def _write_video(path: Path, name: str, options: ShapesOptions, index: int) -> dict[str, Any]:
    """Draw and encode one video; return its entry of the truth."""
    scene = make_scene(options, index)
    part = _part(path)
    # bitexact keeps library versions and dates out of the file; one thread keeps the encoder's decisions in order.
    with av.open(str(part), "w", options={"fflags": "+bitexact"}) as container:
        if path.suffix == ".avi":
            stream = container.add_stream("mpeg4", rate=options.fps, options=_MPEG4)
        else:
            stream = container.add_stream("libx264", rate=options.fps, options=_X264)
        stream.width, stream.height, stream.pix_fmt = options.width, options.height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in range(options.frame_count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene.render(frame), format="rgb24")))
        container.mux(stream.encode(None))
    os.replace(part, path)
    boxes = [scene.box(frame) for frame in range(scene.first, scene.stop)]
    turn = index // len(options.classes)
    return {
        "path": name,
        "label": scene.label,
        "split": "test" if turn % 3 == 2 else "train",
        "start": scene.first / options.fps,
        "stop": scene.stop / options.fps,
        "first_frame": scene.first,
        "boxes": [[round(corner, 5) for corner in box] for box in boxes if box is not None],
    }


def _write_last(path: Path, text: str) -> None:
    """Publish the truth when all videos stand: written beside, flushed to disk, renamed."""
    part = _part(path)
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
