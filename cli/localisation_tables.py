"""Results of `vidatt detect`, `vidatt locate` and `vidatt window-recall` as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .tables import seen_lines, seen_mark, table

if TYPE_CHECKING:
    from ..pipelines.localisation.detect import DetectionResult
    from ..pipelines.localisation.locate import LocationResult
    from ..pipelines.localisation.reading import ReadingResult
    from ..pipelines.localisation.windows import WindowRecall


def detect_text(result: DetectionResult) -> str:
    """Return what was written, and mAP by each measure, named."""
    lines = [
        f"{result.out}: {result.proposals} proposals in {result.videos_with_proposals} of {result.videos} "
        f"videos{_missing(result)}",
        *([f"runs {', '.join(result.runs)}"] if result.runs else []),
        f"rule {result.rule} ({_settings(result)}), attention {result.attention}, class scores {result.class_scores}",
        *seen_lines(result.seen, result.seen_note),
        *(f"note: {note}" for note in result.notes),
    ]
    if result.measures is None:
        return "\n".join([*lines, "the store knows no true interval of these videos: nothing was measured"])
    for measure in result.measures.values():
        header = ["mAP at overlap", *(f"{t:g}" for t in measure.thresholds), "mean"]
        lines += [
            "",
            measure.rule_text,
            f"{measure.instances} true intervals of {measure.classes} classes in {measure.videos} videos; "
            f"{measure.detections_elsewhere} proposals in videos without one",
            table(header, [[seen_mark(result.seen), *measure.map, measure.average_map]]),
        ]
    return "\n".join(lines)


def locate_text(result: LocationResult) -> str:
    """Return what was written, frame-hit and frame-mAP."""
    lines = [
        f"{result.out}: {result.boxes} boxes in {result.frames} sampled frames of {result.videos} "
        f"videos{_missing(result)}",
        f"rule {result.rule} ({_settings(result)}), attention {result.attention}, maps are {result.maps}",
        *seen_lines(result.seen, result.seen_note),
    ]
    measures = result.measures
    if measures is None:
        return "\n".join([*lines, "the store knows no true box in these frames: nothing was measured"])
    lines += [
        "",
        f"{measures.true_boxes} true boxes of {measures.classes} classes in {measures.frames} sampled frames "
        f"of {measures.videos} videos, which have {measures.frames_without} sampled frames without one",
        table(
            ["at overlap", *(f"{t:g}" for t in measures.thresholds)],
            [
                [f"frame-hit{seen_mark(result.seen)}", *measures.frame_hit],
                [f"frame-mAP{seen_mark(result.seen)}", *measures.frame_map],
            ],
        ),
        "frame-hit: share of the frames with a true box whose box overlaps the first one, no class, pixels counted as "
        "in the public code; frame-mAP: all frames and true boxes, by class and confidence",
    ]
    return "\n".join(lines)


def windows_text(result: WindowRecall) -> str:
    """Return window recall and accuracy, and what they are."""
    single = " of a single label" if result.single_label else ""
    outside = f"; {result.outside} true intervals begin behind their video" if result.outside else ""
    lines = [
        f"{result.windows} windows of {result.window} segments around the true intervals of {result.videos} of "
        f"{result.listed} listed videos{single}{outside}",
        f"attention {result.attention}: {result.kept:.4f} of all segments weigh more than {result.limit:g}; "
        f"{result.accuracy:.4f} of the windows are classified right",
        *seen_lines(result.seen, result.seen_note),
        "",
        table(
            ["at share", *(f"{t:g}" for t in result.thresholds)],
            [[f"window recall{seen_mark(result.seen)}", *result.window_recall]],
        ),
        "window recall: share of the windows that are classified right and of whose annotated segments more than that "
        "share is kept; no mAP, the truth says where the windows are",
    ]
    return "\n".join(lines)


def _settings(result: DetectionResult | LocationResult) -> str:
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={str(value).lower()}"
        for key, value in result.settings.items()
    )


def _missing(result: ReadingResult) -> str:
    gone = result.listed - result.videos
    return f"; {gone} of {result.listed} listed videos are left out" if gone else ""
