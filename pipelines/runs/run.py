"""The run folder: everything that a fit was told and produced, in files that outlive the program."""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ...cache.scratch import write_atomically
from ...errors import MissingFileError, RefusedError, UsageError
from .identity import FitEnvironment, FitIdentity, FusionEnvironment, FusionIdentity, read_identity
from .measured import Evaluation, FitResult, FusionMeasures

log = logging.getLogger(__name__)

SCHEMA = 1
CONFIG, METRICS, HISTORY, WEIGHTS, CHECKPOINT, LOG = (
    "config.json", "metrics.json", "history.csv", "weights.safetensors", "checkpoint.pt", "log.txt",
)  # fmt: skip


class Run:
    """A run folder; made by `create`, found by `open`.

    `config.json` holds `identity` (what makes two fits the same: head, settings, streams, videos, seed) and
    `environment` (store path, device, versions). A run is finished when `metrics.json` is there: it is written last.

    Raises
    ------
    UsageError
        If a field of `config` is missing or of another type.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self.config = config  # as the file has it
        where = f"{path / CONFIG}: "
        self.identity: FitIdentity | FusionIdentity = read_identity(config.get("identity"), f"{where}identity")
        kind = FusionEnvironment if isinstance(self.identity, FusionIdentity) else FitEnvironment
        self.environment: FitEnvironment | FusionEnvironment = kind.from_dict(
            config.get("environment"), f"{where}environment"
        )

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        identity: FitIdentity | FusionIdentity,
        environment: FitEnvironment | FusionEnvironment,
    ) -> Run:
        """Make the folder, or take up the one that is there if it is the same fit.

        Raises
        ------
        RefusedError
            If another fit lies there; the message lists what differs.
        UsageError
            If something that is no run lies there.
        """
        asked = {"schema": SCHEMA, "identity": identity.to_dict(), "environment": environment.to_dict()}
        config = json.loads(json.dumps(asked))
        if (path / CONFIG).exists():
            run = cls.open(path)
            if different := changes(run.config["identity"], config["identity"]):
                raise RefusedError(
                    f"Run {path} is of another fit: {'; '.join(different)} (there -> asked). Use another --out."
                )
            return run
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} exists and is no run (it has no {CONFIG}); use another --out.")
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / CONFIG, json.dumps(config, indent=1).encode())
        return cls(path, config)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run.

        Raises
        ------
        MissingFileError
            If there is none.
        UsageError
            If its `config.json` is unreadable or of another version.
        """
        try:
            config = json.loads((path / CONFIG).read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise MissingFileError(f"{path} is no run: there is no {CONFIG} in it; runs come from fit-head.") from None
        except ValueError as error:
            raise UsageError(f"{path / CONFIG} is damaged ({error}); fit again with another --out.") from None
        if not isinstance(config, dict) or config.get("schema") != SCHEMA:
            raise UsageError(f"{path / CONFIG} is no run of this version of vidatt (schema {SCHEMA}).")
        return cls(path, config)

    @property
    def finished(self) -> bool:
        """Whether the fit went to its end."""
        return (self.path / METRICS).exists()

    def say(self, text: str) -> None:
        """Log a line, and keep it in `log.txt` with the time."""
        log.info("%s", text)
        with (self.path / LOG).open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def require_finished(self) -> None:
        """Refuse a run whose fit is not finished.

        Raises
        ------
        UsageError
            If it is not.
        """
        if not self.finished:
            raise UsageError(f"Run {self.path} is not finished: repeat its fit-head command, it continues.")

    def metrics(self) -> dict[str, Any]:
        """`metrics.json` as it is; `fit_result` and `evaluation` read what is in it.

        Raises
        ------
        UsageError
            If the fit is not finished, or the file is damaged.
        """
        self.require_finished()
        try:
            content = json.loads((self.path / METRICS).read_text())
        except ValueError as error:
            raise UsageError(f"{self.path / METRICS} is damaged ({error}); fit again with another --out.") from None
        if not isinstance(content, dict) or not {"fit", "evaluations"} <= content.keys():
            raise UsageError(f"{self.path / METRICS} is damaged: it has no fit and evaluations; fit again elsewhere.")
        return content

    def fit_result(self) -> FitResult:
        """Return how the fit ended; raises as `metrics`."""
        return FitResult.from_dict(self.metrics()["fit"], f"{self.path / METRICS}: fit")

    def evaluation(self, split: str, part: str) -> Evaluation | None:
        """Return what was measured on a part of a split, None if nothing was; raises as `metrics`."""
        known = self.metrics()["evaluations"].get(f"{split}-{part}")
        return known and Evaluation.from_dict(known, f"{self.path / METRICS}: evaluations.{split}-{part}")

    def finish(self, fit: FitResult | FusionMeasures, evaluations: Sequence[Evaluation] = ()) -> None:
        """Write `metrics.json`: the run is finished then."""
        self._write_metrics({"fit": fit.to_dict(), "evaluations": {_key(e): e.to_dict() for e in evaluations}})

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Put an evaluation beside those of other parts and splits; one of the same part is replaced."""
        metrics = self.metrics()
        metrics["evaluations"][_key(evaluation)] = evaluation.to_dict()
        self._write_metrics(metrics)

    def _write_metrics(self, metrics: Mapping[str, Any]) -> None:
        write_atomically(self.path / METRICS, json.dumps(metrics, indent=1, allow_nan=False).encode())

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `history.csv`; None becomes an empty field."""
        if rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_atomically(self.path / HISTORY, text.getvalue().encode())

    def write_scores(self, part: str, *, ids: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> None:
        """Write `scores-<part>.npz`.

        Parameters
        ----------
        part : such as "split1-test"
        ids : [n] str
        scores : [n, N] class probabilities, kept as float32
        labels : [n, L] class indices, padded with -1, kept as int32
        """
        names = np.array([str(id) for id in ids])  # fixed width: NumPy would pickle its variable-width strings
        scores, labels = scores.astype(np.float32), labels.astype(np.int32)
        path = self.path / f"scores-{part}.npz"
        write_atomically(path, lambda file: np.savez(file, ids=names, scores=scores, labels=labels))

    def write_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Write `weights.safetensors`."""
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
        write_atomically(self.path / WEIGHTS, content)

    def weights(self) -> dict[str, Tensor]:
        """`weights.safetensors`, on the CPU.

        Raises
        ------
        MissingFileError
            If the fit has not written it yet.
        UsageError
            If the file is damaged.
        """
        if not (self.path / WEIGHTS).exists():
            raise MissingFileError(f"Run {self.path} has no {WEIGHTS}: repeat its fit-head command, it continues.")
        try:
            return load_file(self.path / WEIGHTS)
        except SafetensorError as error:
            raise UsageError(f"{self.path / WEIGHTS} is damaged ({error}); fit again with another --out.") from None

    def write_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace `checkpoint.pt`: tensors and plain types only."""
        write_atomically(self.path / CHECKPOINT, lambda file: _save(dict(state), file))

    def checkpoint(self) -> dict[str, Any] | None:
        """`checkpoint.pt` on the CPU, or None if there is none."""
        if not (self.path / CHECKPOINT).exists():
            return None
        return torch.load(self.path / CHECKPOINT, map_location="cpu", weights_only=True)

    def drop_checkpoint(self) -> None:
        """Remove `checkpoint.pt`: a finished run needs none."""
        (self.path / CHECKPOINT).unlink(missing_ok=True)


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    """Call `torch.save`; a full disk is told as that, and not as what it leads to inside the writer of PyTorch."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _key(evaluation: Evaluation) -> str:
    return f"{evaluation.split}-{evaluation.part}"


def changes(there: Any, asked: Any, where: str = "") -> list[str]:
    """List where two JSON values differ, as `key.key: old -> new`, long values shortened."""
    if isinstance(there, dict) and isinstance(asked, dict):
        keys = list(there) + [key for key in asked if key not in there]
        return [
            line for key in keys for line in changes(there.get(key), asked.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if there == asked else [f"{where}: {_short(there)} -> {_short(asked)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
