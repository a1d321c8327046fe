"""Run folders as a test wants them: with scores that it chooses, and as version 0.1.0 left them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidatt.heads.registry import resolve_settings
from vidatt.pipelines.metrics.classification import measured, multi_hot
from vidatt.pipelines.runs.identity import FitEnvironment, FitIdentity
from vidatt.pipelines.runs.measured import Evaluation, FitMeasures, FitResult
from vidatt.pipelines.runs.run import Run


def scored_run(
    path: Path,
    *,
    classes: Sequence[str],
    scores: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str] | None = None,
    store: str = "gone.zarr",
    multi_label: bool = False,
    settings: dict[str, str] | None = None,
    validation: float | None = 0.5,
    evaluated: bool = True,
    **changes: Any,
) -> Path:
    """Make a finished run of `mean` with these scores [n, N] and labels [n, L] on the test part of split 1."""
    told = resolve_settings("mean", "small", settings or {})
    identity = {
        "head": "mean", "preset": "small", "stream_names": ["rgb"], "settings": told.to_dict(),
        "streams": {"rgb": {"grid": 1, "channels": 2, "fingerprint": "f" * 64, "recipe": {"backbone": "hog"}}},
        "split": "1", "seed": 0, "classes": list(classes), "multi_label": multi_label,
        "views": 1, "allow_truncated": True, "validation_share": 0.2,
        "train": {"videos": 8, "digest": "t" * 64}, "validation": {"videos": 2, "digest": "v" * 64}, **changes,
    }  # fmt: skip
    for part in ("config", "fit"):  # as JSON has them
        values = identity["settings"][part]
        identity["settings"][part] = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    environment = FitEnvironment(store=store, device="cpu", versions={"vidatt": "0.1.0"}, notes=())
    run = Run.create(path, identity=FitIdentity.from_dict(identity, "identity"), environment=environment)
    names = np.array(ids or [f"v{n}" for n in range(len(scores))])
    hot = multi_hot(labels, len(classes))
    found = measured(scores, hot, tuple(classes), multi_label=multi_label)
    held = None if validation is None else found.metrics.__class__(
        **{**vars(found.metrics), "top1": validation, "map": validation}
    )  # fmt: skip
    evaluation = Evaluation(
        run=str(path), split="1", part="test", videos=len(scores), listed=len(scores), missing=0,
        protocol="classification of all", **vars(found),
    )  # fmt: skip
    result = FitResult(
        run=str(path), head="mean", streams=("rgb",), metrics=FitMeasures(validation=held), seconds=1.0, steps=4,
        best_step=2, selected_by="top1", train_videos=8, validation_videos=2, notes=(),
    )  # fmt: skip
    run.write_history(
        [{"step": n, "lr": 0.1, "train_loss": 1 / n, "validation_loss": None, "top1": 0.1 * n} for n in (2, 4)]
    )
    if evaluated:
        run.write_scores("1-test", ids=names, scores=scores, labels=labels)
    run.finish(result, {"1-test": evaluation} if evaluated else {})
    return path


def without_digests(run: Path) -> Path:
    """Take away what newer versions keep: digests of files and identity, the list of videos, the store's digest."""
    metrics = json.loads((run / "metrics.json").read_text())
    for key in ("seal", "identity", "files"):
        metrics.pop(key, None)
    (run / "metrics.json").write_text(json.dumps(metrics))
    config = json.loads((run / "config.json").read_text())
    config["environment"].pop("store_digest", None)
    (run / "config.json").write_text(json.dumps(config))
    (run / "videos.npz").unlink(missing_ok=True)
    return run
