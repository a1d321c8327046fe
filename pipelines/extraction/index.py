"""A catalogue as an index: what a dataset says of its videos, as the flat arrays that stores keep."""

from __future__ import annotations

import numpy as np

from ...cache.index import Index
from ...cache.layout import Layout
from ...extract.datasets.catalogue import Catalogue


def index_of(catalogue: Catalogue, order: np.ndarray, length: np.ndarray, layout: Layout | None) -> Index:
    """Return the index of a store.

    Parameters
    ----------
    order : [N] rows of the catalogue in store order
    length : [N] segments per view, in store order
    layout : None = of no store: videos have no rows
    """
    videos = [catalogue.videos[i] for i in order]
    labels = np.full((len(videos), max([1, *(len(v.labels) for v in videos)])), -1, np.int32)
    for row, video in enumerate(videos):
        labels[row, : len(video.labels)] = video.labels
    intervals = [(i, x) for i, video in enumerate(videos) for x in video.intervals]
    boxes = [(i, x) for i, video in enumerate(videos) for x in video.boxes]
    return Index(
        ids=np.array([v.id for v in videos], dtype=object),
        paths=np.array([v.path for v in videos], dtype=object),
        groups=np.array([v.group for v in videos], dtype=object),
        labels=labels,
        classes=catalogue.classes,
        multi_label=catalogue.multi_label,
        splits={name: roles[order].astype(np.int8) for name, roles in catalogue.splits.items()},
        length=length.astype(np.int32),
        offset=np.zeros(0, np.int64) if layout is None else layout.offset,
        span_seconds=np.array([[_nan(v.start_seconds), _nan(v.stop_seconds)] for v in videos], np.float64).reshape(
            -1, 2
        ),
        interval_video=np.array([i for i, _ in intervals], np.int32),
        interval_seconds=np.array([[x.start_seconds, x.stop_seconds] for _, x in intervals], np.float64).reshape(-1, 2),
        interval_label=np.array([x.label for _, x in intervals], np.int32),
        box_video=np.array([i for i, _ in boxes], np.int32),
        box_frame=np.array([x.frame for _, x in boxes], np.int32),
        box_xyxy=np.array([[x.x1, x.y1, x.x2, x.y2] for _, x in boxes], np.float32).reshape(-1, 4),
        box_label=np.array([x.label for _, x in boxes], np.int32),
    )


def _nan(value: float | None) -> float:
    return np.nan if value is None else value
