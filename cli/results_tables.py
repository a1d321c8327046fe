"""Results of `vidatt evaluate`, `fuse`, `compare`, `evaluate-detections` and `evaluate-boxes` as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pipelines.runs.measured import Evaluation
from .tables import figure, measures_text, seen_lines, seen_mark, shown, table

if TYPE_CHECKING:
    from ..pipelines.localisation.box_evaluation import BoxEvaluation
    from ..pipelines.localisation.submission import DetectionEvaluation
    from ..pipelines.results.compare import Comparison
    from ..pipelines.runs.measured import Official, OfficialEvaluation


def evaluation_text(result: Evaluation) -> str:
    """Return the numbers of an evaluation, the per-class table, and the confusion matrix of few classes."""
    lines = _numbers(result)
    keys = list(result.per_class[0].to_dict()) if result.per_class else []
    if keys:
        lines += ["", table(keys, [list(row.to_dict().values()) for row in result.per_class])]
    matrix = result.confusion
    if matrix is not None and len(matrix) <= 12:
        header = ["true \\ predicted", *(str(i) for i in range(len(matrix)))]
        names = [row.name for row in result.per_class]
        lines += ["", table(header, [[f"{i} {names[i]}", *row] for i, row in enumerate(matrix)])]
    return "\n".join(lines)


def official_text(result: OfficialEvaluation) -> str:
    """Return the numbers of several runs together, and a row each."""
    keys = list(shown(result.metrics, _classes(result)))
    rows = [
        [run.run + seen_mark(run.seen), run.split, f"{run.videos} of {run.listed}"]
        + [figure(getattr(run.metrics, key), digits=4) for key in keys]
        for run in result.runs
    ]
    return "\n".join([*_numbers(result), "", table(["run", "split", "videos", *keys], rows)])


def _numbers(result: Evaluation | OfficialEvaluation) -> list[str]:
    seen = result.seen if isinstance(result, Evaluation) else sum(run.seen or 0 for run in result.runs)
    of_split = "" if result.split is None else f" of split {result.split}"
    lines = [
        f"{result.run}: {result.videos} videos{of_split} ({result.protocol})",
        measures_text(result.metrics, _classes(result), digits=4) + seen_mark(seen),
        *seen_lines(seen, result.seen_note if isinstance(result, Evaluation) else None),
    ]
    if isinstance(result, Evaluation) and result.scores is not None:
        lines.append(f"scores in {result.scores}")
    if result.missing:
        lines.append(f"{result.missing} videos of the list have no scores and are not counted")
    return lines if result.official is None else [*lines, _official(result.official, _classes(result))]


def _classes(result: Evaluation | OfficialEvaluation) -> int:
    return len((result if isinstance(result, Evaluation) else result.runs[0]).per_class)


def _official(number: Official, classes: int) -> str:
    """Return the official number of a dataset, and what keeps it from being official."""
    spread = f" +- {number.spread:.4f} over {len(number.splits)} splits" if number.spread is not None else ""
    text = (
        f"official, {number.dataset} ({number.text}): {number.primary} {figure(number.value, digits=4)}"
        f"{spread}; {number.scored} of {number.listed} listed videos scored"
    )
    if len(number.splits) > 1:
        text += "; " + ", ".join(f"split {split} {figure(x, digits=4)}" for split, x in number.splits.items())
    lines = [text, "beside it: " + measures_text(number.figures, classes, digits=4)]
    return "\n".join(lines + [f"NOT the official number: {caveat}" for caveat in number.caveats])


def detection_text(result: DetectionEvaluation) -> str:
    """Return the average precisions of detections by class and overlap, and the rule they were measured by."""
    counted = f"{result.videos} videos with {result.instances} true segments of {result.classes} classes"
    lines = [
        f"{result.result}: {result.detections} detections against {result.truth} ({result.subset}"
        + (f" of split {result.split}, {result.listed} videos)" if result.split is not None else ")"),
        f"rule: {result.rule_text}",
        f"{counted}, {result.ambiguous} ambiguous segments; {result.detections_elsewhere} detections in videos "
        "without truth are false",
    ]
    if result.excluded:
        lines.append(f"left out, truth and detections: {', '.join(result.excluded)}")
    rows = [[row.name, row.instances, row.detections, *(figure(ap) for ap in row.ap)] for row in result.per_class]
    rows.append(["mAP", result.instances, result.detections, *(figure(value) for value in result.map)])
    header = ["class", "true", "detected", *(f"{threshold:g}" for threshold in result.thresholds)]
    return "\n".join([*lines, "", table(header, rows), "", f"average mAP {figure(result.average_map, digits=4)}"])


def boxes_text(result: BoxEvaluation) -> str:
    """Return frame-hit and frame-mAP of boxes by class and overlap, and what they were measured on."""
    judged = "all annotated frames" if result.frames_judged == "annotated" else "frames with a box in the file"
    lines = [
        f"{result.result}: {result.boxes} boxes against {result.truth} ({result.part} of split {result.split}, "
        f"{result.listed} videos)",
        f"rule: {result.rule_text}",
        f"{result.true_boxes} true boxes of {result.classes} classes in {result.frames} frames ({judged}) of "
        f"{result.videos} videos; {result.frames_without} frames of the file have none",
        *seen_lines(result.seen, result.seen_note),
    ]
    if result.videos_without:
        lines.append(f"{result.videos_without} of these videos have no box in the file: all of theirs are missed")
    if result.boxes_elsewhere:
        lines.append(f"{result.boxes_elsewhere} boxes in other videos, or such without true boxes, are left out")
    mark = seen_mark(result.seen)
    rows = [[row.name, row.frames, *(figure(ap) for ap in row.ap)] for row in result.per_class]
    rows.append([f"frame-mAP{mark}", result.frames, *(figure(value) for value in result.frame_map)])
    rows.append([f"frame-hit{mark}", result.frames, *(figure(value) for value in result.frame_hit)])
    header = ["class", "frames", *(f"{threshold:g}" for threshold in result.thresholds)]
    return "\n".join([*lines, "", table(header, rows)])


def compare_text(result: Comparison) -> str:
    """Return the runs side by side, and the paired tests."""
    header = ["", "run", "head", "preset", "streams", "split", "seed", "videos", "top1", "class mean", "mAP"]
    rows = []
    for number, run in enumerate(result.runs, start=1):
        told = [str(x) for x in (run.split, "-" if run.seed is None else run.seed, run.videos)]
        figures = [figure(x) for x in (run.metrics.top1, run.metrics.class_mean, run.metrics.map)]
        rows.append(
            [
                str(number),
                run.run + seen_mark(run.seen),
                run.head,
                run.preset,
                "+".join(run.streams) or "-",
                *told,
                *figures,
            ]
        )
    lines = [table(header, rows), ""]
    pairs = [
        [
            f"{pair.a + 1} : {pair.b + 1}",
            str(pair.shared),
            f"{figure(pair.top1_a)} : {figure(pair.top1_b)}",
            f"{pair.a_right_b_wrong} : {pair.b_right_a_wrong}",
            figure(pair.p_value, digits=4),
        ]
        for pair in result.pairs
    ]
    lines.append(table(["pair", "shared videos", "top1 on them", "only one right", "p (McNemar, exact)"], pairs))
    lines += [
        f"runs {pair.a + 1} and {pair.b + 1} share {pair.shared} videos; {pair.only_a} and "
        f"{pair.only_b} others are left out of their test"
        for pair in result.pairs
        if pair.only_a or pair.only_b
    ]
    lines += [line for run in result.runs for line in seen_lines(run.seen, run.seen_note)]
    equal = "the same" if result.fingerprints_equal else "NOT the same: the runs read different features"
    return "\n".join([*lines, f"fingerprints of the streams that runs share: {equal}"])
