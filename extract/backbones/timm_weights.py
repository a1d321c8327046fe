"""Where the weights of timm's networks come from: Hugging Face's hub, an address, or a file; all fetched ahead."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch

from ...errors import WeightsError
from .entry import Choices
from .preprocessing import PREPROCESSINGS, Preprocessing, check_preprocessing
from .weights import LoadedWeights, weights_folder
from .weights_files import file_sha256, read_tensors

_FILE_NAMES = ("model.safetensors", "pytorch_model.bin")  # of the hub's repositories, in timm's own order


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One published weights file: in a repository of the hub, else at an address."""

    name: str  # what `vidatt weights fetch` takes
    repository: str = ""
    file_names: tuple[str, ...] = _FILE_NAMES  # the first that the repository has
    url: str = ""

    @classmethod
    def of(cls, published: Any, *, name: str) -> HubFile | None:
        """Read timm's `PretrainedCfg`; None if it names neither a repository nor an address."""
        if published.hf_hub_id:
            names = (published.hf_hub_filename,) if published.hf_hub_filename else _FILE_NAMES
            return cls(name=name, repository=published.hf_hub_id, file_names=names)
        return cls(name=name, url=published.url) if published.url else None

    @classmethod
    def in_repository(cls, name: str) -> HubFile:
        """Return the file of a repository of the hub.

        Raises
        ------
        WeightsError
            If the name is not one of a repository, ORG/NAME.
        """
        organisation, _, model = name.partition("/")
        if not model or "/" in model or organisation in ("", ".", ".."):
            raise WeightsError(f"--weights {name!r} is neither a file nor a repository of the hub (ORG/NAME).")
        return cls(name=name, repository=name)

    @property
    def title(self) -> str:
        """What recipes and messages call it."""
        return self.repository or self.url.rsplit("/", 1)[-1]

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return self.url or f"{_hub_address()}/{self.repository}/resolve/main/{self.file_names[0]}"

    def path(self) -> Path | None:
        """Return the file in `$VIDATT_WEIGHTS`, else in the hub's (an address: torch's) own folder; None if absent."""
        if self.url:
            file = self._url_path
            return file if file.exists() else None
        from huggingface_hub import try_to_load_from_cache

        found = (try_to_load_from_cache(self.repository, file, cache_dir=_hub_folder()) for file in self.file_names)
        return next((Path(file) for file in found if isinstance(file, str)), None)

    @property
    def _url_path(self) -> Path:
        return weights_folder() / self.url.rsplit("/", 1)[-1]

    def fetch(self) -> Path:
        """Download the file, unless it is there.

        Raises
        ------
        WeightsError
            Without a network, or if the repository has no such file.
        """
        here = self.path()
        if here is not None:
            return here
        try:
            return self._download()
        except (OSError, URLError, RuntimeError) as error:  # RuntimeError: torch's word for a wrong digest
            reason = str(error).strip().splitlines()[0]
            raise WeightsError(
                f"Weights {self.title} could not be fetched ({reason}); on a machine with a network download "
                f"{self.address} and give the file with --weights PATH."
            ) from error

    def _download(self) -> Path:
        if self.url:
            self._url_path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(self._url_path), progress=False)
            return self._url_path
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        from huggingface_hub.utils import logging

        logging.set_verbosity_error()  # it tells of every attempt
        for file in self.file_names:
            try:
                return Path(hf_hub_download(self.repository, file, cache_dir=_hub_folder(), endpoint=_hub_address()))
            except LocalEntryNotFoundError:  # the hub's word for no network
                raise
            except EntryNotFoundError:
                continue
        raise FileNotFoundError(f"it has none of {', '.join(self.file_names)}")


def _hub_address() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _hub_folder() -> Path | None:
    named = os.environ.get("VIDATT_WEIGHTS")
    return Path(named) if named else None


def resolve_timm_weights(choices: Choices, *, hub_file: HubFile | None, rules: Preprocessing) -> LoadedWeights:
    """Load the weights that `--weights` names.

    Parameters
    ----------
    choices : its `weights` are `default` (the published ones), `random`, a file, or a repository of the hub, ORG/NAME
    hub_file : the published ones
    rules : preprocessing of the model's own data configuration

    Raises
    ------
    WeightsError
        The file is missing or unreadable, or holds pickled code.
    UnknownNameError
        For a preprocessing that is unknown or does not fit the kind.
    """
    name = choices.preprocessing or ("flow-tsn" if choices.kind.displacement else None)
    if name is not None:
        check_preprocessing(name, choices.kind.seen_as)
        rules = PREPROCESSINGS[name]
    if choices.weights == "random":
        return LoadedWeights(None, {"name": "random", "seed": choices.seed, "sha256": ""}, rules)
    path = Path(choices.weights)
    title = path.name
    if choices.weights == "default" or not os.path.isfile(path):
        path, title = _published(choices.weights, hub_file)
    return LoadedWeights(read_tensors(path), {"name": title, "sha256": file_sha256(path)}, rules)


def _published(choice: str, hub_file: HubFile | None) -> tuple[Path, str]:
    if choice != "default":
        hub_file = HubFile.in_repository(choice)
    if hub_file is None:
        raise WeightsError("timm publishes no weights of this model; give a file with --weights PATH.")
    path = hub_file.path()
    if path is None:
        raise WeightsError(
            f"Weights {hub_file.title} are not here; run `vidatt weights fetch {hub_file.name}`, or download "
            f"{hub_file.address} and give the file (--weights PATH), or use --weights random."
        )
    return path, hub_file.title
