"""The commands on results: `vidatt evaluate`, `evaluate-detections`, `compare`, `fuse`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .door import assignments, common, typed_command

if TYPE_CHECKING:
    from ..pipelines.localisation.submission import DetectionEvaluation
    from ..pipelines.results.compare import Comparison
    from ..pipelines.runs.measured import Evaluation, FusionResult, OfficialEvaluation


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...|SCORES", type=click.Path(path_type=Path))
@click.option(
    "--store", type=click.Path(path_type=Path), help="Another store, or another place of its own; for SCORES: labels."
)
@click.option("--split", help="Another split than the run was fitted on; for SCORES: of the store.")
@click.option("--part", type=click.Choice(["test", "train"]), default="test", show_default=True)
@click.option("--views", metavar="SET", help="The store's views to average over: center, 10crop, train [not train].")
@click.option("--protocol", metavar="official", help="Give the number that the dataset's official protocol asks for.")
@click.option("--average-clips", is_flag=True, help="Of SCORES: rows of one id are clips of one video.")
@click.option(
    "--allow-seen", is_flag=True, help="Also score videos that the run was fitted or selected on, and say so."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@common
def evaluate(
    runs: tuple[Path, ...], store: Path | None, split: str | None, part: str, views: str | None, protocol: str | None,
    average_clips: bool, allow_seen: bool, device: str,
) -> tuple[Evaluation | OfficialEvaluation, str, int]:  # fmt: skip
    """Score a run on the videos it never saw: top-1, top-5, class mean, mAP, confusion matrix, per-class table.

    With --protocol official: several runs, one per split, make the one number that papers print. SCORES is an .npz or
    CSV of class scores that a run, or another program, has written.

    \b
    Example:
      vidatt evaluate runs/stan
      vidatt evaluate runs/stan-1 runs/stan-2 runs/stan-3 --protocol official
      vidatt evaluate i3d.npz --store kinetics.zarr
    """
    from ..pipelines.runs.folders import given_runs
    from .results_tables import evaluation_text, official_text

    runs = given_runs(runs)
    if protocol not in (None, "official"):
        raise UsageError(f"--protocol {protocol!r}: the only one is official.")
    if protocol and part != "test":
        raise UsageError("--protocol official is about test lists; leave out --part.")
    if any(run.suffix in (".npz", ".csv") for run in runs):
        from ..pipelines.results.score_evaluation import evaluate_scores

        if views is not None:
            raise UsageError("--views is for runs: a file has the scores of videos.")
        if len(runs) > 1:
            raise UsageError("Give one file of scores, or runs; `vidatt fuse` brings several files together.")
        result = evaluate_scores(
            runs[0],
            store_path=store,
            split=split,
            part=part,
            average_clips=average_clips,
            by_official_protocol=protocol is not None,
            allow_seen=allow_seen,
        )
        return result, evaluation_text(result), 0
    if average_clips:
        raise UsageError("--average-clips is for files of scores; a run averages its clips and views by itself.")
    from ..pipelines.results.evaluate import evaluate as score
    from ..pipelines.results.evaluate import evaluate_officially
    from ..pipelines.runs.measured import Evaluation

    if protocol:
        number = evaluate_officially(
            runs, store_path=store, split=split, device=device, views=views, allow_seen=allow_seen
        )
        told = evaluation_text(number) if isinstance(number, Evaluation) else official_text(number)
        return number, told, 0
    if len(runs) > 1:
        raise UsageError("Several runs make one number with --protocol official; `vidatt compare` only shows them.")
    result = score(runs[0], store_path=store, split=split, part=part, device=device, views=views, allow_seen=allow_seen)
    return result, evaluation_text(result), 0


@click.command("evaluate-detections")
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--truth",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of THUMOS14's `detclasslist.txt`, `<Class>_test.txt`, `Ambiguous_test.txt`; ActivityNet's JSON.",
)
@click.option("--rule", required=True, metavar="NAME", help="thumos14 or activitynet: files and numbers differ.")
@click.option("--exclude", metavar="IDS", help="Videos to leave out, comma-separated; THUMOS14's also by number.")
@click.option("--subset", metavar="NAME", help="Part of the truth [thumos14: test; activitynet: validation].")
@common
def evaluate_detections(
    result: Path, truth: Path, rule: str, exclude: str | None, subset: str | None
) -> tuple[DetectionEvaluation, str, int]:
    """Measure temporal detections by an official rule: AP per class and overlap, mAP.

    RESULT is a THUMOS14 submission file (lines `video t1 t2 classid conf`), or ActivityNet's JSON.

    \b
    Example:
      vidatt evaluate-detections run.txt --truth thumos14/test --rule thumos14
      vidatt evaluate-detections run.txt --truth thumos14/test --rule thumos14 --exclude 270,1496
      vidatt evaluate-detections result.json --truth activity_net.v1-3.min.json --rule activitynet
    """
    from ..pipelines.localisation.submission import evaluate_detections as measure
    from .results_tables import detection_text

    ids = tuple(id.strip() for id in (exclude or "").split(",") if id.strip())
    measured = measure(result, truth=truth, rule=rule, exclude=ids, subset=subset)
    return measured, detection_text(measured), 0


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", help="A split that all were evaluated on [each run's own].")
@click.option("--part", type=click.Choice(["test", "train", "validation"]), default="test", show_default=True)
@click.option("--store", type=click.Path(path_type=Path), help="The store they were evaluated on [each run's own].")
@click.option("--allow-seen", is_flag=True, help="Also compare on videos that a run was fitted or selected on.")
@common
def compare(
    runs: tuple[Path, ...], split: str | None, part: str, store: Path | None, allow_seen: bool
) -> tuple[Comparison, str, int]:
    """Print runs side by side, and test each pair on the videos that both were evaluated on (McNemar, exact).

    \b
    Example:
      vidatt compare runs/stan runs/mean
      vidatt compare runs/ucf101-stan-sweep
    """
    from ..pipelines.results.compare import compare as side_by_side
    from ..pipelines.runs.folders import given_runs
    from .results_tables import compare_text

    result = side_by_side(given_runs(runs), split=split, part=part, store_path=store, allow_seen=allow_seen)
    return result, compare_text(result), 0


@click.command()
@click.argument("parts", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--method", required=True, metavar="NAME", help="mean, product, max, weighted, awl or mkl.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the method.")
@click.option("--file-scores", default="probabilities", show_default=True, help="probabilities or logits.")
@click.option("--store", type=click.Path(path_type=Path), help="The store they were evaluated on [each run's own].")
@click.option("--allow-seen", is_flag=True, help="Also fuse scores of videos that a part was fitted or selected on.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder of the fusion.")
@common
def fuse(parts: tuple[Path, ...], settings: tuple[str, ...], **given: Any) -> tuple[FusionResult, str, int]:
    """Fuse the test scores of runs (and of .npz or CSV files); weights are learned on validation scores only.

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
