"""The manifest of an Indexed Job: what stands in it, and that Kubernetes' own schema takes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from testkit.commands import vidatt

from vidatt.errors import UsageError
from vidatt.pipelines.jobs.k8s import KubernetesConfig, manifest, manifest_text

COMMAND = ("extract", "--dataset", "ucf101", "--store", "/cache/my é 'ucf' $(HOME) $x.zarr")


def config(**given: Any) -> KubernetesConfig:
    return KubernetesConfig(**{"name": "vidatt-ucf101", "image": "lab/vidatt:1", "tasks": 8, "claims": {}, **given})


FULL = config(
    claims={"videos": "/videos", "cache": "/cache"}, at_once=4, gpus=1, cpus="8", memory="32Gi", namespace="lab",
    retries=5, grace_seconds=300,
)  # fmt: skip


@pytest.mark.parametrize("asked", [config(), FULL], ids=["plain", "full"])
@pytest.mark.parametrize("version", ["1.29", "1.31", "1.33"])
def test_manifest_is_one_by_the_schema_of_kubernetes(asked: KubernetesConfig, version: str) -> None:
    schemas = pytest.importorskip(
        "kubernetes_validate", reason="needs the schemas of Kubernetes: pip install kubernetes-validate"
    )
    job = json.loads(manifest_text(manifest(asked, COMMAND)))
    schemas.validate(job, version, strict=True)
    job["spec"]["completion"] = 8
    with pytest.raises(schemas.ValidationError):
        schemas.validate(job, version, strict=True)


def test_each_index_does_its_slice_and_fails_alone() -> None:
    job = manifest(FULL, COMMAND)
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 8, 4)
    assert spec["backoffLimitPerIndex"] == 5
    by_code = {code: rule["action"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule
               for code in rule["onExitCodes"]["values"]}  # fmt: skip
    assert by_code == {75: "Ignore", 2: "FailIndex", 3: "FailIndex"}
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 300)
    (container,) = pod["containers"]
    assert container["env"] == [{"name": "VIDATT_SHARDS", "value": "8"}]
    assert container["resources"] == {
        "requests": {"cpu": "8", "memory": "32Gi"},
        "limits": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"},
    }
    assert container["volumeMounts"] == [
        {"name": "videos", "mountPath": "/videos"}, {"name": "cache", "mountPath": "/cache"},
    ]  # fmt: skip
    assert [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]] == ["videos", "cache"]


def test_words_reach_the_container_as_they_are() -> None:
    (container,) = manifest(config(), COMMAND)["spec"]["template"]["spec"]["containers"]
    assert container["command"][0] == "vidatt"
    # what Kubernetes makes of a word: $$ is $, and only a single $( begins a variable
    assert [word.replace("$$", "$") for word in container["command"][1:]] == list(COMMAND)
    assert not any(re.search(r"(?<!\$)(\$\$)*\$\(", word) for word in container["command"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "My_Job"}, "--name 'My_Job': write at most 63 lower-case letters"),
        ({"name": "a" * 64}, "write at most 63 lower-case letters"),
        ({"namespace": "a b"}, "--namespace 'a b'"),
        ({"tasks": 0}, "tasks of a Kubernetes job is 0"),
        ({"gpus": -1}, "gpus of a Kubernetes job is -1"),
        ({"memory": "32 GB"}, "--memory '32 GB': write a quantity of memory such as 32Gi"),
        ({"cpus": "eight"}, "--cpus 'eight': write a quantity of cores"),
        ({"gpu_resource": "gpu"}, "--gpu-resource 'gpu': write a resource's name such as nvidia.com/gpu"),
        ({"image": ""}, "--image '': write the name of an image"),
        ({"claims": {"Videos": "/v"}}, "--claim Videos=/v: write CLAIM=/FOLDER"),
        ({"claims": {"videos": "v"}}, "--claim videos=v: write CLAIM=/FOLDER"),
        ({"claims": {"a": "/v", "b": "/v"}}, "Two --claim have one folder"),
        ({"claims": {"a": "/v\nx"}}, "holds a line break"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        config(**given)


@pytest.mark.slow
def test_command_writes_the_manifest_without_looking_at_the_paths_of_the_pods(tmp_path: Path) -> None:
    words = ["--image", "lab/vidatt:1", "--claim", "data=/data", "--tasks", "3"]
    command = ["extract", "--dataset", "ucf101", "--videos", "/data/UCF-101", "--store", "/data/é u.zarr"]
    done = vidatt("submit", "k8s", *words, "--out", tmp_path / "job.json", "--", *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "kubectl apply -f" in done.stdout
    job = json.loads((tmp_path / "job.json").read_text())
    assert job["spec"]["template"]["spec"]["containers"][0]["command"] == ["vidatt", *command]
    printed = vidatt("submit", "k8s", *words, "--", *command, cwd=tmp_path)
    assert json.loads(printed.stdout) == job
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]
    wrong = vidatt("submit", "k8s", *words, "--", "extract", "--dataset", "ucf101", "--sampler", "nonsense")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
