import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from api.inference.engine import Engine, Found
from api.inference.rows import array_of
from core.artifacts import ArtifactStore
from core.settings import Settings
from tests.api.application import TestClient
from tests.api.bench import COLUMNS, LABELS, Tenant, classifier, place_dependent, publish, regressor


@pytest.fixture(autouse=True)
def flowers(tenant: Tenant, store: ArtifactStore) -> str:
    """The name of the ONNX file of version 1 of model `flowers`."""
    return publish(tenant, store, "flowers", *classifier(), number=1)


def predict(client: TestClient, tenant: Tenant, rows: Any, model: str = "flowers", **params: Any) -> Any:
    return client.post(f"/v1/models/{model}/predict", json={"rows": rows}, params=params, headers=tenant.headers)


def draw(count: int, columns: int = 4) -> list[list[float]]:
    rows: list[list[float]] = np.random.default_rng(1).normal(size=(count, columns)).tolist()
    return rows


def test_a_prediction_has_its_label_and_all_probabilities(client: TestClient, tenant: Tenant) -> None:
    answer = predict(client, tenant, draw(3)).json()

    assert (answer["model"], answer["version"], answer["statistics_sha256"]) == ("flowers", 1, "3" * 64)
    for prediction in answer["predictions"]:
        probabilities = prediction["probabilities"]
        assert tuple(probabilities) == LABELS
        assert prediction["label"] == max(probabilities, key=probabilities.__getitem__)
        assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-6)


def test_columns_by_name_are_put_in_order(client: TestClient, tenant: Tenant) -> None:
    rows = draw(5)
    by_name = [dict(reversed(list(zip(COLUMNS, row, strict=True)))) for row in rows]

    assert predict(client, tenant, by_name).json() == predict(client, tenant, rows).json()


def test_an_image_is_taken_flat_or_nested(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "pictures", *classifier((1, 2, 3)), number=1)
    flat = draw(3, 6)
    nested = np.array(flat).reshape(3, 1, 2, 3).tolist()

    answer = predict(client, tenant, nested, "pictures")

    assert answer.status_code == 200
    assert answer.json() == predict(client, tenant, flat, "pictures").json()


def test_a_grey_image_may_be_rows_of_pixels() -> None:
    picture = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]

    assert array_of([picture], (1, 2, 3), ()).tolist() == [[picture]]
    assert array_of([[picture]], (1, 2, 3), ()).tolist() == [[picture]]


def test_a_regression_answers_in_the_targets_units(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "sums", *regressor(), number=1)

    answer = predict(client, tenant, [[1, 2, 3, 4], [0.5, 0, 0, -1]], "sums").json()

    assert answer["predictions"] == [{"value": 10.0}, {"value": -0.5}]


def test_no_rows_have_no_predictions(client: TestClient, tenant: Tenant) -> None:
    assert predict(client, tenant, []).json()["predictions"] == []


def test_a_row_has_the_same_bits_alone_and_among_300(client: TestClient, tenant: Tenant) -> None:
    rows = draw(300)

    together = predict(client, tenant, rows).json()["predictions"]

    for index in (0, 1, 63, 64, 130, 299):
        assert predict(client, tenant, [rows[index]]).json()["predictions"] == [together[index]]


def test_a_model_without_that_proof_answers_row_by_row(
    client: TestClient, tenant: Tenant, store: ArtifactStore
) -> None:
    content, card = place_dependent()
    publish(tenant, store, "unproven", content, card | {"receipt": {"batch_invariant": False}}, number=1)
    publish(tenant, store, "careless", content, card, number=1)
    rows = draw(70, 5)

    together, careless = (
        predict(client, tenant, rows, name).json()["predictions"] for name in ("unproven", "careless")
    )

    alone = [predict(client, tenant, [row], "unproven").json()["predictions"][0] for row in rows]
    assert together == alone
    assert careless != alone  # or this test would show nothing


