"""The Open Inference Protocol's OpenAPI file as tests: every endpoint with the form of its answer, every datatype,
every documented error, with and without a version in the address; and its extensions in Triton's forms."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from api.inference.tensors import DTYPES
from core.artifacts import ArtifactStore
from tests.api.application import TestClient
from tests.api.bench import Tenant, classifier, publish

ROW = [[0.0, 1.0, 1.0, 0.0]]
VERSIONS = ("", "/versions/1", "/versions/stable")


class Form(BaseModel):
    """An object of the protocol: what it requires, of the types it says; more may be there."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())


class Server(Form):
    name: str
    version: str
    extensions: list[str]


class MetadataTensor(Form):
    name: str
    datatype: str
    shape: list[int]


class Model(Form):
    name: str
    platform: str
    versions: list[str]
    inputs: list[MetadataTensor]
    outputs: list[MetadataTensor]
    properties: dict[str, str]


class ResponseOutput(MetadataTensor):
    data: list[float | str | bool]
    parameters: dict[str, str | float | bool] = {}


class Inference(Form):
    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    parameters: dict[str, str | float | bool]


class Live(Form):
    live: bool


class Ready(Form):
    ready: bool


class ModelReady(Ready):
    name: str


class Names(Form):
    models: list[str]


class Indexed(Form):
    name: str
    version: str
    state: str
    reason: str


class Duration(Form):
    count: int
    ns: int


class BatchStatistics(Form):
    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(Form):
    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: dict[str, Duration]
    batch_stats: list[BatchStatistics]
    memory_usage: list[dict[str, int | str]]


class Statistics(Form):
    model_stats: list[ModelStatistics]


class Error(Form):
    error: str


@pytest.fixture(autouse=True)
def flowers(tenant: Tenant, store: ArtifactStore, client: TestClient) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)
    client.put("/v1/models/flowers/aliases/stable", json={"version": 1}, headers=tenant.headers)


def tensor(datatype: str = "FP32", data: Any = ROW, shape: Any = (1, 4), **more: Any) -> dict[str, Any]:
    return {"name": "input", "shape": list(shape), "datatype": datatype, "data": data} | more


def ask(client: TestClient, tenant: Tenant, body: Any, path: str = "/v2/models/flowers/infer", **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, headers=tenant.headers | headers)


OPEN = [
    ("GET", "/v2", Server),
    ("GET", "/v2/", Server),
    ("GET", "/v2/health/live", Live),
    ("GET", "/v2/health/ready", Ready),
]
WITH_KEY = [
    ("GET", "/v2/models", Names),
    ("GET", "/v2/models/stats", Statistics),
    ("POST", "/v2/repository/index", list[Indexed]),
    ("POST", "/v2/repository/models/flowers/load", Form),
    ("POST", "/v2/repository/models/flowers/unload", Form),
    *(("GET", f"/v2/models/flowers{version}", Model) for version in VERSIONS),
    *(("GET", f"/v2/models/flowers{version}/ready", ModelReady) for version in VERSIONS),
    *(("GET", f"/v2/models/flowers{version}/stats", Statistics) for version in VERSIONS),
]


