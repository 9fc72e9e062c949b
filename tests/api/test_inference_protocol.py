"""The Open Inference Protocol v2 as its specification has it, by hand-made requests and by a client of others."""

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.inference.tensors import DTYPES
from core.artifacts import ArtifactStore
from tests.api.application import TestClient
from tests.api.bench import LABELS, Tenant, classifier, publish
from tests.api.live import Live

ROWS = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
MODEL = "/v2/models/flowers"


@pytest.fixture(autouse=True)
def flowers(tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)
    publish(tenant, store, "flowers", *classifier(seed=1), number=2)


def tensor(rows: Any = ROWS, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    array = np.asarray(rows)
    return {"name": "input", "shape": list(array.shape), "datatype": datatype, "data": array.tolist()} | more


def infer(client: TestClient, tenant: Tenant, body: Any, path: str = f"{MODEL}/infer", **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, headers=tenant.headers | headers)


def binary(header: dict[str, Any], *tensors: bytes) -> tuple[bytes, str]:
    head = json.dumps(header).encode()
    return head + b"".join(tensors), str(len(head))


def array_of(answer: Any, name: str) -> np.ndarray:
    (found,) = [output for output in answer.json()["outputs"] if output["name"] == name]
    return np.array(found["data"], np.float32).reshape(found["shape"])


def probabilities(client: TestClient, tenant: Tenant, version: int = 2) -> np.ndarray:
    """What predict says for the same rows."""
    answer = client.post(
        f"/v1/models/flowers/predict?version={version}", json={"rows": ROWS.tolist()}, headers=tenant.headers
    )
    return np.array([list(item["probabilities"].values()) for item in answer.json()["predictions"]], np.float32)


def test_the_server_says_who_it_is_and_that_it_is_there(client: TestClient) -> None:
    for path in ("/v2", "/v2/"):
        found = client.get(path).json()
        assert (found["name"], set(found["extensions"]) >= {"binary_tensor_data", "statistics"}) == ("evenkeel", True)
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/2", f"{MODEL}/versions/stable"])
def test_a_model_describes_itself_by_name_version_and_alias(client: TestClient, tenant: Tenant, path: str) -> None:
    client.put("/v1/models/flowers/aliases/stable", json={"version": 2}, headers=tenant.headers)

    found = client.get(path, headers=tenant.headers).json()

    assert (found["name"], found["versions"], found["platform"]) == ("flowers", ["1", "2"], "onnx_onnxv1")
    assert found["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]} in found["outputs"]
    assert found["properties"]["statistics_sha256"] == "3" * 64
    assert client.get(f"{path}/ready", headers=tenant.headers).json() == {"name": "flowers", "ready": True}


@pytest.mark.parametrize("data", [ROWS.tolist(), ROWS.reshape(-1).tolist()])
def test_flat_and_nested_data_are_answered_alike(client: TestClient, tenant: Tenant, data: Any) -> None:
    answer = infer(client, tenant, {"id": "42", "inputs": [tensor(data=data)]})

    found = answer.json()
    assert (found["id"], found["model_name"], found["model_version"]) == ("42", "flowers", "2")
    assert [output["name"] for output in found["outputs"]] == ["probabilities", "logits"]
    assert array_of(answer, "probabilities").tobytes() == probabilities(client, tenant).tobytes()
    assert answer.headers["evenkeel-model-version"] == "2"
    assert answer.headers["evenkeel-batch-invariance"] == "exact"
    assert answer.headers["evenkeel-statistics-sha256"] == "3" * 64


def test_the_version_may_be_a_number_or_an_alias(client: TestClient, tenant: Tenant) -> None:
    client.put("/v1/models/flowers/aliases/stable", json={"version": 1}, headers=tenant.headers)
    body = {"inputs": [tensor()]}

    for name in ("1", "stable"):
        answer = infer(client, tenant, body, f"{MODEL}/versions/{name}/infer")
        assert answer.json()["model_version"] == "1"
        assert array_of(answer, "probabilities").tobytes() == probabilities(client, tenant, 1).tobytes()


@pytest.mark.parametrize("datatype", [*DTYPES, "BF16"])
def test_every_datatype_is_taken_in_binary_and_all_but_two_in_json(
    client: TestClient, tenant: Tenant, datatype: str
) -> None:
    values = np.array([[0, 1, 1, 0], [1, 1, 0, 0]])
    if datatype == "BF16":
        content = (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    else:
        content = values.astype(DTYPES[datatype]).tobytes()
    stated = tensor(values, datatype, parameters={"binary_data_size": len(content)})
    del stated["data"]
    body, length = binary({"inputs": [stated]}, content)
    wanted = array_of(infer(client, tenant, {"inputs": [tensor(values.astype(float))]}), "logits")

    answer = infer(client, tenant, body, **{"Inference-Header-Content-Length": length})
    listed = values.astype(bool).tolist() if datatype == "BOOL" else values.tolist()
    by_json = infer(client, tenant, {"inputs": [tensor(values, datatype, data=listed)]})

    assert array_of(answer, "logits").tobytes() == wanted.tobytes()
    if datatype in ("FP16", "BF16"):
        assert (by_json.status_code, "binary data format" in by_json.json()["error"]) == (400, True)
    else:
        assert array_of(by_json, "logits").tobytes() == wanted.tobytes()


def test_binary_and_json_tensors_mix_in_an_answer(client: TestClient, tenant: Tenant) -> None:
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    for _ in range(2):  # the second is answered by what was understood of the first
        answer = infer(client, tenant, {"inputs": [tensor()], "outputs": outputs})

        length = int(answer.headers["Inference-Header-Content-Length"])
        header = json.loads(answer.content[:length])
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert header["outputs"][0]["parameters"] == {"binary_data_size": 36}
        assert len(answer.content) == length + 36
        found = np.array(header["outputs"][1]["data"], np.float32).reshape(3, 3)
        assert found.tobytes() == probabilities(client, tenant).tobytes()


def test_a_client_that_repeats_its_header_is_answered_with_its_own_numbers(client: TestClient, tenant: Tenant) -> None:
    stated = tensor(parameters={"binary_data_size": 48})
    del stated["data"]
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    for scale in (1.0, 2.0, 3.0):
        rows = ROWS * np.float32(scale)
        body, length = binary({"inputs": [stated], "outputs": outputs}, rows.tobytes())
        answer = infer(client, tenant, body, **{"Inference-Header-Content-Length": length})
        size = int(answer.headers["Inference-Header-Content-Length"])
        wanted = array_of(infer(client, tenant, {"inputs": [tensor(rows)]}), "probabilities")
        assert answer.content[size:] == wanted.tobytes()
    short, length = binary({"inputs": [stated], "outputs": outputs}, ROWS.tobytes()[:-4])
    refused = infer(client, tenant, short, **{"Inference-Header-Content-Length": length})
    assert refused.status_code == 400


def test_a_raw_body_is_one_row_and_all_its_outputs_are_binary(client: TestClient, tenant: Tenant) -> None:
    answer = infer(client, tenant, ROWS[0].tobytes(), **{"Inference-Header-Content-Length": "0"})

    length = int(answer.headers["Inference-Header-Content-Length"])
    assert all("data" not in output for output in json.loads(answer.content[:length])["outputs"])
    assert len(answer.content) == length + 24


def test_classification_names_the_best(client: TestClient, tenant: Tenant) -> None:
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]

    (output,) = infer(client, tenant, {"inputs": [tensor()], "outputs": outputs}).json()["outputs"]

    assert (output["datatype"], output["shape"]) == ("BYTES", [3, 2])
    for text, row in zip(output["data"][::2], probabilities(client, tenant), strict=True):
        value, index, label = text.split(":")
        assert (float(value), int(index)) == (pytest.approx(row.max(), abs=1e-6), row.argmax())
        assert label == LABELS[row.argmax()]


WRONG: dict[str, tuple[Any, str]] = {
    "no json": (b"{", "not JSON"),
    "nan": (b'{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":[1,2,NaN,4]}]}', "not JSON"),
    "a list": (b"[]", "object"),
    "no inputs": ({}, "inputs"),
    "two inputs": ({"inputs": [tensor(), tensor()]}, "one input"),
    "another name": ({"inputs": [tensor(name="x")]}, "'x'"),
    "another datatype": ({"inputs": [tensor(datatype="FLOAT")]}, "FLOAT"),
    "another width": ({"inputs": [tensor([[1.0, 2.0, 3.0]])]}, "[-1, 4]"),
    "another count": ({"inputs": [tensor(shape=[2, 4])]}, "flat nor nested"),
    "a huge shape": ({"inputs": [tensor(shape=[10**18, 4])]}, "one request may have"),
    "a negative shape": ({"inputs": [tensor(shape=[-1, 4])]}, "shape"),
    "no rows": ({"inputs": [tensor(shape=[0, 4], data=[])]}, "at least one"),
    "null": ({"inputs": [tensor(data=[[1, 2, 3, None]] * 3)]}, "row 0, column 3"),
    "text": ({"inputs": [tensor(data=[[1, 2, 3, "4"]] * 3)]}, "row 0, column 3"),
    "infinite": ({"inputs": [tensor(data=[[1, 2, 3, 4], [1, 2, 1e39, 4], [1, 2, 3, 4]])]}, "row 1, column 2"),
    "out of range": ({"inputs": [tensor(ROWS * 0, "UINT8", data=[[0, 1, 2, 256]] * 3)]}, "row 0, column 3"),
    "ragged": ({"inputs": [tensor(data=[[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4, 5]])]}, "nested"),
    "hidden nesting": ({"inputs": [tensor(data=[[[1, 2], [], 3, 4], [1] * 4, [1] * 4])]}, "no FP32"),
    "an unknown output": ({"inputs": [tensor()], "outputs": [{"name": "x"}]}, "'x'"),
    "an output twice": ({"inputs": [tensor()], "outputs": [{"name": "logits"}] * 2}, "twice"),
    "no priority": ({"inputs": [tensor()], "parameters": {"priority": -1}}, "priority"),
    "a list as a parameter": ({"inputs": [tensor()], "parameters": {"x": []}}, "parameter"),
    "an id that is a number": ({"id": 3, "inputs": [tensor()]}, "id"),
    "text for numbers": ({"inputs": [tensor(datatype="BYTES", shape=[1], data=["eA=="])]}, "no images"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_in_the_protocols_form(client: TestClient, tenant: Tenant, what: str) -> None:
    body, told = WRONG[what]

    answer = infer(client, tenant, body)

    assert answer.status_code in (400, 413), answer.text
    assert told in answer.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "999999", "1e3", "", "3"])
def test_a_wrong_header_length_is_refused(client: TestClient, tenant: Tenant, length: str) -> None:
    body, _ = binary({"inputs": []}, ROWS.tobytes())

    assert infer(client, tenant, body, **{"Inference-Header-Content-Length": length}).status_code == 400


def test_a_value_that_is_not_finite_is_pointed_at_in_binary(client: TestClient, tenant: Tenant) -> None:
    rows = ROWS.copy()
    rows[1, 3] = np.inf
    stated = tensor(parameters={"binary_data_size": 48})
    del stated["data"]
    body, length = binary({"inputs": [stated]}, rows.tobytes())

    answer = infer(client, tenant, body, **{"Inference-Header-Content-Length": length})

    assert (answer.status_code, "row 1, column 3" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/flowers/versions/9", 404),
        ("GET", "/v2/models/flowers/versions/none/ready", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/UPPER/infer", 404),
        ("POST", "/v2/models/flowers/versions/9/infer", 404),
        ("GET", "/v2/models/flowers/infer", 405),
        ("DELETE", "/v2", 405),
    ],
)
def test_every_error_has_the_protocols_form(
    client: TestClient, tenant: Tenant, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path, headers=tenant.headers)

    assert (answer.status_code, isinstance(answer.json()["error"], str)) == (status, True)


def test_another_content_type_is_refused(client: TestClient, tenant: Tenant) -> None:
    assert infer(client, tenant, {"inputs": [tensor()]}, **{"Content-Type": "text/csv"}).status_code == 415


def test_the_repository_is_listed_loaded_and_unloaded(client: TestClient, tenant: Tenant) -> None:
    def states(ready: bool = False) -> dict[str, str]:
        found = client.post("/v2/repository/index", json={"ready": ready}, headers=tenant.headers).json()
        return {item["version"]: item["state"] for item in found}

    assert states() == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
    client.post("/v2/repository/models/flowers/load", headers=tenant.headers)
    assert (states(), states(ready=True)) == ({"1": "UNAVAILABLE", "2": "READY"}, {"2": "READY"})
    client.post("/v2/repository/models/flowers/unload", json={}, headers=tenant.headers)
    assert states(ready=True) == {}
    assert infer(client, tenant, {"inputs": [tensor()]}).status_code == 200
    brought = {"parameters": {"config": "{}"}}
    assert client.post("/v2/repository/models/flowers/load", json=brought, headers=tenant.headers).status_code == 501


def test_statistics_count_requests_rows_and_batches(client: TestClient, tenant: Tenant) -> None:
    for _ in range(3):
        infer(client, tenant, {"inputs": [tensor()]})

    for path in (f"{MODEL}/stats", f"{MODEL}/versions/2/stats", "/v2/models/stats"):
        (found,) = client.get(path, headers=tenant.headers).json()["model_stats"]
        assert (found["name"], found["version"]) == ("flowers", "2")
        assert (found["inference_count"], found["execution_count"]) == (9, 3)
        assert found["inference_stats"]["success"]["count"] == 3
        assert found["batch_stats"][0]["batch_size"] == 3


@pytest.mark.parametrize("as_binary", [False, True])
def test_the_triton_client_works_as_it_is(live: Live, tenant: Tenant, client: TestClient, as_binary: bool) -> None:
    with triton.InferenceServerClient(live.url.removeprefix("http://")) as server:
        assert server.is_server_live()
        assert server.is_server_ready()
        assert server.is_model_ready("flowers", "2", headers=dict(tenant.headers))
        assert server.get_server_metadata()["name"] == "evenkeel"
        assert server.get_model_metadata("flowers", headers=dict(tenant.headers))["versions"] == ["1", "2"]
        given_tensor = triton.InferInput("input", [3, 4], "FP32")
        given_tensor.set_data_from_numpy(ROWS, binary_data=as_binary)
        wanted = [triton.InferRequestedOutput("probabilities", binary_data=as_binary)]

        answer = server.infer("flowers", [given_tensor], outputs=wanted, headers=dict(tenant.headers), request_id="7")
        packed = server.infer(
            "flowers",
            [given_tensor],
            outputs=wanted,
            headers=dict(tenant.headers),
            request_compression_algorithm="gzip",
        )
        classes = server.infer(
            "flowers",
            [given_tensor],
            outputs=[triton.InferRequestedOutput("probabilities", binary_data=as_binary, class_count=1)],
            headers=dict(tenant.headers),
        )
        statistics = server.get_inference_statistics("flowers", headers=dict(tenant.headers))
        index = server.get_model_repository_index(headers=dict(tenant.headers))
        server.unload_model("flowers", headers=dict(tenant.headers))
        server.load_model("flowers", headers=dict(tenant.headers))
        with pytest.raises(triton.InferenceServerException, match="no model none"):
            server.infer("none", [given_tensor], headers=dict(tenant.headers))

    assert answer.get_response()["id"] == "7"
    assert answer.as_numpy("probabilities").tobytes() == probabilities(client, tenant).tobytes()
    assert packed.as_numpy("probabilities").tobytes() == answer.as_numpy("probabilities").tobytes()
    assert len(classes.as_numpy("probabilities").reshape(-1)) == 3
    assert statistics["model_stats"][0]["inference_count"] >= 6
    assert {item["version"] for item in index} == {"1", "2"}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_no_body_however_odd_is_an_error_of_ours(client: TestClient, tenant: Tenant, data: st.DataObject) -> None:
    request: dict[str, Any] = {"inputs": [tensor()], "outputs": [{"name": "logits"}], "id": "a", "parameters": {}}
    for _ in range(data.draw(st.integers(1, 3))):
        owner = data.draw(st.sampled_from([request, request["inputs"][0] if _is_tensor(request) else request]))
        owner[data.draw(st.sampled_from([*owner, "extra"]))] = data.draw(JUNK)
    body = json.dumps(request).encode()
    tail = data.draw(st.binary(max_size=60))
    length = data.draw(st.sampled_from([None, str(len(body)), "0", "3", "-2", "99999999999999999999999"]))
    headers = {} if length is None else {"Inference-Header-Content-Length": length}

    answer = infer(client, tenant, body[: data.draw(st.integers(0, len(body) * 2))] + tail, **headers)

    assert answer.status_code < 500, answer.text
    assert answer.status_code == 200 or isinstance(answer.json()["error"], str)


def _is_tensor(request: dict[str, Any]) -> bool:
    inputs = request["inputs"]
    return isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], dict) and bool(inputs[0])
