"""Boxes: overlap against another library, the traps of uint8 and of the pixel more, frame-hit and frame-AP."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torchvision.ops import box_iou as torchvision_box_iou

from vidatt.pipelines.metrics.localisation import Boxes, box_iou, corners, frame_ap, frame_hit


def boxes(rows: list[tuple], *, scored: bool = False) -> Boxes:
    """Boxes of rows (frame, x1, y1, x2, y2, label[, score])."""
    return Boxes(
        frames=np.array([row[0] for row in rows]),
        boxes=np.array([row[1:5] for row in rows], np.float64).reshape(-1, 4),
        labels=np.array([row[5] for row in rows], np.int64),
        scores=np.array([row[6] for row in rows], np.float64) if scored else None,
    )


def ap(truth: list[tuple], found: list[tuple], threshold: float = 0.5) -> float:
    return float(frame_ap(boxes(truth), boxes(found, scored=True), labels=[0], thresholds=[threshold])[0, 0])


def test_box_overlap_is_torchvisions():
    generator = np.random.default_rng(0)
    a, b = (np.sort(generator.random((n, 2, 2)) * 300, axis=1).reshape(n, 4) for n in (20, 30))
    assert box_iou(a, b) == pytest.approx(torchvision_box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy())


def test_box_overlap_counted_by_hand_with_and_without_the_pixel_more():
    a, b = np.array([[0, 0, 9, 9]]), np.array([[5, 0, 14, 9], [9, 9, 20, 20], [50, 50, 60, 60], [0, 0, 9, 9]])
    assert box_iou(a, b).tolist() == [[36 / 126, 0, 0, 1]]
    assert box_iou(a, b, plus_one=True).tolist() == [[50 / 150, 1 / (100 + 144 - 1), 0, 1]]


def test_uint8_boxes_of_the_official_file_do_not_wrap():
    """x 200 and width 100 make 300, not 44; likewise the areas."""
    xywh = np.array([[200, 100, 100, 100]], np.uint8)
    assert corners(xywh).tolist() == [[200, 100, 300, 200]]
    assert (xywh[:, 0] + xywh[:, 2]).tolist() == [44], "what the trap gives"
    small = np.array([[0, 0, 200, 200]], np.uint8)
    assert box_iou(small, small).tolist() == [[1]]
    assert box_iou(small, np.array([[100, 0, 200, 200]], np.uint8)).tolist() == [[0.5]]


def test_real_boxes_are_uint8_and_many_would_wrap(shared_data):
    """The trap is real: the official file stores most of its boxes in 8 bits."""
    from scipy.io import loadmat

    file = shared_data / "annotations" / "ucf101_24" / "finalAnnots.mat"
    videos = loadmat(file, squeeze_me=True, struct_as_record=False)["annot"]
    tubes = [tube.boxes for video in videos for tube in np.atleast_1d(video.tubes)]
    kinds = [tube.dtype.name for tube in tubes]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"uint8": 4291, "uint16": 167}
    wrapping = 0
    for tube in tubes:
        xyxy = corners(np.atleast_2d(tube))
        assert (xyxy[:, 2:] >= xyxy[:, :2]).all()
        wrapping += tube.dtype == np.uint8 and (xyxy > 255).any()
    assert wrapping > 100


def test_frame_hit_is_a_share_of_annotated_frames():
    truth = np.array([[0, 0, 9, 9]] * 4, np.float64)
    found = np.array([[0, 0, 9, 9], [5, 0, 14, 9], [50, 50, 60, 60], [np.nan] * 4])
    assert frame_hit(found, truth, thresholds=[0.3, 0.5]).tolist() == [0.5, 0.25]
    assert frame_hit(found, truth, thresholds=[0.3], plus_one=False).tolist() == [0.25], "36 / 126 without the pixel"
    assert frame_hit(found[:2], truth[:2], thresholds=[50 / 150]).tolist() == [1.0], "reaching it is enough"
    assert np.isnan(frame_hit(found[:0], truth[:0], thresholds=[0.5])).all()
    with pytest.raises(ValueError, match=r"must be \[n, 4\] each"):
        frame_hit(found[:3], truth, thresholds=[0.5])


def test_frame_ap_counts_all_true_boxes_and_each_once():
    truth = [(1, 0, 0, 10, 10, 0), (1, 20, 20, 30, 30, 0), (2, 0, 0, 10, 10, 0), (2, 0, 0, 10, 10, 1)]
    found = [(1, 0, 0, 10, 9, 0, 0.9), (1, 0, 0, 9, 10, 0, 0.8), (2, 0, 0, 10, 10, 0, 0.7), (3, 0, 0, 1, 1, 0, 0.6)]
    assert ap(truth, found) == pytest.approx((1 + 2 / 3) / 3), "a box found twice is false, one is never found"
    table = frame_ap(boxes(truth), boxes(found, scored=True), labels=[0, 1, 2], thresholds=[0.5, 0.95])
    assert table.shape == (2, 3)
    assert table[:, 1].tolist() == [0, 0]
    assert np.isnan(table[:, 2]).all()
    assert table[1, 0] == pytest.approx(1 / 9), "only the third of the ranking is exact: precision 1/3 of 3 boxes"
    with pytest.raises(ValueError, match="have no scores"):
        frame_ap(boxes(truth), boxes(truth), labels=[0], thresholds=[0.5])


def test_a_detection_takes_the_next_free_box_if_the_best_is_taken():
    truth = [(1, 0, 0, 10, 10, 0), (1, 0, 0, 10, 9, 0)]
    found = [(1, 0, 0, 10, 10, 0, 0.9), (1, 0, 0, 10, 10, 0, 0.8)]
    assert ap(truth, found) == 1.0


def test_frame_ap_of_falling_precision_is_scikit_learns():
    """Where precision only falls, interpolation changes nothing: the right ones first, then all the wrong ones."""
    truth = [(i, 0, 0, 10, 10, 0) for i in range(20)]
    found = [(i, 0, 0, 10, 10, 0, 1 - i / 100) for i in range(20)]
    found += [(i, 50, 50, 60, 60, 0, 0.5 - i / 100) for i in range(20)]
    hit = [row[1] == 0 for row in found]
    assert ap(truth, found) == pytest.approx(average_precision_score(hit, [row[6] for row in found]))


corner = st.integers(0, 20)
places = st.tuples(st.integers(0, 2), corner, corner, st.integers(1, 12), st.integers(1, 12)).map(
    lambda p: (p[0], p[1], p[2], p[1] + p[3], p[2] + p[4])
)


@settings(max_examples=60, deadline=None)
@given(truth=st.lists(places, min_size=1, max_size=6), found=st.lists(places, max_size=8), data=st.data())
def test_order_does_not_matter_perfection_is_one_and_false_boxes_never_help(truth, found, data):
    true = [(*place, 0) for place in truth]
    scored = [(*place, 0, (n + 1) / 16) for n, place in enumerate(found)]
    value = ap(true, scored)
    assert 0 <= value <= 1
    assert ap(true, data.draw(st.permutations(scored))) == value
    assert ap(true, [*scored, (99, 0, 0, 5, 5, 0, 1.0)]) <= value
    assert ap(true, [(*row, (n + 1) / 16) for n, row in enumerate(true)]) == 1.0


def test_broken_arrays_are_refused():
    with pytest.raises(ValueError, match="arrays of shapes"):
        Boxes(frames=np.arange(2), boxes=np.zeros((3, 4)), labels=np.zeros(2, int))
    with pytest.raises(ValueError, match="not finite"):
        boxes([(1, 0, 0, np.inf, 10, 0)])
