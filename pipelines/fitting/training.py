"""The training loop: steps, validations, the best weights, checkpoints, and a stop in good order."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cache.batches import Batch, Batches
from ...errors import InterruptedRunError, NotFiniteError, RefusedError
from ...heads.contract import FitDefaults, Head
from ..durations import rough_text
from ..metrics.classification import mean_average_precision, top_k
from ..runs.progress import LOG_SECONDS, Progress
from ..runs.run import CHECKPOINT, Run
from ..runs.scoring import score_view
from ..runs.signals import StopRequest

log = logging.getLogger(__name__)

ROW_SECONDS = 60.0
"""The history gets a row at least so often, however slow the steps are."""
FIRST_STEPS, FIRST_SECONDS = 3, 5.0
"""So many steps, and so much time, before the time that is left is told, if that is longer."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingData:
    """What the loop reads; labels and ids are per position in the store."""

    train: Batches
    validation: Batches | None
    validation_videos: np.ndarray  # [n] positions
    targets: Tensor  # [videos] int64 or [videos, N] float32, on the device of the batches
    hot: np.ndarray  # [n, N] bool, labels of the validation videos
    ids: np.ndarray  # [videos] str
    measure: str  # "top1" or "map": what the best weights are chosen by; a tie goes to the lower loss


