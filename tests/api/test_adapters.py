"""Inputs as people have them: clients of TensorFlow Serving and MLflow, rows by name, pictures."""

import base64
import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.inference.pictures import MAXIMUM_PIXELS
from core.artifacts import ArtifactStore
from tests.api.application import TestClient
from tests.api.bench import COLUMNS, LABELS, Tenant, classifier, publish, regressor

ROWS = [[1.0, 2.0, 3.0, 4.0], [0.5, -1.0, 2.0, 0.0]]
NAMED = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]


@pytest.fixture(autouse=True)
def flowers(tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)


def post(client: TestClient, tenant: Tenant, path: str, body: Any, media: str = "application/json") -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, headers=tenant.headers | {"Content-Type": media})


def probabilities(client: TestClient, tenant: Tenant, rows: Any = ROWS, model: str = "flowers") -> list[list[float]]:
    answer = post(client, tenant, f"/v1/models/{model}/predict", {"rows": rows})
    return [list(item["probabilities"].values()) for item in answer.json()["predictions"]]


@pytest.mark.parametrize("rows", [ROWS, NAMED, [{"input": row} for row in ROWS]])
def test_tensorflow_clients_send_instances(client: TestClient, tenant: Tenant, rows: Any) -> None:
    answer = post(client, tenant, "/v1/models/flowers:predict", {"instances": rows, "signature_name": "x"})

    assert answer.json() == {"predictions": probabilities(client, tenant)}
    assert answer.headers["evenkeel-model-version"] == "1"


@pytest.mark.parametrize("path", ["versions/1", "labels/stable"])
@pytest.mark.parametrize("inputs", [ROWS, {"input": ROWS}])
def test_tensorflow_clients_send_columns_and_choose(client: TestClient, tenant: Tenant, path: str, inputs: Any) -> None:
    client.put("/v1/models/flowers/aliases/stable", json={"version": 1}, headers=tenant.headers)

    answer = post(client, tenant, f"/v1/models/flowers/{path}:predict", {"inputs": inputs})

    assert answer.json() == {"outputs": probabilities(client, tenant)}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": list(COLUMNS), "data": ROWS}},
        {"dataframe_split": {"columns": list(COLUMNS)[::-1], "data": [row[::-1] for row in ROWS]}},
        {"dataframe_split": {"columns": [0, 1, 2, 3], "data": ROWS}},
        {"dataframe_records": NAMED},
        {"instances": ROWS, "params": {}},
        {"inputs": ROWS},
    ],
)
def test_mlflow_clients_are_answered(client: TestClient, tenant: Tenant, body: Any) -> None:
    answer = post(client, tenant, "/invocations", body)

    best = [LABELS[int(np.argmax(row))] for row in probabilities(client, tenant)]
    assert answer.json() == {"predictions": best}


def test_mlflow_clients_may_send_csv(client: TestClient, tenant: Tenant) -> None:
    text = "\n".join([",".join(COLUMNS), *(",".join(map(str, row)) for row in ROWS)]).encode()

    answer = post(client, tenant, "/invocations", text, "text/csv")

    assert answer.json() == post(client, tenant, "/invocations", {"inputs": ROWS}).json()


def test_a_regression_answers_values(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "sums", *regressor(), number=1)

    assert post(client, tenant, "/invocations?model=sums", {"inputs": ROWS}).json() == {"predictions": [10.0, 1.5]}
    assert post(client, tenant, "/invocations", {"inputs": ROWS}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "media", "status"),
    [
        ("/v1/models/flowers:predict", {}, "application/json", 400),
        ("/v1/models/flowers:predict", {"instances": ROWS, "inputs": ROWS}, "application/json", 400),
        ("/v1/models/flowers:predict", {"instances": [[1, 2]]}, "application/json", 400),
        ("/v1/models/flowers:predict", {"instances": [["a", 1, 2, 3]]}, "application/json", 400),
        ("/v1/models/none:predict", {"instances": ROWS}, "application/json", 404),
        ("/v1/models/flowers/labels/none:predict", {"instances": ROWS}, "application/json", 404),
        ("/invocations", {"inputs": ROWS, "instances": ROWS}, "application/json", 400),
        ("/invocations", {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "application/json", 400),
        ("/invocations", b"a,b\n1,x", "text/csv", 400),
        ("/invocations", b"", "text/csv", 400),
        ("/invocations", b"{}", "text/plain", 415),
    ],
)
def test_errors_have_the_form_of_those_protocols(
    client: TestClient, tenant: Tenant, path: str, body: Any, media: str, status: int
) -> None:
    answer = post(client, tenant, path, body, media)

    assert (answer.status_code, isinstance(answer.json()["error"], str)) == (status, True), answer.text


def test_mlflow_clients_find_that_it_is_there(client: TestClient) -> None:
    assert [client.get(path).status_code for path in ("/ping", "/health", "/version")] == [200, 200, 200]


@pytest.fixture
def pictures(tenant: Tenant, store: ArtifactStore) -> None:
    content, card = classifier((3, 4, 5))
    publish(tenant, store, "pictures", content, card, number=1)
    publish(tenant, store, "grey", *classifier((1, 4, 5)), number=1)


def packed(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)


def test_a_picture_is_its_pixels_however_it_comes(client: TestClient, tenant: Tenant, pictures: None) -> None:
    wanted = probabilities(client, tenant, [PIXELS.transpose(2, 0, 1).tolist()], "pictures")
    png = packed(PIXELS)
    text = base64.b64encode(png).decode()
    tensor = {"name": "input", "shape": [1], "datatype": "BYTES", "data": [text]}

    raw = post(client, tenant, "/v1/models/pictures/predict", png, "image/png").json()["predictions"][0]
    (infer,) = post(
        client,
        tenant,
        "/v2/models/pictures/infer",
        {"inputs": [tensor], "outputs": [{"name": "probabilities"}]},
    ).json()["outputs"]

    assert list(raw["probabilities"].values()) == wanted[0]
    assert probabilities(client, tenant, [text], "pictures") == wanted
    assert probabilities(client, tenant, [f"data:image/png;base64,{text}"], "pictures") == wanted
    assert np.array(infer["data"], np.float32).tobytes() == np.array(wanted[0], np.float32).tobytes()
    instance = {"instances": [{"b64": text}]}
    assert post(client, tenant, "/v1/models/pictures:predict", instance).json() == {"predictions": wanted}


def test_a_picture_of_another_size_or_colour_is_made_to_fit(client: TestClient, tenant: Tenant, pictures: None) -> None:
    large = packed(np.kron(PIXELS, np.ones((8, 8, 1), np.uint8)), "JPEG")

    for model in ("pictures", "grey"):
        answer = post(client, tenant, f"/v1/models/{model}/predict", large, "image/jpeg")
        assert answer.status_code == 200, answer.text


def test_a_picture_that_is_none_or_too_large_is_refused(client: TestClient, tenant: Tenant, pictures: None) -> None:
    side = int(MAXIMUM_PIXELS**0.5) + 1
    bomb = packed(np.zeros((side, side), np.uint8))
    assert len(bomb) < 200_000

    for content in (b"GIF89a", b"", packed(PIXELS)[:60], bomb):
        answer = post(client, tenant, "/v1/models/pictures/predict", content, "image/png")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input"), answer.text
    assert post(client, tenant, "/v1/models/flowers/predict", packed(PIXELS), "image/png").status_code == 422
    assert post(client, tenant, "/v1/models/pictures/predict", {"rows": ["?"]}).status_code == 422
