"""Verification over HTTP: what publishing proved is proved again, and what was tampered with is found."""

from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load, save
from sqlalchemy import update

from core.artifacts import ArtifactStore
from core.queries import models
from core.tables import model_versions
from tests.api.application import TestClient
from tests.api.bench import Tenant, classifier, publish
from tests.api.service import Service

SPEC: dict[str, Any] = {
    "name": "digits",
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [24]},
    "training": {"steps": 60, "batch_size": 64},
}


@pytest.fixture
def published(service: Service) -> dict[str, Any]:
    """The artifacts of version 1 of model `digits`, with their names in the store."""
    service.trained(SPEC)
    with service.database.read() as connection:
        (found,) = connection.execute(models.resolve(tenant_of(service), "digits", 1, None))
    artifacts: dict[str, Any] = found.artifacts
    return artifacts


def tenant_of(service: Service) -> str:
    return service._tenant.id


def stored(service: Service, file: dict[str, Any]) -> bytes:
    return service.store.get(file["name"], file["sha256"])


def replace_file(service: Service, artifacts: dict[str, Any], name: str, content: bytes) -> None:
    """Another file in the place of one, its digest corrected too: what only running it can find."""
    suffix = {"onnx": ".onnx", "probe": ".safetensors"}[name]
    file = service.store.put_content(content, suffix)
    changed = artifacts | {name: {"name": file.name, "sha256": file.sha256, "bytes": file.bytes}}
    with service.database.write() as connection:
        connection.execute(update(model_versions).values(artifacts=changed))


def test_a_published_model_passes_with_every_figure(service: Service, published: dict[str, Any]) -> None:
    answer = service.post("/v1/models/digits/verify")

    card = service.get("/v1/models/digits/versions/1")["card"]
    assert answer["passed"] and answer["error"] is None
    assert {name: file["intact"] for name, file in answer["files"].items()} == dict.fromkeys(
        ("card", "onnx", "probe", "safetensors", "watch"), True
    )
    assert answer["parity"]["passed"] and answer["parity"]["rows"] == 128
    # The same machine and runtime as at publishing: the same figure, to the last bit.
    assert answer["parity"]["maximum_difference"] == card["receipt"]["maximum_difference"]
    assert answer["parity"]["tolerance"] == card["receipt"]["tolerance"]
    sizes = answer["batch_invariance"]["sizes"]
    assert answer["batch_invariance"]["batch_invariant"] and answer["batch_invariance"]["all_sizes"]
    assert set(sizes) >= {1, 2, 4, 8, 16, 32, 64} and len(sizes) == 7 + 32
    assert answer["receipt"] == card["receipt"]


def test_the_stored_outputs_are_those_of_the_unfolded_network_in_float64(
    service: Service, published: dict[str, Any]
) -> None:
    probe, weights = load(stored(service, published["probe"])), load(stored(service, published["safetensors"]))

    x = probe["rows"].astype(np.float64).reshape(len(probe["rows"]), -1) / 16.0
    x = x @ weights["hidden1.linear.weight"].T.astype(np.float64)
    mean, variance = (weights[f"hidden1.batch_norm.population_{part}"] for part in ("mean", "variance"))
    x = (x - mean) / np.sqrt(variance + 1e-5) * weights["hidden1.batch_norm.gamma"] + weights["hidden1.batch_norm.beta"]
    logits = np.maximum(x, 0.0) @ weights["output.linear.weight"].T + weights["output.linear.bias"]

    assert probe["outputs"].dtype == np.float64
    # Statistics are put into float32 buffers before the network is copied to float64.
    assert np.allclose(probe["outputs"], logits, rtol=1e-5, atol=1e-6)


def test_weights_that_were_changed_in_the_graph_fail_parity(service: Service, published: dict[str, Any]) -> None:
    graph = onnx.load_from_string(stored(service, published["onnx"]))
    weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = np.frombuffer(weight.raw_data, np.float32) * np.float32(1.001)
    weight.raw_data = values.tobytes()
    replace_file(service, published, "onnx", graph.SerializeToString())

    answer = service.post("/v1/models/digits/verify")

    assert not answer["passed"] and not answer["parity"]["passed"]
    assert answer["parity"]["maximum_difference"] > answer["parity"]["tolerance"]
    assert all(file["intact"] for file in answer["files"].values())
    assert answer["batch_invariance"]["passed"]


def test_other_reference_outputs_fail_parity(service: Service, published: dict[str, Any]) -> None:
    probe = load(stored(service, published["probe"]))
    replace_file(service, published, "probe", save(probe | {"outputs": probe["outputs"] + 0.1}))

    answer = service.post("/v1/models/digits/verify")

    assert not answer["passed"]
    assert answer["parity"]["maximum_difference"] == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("name", ["onnx", "safetensors", "probe", "card"])
def test_a_file_that_is_not_what_was_published_is_named(service: Service, published: dict[str, Any], name: str) -> None:
    service.store.put(published[name]["name"], b"rubbish")

    answer = service.post("/v1/models/digits/verify")

    assert not answer["passed"]
    assert [file for file, check in answer["files"].items() if not check["intact"]] == [name]
    assert "corrupt" in answer["files"][name]["message"]


def test_a_version_without_a_probe_says_why_parity_is_missing_and_tries_the_rest(
    client: TestClient, tenant: Tenant, store: ArtifactStore
) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)

    answer = client.post("/v1/models/flowers/verify", headers=tenant.headers).json()

    assert answer["parity"] is None and "without probe rows" in answer["parity_reason"]
    assert answer["batch_invariance"]["passed"] and answer["passed"]


def test_a_graph_that_is_none_is_an_answer_and_no_error(
    client: TestClient, tenant: Tenant, store: ArtifactStore
) -> None:
    publish(tenant, store, "broken", b"no graph", classifier()[1], number=1)

    answer = client.post("/v1/models/broken/verify", headers=tenant.headers).json()

    assert not answer["passed"] and answer["error"].startswith("the graph can not be run")


def test_a_model_that_is_served_row_by_row_needs_no_invariance_of_its_own(
    client: TestClient, tenant: Tenant, store: ArtifactStore
) -> None:
    content, card = classifier()
    publish(tenant, store, "unproven", content, card | {"receipt": {"batch_invariant": False}}, number=1)

    answer = client.post("/v1/models/unproven/verify", headers=tenant.headers).json()

    assert answer["batch_invariance"]["served_row_by_row"] and answer["batch_invariance"]["passed"]


def test_what_is_not_there_is_not_found(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)

    for path in ("nobody/verify", "flowers/verify?version=2", "flowers/verify?alias=none"):
        assert client.post(f"/v1/models/{path}", headers=tenant.headers).status_code == 404
