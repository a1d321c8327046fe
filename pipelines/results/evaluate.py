"""`vidatt evaluate`: score a fitted head on a part of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...cache.store import Store
from ...errors import MissingFileError, RefusedError, UnknownNameError, UsageError
from ...heads.contract import Head
from ..metrics.classification import Measures, measured, multi_hot
from ..runs.identity import FusionEnvironment, FusionIdentity
from ..runs.measured import Evaluation, Official, OfficialEvaluation
from ..runs.places import Place, place_of
from ..runs.reload import load_head, require_fit, settings_of, store_for
from ..runs.run import CONFIG, Run, changes
from ..runs.scoring import Scores, resolve_device, score_views
from ..runs.splits import PARTS, choose_split
from ..runs.videos import ChosenVideos, choose_videos, not_finite
from ..runs.views import ChosenViews, choose_views, sampled
from .protocols import find_protocol, measures_text, official, official_splits


def evaluate(
    run_path: Path, store_path: Path | None = None, split: str | None = None, part: str = "test", device: str = "auto",
    *, views: str | None = None, batch_videos: int | None = None, allow_seen: bool = False,
) -> Evaluation:  # fmt: skip
    """Score a run's head; results are kept in the run: `metrics.json`, and the scores in a file named by `Place`.

    Parameters
    ----------
    run_path : a finished run
    store_path : None = the store it was fitted on; another one must have equal features and the same classes
    split : None = the run's
    part : "test" or "train"
    device : auto, cpu, cuda or cuda:i
    views : the set of the store's views to average over, such as "10crop"; None = the first that is no random one
    batch_videos : None = as in the fit
    allow_seen : also score videos that the run was fitted or selected on; the result says so

    Raises
    ------
    FingerprintMismatchError
        If a stream of the store has other features than the run's; the message says what differs.
    RefusedError
        If classes differ, or the part holds videos that the run was fitted or selected on.
    UsageError
        If the run is unfinished or damaged, or the part holds no video.
    """
    if part not in PARTS:
        raise UnknownNameError("part", part, PARTS)
    run, device_ = Run.open(run_path), resolve_device(device)
    run.require_finished()
    store, identity = store_for(run, store_path), require_fit(run)
    split = choose_split(store, split or identity.split)
    chosen, read = choose_videos(run, store, split, part, allow_seen=allow_seen), choose_views(store, views)
    index, videos = store.index, chosen.videos
    head = load_head(run, store).to(device_)
    scored = _scored(run, head, store, videos, read.views, device=device_, batch_videos=batch_videos)
    scores = scored.probabilities
    labels, hot = index.labels[videos], multi_hot(index.labels[videos], len(index.classes))
    place = place_of(run, store, split, part, read)
    run.write_scores(
        place.name, ids=index.ids[videos], scores=scores, labels=labels, seen=chosen.seen, branches=scored.branches
    )
    result = Evaluation(
        run=str(run_path),
        split=split,
        part=part,
        videos=len(videos),
        listed=chosen.listed,
        missing=chosen.listed - len(videos),
        protocol=_protocol(head, store, read, split, part, chosen, hot, identity.settings.config.get("clip_segments")),
        sampled=sampled(store, read.name),
        scores=str(run.path / place.scores),
        seen=chosen.seen_count,
        seen_note=chosen.note,
        **vars(measured(scores, hot, index.classes, multi_label=index.multi_label)),
    )
    run.add_evaluation(place.name, replace(result, store=str(store.path)), file=place.scores)
    return result


def _scored(
    run: Run, head: Head, store: Store, videos: np.ndarray, views: range, *, device: torch.device,
    batch_videos: int | None,
) -> Scores:  # fmt: skip
    """Return the scores of videos, fused and of each branch; refuse what is not finite."""
    identity = require_fit(run)
    at_once = batch_videos or settings_of(identity).fit.batch_videos
    scored = score_views(head, store, identity.stream_names, videos, views=views, device=device, batch_videos=at_once)
    if not (finite := np.isfinite(scored.probabilities).all(1)).all():
        raise not_finite(run, store, int(videos[finite.argmin()]))
    return scored


def evaluate_officially(
    run_paths: Sequence[Path], store_path: Path | None = None, split: str | None = None, device: str = "auto", *,
    views: str | None = None, allow_seen: bool = False,
) -> Evaluation | OfficialEvaluation:  # fmt: skip
    """Evaluate runs, one per split, and make the official number of their dataset from them.

    Parameters
    ----------
    run_paths : finished runs of one head on the same streams; fusions that are evaluated count as well
    store_path, device, views, allow_seen : see `evaluate`
    split : for one run only, see `evaluate`

    Returns
    -------
    Of one run what `evaluate` returns, with `official`; of several their means

    Raises
    ------
    RefusedError
        If the runs are of different heads, streams, classes or datasets, or not one per split.
    UsageError
        If the dataset has no official protocol of classification.
    """
    runs = [Run.open(path) for path in run_paths]
    what = str(run_paths[0])
    if split is not None and len(runs) > 1:
        raise UsageError("--split is for one run; several runs are each evaluated on their own split.")
    first = runs[0]
    for run in runs[1:]:
        if different := changes(_subject(first), _subject(run)):
            raise RefusedError(
                f"Runs {first.path} and {run.path} are not the same head on other splits: {different[0]} "
                "(first -> second)."
            )
    stores = [store_for(_fit_of(run), store_path) for run in runs]
    dataset = stores[0].plan.dataset
    find_protocol(dataset, what)
    for run, store in zip(runs, stores, strict=True):
        if store.plan.dataset != dataset:
            raise RefusedError(f"Runs {first.path} and {run.path} are of different datasets.")
    chosen = [split or run.identity.split for run in runs]
    official_splits(str(dataset), chosen, sorted(stores[0].index.splits), what)
    done = [
        _recorded(run, split)
        if isinstance(run.identity, FusionIdentity)
        else evaluate(run.path, store_path, split, device=device, views=views, allow_seen=allow_seen)
        for run in runs
    ]
    number = official(str(dataset), done, sorted(stores[0].index.splits), what)
    return replace(done[0], official=number) if len(done) == 1 else _together(done, number)


def _together(done: Sequence[Evaluation], number: Official) -> OfficialEvaluation:
    return OfficialEvaluation(
        run=", ".join(result.run for result in done),
        split=", ".join(str(result.split) for result in done),
        videos=number.scored,
        listed=number.listed,
        missing=number.missing,
        metrics=Measures(**{key: getattr(number.figures, key) for key in done[0].metrics.to_dict()}),
        protocol="; ".join(
            [f"means over {len(done)} runs; first run: {done[0].protocol}"]
            + [result.seen_note for result in done[1:] if result.seen_note]
        ),
        official=number,
        runs=tuple(done),
    )


def _fit_of(run: Run) -> Run:
    """Return the run itself, or the first fit among the parts of a fusion: it knows the store.

    Raises
    ------
    MissingFileError
        If no run that was fused is where it was.
    """
    while isinstance(run.environment, FusionEnvironment):
        parts = [Path(part) for part in run.environment.parts]
        there = next((part for part in parts if (part / CONFIG).exists()), None)
        if there is None:
            raise MissingFileError(
                f"Run {run.path} is a fusion, and none of the runs it was made of is there now, such as {parts[0]}."
            )
        run = Run.open(there)
    return run


def _subject(run: Run) -> Mapping[str, Any]:
    """Return what runs on different splits must have in common, as JSON values."""
    identity = run.identity
    return {
        "head": identity.head,
        "preset": identity.preset,
        "stream_names": list(identity.stream_names),
        "classes": list(identity.classes),
        "streams": {name: stream.fingerprint for name, stream in identity.streams.items()},
    }


def _recorded(fusion: Run, split: str | None) -> Evaluation:
    """Return what a fusion measured when it was made."""
    own = fusion.identity.split
    if split not in (None, own):
        raise UsageError(f"Run {fusion.path} is a fusion of test scores of split {own!r}; leave out --split.")
    found = fusion.evaluation(Place(split=own, part="test").name)
    if found is None:
        raise UsageError(f"Run {fusion.path} has no evaluation of split {own!r}; fuse again with another --out.")
    return found


def _protocol(
    head: Head, store: Store, views: ChosenViews, split: str, part: str, chosen: ChosenVideos, hot: np.ndarray,
    clip_segments: int | None,
) -> str:  # fmt: skip
    """Say in one line how the numbers were made; `clip_segments` is of heads that average over clips (GLKA)."""
    listed = chosen.listed
    parts = [f"classification of {len(hot)} of {listed} {part} videos of split {split}"]
    if len(hot) < listed:
        parts.append(f"{listed - len(hot)} without usable cubes are left out of every denominator")
    where = sampled(store, views.name)
    if len(views.views) > 1:
        named = f" ({views.name})" if views.name else ""
        parts.append(f"{head.score_kind} averaged over {len(views.views)} views{named}")
    else:
        if head.score_kind != Head.score_kind:
            parts.append(f"by {head.score_kind}")
        if views.name:
            parts.append(f"view {views.name}")
    if where.sampler:
        parts.append(f"segments {where.sampler}" + (f", window {where.window_frames}" if where.window_frames else ""))
    if where.seed is not None:
        parts.append(f"drawn by seed {where.seed}")
    if clip_segments is not None:
        parts.append(f"averaged over the clips of {clip_segments} segments of each video")
    parts.append(measures_text(hot, multi_label=store.index.multi_label))
    parts += [chosen.note] if chosen.note else []
    return "; ".join(parts)
