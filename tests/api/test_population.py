"""Population statistics over HTTP, channel by channel, against the file of weights."""

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from api.tensors import Tensors
from core.errors import StorageFailed
from tests.api.service import Service

SMALL = {"steps": 20, "batch_size": 64, "evaluate_every": 20}


def trained(service: Service, **changes: Any) -> Any:
    spec = {"name": "m", "dataset": {"source": "digits"}, "network": {"family": "mlp", "hidden": [20, 12, 8]}}
    return service.trained(spec | {"training": SMALL} | changes)


def file_of(service: Service) -> dict[str, np.ndarray]:
    digest = service.get("/v1/models/m/versions/1")["artifacts"]["safetensors"]["sha256"]
    return load(service.store.get(f"content/{digest[:2]}/{digest}.safetensors", digest))


def test_channels_are_those_of_the_file_to_the_last_bit_in_order_of_computation(service: Service) -> None:
    trained(service)

    answer = service.get("/v1/models/m/population", channels=True)

    tensors = file_of(service)
    assert [layer["layer"] for layer in answer["layers"]] == [f"hidden{number}.batch_norm" for number in (1, 2, 3)]
    for layer in answer["layers"]:
        for field, tensor in (
            ("mean", "population_mean"),
            ("variance", "population_variance"),
            ("running_mean", "running_mean"),
            ("running_variance", "running_var"),
            ("gamma", "gamma"),
            ("beta", "beta"),
        ):
            assert layer[field] == tensors[f"{layer['layer']}.{tensor}"].tolist()
        assert layer["covariance"] is None
    assert answer["population"]["layers"]["hidden1.batch_norm"]["mean"]["max"] == max(answer["layers"][0]["mean"])


def test_layers_come_in_pages_or_one_by_one(service: Service) -> None:
    trained(service)

    first = service.get("/v1/models/m/population", channels=True, limit=2)
    second = service.get("/v1/models/m/population", channels=True, limit=2, after=first["last_layer"])
    one = service.get("/v1/models/m/population", channels=True, layer="hidden2.batch_norm")

    assert [len(page["layers"]) for page in (first, second, one)] == [2, 1, 1]
    assert [page["has_more"] for page in (first, second, one)] == [True, False, False]
    assert second["layers"][0]["layer"] == "hidden3.batch_norm"
    unknown = service.call("GET", "/v1/models/m/population", 422, params={"channels": True, "layer": "hidden9"})
    assert unknown["errors"][0]["code"] == "unknown_layer"


def test_without_channels_there_is_the_summary_alone(service: Service) -> None:
    trained(service)

    answer = service.get("/v1/models/m/population")

    assert answer["layers"] is None
    summary = answer["population"]["layers"]["hidden2.batch_norm"]
    assert (summary["channels"], summary["n"], summary["position"]) == (12, 1295, 1)
    assert set(summary["variance"]) == {"min", "max", "mean", "p5", "p25", "p50", "p75", "p95"}
    assert answer["population"]["seconds"] > 0.0


def test_a_model_without_statistics_has_no_layers(service: Service) -> None:
    trained(service, batch_norm=False)

    answer = service.get("/v1/models/m/population", channels=True)

    assert (answer["population"], answer["layers"]) == (None, [])


def test_whitening_has_its_covariances_and_a_summary_of_them(service: Service) -> None:
    trained(service, batch_norm={"kind": "whitening", "group_size": 8})

    answer = service.get("/v1/models/m/population", channels=True, layer="hidden1.whitening")

    covariance = np.array(answer["layers"][0]["covariance"])
    summary = answer["population"]["layers"]["hidden1.whitening"]["covariance"]
    assert covariance.shape == (20, 8)
    groups = [covariance[start : start + 8, : min(8, 20 - start)] for start in (0, 8, 16)]
    assert (summary["group_size"], summary["groups"]) == (8, 3)
    deviations = [np.sqrt(np.diag(group)) for group in groups]
    beside = [
        abs(group[i, j]) / deviation[i] / deviation[j]
        for group, deviation in zip(groups, deviations, strict=True)
        for i in range(len(group))
        for j in range(len(group))
        if i != j
    ]
    assert summary["largest_correlation"] == pytest.approx(max(beside), rel=1e-9)
    assert summary["mean_correlation"] == pytest.approx(np.mean(beside), rel=1e-9)
    conditions = [np.linalg.cond(group) for group in groups]
    assert summary["condition"] == pytest.approx(max(conditions), rel=1e-6)


def test_the_steps_of_an_lstm_share_their_gamma(service: Service) -> None:
    trained(service, network={"family": "recurrent", "units": [4]})

    answer = service.get("/v1/models/m/population", channels=True, limit=100)

    by_name = {layer["layer"]: layer for layer in answer["layers"]}
    assert len(by_name) == 3 * 8
    first, last = (by_name[f"recurrent1.lstm.cell_norm.step{step}"] for step in (0, 7))
    assert first["gamma"] == last["gamma"] == file_of(service)["recurrent1.lstm.cell_norm.gamma"].tolist()
    assert first["mean"] != last["mean"]


@pytest.mark.parametrize("content", [b"", b"short", b"\x05\x00\x00\x00\x00\x00\x00\x00{", b"\xff" * 40])
def test_bytes_that_are_no_tensors_are_refused(content: bytes) -> None:
    with pytest.raises(StorageFailed, match="can not be read"):
        Tensors(content)


def test_a_tensor_that_lies_outside_of_its_file_is_refused() -> None:
    header = b'{"a": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}'

    with pytest.raises(StorageFailed, match="has no a that can be read"):
        Tensors(len(header).to_bytes(8, "little") + header + b"1234")["a"]