def test_no_run_has_more_rows_than_the_receipt_covers(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    content, card = classifier()
    receipt = {"batch_invariant": True, "largest_batch": 16}
    publish(tenant, store, "proved-for-16", content, card | {"receipt": receipt}, number=1)

    answered = predict(client, tenant, draw(40), "proved-for-16").json()["predictions"]

    stats = client.get("/v2/models/proved-for-16/stats", headers=tenant.headers).json()
    sizes = [batch["batch_size"] for batch in stats["model_stats"][0]["batch_stats"]]
    assert len(answered) == 40
    assert max(sizes) == 16


def test_a_sequence_is_taken_flat_or_as_its_steps(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "series", *classifier((5, 3)), number=1)
    flat = draw(4, 15)
    steps = np.array(flat).reshape(4, 5, 3).tolist()

    answer = predict(client, tenant, steps, "series")

    assert answer.status_code == 200
    assert answer.json() == predict(client, tenant, flat, "series").json()


def test_a_step_of_a_sequence_that_is_too_short_is_pointed_at(
    client: TestClient, tenant: Tenant, store: ArtifactStore
) -> None:
    publish(tenant, store, "series", *classifier((5, 3)), number=1)
    steps: list[Any] = np.zeros((4, 5, 3)).tolist()
    steps[2][4] = [1.0, 2.0]
    short: list[Any] = np.zeros((4, 5, 3)).tolist()
    short[1].pop()

    found = [predict(client, tenant, wrong, "series").json()["errors"][0] for wrong in (steps, short)]

    assert [error["pointer"] for error in found] == ["/rows/2/4", "/rows/1"]


@pytest.mark.parametrize(
    ("rows", "pointer", "code"),
    [
        ([[1, 2, 3, 4], [1, 2, 3]], "/rows/1", "wrong_width"),
        ([[1, 2, 3, 4, 5]], "/rows/0", "wrong_width"),
        ([[1, 2, 3, 4], [1, 2, None, 4]], "/rows/1/2", "missing"),
        ([[1, 2, 3, "4"]], "/rows/0/3", "not_a_number"),
        ([[1, 2, 3, True]], "/rows/0/3", "not_a_number"),
        ([[1, 2, [3], 4]], "/rows/0/2", "not_a_number"),
        ([[1, 2, 3, 4], [1, 1e39, 3, 4]], "/rows/1/1", "not_finite"),
        ([[1, 2, 3, 4], {"length": 1}], "/rows/1", "mixed_rows"),
        ([1, 2, 3, 4], "/rows/0", "not_a_list"),
        ([{"length": 1, "width": 2, "height": 3}], "/rows/0/weight", "missing"),
        ([{"length": 1, "width": 2, "height": 3, "weight": 4, "colour": 5}], "/rows/0/colour", "unknown_column"),
        ([{"length": 1, "width": None, "height": 3, "weight": 4}], "/rows/0/width", "missing"),
        ([dict.fromkeys(COLUMNS, 1), [1, 2, 3, 4]], "/rows/1", "mixed_rows"),
    ],
)
def test_a_row_that_can_not_be_answered_is_pointed_at(
    client: TestClient, tenant: Tenant, rows: Any, pointer: str, code: str
) -> None:
    answer = predict(client, tenant, rows)

    (error,) = answer.json()["errors"]
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert (error["pointer"], error["code"]) == (pointer, code)
    assert ":" in error["message"] or "leave" in error["message"]


def test_a_value_deep_in_an_image_is_pointed_at(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "pictures", *classifier((1, 2, 3)), number=1)
    rows: list[Any] = np.zeros((4, 1, 2, 3)).tolist()
    rows[2][0][1][2] = None
    ragged: list[Any] = np.zeros((4, 1, 2, 3)).tolist()
    ragged[3][0][1] = [1, 2]

    found = [predict(client, tenant, wrong, "pictures").json()["errors"][0] for wrong in (rows, ragged)]

    assert [error["pointer"] for error in found] == ["/rows/2/0/1/2", "/rows/3/0/1"]


def test_names_are_of_no_use_to_a_model_without_columns(
    client: TestClient, tenant: Tenant, store: ArtifactStore
) -> None:
    publish(tenant, store, "pictures", *classifier((1, 2, 3)), number=1)

    answer = predict(client, tenant, [{"a": 1}], "pictures")

    assert answer.json()["errors"][0]["code"] == "no_columns"


def test_an_answer_that_is_no_number_is_refused(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "sums", *regressor(), number=1)

    answer = predict(client, tenant, [[0, 0, 0, 0], [3e38, 3e38, 0, 0]], "sums")

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/rows/1")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"rows":3}', b'{"rows":[],"model":"x"}', b'{"rows":[[NaN]]}'])
def test_a_body_that_holds_no_rows_is_refused(client: TestClient, tenant: Tenant, body: bytes) -> None:
    answer = client.post("/v1/models/flowers/predict", content=body, headers=tenant.headers)

    assert answer.status_code in (400, 422)


def test_more_rows_than_the_limit_are_refused(client: TestClient, tenant: Tenant, settings: Settings) -> None:
    rows: list[list[int]] = [[]] * (settings.maximum_predict_rows + 1)

    answer = predict(client, tenant, rows)

    assert answer.json()["errors"][0]["code"] == "too_many_rows"


def test_a_corrupt_file_takes_down_its_own_version_only(
    client: TestClient, tenant: Tenant, store: ArtifactStore
) -> None:
    broken = publish(tenant, store, "broken", *classifier(seed=7), number=1)
    store.put(broken, b"not what was published")
    publish(tenant, store, "no-onnx", b"no graph", classifier()[1], number=1)

    for name in ("broken", "no-onnx"):
        answer = predict(client, tenant, draw(1), name)
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert f"version 1 of model {name}" in answer.json()["detail"]
    assert predict(client, tenant, draw(1)).status_code == 200


def test_version_and_alias_choose_what_answers(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "flowers", *classifier(seed=1), number=2)
    alias = "/v1/models/flowers/aliases"

    def answering(**params: Any) -> int:
        answer: int = predict(client, tenant, draw(1), **params).json()["version"]
        return answer

    assert answering() == 2  # no alias `latest`: the newest
    assert answering(version=1) == 1
    client.put(f"{alias}/latest", json={"version": 1}, headers=tenant.headers)
    assert answering() == 1
    client.put(f"{alias}/stable", json={"version": 2}, headers=tenant.headers)
    assert answering(alias="stable") == 2
    client.put(f"{alias}/stable", json={"version": 1}, headers=tenant.headers)
    assert answering(alias="stable") == 1
    client.delete(f"{alias}/stable", headers=tenant.headers)
    assert predict(client, tenant, draw(1), alias="stable").status_code == 404
    assert predict(client, tenant, draw(1), version=9).status_code == 404


def test_models_leave_memory_when_others_need_it(store: ArtifactStore) -> None:
    models = [classifier(hidden=16, seed=seed) for seed in range(4)]
    assert all(len(content) < 1500 for content, _ in models)

    async def load_all() -> list[int]:
        engine = Engine(store, memory_bytes=3000, queue_rows=64, threads=1)
        for number, (content, card) in enumerate(models):
            file = store.put_content(content, ".onnx")
            await engine.load(("mdl_1", number), Found("model", {"onnx": asdict(file)}, None, "2" * 64), card)
        engine.close()
        return [number for number in range(4) if engine.loaded(("mdl_1", number)) is not None]

    held = asyncio.run(load_all())

    assert held[-1] == 3
    assert sum(len(models[number][0]) for number in held) <= 3000 < sum(len(content) for content, _ in models)


def test_a_version_that_many_ask_for_at_once_is_loaded_once(
    client: TestClient, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    original = ArtifactStore.get
    monkeypatch.setattr(ArtifactStore, "get", lambda *given: loaded.append(given[1]) or original(*given))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: predict(client, tenant, draw(2)).text, range(16)))

    assert len(set(answers)) == 1
    assert len(loaded) == 1


