"""Boxes as `vidatt locate` makes them, for the frames that are shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...errors import UsageError
from ...heads.registry import HEADS
from ..localisation.boxes import BOX_RULES, ThresholdRule, boxes_of, out_of_region
from ..localisation.rules import read_rule
from ..pictures.scene import MEAN, Scene
from ..runs.identity import FitIdentity


class SaidBoxes:
    """Makes them by a rule of `locate`."""

    def __init__(self, name: str, identity: FitIdentity) -> None:
        self._rule: ThresholdRule = read_rule(BOX_RULES, name, {})
        self._sums_to_one = HEADS[identity.base.head].head.spatial_sums_to_one
        self._name, self._head = name, identity.head

    def of(self, scene: Scene) -> Mapping[int, np.ndarray]:
        """Return a box by segment, (4,) in fractions of the frame; none where the rule keeps nothing.

        Raises
        ------
        UsageError
            If the head attends to no cells, or the maps have no one place in the frame.
        """
        if not scene.maps:
            raise UsageError(f"--boxes {self._name}: head {self._head!r} attends to no cells; leave it out.")
        if scene.size is None or scene.regions is None:
            raise UsageError(f"--boxes {self._name}: where cells lie in the frames is not known; leave it out.")
        found = scene.maps.get(MEAN if len(scene.streams) > 1 else scene.streams[0])
        if found is None:
            raise UsageError(
                f"--boxes {self._name}: the streams {', '.join(scene.streams)} show different parts of the frame, so "
                "their maps cannot be averaged; leave it out."
            )
        x1, y1, x2, y2 = found.region
        width, height = round((x2 - x1) * scene.size[0]), round((y2 - y1) * scene.size[1])
        boxes = boxes_of(
            found.cells, width=max(1, width), height=max(1, height), rule=self._rule, sums_to_one=self._sums_to_one
        )
        boxes = out_of_region(boxes, (x1, y1, x2, y2))
        return {segment: box for segment, box in enumerate(boxes) if np.isfinite(box).all()}