def refused(answer: Any, status: int) -> str:
    """What is said by an error of this status, in the protocol's form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return Error.model_validate_json(answer.content).error


def test_every_endpoint_answers_in_its_form(client: TestClient, tenant: Tenant) -> None:
    for method, path, form in [*OPEN, *WITH_KEY]:
        ask(client, tenant, {"inputs": [tensor()]})
        headers = {} if (method, path, form) in OPEN else tenant.headers

        answer = client.request(method, path, headers=headers, follow_redirects=False)

        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), path
        found = TypeAdapter(form).validate_json(answer.content)
        if isinstance(found, Statistics):
            assert {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output"} <= set(
                found.model_stats[0].inference_stats
            )


def test_an_inference_answers_in_its_form(client: TestClient, tenant: Tenant) -> None:
    for version in VERSIONS:
        answer = ask(client, tenant, {"id": "a", "inputs": [tensor()]}, f"/v2/models/flowers{version}/infer")

        found = Inference.model_validate_json(answer.content)
        assert (found.model_name, found.model_version) == ("flowers", "1")
        assert answer.json()["id"] == "a"
        for output in found.outputs:
            assert len(output.data) == np.prod(output.shape)


def test_every_endpoint_of_a_model_needs_a_key(client: TestClient) -> None:
    for method, path in [*((method, path) for method, path, _ in WITH_KEY), ("POST", "/v2/models/flowers/infer")]:
        refused(client.request(method, path), 401)


def test_what_is_not_there_is_404_in_the_protocols_form(client: TestClient, tenant: Tenant) -> None:
    missing = [(method, path.replace("flowers", "none")) for method, path, _ in WITH_KEY if "flowers" in path]
    for version in ("2", "none"):
        missing += [("GET", f"/v2/models/flowers/versions/{version}{action}") for action in ("", "/ready", "/stats")]
        missing += [("POST", f"/v2/models/flowers/versions/{version}/infer"), ("POST", f"/v2/models/{version}/infer")]
    for method, path in missing:
        refused(client.request(method, path, headers=tenant.headers), 404)


def test_another_method_is_405_in_the_protocols_form(client: TestClient, tenant: Tenant) -> None:
    for method, path, _ in [*OPEN, *WITH_KEY, ("POST", "/v2/models/flowers/infer", Inference)]:
        refused(client.request("GET" if method == "POST" else "POST", path, headers=tenant.headers), 405)


def test_what_it_advertises_is_what_is_tested(client: TestClient) -> None:
    assert client.get("/v2").json()["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_repository",
        "model_repository(unload_dependents)",
        "parameters",
        "schedule_policy",
        "statistics",
    ]


LIMITS = {
    name: (np.iinfo(dtype).min, np.iinfo(dtype).max)
    for name, dtype in DTYPES.items()
    if name.startswith(("INT", "UINT"))
}


def test_integers_are_taken_to_their_ends_and_no_further(client: TestClient, tenant: Tenant) -> None:
    for datatype, (lowest, highest) in LIMITS.items():
        ends = ask(client, tenant, {"inputs": [tensor(datatype, [[lowest, highest, 0, 1]])]})
        beyond = ask(client, tenant, {"inputs": [tensor(datatype, [[0, highest + 1, 0, 1]])]})

        assert ends.status_code == 200, ends.text
        assert "row 0, column 1" in refused(beyond, 400), datatype


OF_ANOTHER_KIND: list[tuple[Any, Any]] = [
    ("BOOL", [[0, 1, 1, 0]]),
    ("BOOL", [[0.0, 1.0, 1.0, 0.0]]),
    ("INT8", [[0.5, 1, 1, 0]]),
    ("INT64", [[True, True, False, False]]),
    ("UINT16", [["0", "1", "1", "0"]]),
    ("FP32", [[True, True, False, False]]),
    ("FP64", [["0", "1", "1", "0"]]),
    ("FP64", [[1e300, 0.0, 0.0, 0.0]]),
    ("FP16", ROW),
    ("BF16", ROW),
    ("FP8", ROW),
    ("fp32", ROW),
    ("STRING", ROW),
    ("", ROW),
    (None, ROW),
    (["FP32"], ROW),
]


def test_a_value_that_is_none_of_its_datatype_is_400(client: TestClient, tenant: Tenant) -> None:
    for datatype, data in OF_ANOTHER_KIND:
        refused(ask(client, tenant, {"inputs": [tensor(datatype, data)]}), 400)


def binary(client: TestClient, tenant: Tenant, datatype: str, content: bytes) -> Any:
    stated = tensor(datatype, parameters={"binary_data_size": len(content)})
    del stated["data"]
    head = json.dumps({"inputs": [stated]}).encode()
    return ask(client, tenant, head + content, **{"Inference-Header-Content-Length": str(len(head))})


def test_binary_data_of_another_size_is_400_for_every_datatype(client: TestClient, tenant: Tenant) -> None:
    for datatype in [*DTYPES, "BF16"]:
        size = 2 if datatype == "BF16" else np.dtype(DTYPES[datatype]).itemsize
        for wrong in (0, 4 * size - 1, 4 * size + 1, 8 * size):
            refused(binary(client, tenant, datatype, b"\0" * wrong), 400)


def test_what_is_not_finite_is_400_with_its_place_for_every_float(client: TestClient, tenant: Tenant) -> None:
    for value in (np.nan, np.inf, -np.inf):
        rows = np.array([[0.0, 1.0, value, 0.0]])
        contents = {name: rows.astype(DTYPES[name]).tobytes() for name in ("FP16", "FP32", "FP64")}
        contents["BF16"] = (rows.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        for datatype, content in contents.items():
            assert "row 0, column 2" in refused(binary(client, tenant, datatype, content), 400), datatype


def test_bytes_are_pictures_and_nothing_else(client: TestClient, tenant: Tenant) -> None:
    for data in (["red"], [base64.b64encode(b"no picture").decode()], [1], "text", None):
        refused(ask(client, tenant, {"inputs": [tensor("BYTES", data, (1,))]}), 400)


DOCUMENTED: list[tuple[Any, int]] = [
    ({"inputs": [tensor()], "parameters": {"timeout": -1}}, 400),
    ({"inputs": [tensor()], "parameters": {"timeout": "soon"}}, 400),
    ({"inputs": [tensor()], "parameters": []}, 400),
    ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, 400),
    ({"inputs": [tensor()], "outputs": {}}, 400),
    ({"inputs": [tensor()], "outputs": [{"name": "logits", "parameters": {"classification": -1}}]}, 400),
    ({"inputs": [tensor()], "outputs": [{"name": "logits", "parameters": {"binary_data": "yes"}}]}, 400),
    ({"inputs": [tensor(parameters={"binary_data_size": 16})]}, 400),
    ({"inputs": [tensor(shape=(10**15, 4))]}, 413),
    ({"inputs": [tensor(shape=(2**63, 4))]}, 413),
    ({"inputs": [tensor(shape=(1, 4, 1))]}, 400),
    ({"inputs": [tensor(shape=(1.0, 4))]}, 400),
    ({"inputs": [tensor(shape=("1", 4))]}, 400),
    ({"inputs": [tensor(shape=[])]}, 400),
    ({"inputs": []}, 400),
    ({"inputs": tensor()}, 400),
    (b"", 400),
    (b"null", 400),
    (b"\xff\xfe", 400),
    (b"[" * 100_000, 400),
    (b'{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":' + b"[" * 900 + b"]" * 900 + b"}]}", 400),
    (b'{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":[Infinity,0,0,0]}]}', 400),
    (b" " * 2_000_001, 413),
]


def test_every_documented_error_has_its_status_and_form(client: TestClient, tenant: Tenant) -> None:
    for body, status in DOCUMENTED:
        refused(ask(client, tenant, body), status)


def test_a_model_that_can_not_be_read_is_503_and_can_be_asked_again_later(
    client: TestClient, tenant: Tenant, store: ArtifactStore
) -> None:
    publish(tenant, store, "broken", b"no graph", classifier()[1], number=1)

    for answer in (
        ask(client, tenant, {"inputs": [tensor()]}, "/v2/models/broken/infer"),
        client.get("/v2/models/broken/ready", headers=tenant.headers),
        client.post("/v2/repository/models/broken/load", headers=tenant.headers),
    ):
        assert refused(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
    assert ask(client, tenant, {"inputs": [tensor()]}).status_code == 200
    assert client.get("/v2/health/ready").status_code == 200
