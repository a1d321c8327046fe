"""Attention drawn on the frames that the cubes were made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from ...cache.store import Store
from ...extract.video import VideoReader
from ..localisation.truth import BoxTruth
from ..runs.attention import VideoAttention

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

SEGMENTS = 8
DETAIL_PX = 224


def draw_attention(
    store: Store, stream: str, videos: Path, attentions: Sequence[VideoAttention], path: Path, *, title: str
) -> None:
    """Write a PNG with one row per video: frames, attention over them, truth boxes, and the segment weights.

    Parameters
    ----------
    videos : the video folder of the dataset
    attentions : of the videos to draw
    """
    classes = store.index.classes
    known = BoxTruth(store, stream)
    figure, axes = plt.subplots(
        len(attentions), SEGMENTS, figsize=(1.55 * SEGMENTS, 1.95 * len(attentions)), squeeze=False
    )
    for row, attention in zip(axes, attentions, strict=True):
        position = attention.position
        frames = known.frames(position)
        chosen = np.unique(np.linspace(0, len(attention.temporal) - 1, SEGMENTS).round().astype(int))
        boxes = {t.segment: t.box for t in known.segments(position)}
        path_of = videos / str(store.index.paths[position])
        pictures = crop_frames(path_of, known.region(position), frames[chosen], side_px=DETAIL_PX)
        truth = classes[int(store.index.labels[position, 0])]
        said = classes[int(attention.probabilities.argmax())]
        for axis, segment in zip(row, chosen, strict=False):
            picture = pictures[int(frames[segment])]
            axis.imshow(picture)
            if attention.spatial is not None:
                heat = attention.spatial[segment].mean(axis=0)
                smooth = cv2.resize(heat / heat.max(), (DETAIL_PX, DETAIL_PX), interpolation=cv2.INTER_CUBIC)
                axis.imshow(smooth.clip(0, 1), cmap="inferno", alpha=0.75 * smooth.clip(0, 1))
            if segment in boxes:
                x1, y1, x2, y2 = boxes[segment] * DETAIL_PX
                axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="#36e05a", linewidth=1.6))
            axis.set_xlim(0, DETAIL_PX)
            axis.set_ylim(DETAIL_PX, 0)
            axis.set_xlabel(f"weight {attention.temporal[segment]:.2f}", fontsize=7, labelpad=2)
        row[0].set_title(
            f"{truth}; said {said}", fontsize=8, loc="left", color="#106030" if truth == said else "#b02020"
        )
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
        for axis in row[len(chosen) :]:
            axis.axis("off")
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def crop_frames(
    path: Path, region: tuple[float, float, float, float], wanted: np.ndarray, *, side_px: int
) -> dict[int, np.ndarray]:
    """Return the wanted frames of a video that are there, cropped as the cubes saw them, (side_px, side_px, 3) uint8.

    Raises
    ------
    VideoProblemError
        If the file cannot be decoded.
    """
    left, top, right, bottom = region
    indices = set(wanted.tolist())
    pictures = {}
    with VideoReader(path) as reader:
        for frame in reader.frames():
            if frame.index in indices:
                rgb = frame.rgb()
                H, W, _ = rgb.shape
                crop = rgb[round(top * H) : max(round(bottom * H), 1), round(left * W) : max(round(right * W), 1)]
                pictures[frame.index] = cv2.resize(crop, (side_px, side_px), interpolation=cv2.INTER_AREA)
                if len(pictures) == len(indices):
                    break
    return pictures
