"""The manifests against the schemas of Kubernetes itself, and what holds them together."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import generate_latest

from api.meters import Meters
from core.settings import Settings
from core.states import TRANSITIONS
from worker.local import EXIT_SECONDS

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "kubernetes"
CUSTOM = ("keda.sh/v1alpha1", "kustomize.config.k8s.io/v1beta1")
OLDEST, NEWEST = "1.30", "1.37"


def documents(*names: str) -> list[dict[str, Any]]:
    files = [FOLDER / name for name in names] or sorted(FOLDER.glob("*.yaml"))
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in documents() if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod(kind: str, name: str) -> dict[str, Any]:
    return one(kind, name)["spec"]["template"]["spec"]


STANDARD = [document for document in documents() if document["apiVersion"] not in CUSTOM]
OURS = [("Job", "migrate"), ("Deployment", "api"), ("Deployment", "worker")]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("document", STANDARD, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_every_manifest_is_what_kubernetes_takes(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_everything_is_applied_but_for_secrets_and_stores() -> None:
    (kustomization,) = documents("kustomization.yaml")
    others = {"kustomization.yaml", "secrets.example.yaml", "stores.yaml"}

    assert set(kustomization["resources"]) == {file.name for file in FOLDER.glob("*.yaml")} - others


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_a_pod_of_ours_is_neither_root_nor_able_to_write_its_image(kind: str, name: str) -> None:
    spec = pod(kind, name)
    (container,) = spec["containers"]

    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_every_path_that_a_setting_names_is_mounted(kind: str, name: str) -> None:
    (container,) = pod(kind, name)["containers"]
    mounts = tuple(mount["mountPath"] for mount in container["volumeMounts"])
    settings = one("ConfigMap", "evenkeel")["data"] | {
        entry["name"]: entry["value"] for entry in container.get("env", [])
    }

    assert set(settings) <= {f"EVENKEEL_{field.upper()}" for field in Settings.model_fields}
    paths = {name: value for name, value in settings.items() if value.startswith("/")}
    if kind == "Job":  # it reads no artifacts
        paths = {name: value for name, value in paths.items() if not value.startswith("/shared/")}
    assert [name for name, value in paths.items() if not value.startswith(mounts)] == []


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_every_volume_is_mounted_and_every_mount_has_its_volume(kind: str, name: str) -> None:
    spec = pod(kind, name)

    mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_a_deployment_selects_its_own_pods_and_so_do_service_and_budget() -> None:
    for name in ("api", "worker"):
        labels = one("Deployment", name)["spec"]["template"]["metadata"]["labels"]
        assert one("Deployment", name)["spec"]["selector"]["matchLabels"] == labels
        assert one("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"] == labels
    assert one("Service", "api")["spec"]["selector"] == one("Deployment", "api")["spec"]["selector"]["matchLabels"]


def test_two_apis_are_probed_where_the_interface_answers() -> None:
    (container,) = pod("Deployment", "api")["containers"]

    assert one("Deployment", "api")["spec"]["replicas"] == 2
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_a_worker_has_a_gpu_and_time_to_give_its_jobs_back() -> None:
    spec = pod("Deployment", "worker")

    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["terminationGracePeriodSeconds"] >= max(15, EXIT_SECONDS)


def test_workers_scale_on_a_gauge_that_is_really_exported() -> None:
    scaled = one("ScaledObject", "worker")["spec"]
    (trigger,) = scaled["triggers"]
    metric, states = re.search(r'(\w+)\{state=~"(.+?)"\}', trigger["metadata"]["query"]).groups()  # type: ignore[union-attr]
    meters = Meters()
    for state in TRANSITIONS:
        meters.jobs.labels(state).set(3)

    exported = generate_latest(meters.registry).decode()

    assert all(f'{metric}{{state="{state}"}} 3.0' in exported for state in states.split("|"))
    assert one("Deployment", scaled["scaleTargetRef"]["name"])["spec"].get("replicas") is None