def test_a_large_request_is_answered_whole(client: TestClient, tenant: Tenant) -> None:
    rows = np.round(np.random.default_rng(0).normal(size=(20_000, 4)), 3).tolist()

    answer = client.post(
        "/v1/models/flowers/predict", content=json.dumps({"rows": rows}).encode(), headers=tenant.headers
    )

    assert len(answer.json()["predictions"]) == 20_000


def test_models_versions_and_files_can_be_looked_at(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    content, card = classifier(seed=1)
    publish(tenant, store, "flowers", content, card, number=2)
    client.put("/v1/models/flowers/aliases/latest", json={"version": 2}, headers=tenant.headers)

    def get(path: str) -> Any:
        return client.get(f"/v1/models{path}", headers=tenant.headers)

    model = get("/flowers").json()
    assert (model["latest_version"], model["aliases"]) == (2, {"latest": 2})
    assert get("").json()["data"] == [model]
    versions = get("/flowers/versions").json()["data"]
    assert [item["version"] for item in versions] == [2, 1]
    assert get("/flowers/versions?limit=1").json()["last_id"] == "2"
    assert [item["version"] for item in get("/flowers/versions?after=2").json()["data"]] == [1]
    version = get("/flowers/versions/2").json()
    assert version == versions[0]
    assert version["aliases"] == ["latest"]
    assert set(version["artifacts"]["onnx"]) == {"sha256", "bytes"}
    assert get("/flowers/aliases").json()["data"] == [get("/flowers/aliases/latest").json()]
    assert get("/flowers/population").json()["population"] == card["population"]
    downloaded = get("/flowers/download?format=onnx&version=2")
    assert downloaded.content == content
    assert downloaded.headers["ETag"] == f'"{version["artifacts"]["onnx"]["sha256"]}"'
    assert get("/flowers/download?format=safetensors").status_code == 404