class Training:
    """One fit in progress; everything that changes is in the checkpoint.

    Parameters
    ----------
    head : with fresh weights, on the device of the data
    fit : how
    data : from what
    run : where checkpoints and the history go
    checkpoint_seconds : time between checkpoints; 0 = after every step
    """

    def __init__(
        self, head: Head, fit: FitDefaults, data: TrainingData, run: Run, *, checkpoint_seconds: float
    ) -> None:
        self.head, self.fit, self.data, self.run = head, fit, data, run
        self.checkpoint_seconds = checkpoint_seconds
        self.optimiser = build_optimiser(head, fit)
        self.step = 0  # steps done
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None  # step, measure, loss, weights
        self.plateau = Plateau(fit.factor, fit.patience)
        self.loss_sum, self.loss_steps = 0.0, 0  # since the last row of the history
        self.logged: dict[str, float] = {}  # of the last step before a row: means of `head.logged`
        self._row_due = False  # whether the step just done gets a row in the history
        self.seconds = 0.0  # of earlier processes
        self.resumed = self._resume()
        self._first = self.step  # of this process
        self._left_told = False
        self._started = self._saved = self._row_at = time.monotonic()

    def train(self) -> None:
        """Run to the last step, or until validation has not improved for long, and leave the best weights in the head.

        Raises
        ------
        InterruptedRunError
            After a stop signal; the checkpoint is written.
        NotFiniteError
            If the loss is NaN or infinite; the last checkpoint stays.
        """
        left = self.fit.steps - self.step
        name = f"fit {self.run.path.name}"
        progress = Progress(name, left, unit="step", first_seconds=LOG_SECONDS)  # what is left is told before
        with StopRequest() as stop, progress, closing(self._batches()) as batches:
            for batch in batches:
                loss = self._step(batch)
                progress.advance(f"loss {loss:.4f}")
                if self._tells():
                    self._validate()
                elif self._row_due:
                    self._add_row({})
                self._tell_left()
                if stop.name:
                    self._save()
                    raise InterruptedRunError(
                        f"Stopped by {stop.name} after step {self.step} of {self.fit.steps} of the fit in "
                        f"{self.run.path}; the same command continues it."
                    )
                if time.monotonic() - self._saved >= self.checkpoint_seconds:
                    self._save()
        if self.stopped_early:
            self.run.say(f"{self.stopped_early}; the weights of that step are kept")
        if self.best:
            self.head.load_state_dict(self.best["weights"])

    @property
    def stopped_early(self) -> str | None:
        """Why the fit ends before its last step; None if it does not. By the history alone, so also when resumed."""
        if self.fit.early_stopping is None or self.best is None or self.step >= self.fit.steps:
            return None
        since = [row for row in self.history if row["validation_loss"] is not None and row["step"] > self.best["step"]]
        if len(since) < self.fit.early_stopping:
            return None
        return (
            f"stopped early at step {self.step} of {self.fit.steps}: {len(since)} validations without a better one "
            f"since step {self.best['step']}"
        )

    def _tell_left(self) -> None:
        """Say once how long the rest will take, by the steps of this process."""
        done, seconds = self.step - self._first, time.monotonic() - self._started
        if self._left_told or done < FIRST_STEPS or seconds < FIRST_SECONDS or self.step >= self.fit.steps:
            return
        self._left_told = True
        left = (self.fit.steps - self.step) * seconds / done
        if left < FIRST_SECONDS:
            return
        sooner = "; sooner if it stops early" if self.fit.early_stopping else ""
        self.run.say(f"about {rough_text(left)} left, by the first {done} steps ({seconds / done:.2g} s each){sooner}")

    def elapsed(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self.seconds + time.monotonic() - self._started

    def _batches(self) -> Generator[Batch]:
        """The batches of the steps that are left; a resumed epoch goes on where it stopped."""
        length = len(self.data.train)
        while self.step < self.fit.steps and not self.stopped_early:
            done = self.step % length
            for number, batch in enumerate(self.data.train.epoch(self.step // length)):
                if number >= done:
                    yield batch
                if self.step >= self.fit.steps or self.stopped_early:
                    return

    def _step(self, batch: Batch) -> float:
        rate = learning_rate(self.fit, self.step) * self.plateau.scale
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.head.train()
        target = self.data.targets[torch.as_tensor(batch.videos, device=self.data.targets.device)]
        output = self.head(batch.cubes, batch.valid)
        loss = self.head.loss(output, target, step=self.step)
        value = loss.item()
        if not math.isfinite(value):
            raise NotFiniteError(self._why_not_finite(batch, value, rate))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.step += 1
        self.loss_sum, self.loss_steps = self.loss_sum + value, self.loss_steps + 1
        self._row_due = self._tells() or time.monotonic() - self._row_at >= ROW_SECONDS
        self.logged = {  # only where a row follows is it worth waiting for the device
            name: output.parts[name].detach()[batch.valid].mean().item() if self._row_due else 0.0
            for name in self.head.logged
        }
        return value

    def _tells(self) -> bool:
        """Whether a validation follows this step."""
        return self.step % self.fit.validate_every == 0 or self.step == self.fit.steps

    def _why_not_finite(self, batch: Batch, value: float, rate: float) -> str:
        cause = f"the learning rate is too high for this head and data; lower it with --set lr={rate / 10:.3g}"
        for stream, cubes in zip(self.head.streams, batch.cubes, strict=True):
            bad = (~cubes.isfinite().flatten(2).all(2) & batch.valid).any(1).cpu().numpy()
            if bad.any():
                video = str(self.data.ids[batch.videos[bad][0]])
                cause = f"the cubes of video {video!r} in stream {stream.name!r} hold NaN or infinity; extract it again"
        kept = self.run.path / CHECKPOINT
        state = f"the last checkpoint is kept in {kept}" if kept.exists() else "there is no checkpoint yet"
        return (
            f"Loss is {value} at step {self.step + 1}, learning rate {rate:.3g}. Likely cause: {cause}, and use a new "
            f"--out ({state})."
        )

    def _validate(self) -> None:
        measured: dict[str, float | None] = {}
        if self.data.validation:
            scores = score_view(self.head, self.data.validation, self.data.validation_videos, self.data.targets)
            measured = {"validation_loss": scores.loss, "top1": top_k(scores.probabilities, self.data.hot, 1)}
            if self.data.measure == "map":
                measured["map"] = mean_average_precision(scores.probabilities, self.data.hot)
        row = self._add_row(measured)
        self.loss_sum, self.loss_steps = 0.0, 0
        if measured:
            self._keep_best(row)
        if self.fit.schedule == "plateau":
            self.plateau.see(row["train_loss"] if row["validation_loss"] is None else row["validation_loss"])

    def _add_row(self, measured: dict[str, float | None]) -> dict[str, Any]:
        """Put a row into the history, with what a validation measured; the loss is the mean since the last one."""
        rate = self.optimiser.param_groups[0]["lr"]
        row: dict[str, Any] = {"step": self.step, "lr": rate, "train_loss": self.loss_sum / max(1, self.loss_steps)}
        row |= {"validation_loss": None, "top1": None, "map": None, **self.logged, **measured}
        row["seconds"] = round(self.elapsed(), 3)
        self._row_at = time.monotonic()
        self.history.append(row)
        self.run.write_history(self.history)
        told = [
            f"{key} {row[key]:.4f}"
            for key in ("train_loss", "validation_loss", "top1", "map", *self.logged)
            if row[key] is not None
        ]
        self.run.say(f"step {self.step} of {self.fit.steps}: {', '.join(told)}, learning rate {rate:.3g}")
        return row

    def _keep_best(self, row: dict[str, Any]) -> None:
        measure, loss = row[self.data.measure], row["validation_loss"]
        if self.best is None or (measure, -loss) > (self.best["measure"], -self.best["loss"]):
            weights = {name: tensor.detach().clone() for name, tensor in self.head.state_dict().items()}
            self.best = {"step": self.step, "measure": measure, "loss": loss, "weights": weights}

    def _save(self) -> None:
        device = self.data.targets.device
        self.run.write_checkpoint(
            {
                "step": self.step,
                "weights": self.head.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "best": self.best,
                "history": self.history,
                "plateau": self.plateau.state(),
                "loss": [self.loss_sum, self.loss_steps],
                "seconds": self.elapsed(),
                "random": torch.get_rng_state(),
                "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            }
        )
        self._saved = time.monotonic()

    def _resume(self) -> bool:
        """Take up the checkpoint, if there is one."""
        state = self.run.checkpoint()
        if state is None:
            return False
        try:
            self.head.load_state_dict(state["weights"])
        except RuntimeError as error:
            raise RefusedError(
                f"{self.run.path / CHECKPOINT} does not fit the head ({str(error).splitlines()[-1].strip()}); "
                "was it made by another version? Use another --out."
            ) from None
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.best, self.history = state["step"], state["best"], state["history"]
        self.plateau.load(state["plateau"])
        self.loss_sum, self.loss_steps = state["loss"]
        self.seconds = state["seconds"]
        torch.set_rng_state(state["random"])
        device = self.data.targets.device
        if device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], device)
        return True


def build_optimiser(head: Head, fit: FitDefaults) -> torch.optim.Optimizer:
    """SGD with momentum, Adam, or RMSProp, over the parameters that are not frozen."""
    parameters = [p for p in head.parameters() if p.requires_grad]
    if fit.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=fit.lr, momentum=fit.momentum, weight_decay=fit.weight_decay)
    if fit.optimiser == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=fit.lr, alpha=0.9, weight_decay=fit.weight_decay)
    return torch.optim.Adam(parameters, lr=fit.lr, weight_decay=fit.weight_decay)


