"""The commands on results: `vidatt evaluate`, `evaluate-detections`, `evaluate-boxes`, `compare`, `fuse`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .door import assignments, common, typed_command
from .truth import overlaps, pixels, truth_options, truth_source

if TYPE_CHECKING:
    from ..pipelines.localisation.box_evaluation import BoxEvaluation
    from ..pipelines.localisation.submission import DetectionEvaluation
    from ..pipelines.results.compare import Comparison
    from ..pipelines.runs.measured import Evaluation, FusionResult, OfficialEvaluation


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...|SCORES", type=click.Path(path_type=Path))
@truth_options("Another store, or another place of its own; for SCORES: labels.")
@click.option("--split", help="Another split than the run was fitted on; for SCORES: of the store or the dataset.")
@click.option("--part", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option("--views", metavar="SET", help="The store's views to average over: center, 10crop, train [not train].")
@click.option("--protocol", metavar="official", help="Give the number that the dataset's official protocol asks for.")
@click.option("--ids", type=click.Path(path_type=Path), help="Of .npy SCORES: text file, an id per line.")
@click.option("--average-clips", is_flag=True, help="Of SCORES: rows of one id are clips of one video.")
@click.option(
    "--allow-seen", is_flag=True, help="Also score videos that the run was fitted or selected on, and say so."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@common
def evaluate(
    runs: tuple[Path, ...], split: str | None, part: str, views: str | None, protocol: str | None, ids: Path | None,
    average_clips: bool, allow_seen: bool, device: str, **truth: Any,
) -> tuple[Evaluation | OfficialEvaluation, str, int]:  # fmt: skip
    """Score a run on the videos it never saw: top-1, top-5, class mean, mAP, confusion matrix, per-class table.

    With --protocol official: several runs, one per split, make the one number that papers print. SCORES is an .npz,
    .npy or CSV of class scores that a run, or another program, has written; it is held to the labels of a store, or of
    a dataset's annotations, for which neither store nor videos are needed.

    \b
    Example:
      vidatt evaluate runs/stan
      vidatt evaluate runs/stan-1 runs/stan-2 runs/stan-3 --protocol official
      vidatt evaluate i3d.npz --store kinetics.zarr
      vidatt evaluate i3d.npy --ids videos.txt --dataset thumos14 --annotations thumos14
    """
    from ..pipelines.results.score_evaluation import evaluate_scores
    from ..pipelines.results.score_files import is_score_file
    from ..pipelines.runs.folders import given_runs
    from .results_tables import evaluation_text, official_text

    runs = given_runs(runs)
    if protocol not in (None, "official"):
        raise UsageError(f"--protocol {protocol!r}: the only one is official.")
    if protocol and part != "test":
        raise UsageError("--protocol official is about test lists; leave out --part.")
    source = truth_source(truth)
    if any(is_score_file(run) for run in runs):
        if views is not None:
            raise UsageError("--views is for runs: a file has the scores of videos.")
        if len(runs) > 1:
            raise UsageError("Give one file of scores, or runs; `vidatt fuse` brings several files together.")
        result = evaluate_scores(
            runs[0], source=source, split=split, part=part, ids=ids, average_clips=average_clips,
            by_official_protocol=protocol is not None, allow_seen=allow_seen,
        )  # fmt: skip
        return result, evaluation_text(result), 0
    _require_run_options(average_clips=average_clips, ids=ids, dataset=source.dataset)
    from ..pipelines.results.evaluate import evaluate as score
    from ..pipelines.results.evaluate import evaluate_officially
    from ..pipelines.runs.measured import Evaluation

    if protocol:
        number = evaluate_officially(
            runs, store_path=source.store, split=split, device=device, views=views, allow_seen=allow_seen
        )
        told = evaluation_text(number) if isinstance(number, Evaluation) else official_text(number)
        return number, told, 0
    if len(runs) > 1:
        raise UsageError("Several runs make one number with --protocol official; `vidatt compare` only shows them.")
    result = score(
        runs[0], store_path=source.store, split=split, part=part, device=device, views=views, allow_seen=allow_seen
    )
    return result, evaluation_text(result), 0


def _require_run_options(*, average_clips: bool, ids: Path | None, dataset: str | None) -> None:
    """Refuse what is said of files of scores where runs are evaluated."""
    for option, given, why in (
        ("--average-clips", average_clips, "a run averages its clips and views by itself"),
        ("--ids", ids is not None, "a run has the ids of its store"),
        ("--dataset", dataset is not None, "a run needs the cubes of a store"),
    ):
        if given:
            raise UsageError(f"{option} is for files of scores; {why}.")


@click.command("evaluate-detections")
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    help="Folder of THUMOS14's `detclasslist.txt`, `<Class>_test.txt`, `Ambiguous_test.txt`; ActivityNet's JSON.",
)
@truth_options("Instead of --truth: a store that knows the true intervals.")
@click.option("--rule", required=True, metavar="NAME", help="thumos14 or activitynet: files and numbers differ.")
@click.option("--exclude", metavar="IDS", help="Videos to leave out, comma-separated; THUMOS14's also by number.")
@click.option("--subset", metavar="NAME", help="Part of --truth [thumos14: test; activitynet: validation].")
@click.option("--split", help="Of the store or the dataset [its only one].")
@click.option("--part", type=click.Choice(["test", "train"]), help="Of the store or the dataset [test].")
@click.option("--thresholds", metavar="A,B,...", help="Overlaps [those of the rule], such as .1,.2,.3,.4,.5.")
@common
def evaluate_detections(
    exclude: str | None, thresholds: str | None, **given: Any
) -> tuple[DetectionEvaluation, str, int]:
    """Measure temporal detections by an official rule: AP per class and overlap, mAP.

    RESULT has the lines of a THUMOS14 submission (`video t1 t2 classid conf`), or is ActivityNet's JSON (.json). Truth
    is in official files, in a store, or in a dataset's annotations.

    \b
    Example:
      vidatt evaluate-detections run.txt --truth thumos14/test --rule thumos14
      vidatt evaluate-detections run.txt --dataset thumos14 --annotations thumos14 --rule thumos14 --exclude 270,1496
      vidatt evaluate-detections result.json --truth activity_net.v1-3.min.json --rule activitynet
    """
    from ..pipelines.localisation.submission import evaluate_detections as measure
    from .results_tables import detection_text

    ids = tuple(id.strip() for id in (exclude or "").split(",") if id.strip())
    measured = measure(source=truth_source(given), exclude=ids, thresholds=overlaps(thresholds), **given)
    return measured, detection_text(measured), 0


@click.command("evaluate-boxes")
@click.argument("result", type=click.Path(path_type=Path))
@truth_options("A store that knows the true boxes.")
@click.option("--split", help="Of the store or the dataset [its only one].")
@click.option("--part", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option(
    "--frames", default="annotated", show_default=True, help="annotated: all; file: those that RESULT has a box in."
)
@click.option("--thresholds", metavar="A,B,...", help="Overlaps [.05,.1,.2,.3,.5].")
@click.option("--fps", type=float, help="Frames per second, by which AVA's seconds are frames [what a store knows].")
@click.option("--frame-px", metavar="WxH", help="Width and height of the frames [what a store or the dataset knows].")
@click.option("--allow-seen", is_flag=True, help="Also measure boxes that a run found in videos it was fitted on.")
@common
def evaluate_boxes(thresholds: str | None, frame_px: str | None, **given: Any) -> tuple[BoxEvaluation, str, int]:
    """Measure boxes in frames: frame-hit, and frame-mAP by class.

    RESULT is the CSV that `vidatt locate` writes, or AVA's: lines video_id, timestamp, x1, y1, x2, y2, action_id, score
    without a header, corners in fractions of the frame, actions counted from 1 in the order of the classes.

    \b
    Example:
      vidatt evaluate-boxes boxes.csv --dataset ucf101-24 --annotations ucf101_24
      vidatt evaluate-boxes ava.csv --dataset ucf101-24 --annotations ucf101_24 --fps 25 --thresholds .5
      vidatt evaluate-boxes boxes.csv --store actionshapes.zarr --frames file
    """
    from ..pipelines.localisation.box_evaluation import BoxEvaluationConfig
    from ..pipelines.localisation.box_evaluation import evaluate_boxes as measure
    from .results_tables import boxes_text

    given |= {"source": truth_source(given), "thresholds": overlaps(thresholds), "frame_px": pixels(frame_px)}
    measured = measure(BoxEvaluationConfig(**given))
    return measured, boxes_text(measured), 0


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN|SCORES...", type=click.Path(path_type=Path))
@truth_options("The store that runs were evaluated on [each run's own]; for SCORES: labels.")
@click.option("--split", help="A split that all were evaluated on [each run's own].")
@click.option("--part", type=click.Choice(["test", "train", "validation"]), default="test", show_default=True)
@click.option(
    "--ids", multiple=True, type=click.Path(path_type=Path), help="Of .npy SCORES: ids, one per line; for all, or each."
)
@click.option("--allow-seen", is_flag=True, help="Also compare on videos that a run was fitted or selected on.")
@click.option("--csv", is_flag=True, help="Print the runs as CSV, without the paired tests.")
@click.option("--markdown", is_flag=True, help="So, as a table of Markdown.")
@click.option("--latex", is_flag=True, help="So, as a table of LaTeX's booktabs.")
@common
def compare(runs: tuple[Path, ...], **given: Any) -> tuple[Comparison, str, int]:
    """Print runs and files of scores side by side, and test each pair on the videos that both have (McNemar, exact).

    \b
    Example:
      vidatt compare runs/stan runs/mean
      vidatt compare runs/stan i3d.npy --ids videos.txt
      vidatt compare runs/ucf101-stan-sweep --latex
    """
    from ..pipelines.results.compare import compare as side_by_side
    from ..pipelines.runs.folders import given_runs
    from .results_tables import compare_text
    from .table_forms import FORMS, comparison_as

    asked = [form for form in FORMS if given.pop(form)]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]}: one table is printed; give one of them.")
    result = side_by_side(given_runs(runs), source=truth_source(given), **given)
    return result, comparison_as(asked[0], result) if asked else compare_text(result), 0


@click.command()
@click.argument("parts", nargs=-1, required=True, metavar="RUN|SCORES...", type=click.Path(path_type=Path))
@click.option("--method", required=True, metavar="NAME", help="mean, product, max, weighted, awl or mkl.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the method.")
@click.option("--file-scores", default="probabilities", show_default=True, help="probabilities or logits.")
@click.option(
    "--ids", multiple=True, type=click.Path(path_type=Path), help="Of .npy SCORES: ids, one per line; for all, or each."
)
@click.option("--store", type=click.Path(path_type=Path), help="The store they were evaluated on [each run's own].")
@click.option("--allow-seen", is_flag=True, help="Also fuse scores of videos that a part was fitted or selected on.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder of the fusion.")
@common
def fuse(parts: tuple[Path, ...], settings: tuple[str, ...], **given: Any) -> tuple[FusionResult, str, int]:
    """Fuse the test scores of runs (and of .npz, .npy or CSV files); weights are learned on validation scores only.

    \b
    Example:
      vidatt fuse runs/stan-rgb runs/stan-flow --method awl --out runs/two-stream
      vidatt fuse runs/glka i3d.npz --method mean --out runs/glka-i3d
    """
    from ..pipelines.results.fusion import FuseConfig
    from ..pipelines.results.fusion import fuse as run
    from ..pipelines.runs.folders import given_runs
    from .results_tables import evaluation_text

    result = run(
        FuseConfig(parts=given_runs(parts), settings=assignments("--set", settings), command=typed_command(), **given)
    )
    return result, evaluation_text(result), 0
