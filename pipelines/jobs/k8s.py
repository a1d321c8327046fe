"""An Indexed Job of Kubernetes, as the manifest that `kubectl apply` takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ..record import Record
from .place import COUNT
from .work import checked, require_forms, require_least

_NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_FORMS = {
    "name": (_NAME, "at most 63 lower-case letters, digits and -, such as vidatt-ucf101"),
    "namespace": (_NAME, "at most 63 lower-case letters, digits and -"),
    "cpus": (r"\d+(\.\d+)?|\d+m", "a quantity of cores such as 8"),
    "memory": (r"\d+(\.\d+)?([KMGTP]i?|[kmunE]|Ei)?", "a quantity of memory such as 32Gi"),
    "gpu_resource": (r"[a-z0-9.-]+/[A-Za-z0-9._-]+", "a resource's name such as nvidia.com/gpu"),
}


@dataclass(frozen=True, kw_only=True)
class KubernetesConfig:
    """What the Job asks of Kubernetes.

    Raises
    ------
    UsageError
        On numbers out of range and names that Kubernetes refuses.
    """

    name: str
    image: str  # with vidatt in it
    tasks: int
    claims: Mapping[str, str]  # persistent volume claim -> folder where its volume is mounted
    at_once: int | None = None  # pods; None = all
    gpus: int = 0  # of a pod
    gpu_resource: str = "nvidia.com/gpu"
    cpus: str | None = None  # of a pod
    memory: str | None = None  # of a pod
    namespace: str | None = None
    retries: int = 3  # of a task whose pod has failed; pods that were evicted do not count
    grace_seconds: int = 120  # to finish what is in work when a pod is to go

    def __post_init__(self) -> None:
        require_least(self, "Kubernetes", {"tasks": 1, "at_once": 1, "gpus": 0, "retries": 0, "grace_seconds": 1})
        require_forms(self, _FORMS)
        checked((self.image, *self.claims.values()))
        if not self.image or self.image != self.image.strip():
            raise UsageError(f"--image {self.image!r}: write the name of an image that holds vidatt.")
        for claim, folder in self.claims.items():
            if not re.fullmatch(_NAME, claim, re.ASCII) or not folder.startswith("/") or ":" in folder:
                raise UsageError(
                    f"--claim {claim}={folder}: write CLAIM=/FOLDER, the folder absolute and without colon."
                )
        if len(set(self.claims.values())) < len(self.claims):
            raise UsageError("Two --claim have one folder; mount each volume at a folder of its own.")


@dataclass(frozen=True, kw_only=True)
class KubernetesManifest(Record):
    """An Indexed Job."""

    name: str
    tasks: int
    out: str | None  # the file; None: not written
    manifest: Mapping[str, Any]  # batch/v1 Job


def manifest(config: KubernetesConfig, command: tuple[str, ...]) -> dict[str, Any]:
    """Return the Job: each index does its slice of `vidatt COMMAND`, and is tried again alone if its pod fails.

    Exit code 75 (stopped in good order) and disruptions cost no try; 2 and 3 (wrong use, refused) end the index, since
    they would come again.
    """
    labels = {"app.kubernetes.io/name": "vidatt", "app.kubernetes.io/instance": config.name}
    quantities = {"cpu": config.cpus, "memory": config.memory}
    requests = {name: value for name, value in quantities.items() if value is not None}
    gpus = {config.gpu_resource: str(config.gpus)} if config.gpus else {}
    container = {
        "name": "vidatt",
        "image": config.image,
        "command": ["vidatt", *(_escaped(word) for word in checked(command))],
        "env": [{"name": COUNT, "value": str(config.tasks)}],
        "resources": {"requests": requests, "limits": {**requests, **gpus}},
        "volumeMounts": [{"name": claim, "mountPath": folder} for claim, folder in config.claims.items()],
    }
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": {"containerName": "vidatt", "operator": "In", "values": [75]}},
        {"action": "FailIndex", "onExitCodes": {"containerName": "vidatt", "operator": "In", "values": [2, 3]}},
    ]
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": config.grace_seconds,
        "containers": [container],
        "volumes": [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in config.claims],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": config.name,
            "labels": labels,
            **({"namespace": config.namespace} if config.namespace else {}),
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": config.tasks,
            "parallelism": min(config.at_once or config.tasks, config.tasks),
            "backoffLimitPerIndex": config.retries,
            "podFailurePolicy": {"rules": rules},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def write_manifest(config: KubernetesConfig, command: tuple[str, ...], out: Path | None) -> KubernetesManifest:
    """Make the manifest, and write it to a file if one is named."""
    job = manifest(config, command)
    if out is not None:
        out.write_text(manifest_text(job), encoding="utf-8")
    return KubernetesManifest(name=config.name, tasks=config.tasks, out=str(out) if out else None, manifest=job)


def manifest_text(job: Mapping[str, Any]) -> str:
    """Return a manifest as JSON, which is YAML too: no text in it can be misread."""
    return json.dumps(job, indent=2, ensure_ascii=False) + "\n"


def _escaped(word: str) -> str:
    """Return a word that Kubernetes leaves alone: `$(NAME)` would be a variable's value."""
    return word.replace("$", "$$")
