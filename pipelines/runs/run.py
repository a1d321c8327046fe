"""The run folder: everything that a fit was told and produced, in files that outlive the program."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import logging
import pickle
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ...cache.fingerprint import sha256_of
from ...cache.scratch import sweep_files, write_atomically
from ...errors import MissingFileError, RefusedError, UsageError
from .identity import FitEnvironment, FitIdentity, FusionEnvironment, FusionIdentity, RunIdentity, read_identity
from .measured import Evaluation, FitResult, FusionMeasures

log = logging.getLogger(__name__)

SCHEMA = 1
CONFIG, METRICS, HISTORY, WEIGHTS, VIDEOS, CHECKPOINT, LOG = (
    "config.json", "metrics.json", "history.csv", "weights.safetensors", "videos.npz", "checkpoint.pt", "log.txt",
)  # fmt: skip

_MOST_CELLS, _MOST_CHANNELS = 1 << 12, 1 << 20  # of a grid's side, and of a cell: far beyond any backbone
_SEALED = b"\0vidatt sha256\0"
"""Behind a checkpoint, before the digest of what comes before it."""


class Run:
    """A run folder; made by `create`, found by `open`.

    `config.json` holds `identity` (what makes two fits the same: head, settings, streams, videos, seed) and
    `environment` (store path, device, versions, command). A run is finished when `metrics.json` is there: it is
    written last, with the SHA-256 of the run's files and of its identity, which every reader of them checks.

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
        _require_streams(self.identity, f"{where}identity")

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
        run = cls(path, config)
        run._write(CONFIG, json.dumps(config, indent=1).encode())
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run.

        Raises
        ------
        MissingFileError
            If there is none.
        UsageError
            If its `config.json` is unreadable, of another version, or not the one that it was fitted with.
        """
        try:
            config = json.loads((path / CONFIG).read_text())
        except (FileNotFoundError, NotADirectoryError):
            inside = [found.parent for found in sorted(path.glob(f"*/{CONFIG}"))]
            way_out = (
                f"name one of the {len(inside)} runs in it, such as {inside[0]}"
                if inside
                else "runs come from fit-head"
            )
            raise MissingFileError(f"{path} is no run: there is no {CONFIG} in it; {way_out}.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{path / CONFIG} is damaged ({error}); fit again with another --out.") from None
        if not isinstance(config, dict) or config.get("schema") != SCHEMA:
            raise UsageError(f"{path / CONFIG} is no run of this version of vidatt (schema {SCHEMA}).")
        run = cls(path, config)
        if run.finished and run.metrics().get("identity", (known := digest_of(config["identity"]))) != known:
            raise UsageError(
                f"{path / CONFIG} is not the one that the run was fitted with; restore it, or fit again with another "
                "--out."
            )
        return run

    @property
    def quoted(self) -> str:
        """The path as it is written in a command."""
        return shlex.quote(str(self.path))

    @property
    def finished(self) -> bool:
        """Whether the fit went to its end."""
        return (self.path / METRICS).exists()

    def say(self, text: str) -> None:
        """Log a line, and keep it in `log.txt` with the time."""
        log.info("%s", text)
        with (self.path / LOG).open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    @property
    def _back(self) -> str:
        """How its fit goes on."""
        again = self.environment.again
        return f"continue with `{again}`" if again else "repeat its fit-head command, it continues"

    def require_finished(self) -> None:
        """Refuse a run whose fit is not finished.

        Raises
        ------
        UsageError
            If it is not.
        """
        if not self.finished:
            raise UsageError(f"Run {self.path} is not finished: {self._back}.")

    def metrics(self) -> dict[str, Any]:
        """`metrics.json` as it is; `fit_result` and `evaluation` read what is in it.

        Raises
        ------
        UsageError
            If the fit is not finished, or the file is damaged.
        """
        self.require_finished()
        way_out = "restore it, or fit again with another --out"
        try:
            content = json.loads((self.path / METRICS).read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{self.path / METRICS} is damaged ({error}); {way_out}.") from None
        if not isinstance(content, dict) or not {"fit", "evaluations"} <= content.keys():
            raise UsageError(f"{self.path / METRICS} is damaged: it has no fit and evaluations; {way_out}.")
        if any(not isinstance(content.get(key, {}), dict) for key in ("fit", "evaluations", "files")):
            raise UsageError(f"{self.path / METRICS} is damaged: fit, evaluations and files are objects; {way_out}.")
        seal = content.pop("seal", None)  # None: of version 0.1.0
        if seal not in (None, digest_of(content)):
            raise UsageError(f"{self.path / METRICS} is damaged: it does not match its own digest; {way_out}.")
        return content

    def fit_result(self) -> FitResult:
        """Return how the fit ended; raises as `metrics`."""
        return FitResult.from_dict(self.metrics()["fit"], f"{self.path / METRICS}: fit")

    def evaluation(self, place: str) -> Evaluation | None:
        """Return what was measured at a place (`Place.name`), None if nothing was; raises as `metrics`."""
        known = self.metrics()["evaluations"].get(place)
        return None if known is None else Evaluation.from_dict(known, f"{self.path / METRICS}: evaluations.{place}")

    def finish(self, fit: FitResult | FusionMeasures, evaluations: Mapping[str, Evaluation] | None = None) -> None:
        """Write `metrics.json`: the run is finished then.

        Parameters
        ----------
        evaluations : by `Place.name`
        """
        names = [WEIGHTS, HISTORY, VIDEOS, *(path.name for path in self.path.glob("scores-*.npz"))]
        measured = {name: result.to_dict() for name, result in (evaluations or {}).items()}
        files = {name: sha256_of(self.path / name) for name in sorted(names) if (self.path / name).exists()}
        self._write_metrics({"fit": fit.to_dict(), "evaluations": measured, "files": files})

    def add_evaluation(self, place: str, evaluation: Evaluation, *, file: str) -> None:
        """Put an evaluation beside those of other places (`Place.name`), with the digest of its file of scores."""
        with self._alone():
            metrics = self.metrics()
            metrics["evaluations"][place] = evaluation.to_dict()
            metrics.setdefault("files", {})[file] = sha256_of(self.path / file)
            self._write_metrics(metrics)

    def verified(self, name: str) -> Path:
        """Return the path of a file of the run, which is checked to be the one that was written.

        Raises
        ------
        MissingFileError
            If it is not there.
        UsageError
            If it has another digest; files of unfinished runs, and of version 0.1.0, have none.
        """
        path = self.path / name
        if not path.is_file():
            raise MissingFileError(f"Run {self.path} has no {name}: repeat the command that made it.")
        known = self.metrics().get("files", {}).get(name) if self.finished else None
        if known not in (None, sha256_of(path)):
            again = "evaluate again" if name.startswith("scores-") else "fit again with another --out"
            raise UsageError(f"{path} is damaged: it is not what the run wrote; restore it, or {again}.")
        return path

    def _write_metrics(self, metrics: Mapping[str, Any]) -> None:
        told = {**metrics, "identity": digest_of(self.config["identity"])}
        plain = json.loads(json.dumps(told, allow_nan=False))
        self._write(METRICS, json.dumps({**plain, "seal": digest_of(plain)}, indent=1).encode())

    def _write(self, name: str, content: bytes | Callable[[BinaryIO], object]) -> None:
        sweep_files(self.path)
        write_atomically(self.path / name, content)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold back other processes that add to `metrics.json`: two evaluations at once must both be kept."""
        with (self.path / LOG).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `history.csv`; None becomes an empty field."""
        if rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            self._write(HISTORY, text.getvalue().encode())

    def write_scores(
        self, place: str, *, ids: np.ndarray, scores: np.ndarray, labels: np.ndarray, seen: np.ndarray | None = None,
        branches: Mapping[str, np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        """Write `scores-<place>.npz`.

        Parameters
        ----------
        place : such as "1-test", see `Place.name`
        ids : [n] str
        scores : [n, N] class probabilities, kept as float32
        labels : [n, L] class indices, padded with -1, kept as int32
        seen : [n] bool, which of them the run was fitted or selected on; written if any was
        branches : scores [n, N] of each branch of a head that fuses several, by name
        """
        names = np.array([str(id) for id in ids])  # fixed width: NumPy would pickle its variable-width strings
        scores, labels = scores.astype(np.float32), labels.astype(np.int32)
        name = f"scores-{place}.npz"
        told = {"ids": names, "scores": scores, "labels": labels}
        if seen is not None and seen.any():
            told["seen"] = seen
        if branches:
            told["branches"] = np.array(list(branches))
            told["branch_scores"] = np.stack(list(branches.values()), 1).astype(np.float32)  # [n, branches, N]
        if self.finished:  # a kill before `add_evaluation` must not leave a file beside the digest of another
            with self._alone():
                metrics = self.metrics()
                if metrics.get("files", {}).pop(name, None):
                    self._write_metrics(metrics)
        self._write(name, lambda file: np.savez(file, **told))  # type: ignore[arg-type]

    def write_videos(self, content: Mapping[str, np.ndarray]) -> None:
        """Write `videos.npz`; see `SeenVideos`."""
        self._write(VIDEOS, lambda file: np.savez(file, **content))  # type: ignore[arg-type]

    def write_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Write `weights.safetensors`."""
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
        self._write(WEIGHTS, content)

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
            raise MissingFileError(f"Run {self.path} has no {WEIGHTS}: {self._back}.")
        try:
            return load(self.verified(WEIGHTS).read_bytes())
        except SafetensorError as error:
            raise UsageError(f"{self.path / WEIGHTS} is damaged ({error}); fit again with another --out.") from None

    def write_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace `checkpoint.pt`: tensors and plain types only, with their digest behind them."""
        content = io.BytesIO()
        torch.save(dict(state), content)
        told = content.getvalue()
        self._write(CHECKPOINT, told + _SEALED + hashlib.sha256(told).digest())

    def checkpoint(self) -> dict[str, Any] | None:
        """`checkpoint.pt` on the CPU, or None if there is none.

        Raises
        ------
        UsageError
            If it is damaged.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        content, sealed, digest = path.read_bytes().rpartition(_SEALED)
        try:
            if sealed and hashlib.sha256(content).digest() != digest:
                raise ValueError("it is not what the fit wrote")
            state = torch.load(io.BytesIO(content if sealed else digest), map_location="cpu", weights_only=True)
        except (ValueError, RuntimeError, EOFError, LookupError, pickle.UnpicklingError) as error:
            said = str(error).split("\n", maxsplit=1)[0]
            raise UsageError(f"{path} is damaged ({said}); delete it, and the fit begins again.") from None
        return state

    def drop_checkpoint(self) -> None:
        """Remove `checkpoint.pt`: a finished run needs none."""
        (self.path / CHECKPOINT).unlink(missing_ok=True)


def _require_streams(identity: RunIdentity, where: str) -> None:
    """Refuse an identity whose streams cannot be those of a head, or of the one that it stands on."""
    way_out = "restore the file, or make the run again"
    if absent := [name for name in identity.stream_names if name not in identity.streams]:
        raise UsageError(f"{where} has no stream {absent[0]!r}; {way_out}.")
    for name, stream in identity.streams.items():
        if not (0 < stream.grid <= _MOST_CELLS and 0 < stream.channels <= _MOST_CHANNELS):
            cube = f"{stream.grid} x {stream.grid} x {stream.channels}"
            raise UsageError(f"{where} has cubes of {cube} in stream {name!r}, which no backbone gives; {way_out}.")
    if isinstance(identity, FitIdentity) and identity.on is not None:
        _require_streams(identity.on.identity, f"{where}.on.identity")


def digest_of(values: Any) -> str:
    """SHA-256 of a JSON value, however it is laid out in its file."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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
