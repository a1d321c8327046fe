"""What fitted heads say of the videos of a store, which needs neither labels nor the classes of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.store import Store
from ...errors import UsageError
from ...extract.video import VideoReport
from ...heads.contract import Head
from ...heads.fusion.score_rules import mean_rule
from ..runs.reload import load_head, require_features, require_fit, settings_of
from ..runs.scoring import resolve_device, score_views
from ..runs.videos import not_finite
from ..runs.views import choose_views, sampled
from .clip_cubes import Clip
from .fusing import as_probabilities, fusion_words, temperature_of
from .making import require_alike
from .predictor import About, Prediction, PredictorConfig, open_fit


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredPredictions:
    """What is said of the videos of a store, in store order."""

    predictions: list[Prediction]
    about: About


def predict_store(paths: Sequence[Path], store_path: Path, how: PredictorConfig) -> StoredPredictions:
    """Score all videos of a store.

    Raises
    ------
    FingerprintMismatchError
        If a stream of the store has other features than a run was fitted on.
    UsageError
        If none of its videos has cubes, or windows, weights or intervals are asked for: they are of videos.
    """
    if how.slide is not None or how.intervals is not None or how.choices.weights or how.choices.sampler:
        raise UsageError("--window, --rule, --weights and --sampler are for videos; with --store the cubes are made.")
    runs, device = [open_fit(path) for path in paths], resolve_device(how.device)
    require_alike(runs)
    store = Store.open(store_path)
    names = dict.fromkeys(name for run in runs for name in require_fit(run).stream_names)
    for run in runs:
        require_features(run, store)
    videos = np.flatnonzero(store.usable(names))
    if not len(videos):
        raise UsageError(f"None of the {len(store.index)} videos of {store.path} has segments; see `vidatt status`.")
    read = choose_views(store, how.choices.views)
    scored, temperatures, kind = [], [], Head.score_kind
    for run in runs:
        identity = require_fit(run)
        head = load_head(run, store).to(device)
        scores = score_views(
            head, store, identity.stream_names, videos, views=read.views, device=device,
            batch_videos=settings_of(identity).fit.batch_videos,
        ).probabilities  # fmt: skip
        if not (finite := np.isfinite(scores).all(1)).all():
            raise not_finite(run, store, int(videos[finite.argmin()]))
        scored.append(scores)
        temperatures.append(temperature_of(run, head))
        kind = head.score_kind if len(runs) == 1 else kind
    identity = require_fit(runs[0])
    fused = scored[0]
    if len(runs) > 1:
        plain = [
            as_probabilities(scores, temperature, multi_label=identity.multi_label)
            for scores, temperature in zip(scored, temperatures, strict=True)
        ]
        fused = mean_rule(np.stack(plain)).astype(np.float32)
    about = About(
        score_kind=kind,
        fusion=fusion_words(runs, temperatures) if len(runs) > 1 else None,
        sampled=(sampled(store, read.name),) * len(runs),
        notes=(),
    )
    return StoredPredictions(
        predictions=_predictions(store, list(names), videos, fused, scored, identity.classes), about=about
    )


def _predictions(
    store: Store, names: Sequence[str], videos: np.ndarray, fused: np.ndarray, scored: Sequence[np.ndarray],
    classes: tuple[str, ...],
) -> list[Prediction]:  # fmt: skip
    row_of = {position: row for row, position in enumerate(videos.tolist())}
    made = []
    for position, id in enumerate(store.index.ids.tolist()):
        outcomes = [store.stream(name).outcome(position) for name in names]
        worst = next((one for one in outcomes if one.outcome != "ok"), outcomes[0])
        row = row_of.get(position)
        made.append(
            Prediction(
                clip=Clip(id=str(id), path=Path(str(store.index.paths[position]))),
                report=VideoReport(outcome=worst.outcome, detail=worst.detail),
                classes=classes,
                scores=None if row is None else fused[row],
                by_run=() if row is None else tuple(scores[row] for scores in scored),
                segments=0 if row is None else min(one.segments for one in outcomes),
            )
        )
    return made
