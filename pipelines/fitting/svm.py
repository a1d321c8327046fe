"""Fitting support vector machines: encode each video once, choose C over folds of whole groups, learn the machines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ...cache.batches import Batches
from ...cache.memory import available_ram_bytes
from ...errors import InterruptedRunError, NotFiniteError, RefusedError, UsageError
from ...heads.contract import FitSettings
from ...heads.registry import build_from_settings
from ...heads.svm.codebook import Covariance, assemble, learn_centres
from ...heads.svm.encodings import Codebook
from ...heads.svm.machines import EncodedSvm, SvmFit, SvmOn, SvmVlad, VladConfig
from ...heads.svm.solver import Machines, gram_matrix, machine_count, peak_bytes, solve
from ..metrics.classification import Measures, mean_average_precision, multi_hot, summary, top_k
from ..runs.measured import CrossValidation, FitMeasures, FitResult
from ..runs.places import Place
from ..runs.progress import Progress
from ..runs.reload import load_head
from ..runs.run import Run
from ..runs.signals import StopRequest
from .folds import deal_folds
from .plan import FitConfig, FitPlan


def fit_svm(config: FitConfig, plan: FitPlan, how: FitSettings, run: Run, device: torch.device) -> FitResult:
    """Learn the machines of a planned fit, and write weights and validation scores into its run.

    C is chosen by cross-validation within the training part; the validation part is scored by machines that never saw
    it; then (`refit`) the machines are learned again from both parts: there is no step left to choose. On a run, which
    separates the videos it was fitted on whatever C is, C is chosen on the validation part.

    Raises
    ------
    InterruptedRunError
        After SIGTERM, SIGUSR1 or Ctrl-C; the same call starts again.
    NotFiniteError
        If the cubes of a video hold NaN or infinity.
    UsageError
        If the matrices do not fit in memory, or one-vs-one meets several labels.
    """
    started = time.monotonic()
    index = plan.store.index
    head = _build(plan)
    if not isinstance(how, SvmFit):
        raise UsageError(f"Head {config.head!r} is not fitted by a solver.")
    hot, videos = multi_hot(index.labels, len(index.classes)), np.concatenate([plan.train, plan.validation])
    n, jobs, length = len(plan.train), _jobs(), head.coefficients.shape[1]
    run.say(
        f"{config.head} ({plan.settings.preset}) on {', '.join(plan.names)}: {len(videos)} vectors of {length} "
        f"numbers, {machine_count(head.classes, head.form)} machines {head.form} in {jobs} threads"
    )
    again = how.refit and n < len(videos)
    with StopRequest() as stop:
        learning = _Learning(run, stop)
        _learn_codebooks(head, plan, how, seed=config.seed, learning=learning)
        vectors = encode_videos(head.to(device), plan, videos, batch_videos=how.batch_videos, learning=learning)
        head.cpu()
        kernel = gram_matrix(vectors)
        inner = kernel if n == len(videos) else np.ascontiguousarray(kernel[:n, :n])
        total = (_tries(plan, how) + 1 + again) * machine_count(head.classes, head.form)
        with Progress("solve", total, unit="machine") as learning.progress:
            C, rows, note = _choose_C(head, kernel, inner, plan, how, hot, jobs, config.seed, learning)
            machines = _solve(head, inner, hot[plan.train], C, jobs, learning)
            measured = _validated(plan, run, _scores(head, machines, kernel[n:, :n])) if len(plan.validation) else None
            if again:
                del inner
                machines = _solve(head, kernel, hot[videos], C, jobs, learning)
    head.coefficients.copy_(torch.from_numpy(machines.coefficients(vectors if again else vectors[:n])))
    head.intercepts.copy_(torch.from_numpy(machines.intercepts))
    run.write_weights(head.state_dict())
    return FitResult(
        run=str(run.path),
        head=config.head,
        streams=plan.names,
        metrics=FitMeasures(validation=measured),
        seconds=time.monotonic() - started,
        selected_by=note,
        C=C,
        cross_validation=rows or None,
        classes=len(index.classes),
        train_videos=len(plan.train),
        validation_videos=len(plan.validation),
        notes=(*plan.notes, _note(plan, rows, again=again)),
    )


def _tries(plan: FitPlan, how: SvmFit) -> int:
    """Return how often all machines are learned before C is chosen."""
    return 0 if how.C is not None else len(how.grid) * (how.folds if plan.on is None else 1)


def _note(plan: FitPlan, rows: tuple[CrossValidation, ...], *, again: bool) -> str:
    chosen = ", but C was chosen by them" if rows and plan.on is not None else ""
    parts = "both parts" if again else "the training part"
    return f"validation figures are of machines that never saw it{chosen}; the weights are learned from {parts}"


def _validated(plan: FitPlan, run: Run, scores: np.ndarray) -> Measures:
    """Measure the scores of the validation videos [m, N], and keep them in the run."""
    index, videos = plan.store.index, plan.validation
    place, seen = Place(split=plan.split, part="validation").name, np.ones(len(videos), bool)
    run.write_scores(place, ids=index.ids[videos], scores=scores, labels=index.labels[videos], seen=seen)
    hot = multi_hot(index.labels[videos], len(index.classes))
    return summary(scores, hot, multi_label=index.multi_label)


class _Learning:
    """The run that is being learned, and whether it is asked to stop."""

    progress: Progress  # of the machines

    def __init__(self, run: Run, stop: StopRequest) -> None:
        self.run, self.stop = run, stop

    def pause(self) -> None:
        """Stop if a signal asked for it."""
        if self.stop.name:
            raise InterruptedRunError(
                f"Stopped by {self.stop.name} before the fit in {self.run.path} was done; the same command starts it "
                "again, it takes minutes."
            )


def _jobs() -> int:
    """Threads: as many as PyTorch has (a sweep gives each fit its share), 8 at most, as each has a cache of its own."""
    return min(8, torch.get_num_threads())


def require_possible(plan: FitPlan) -> None:
    """Refuse a planned fit that cannot be, before anything is written; see `fit_svm`."""
    head = _build(plan)
    if plan.on is not None and not len(plan.validation) and getattr(plan.settings.fit, "C", None) is None:
        raise UsageError(
            f"Run {plan.on.path} was fitted on all videos of its training list, and C must be chosen on others: give "
            "one, such as --set C=1."
        )
    machines, length = head.coefficients.shape
    require_memory(len(plan.train) + len(plan.validation), length, machines)


def require_memory(videos: int, length: int, machines: int) -> None:
    """Refuse a fit that would not fit in memory.

    Parameters
    ----------
    videos : of both parts
    length : of a video's vector
    machines : P

    Raises
    ------
    UsageError
        If about that much memory is not available.
    """
    needed, there = peak_bytes(videos, length, machines=machines, jobs=_jobs()), available_ram_bytes()
    if needed > there:
        raise UsageError(
            f"An SVM on {videos} vectors of {length} numbers takes about {needed / 1e9:.1f} GB, and "
            f"{there / 1e9:.1f} GB are available; take a shorter vector (svm-pool5-mean), or a head that is trained in "
            "batches."
        )


def _build(plan: FitPlan) -> EncodedSvm | SvmOn:
    classes = len(plan.store.index.classes)
    on = None if plan.on is None else load_head(plan.on, plan.store)
    head = build_from_settings(plan.settings, streams=plan.streams, classes=classes, on=on)
    if not isinstance(head, EncodedSvm | SvmOn):
        raise UsageError(f"Head {plan.settings.name!r} is not fitted by a solver.")
    if head.form == "one-vs-one" and plan.store.index.multi_label:
        raise RefusedError(f"{plan.store.path} has videos of several labels, and form=one-vs-one needs one each.")
    return head


@torch.inference_mode()
def encode_videos(
    head: EncodedSvm | SvmOn, plan: FitPlan, videos: np.ndarray, *, batch_videos: int, learning: _Learning
) -> np.ndarray:
    """Video vectors, averaged over the views of the fit, as decision values are.

    Parameters
    ----------
    head : on the device to compute on
    videos : [n] positions

    Returns
    -------
    [n, R] float32
    """
    store, views = plan.store, plan.views.views
    place = np.full(int(videos.max()) + 1, -1)
    place[videos] = np.arange(len(videos))
    vectors = np.zeros((len(videos), head.coefficients.shape[1]), np.float32)
    total = len(views) * -(-len(videos) // batch_videos)
    with Progress("encode", total, unit="read") as progress:
        for view in views:
            batches = Batches(
                store,
                plan.names,
                videos,
                batch_videos=batch_videos,
                shuffle=False,
                view=view,
                device=head.coefficients.device,
                residency="stream",  # each cube is read once
            )
            for batch in batches.epoch(0):
                vectors[place[batch.videos]] += head.encode(batch.cubes, batch.valid).cpu().numpy()
                progress.advance()
                learning.pause()
    vectors /= len(views)
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        bad = str(store.index.ids[videos[~finite][0]])
        raise NotFiniteError(
            f"The vector of video {bad!r} is not finite: its cubes hold NaN or infinity; extract it again."
        )
    return vectors


def _learn_codebooks(head: EncodedSvm | SvmOn, plan: FitPlan, how: SvmFit, *, seed: int, learning: _Learning) -> None:
    """Learn the codebook of each stream, if the head has one."""
    if isinstance(head, SvmVlad):
        for number, name in enumerate(plan.names):
            codebook = _learn_codebook(plan, how, number, seed=seed, learning=learning)
            head.take_codebook(number, codebook)
            P, k = codebook.projection.shape[0], len(codebook.centres)
            learning.run.say(f"codebook of {name}: {P} components, {k} clusters, learned from the training part")


def _learn_codebook(plan: FitPlan, how: SvmFit, number: int, *, seed: int, learning: _Learning) -> Codebook:
    """Learn the codebook of one stream in two passes over a sample of its descriptors, equally many of each video."""
    config = plan.settings.config
    if not isinstance(config, VladConfig):
        raise UsageError(f"Head {plan.settings.name!r} has no codebook.")
    videos = plan.train[: config.descriptors]  # the store's order is random already
    each = config.descriptors // len(videos)
    stream = plan.streams[number]
    batches = Batches(
        plan.store, [stream.name], videos, batch_videos=how.batch_videos, shuffle=False,
        view=plan.views.views.start, residency="stream",
    )  # fmt: skip

    def samples(what: str) -> Iterator[torch.Tensor]:
        with Progress(f"{what} of {stream.name}", len(batches), unit="read") as progress:
            for batch in batches.epoch(0):
                for position, cube, T in zip(batch.videos, batch.cubes[0], batch.valid.sum(1).tolist(), strict=True):
                    descriptors = cube[:T].flatten(0, 2)
                    generator = np.random.default_rng([seed, int(position)])
                    chosen = generator.choice(len(descriptors), min(each, len(descriptors)), replace=False)
                    yield descriptors[torch.from_numpy(np.sort(chosen))]
                progress.advance()
                learning.pause()

    covariance = Covariance(stream.channels)
    for sample in samples("components"):
        covariance.add(sample.numpy())
    components = min(config.pca, stream.channels)
    mean, projection = covariance.components(components, whiten=config.whiten)
    points = np.empty((covariance.count, components), np.float32)
    done = 0
    for sample in samples("descriptors"):
        points[done : done + len(sample)] = (sample.numpy().astype(np.float32) - mean) @ projection.T
        done += len(sample)
    return assemble(mean, projection, learn_centres(points, clusters=config.clusters, seed=seed))


def _choose_C(
    head: EncodedSvm | SvmOn,
    kernel: np.ndarray,
    inner: np.ndarray,
    plan: FitPlan,
    how: SvmFit,
    hot: np.ndarray,
    jobs: int,
    seed: int,
    learning: _Learning,
) -> tuple[float, tuple[CrossValidation, ...], str]:
    """Return C, what was measured for each that was tried, and what it was chosen by in words.

    Parameters
    ----------
    kernel : [n + m, n + m] of the training videos, then the validation videos
    inner : [n, n] of the training videos
    hot : [videos, N] of the store
    """
    if how.C is not None:
        return how.C, (), "C was given"
    if plan.on is None:
        rows, note = _cross_validate(head, inner, plan, how, hot[plan.train], jobs, seed, learning)
    else:
        rows, note = _try_on_validation(head, kernel, inner, plan, how, hot, jobs, learning)
    C = max(rows, key=lambda row: row.measure).C  # the first of equals: the smallest
    told = ", ".join(f"C={row.C:g} {row.measure:.4f}" for row in rows)
    learning.run.say(f"{note}: {told}; C={C:g} is taken")
    return C, rows, note


def _try_on_validation(
    head: EncodedSvm | SvmOn, kernel: np.ndarray, inner: np.ndarray, plan: FitPlan, how: SvmFit, hot: np.ndarray,
    jobs: int, learning: _Learning,
) -> tuple[tuple[CrossValidation, ...], str]:  # fmt: skip
    """Return the measure of the validation scores for each C, and what was done in words."""
    n = len(plan.train)
    scores = [_scores(head, _solve(head, inner, hot[plan.train], C, jobs, learning), kernel[n:, :n]) for C in how.grid]
    rows, name = _measured(how, scores, hot[plan.validation], multi_label=plan.store.index.multi_label)
    return rows, f"C by {name} of the validation scores, whose videos the head was not fitted on"


def _measured(
    how: SvmFit, scores: Sequence[np.ndarray], hot: np.ndarray, *, multi_label: bool
) -> tuple[tuple[CrossValidation, ...], str]:
    """Return the measure of the scores [n, N] by each C, and its name."""
    if multi_label:
        measure, name = [mean_average_precision(s, hot) for s in scores], "map"
    else:
        measure, name = [top_k(s, hot, 1) for s in scores], "top1"
    return tuple(CrossValidation(C=C, measure=m) for C, m in zip(how.grid, measure, strict=True)), name


def _cross_validate(
    head: EncodedSvm | SvmOn,
    kernel: np.ndarray,
    plan: FitPlan,
    how: SvmFit,
    hot: np.ndarray,
    jobs: int,
    seed: int,
    learning: _Learning,
) -> tuple[tuple[CrossValidation, ...], str]:
    """Return the measure of the out-of-fold scores for each C, and what was done in words."""
    index = plan.store.index
    fold_of, note = deal_folds(hot, index.groups[plan.train], folds=how.folds, seed=seed)
    scores = np.zeros((len(how.grid), *hot.shape), np.float32)
    for fold in range(how.folds):
        inside = np.flatnonzero(fold_of != fold)
        outside = np.flatnonzero(fold_of == fold)
        part = kernel[np.ix_(inside, inside)]
        for number, C in enumerate(how.grid):
            machines = _solve(head, part, hot[inside], C, jobs, learning)
            scores[number, outside] = _scores(head, machines, kernel[np.ix_(outside, inside)])
    rows, name = _measured(how, list(scores), hot, multi_label=index.multi_label)
    return rows, f"C by {name} of out-of-fold scores, {note}"


def _solve(
    head: EncodedSvm | SvmOn, kernel: np.ndarray, hot: np.ndarray, C: float, jobs: int, learning: _Learning
) -> Machines:
    def solved() -> None:
        learning.progress.advance(f"C={C:g}")
        learning.pause()

    return solve(kernel, hot, form=head.form, C=C, jobs=jobs, solved=solved)


def _scores(head: EncodedSvm | SvmOn, machines: Machines, kernel: np.ndarray) -> np.ndarray:
    """Scores of the classes [m, N] float32 from the kernel [m, n] with the training vectors."""
    decisions = torch.from_numpy(machines.decide(kernel).astype(np.float32))
    return head.from_decisions(decisions).numpy()
