"""The scores of several runs made one: the mean of their probabilities, as `vidatt fuse --method mean` does it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...heads.contract import Head
from ...heads.fusion.score_rules import decision_temperature, to_probabilities
from ..metrics.classification import multi_hot
from ..results.run_scores import kept_scores
from ..runs.places import Place
from ..runs.run import Run


def temperature_of(run: Run, head: Head) -> float | None:
    """Return by which decision values become probabilities, as `fuse` learns it; None: they are probabilities.

    It is learned on the validation scores of the run; a run that has none gets 1.
    """
    if head.score_kind == Head.score_kind:
        return None
    identity = run.identity
    if not (run.path / Place(split=identity.split, part="validation").scores).is_file():
        return 1.0
    held = kept_scores(run, identity.split, "validation")
    assert held.labels is not None  # of a run
    hot = multi_hot(held.labels, len(identity.classes))
    known = hot.any(1)
    return decision_temperature(held.scores[known], hot[known], multi_label=identity.multi_label)


def as_probabilities(scores: np.ndarray, temperature: float | None, *, multi_label: bool) -> np.ndarray:
    """Return scores [n, N] as probabilities."""
    return scores if temperature is None else to_probabilities(scores, temperature, multi_label=multi_label)


def fusion_words(runs: Sequence[Run], temperatures: Sequence[float | None]) -> str:
    """Say how the scores of several runs become one."""
    text = f"mean of the class probabilities of {len(runs)} runs, as `vidatt fuse --method mean`"
    pairs = zip(runs, temperatures, strict=True)
    told = [f"{temperature:.3g} ({run.path})" for run, temperature in pairs if temperature is not None]
    return f"{text}; decision values become probabilities by the temperature {', '.join(told)}" if told else text