def learning_rate(fit: FitDefaults, step: int) -> float:
    """Learning rate of step `step`, which counts from 0; `plateau` scales it from outside."""
    if fit.schedule == "cosine":
        return fit.lr * 0.5 * (1 + math.cos(math.pi * step / fit.steps))
    if fit.schedule == "steps":
        return fit.lr * fit.factor ** sum(step >= milestone for milestone in fit.milestones)
    return fit.lr


class Plateau:
    """Multiplies the learning rate by `factor` when the loss has not fallen for more than `patience` validations."""

    def __init__(self, factor: float, patience: int) -> None:
        self.factor, self.patience = factor, patience
        self.scale, self.lowest, self.waited = 1.0, math.inf, 0

    def see(self, loss: float) -> None:
        """Take note of one more validation."""
        self.waited = 0 if loss < self.lowest else self.waited + 1
        self.lowest = min(self.lowest, loss)
        if self.waited > self.patience:
            self.scale, self.waited = self.scale * self.factor, 0

    def state(self) -> list[float]:
        """Return what a checkpoint keeps."""
        return [self.scale, self.lowest, self.waited]

    def load(self, state: list[float]) -> None:
        """Take back what `state` returned."""
        self.scale, self.lowest, self.waited = state[0], state[1], int(state[2])
