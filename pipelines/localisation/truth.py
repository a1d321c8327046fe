"""Attention held against the boxes that a dataset knows: where the cells of a cube lie in the frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...cache.store import Store
from ...errors import UsageError
from ...extract.views import Geometry
from ..metrics.attention import into_region, mass_in_box
from ..runs.attention import VideoAttention


@dataclass(frozen=True, eq=False)
class TruthSegment:
    """One segment in which the true object is to be seen."""

    segment: int
    frame: int  # decode order, the centre frame
    box: np.ndarray  # (4,) in fractions of the crop that the cube was made of


class BoxTruth:
    """The boxes of a store's videos in the coordinates of one stream's cubes."""

    def __init__(self, store: Store, stream: str) -> None:
        self._index = store.index
        self._stream = store.stream(stream)
        self._reader = self._stream.reader()
        recipe = self._stream.recipe
        if not {"resize", "crop_px"} <= recipe.keys():
            raise UsageError(
                f"Stream {stream!r} of {store.path} was imported without its geometry: where its cells lie in a "
                "frame is not known, so boxes cannot be compared with them."
            )
        self._geometry = Geometry(resize=recipe["resize"], crop_px=recipe["crop_px"])

    def frames(self, position: int) -> np.ndarray:
        """Return the centre frame of each segment of a video, (T,) int32."""
        return self._reader.frames(position)[:, 1]

    def region(self, position: int) -> tuple[float, float, float, float]:
        """Return the part of a video's frames that the center view shows, as fractions x1, y1, x2, y2."""
        outcome = self._stream.outcome(position)
        return self._geometry.region(outcome.width, outcome.height)

    def segments(self, position: int) -> Iterator[TruthSegment]:
        """Yield the segments of a video whose centre frame has a box (the first box of a frame with several)."""
        mine = self._index.box_video == position
        boxes = dict(zip(self._index.box_frame[mine][::-1].tolist(), self._index.box_xyxy[mine][::-1], strict=True))
        region = self.region(position)
        for segment, centre in enumerate(self.frames(position).tolist()):
            if centre in boxes:
                yield TruthSegment(segment, centre, into_region(boxes[centre], region))

    def mass_in_boxes(self, attention: VideoAttention) -> list[tuple[float, float]]:
        """Return (mass inside the box, the box's area share) of each segment with a box; streams are averaged."""
        if attention.spatial is None:
            return []
        maps = attention.spatial.mean(axis=1)  # [T, K, K]
        maps = maps / np.maximum(maps.sum(axis=(1, 2), keepdims=True), 1e-12)  # a mask does not sum to 1
        return [mass_in_box(maps[t.segment], t.box) for t in self.segments(attention.position)]
