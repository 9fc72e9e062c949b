"""Infer requests with a tensor for each column: units and texts as in the file that the model was trained on."""

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from core.artifacts import ArtifactStore
from tests.api.application import TestClient
from tests.api.bench import Tenant, classifier, publish
from tests.api.live import Live

FIELDS = [
    {"name": "size", "categories": None},
    {"name": "weight", "categories": None},
    {"name": "colour", "categories": ["blue", "red"]},
]
COLUMNS = ["size", "weight", "colour=blue", "colour=red"]
SIZES, WEIGHTS, COLOURS = [1.5, -2.0, 0.25], [3, 4, 5], ["red", "blue", "red"]
ENCODED = [[1.5, 3, 0, 1], [-2.0, 4, 1, 0], [0.25, 5, 0, 1]]


@pytest.fixture(autouse=True)
def flowers(tenant: Tenant, store: ArtifactStore) -> None:
    content, card = classifier()
    card["input"] |= {"columns": COLUMNS, "fields": FIELDS}
    publish(tenant, store, "flowers", content, card, number=1)


def column(name: str, datatype: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [3, 1], "datatype": datatype, "data": data} | more


def table() -> list[dict[str, Any]]:
    return [column("colour", "BYTES", COLOURS), column("size", "FP32", SIZES), column("weight", "INT16", WEIGHTS)]


def infer(client: TestClient, tenant: Tenant, inputs: Any) -> Any:
    body = {"inputs": inputs, "outputs": [{"name": "probabilities"}]}
    return client.post("/v2/models/flowers/infer", json=body, headers=tenant.headers)


@pytest.fixture
def wanted(client: TestClient, tenant: Tenant) -> list[float]:
    tensor = {"name": "input", "shape": [3, 4], "datatype": "FP32", "data": ENCODED}
    data: list[float] = infer(client, tenant, [tensor]).json()["outputs"][0]["data"]
    return data


@pytest.mark.parametrize(
    "inputs",
    [
        table(),
        [item | {"shape": [3]} for item in table()],
        [item | {"data": [[value] for value in item["data"]]} for item in table()],
        [column(name, "FP64", [row[place] for row in ENCODED]) for place, name in enumerate(COLUMNS)],
    ],
    ids=["as uploaded", "flat", "nested", "as the network takes them"],
)
def test_columns_are_answered_as_the_encoded_rows_are(
    client: TestClient, tenant: Tenant, wanted: list[float], inputs: Any
) -> None:
    answer = infer(client, tenant, inputs)

    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == wanted


@pytest.mark.parametrize("binary", [False, True])
def test_the_triton_client_sends_columns(live: Live, tenant: Tenant, wanted: list[float], binary: bool) -> None:
    given = []
    for name, datatype, array in (
        ("size", "FP64", np.array(SIZES)),
        ("colour", "BYTES", np.array(COLOURS, dtype=object)),
        ("weight", "INT64", np.array(WEIGHTS)),
    ):
        given.append(triton.InferInput(name, [3], datatype))
        given[-1].set_data_from_numpy(array, binary_data=binary)
    with triton.InferenceServerClient(live.url.removeprefix("http://")) as server:
        answers = [server.infer("flowers", given, headers=dict(tenant.headers)) for _ in range(2)]

    for answer in answers:
        assert answer.as_numpy("probabilities").reshape(-1).tolist() == pytest.approx(wanted, abs=1e-7)


def test_a_model_of_a_table_says_what_its_columns_are(client: TestClient, tenant: Tenant) -> None:
    properties = client.get("/v2/models/flowers", headers=tenant.headers).json()["properties"]

    assert json.loads(properties["columns"]) == ["size", "weight", "colour"]


def test_what_is_wrong_with_a_column_is_named(client: TestClient, tenant: Tenant) -> None:
    colour, size, weight = table()
    for inputs, said in (
        ([colour, size], "column 'weight' is missing"),
        ([colour, size, weight, column("height", "FP32", SIZES)], "'height'"),
        ([colour, size, weight, size], "twice"),
        ([colour, size, weight | {"shape": [2], "data": [1, 2]}], "the first input has 3"),
        ([colour, size, weight | {"shape": [3, 2]}], "[rows, 1]"),
        ([colour | {"data": ["red", "green", "red"]}, size, weight], "'green' is none of blue, red"),
        ([colour | {"data": ["red", 1, "red"]}, size, weight], "give 3 texts"),
        ([colour | {"datatype": "TEXT"}, size, weight], "TEXT"),
        ([colour, size | {"data": [1.0, None, 2.0]}, weight], "row 1"),
        ([colour, size | {"datatype": "BYTES", "data": ["1", "2", "3"]}, weight], "'1' is not a number"),
        ([colour, size, weight | {"parameters": {"binary_data_size": 6}}], "bytes follow"),
        ([colour | {"shape": [10**9]}, size, weight], "one request may have"),
        ([colour | {"name": ["colour"]}, size, weight], "unexpected input"),
    ):
        answer = infer(client, tenant, inputs)

        assert answer.status_code in (400, 413), (said, answer.text)
        assert said in answer.json()["error"]
