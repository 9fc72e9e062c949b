"""What the layers of a served model get, against the population statistics that it carries."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from api.inference.layers import LayerDrift
from api.tensors import Tensors
from core.artifacts import ArtifactStore
from core.settings import Settings
from tests.api.application import TestClient
from tests.api.bench import Tenant, classifier, publish
from tests.api.live import eventually
from tests.api.service import Service

SPEC = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [12, 9]},
    "training": {"steps": 30, "batch_size": 32},
    "publish": {"model": "digits"},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"drift_share": 1.0, "drift_layers_share": 1.0})


def ask(service: Service, rows: np.ndarray) -> Any:
    """The predictions, batch by batch, each once its layers were looked at."""
    predictions = []
    for chunk in np.split(rows, range(64, len(rows), 64)):
        seen = rows_seen(service) + len(chunk)
        predictions += service.post("/v1/models/digits/predict", {"rows": chunk.tolist()})["predictions"]
        eventually(lambda seen=seen: rows_seen(service) == seen, "the layers are looked at")
    return predictions


def rows_seen(service: Service) -> int:
    return int(service.get("/v1/models/digits/drift")["layers"]["rows"])


def normalized(service: Service, rows: np.ndarray) -> dict[str, np.ndarray]:
    """(x − E[x]) / sqrt(Var[x] + eps) of each layer in float64, by the unfolded weights in their file."""
    version = service.get("/v1/models/digits/versions/1")
    file, scaling = version["artifacts"]["safetensors"], version["card"]["scaling"]
    tensors = Tensors(service.store.get(stored_name(file["sha256"], ".safetensors"), file["sha256"]))
    value = (rows - np.array(scaling["offset"])) * np.array(scaling["scale"])
    found = {}
    for block in ("hidden1", "hidden2"):
        norm = f"{block}.batch_norm"
        x = value @ tensors[f"{block}.linear.weight"].astype(np.float64).T
        mean, variance = tensors[f"{norm}.population_mean"], tensors[f"{norm}.population_variance"]
        found[norm] = (x - mean) / np.sqrt(variance + 1e-5)
        value = np.maximum(found[norm] * tensors[f"{norm}.gamma"] + tensors[f"{norm}.beta"], 0.0)
    return found


def stored_name(digest: str, suffix: str) -> str:
    return f"content/{digest[:2]}/{digest}{suffix}"


def test_layers_are_told_of_as_an_independent_float64_computation_has_them(
    service: Service, client: TestClient
) -> None:
    service.trained(SPEC)
    rows = np.random.default_rng(0).integers(0, 17, (256, 64)).astype(np.float64)

    ask(service, rows)

    told = service.get("/v1/models/digits/drift")
    assert told["layers_reason"] is None
    layers = told["layers"]
    assert [layer["name"] for layer in layers["watched"]] == ["hidden1.batch_norm", "hidden2.batch_norm"]
    for layer, exact in zip(layers["watched"], normalized(service, rows).values(), strict=True):
        means = exact.mean(axis=0)
        assert layer["channel"] == np.abs(means).argmax()
        assert layer["shift"] == pytest.approx(means[layer["channel"]], abs=1e-4)
        assert layer["z"] == pytest.approx(means[layer["channel"]] * 16.0, abs=2e-3)
        assert layer["deviation"] == pytest.approx(exact[:, layer["channel"]].std(), rel=1e-3)
        assert layer["beyond"] == (np.abs(means) > 0.5).sum()
        assert layer["blind"] == 0
    assert layers["exceeded"] == ["hidden1.batch_norm", "hidden2.batch_norm"]  # noise is no digit
    assert {(event["type"], event["layer"]) for event in layers["events"]} == {
        ("drifted", "hidden1.batch_norm"),
        ("drifted", "hidden2.batch_norm"),
    }
    gauges = client.get("/metrics").text
    assert 'evenkeel_drift_layer_z{layer="hidden1.batch_norm",model="digits",version="1"}' in gauges
    assert 'evenkeel_drift_layer_shift{layer="hidden2.batch_norm",model="digits",version="1"}' in gauges


def test_answers_have_the_same_bits_whether_layers_are_watched_or_not(service: Service, client: TestClient) -> None:
    service.trained(SPEC)
    rows = np.random.default_rng(1).integers(0, 17, (100, 64)).astype(np.float64)

    watched = [ask(service, rows) for _ in range(2)]
    (lane,) = client.app_state["resources"].engine.lanes()
    lane.layers = None
    unwatched = service.post("/v1/models/digits/predict", {"rows": rows.tolist()})["predictions"]

    assert watched[0] == watched[1] == unwatched
    assert lane.model.outputs == ("logits", "probabilities")


def test_a_layer_that_is_no_batch_norm_can_not_be_chosen(service: Service) -> None:
    wrong = SPEC | {"publish": {"serving": {"watch": ["hidden2.batch_norm", "hidden1"]}}}

    (problem,) = service.post("/v1/jobs", wrong, 422)["errors"]

    assert problem["pointer"] == "/publish/serving/watch/1"
    assert "use hidden1.batch_norm, hidden2.batch_norm" in problem["message"]


def test_a_version_of_before_says_why_none_of_its_layers_is_watched(
    client: TestClient, tenant: Tenant, store: ArtifactStore
) -> None:
    content, card = classifier()
    card["input"]["moments"] = {"mean": [0.0] * 4, "variance": [1.0] * 4}
    publish(tenant, store, "flowers", content, card, number=1)

    found = client.get("/v1/models/flowers/drift", headers=tenant.headers).json()

    assert (found["rows"], found["layers"]) == (0, None)
    assert "published before layers were watched" in found["layers_reason"]


class Now(ThreadPoolExecutor):
    """Runs what it is given at once, or holds it."""

    def __init__(self, hold: bool = False) -> None:
        self.hold, self.held = hold, []

    def submit(self, call: Callable[..., Any], *given: Any) -> "Future[Any]":  # type: ignore[override]
        self.held.append((call, given))
        return Future() if self.hold else call(*given)


def watch(content: Callable[[], bytes], beside: Now, share: float = 1.0) -> LayerDrift:
    card = {"layers": [{"name": "a", "channels": 2, "blind": 0}], "left_out": {}}
    return LayerDrift(card, "model m, version 1", content, beside, share, 0.5)


def test_a_share_of_the_batches_is_looked_at_and_none_while_one_is_under_way() -> None:
    beside = Now(hold=True)
    drift = watch(lambda: b"", beside, 0.25)
    for _ in range(100):
        drift.see(np.zeros((1, 4), np.float32))

    assert len(beside.held) == 1
    drift._busy = False
    for _ in range(4):
        drift.see(np.zeros((1, 4), np.float32))
    assert len(beside.held) == 2


def test_a_graph_that_can_not_be_read_ends_the_watch_with_a_reason() -> None:
    beside = Now()
    drift = watch(lambda: b"no graph", beside)
    for _ in range(3):
        drift.see(np.zeros((1, 4), np.float32))

    assert len(beside.held) == 1
    assert drift.report()["problem"].startswith("the graph with its layers can not be run")
