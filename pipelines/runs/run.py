"""The run folder: everything that a fit was told and produced, in files that outlive the program."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ...errors import MissingFileError, RefusedError, UsageError

log = logging.getLogger(__name__)

SCHEMA = 1
CONFIG, METRICS, HISTORY, WEIGHTS, CHECKPOINT, LOG = (
    "config.json", "metrics.json", "history.csv", "weights.safetensors", "checkpoint.pt", "log.txt",
)  # fmt: skip


class Run:
    """A run folder; made by `create`, found by `open`.

    `config.json` holds `identity` (what makes two fits the same: head, settings, streams, videos, seed) and
    `environment` (store path, device, versions). A run is finished when `metrics.json` is there: it is written last.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self.config = config

    @classmethod
    def create(cls, path: Path, *, identity: Mapping[str, Any], environment: Mapping[str, Any]) -> Run:
        """Make the folder, or take up the one that is there if it is the same fit.

        Raises
        ------
        RefusedError
            If another fit lies there; the message lists what differs.
        UsageError
            If something that is no run lies there.
        """
        config = json.loads(json.dumps({"schema": SCHEMA, "identity": identity, "environment": environment}))
        if (path / CONFIG).exists():
            run = cls.open(path)
            if different := differences(run.identity, config["identity"]):
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
    def identity(self) -> dict[str, Any]:
        """What makes two fits the same."""
        return self.config["identity"]

    @property
    def finished(self) -> bool:
        """Whether the fit went to its end."""
        return (self.path / METRICS).exists()

    def say(self, text: str) -> None:
        """Log a line, and keep it in `log.txt` with the time."""
        log.info("%s", text)
        with (self.path / LOG).open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def metrics(self) -> dict[str, Any]:
        """`metrics.json`.

        Raises
        ------
        UsageError
            If the fit is not finished.
        """
        if not self.finished:
            raise UsageError(f"Run {self.path} is not finished: repeat its fit-head command, it continues.")
        return json.loads((self.path / METRICS).read_text())

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Replace `metrics.json`; NaN is refused, as JSON has none."""
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
        write_atomically(self.path / CHECKPOINT, lambda file: torch.save(dict(state), file))

    def checkpoint(self) -> dict[str, Any] | None:
        """`checkpoint.pt` on the CPU, or None if there is none."""
        if not (self.path / CHECKPOINT).exists():
            return None
        return torch.load(self.path / CHECKPOINT, map_location="cpu", weights_only=True)

    def drop_checkpoint(self) -> None:
        """Remove `checkpoint.pt`: a finished run needs none."""
        (self.path / CHECKPOINT).unlink(missing_ok=True)


def differences(there: Any, asked: Any, where: str = "") -> list[str]:
    """List where two JSON values differ, as `key.key: old -> new`, long values shortened."""
    if isinstance(there, dict) and isinstance(asked, dict):
        keys = list(there) + [key for key in asked if key not in there]
        return [
            line
            for key in keys
            for line in differences(there.get(key), asked.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if there == asked else [f"{where}: {_short(there)} -> {_short(asked)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write beside the target, fsync, rename: a reader sees the old file or the new one, whole."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
