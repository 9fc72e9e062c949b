"""Data sets over HTTP: uploaded, versioned, trained on, recalibrated on, deleted; one's own only."""

import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from api.main import create_app
from core.db import Database
from core.settings import Settings
from tests.api.application import TestClient
from tests.api.bench import Tenant, Worker
from tests.api.service import Service

DIGITS = load_digits()
SMALL: dict[str, Any] = {
    "name": "small",
    "dataset": {"source": "uploaded", "name": "waves"},
    "network": {"family": "recurrent", "units": [8]},
    "training": {"steps": 20, "batch_size": 16, "evaluate_every": 20},
}
TABLE = "size,colour,price\n" + "".join(
    f"{row},{('red', 'blue')[row % 2]},{2.5 * row + 3 * (row % 2)}\n" for row in range(60)
)
CSV = {"Content-Type": "text/csv"}


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def waves(rows: int = 80, seed: int = 0) -> bytes:
    draw = np.random.default_rng(seed)
    return npz(x=draw.normal(size=(rows, 6, 3)).astype(np.float32), y=draw.integers(0, 2, rows))


def upload(client: TestClient, tenant: Tenant, content: bytes | str, name: str = "waves", **options: Any) -> Any:
    headers = tenant.headers | options.pop("headers", {})
    return client.post("/v1/datasets", params={"name": name, **options}, content=content, headers=headers)


def stored_files(settings: Settings) -> list[Path]:
    return list((Path(settings.resolved_artifact_url) / "datasets").rglob("*.safetensors"))


def test_an_upload_is_told_with_all_that_a_job_must_know(client: TestClient, tenant: Tenant) -> None:
    answer = upload(client, tenant, waves())

    assert answer.status_code == 201
    assert answer.headers["Location"] == "/v1/datasets/waves"
    newest = answer.json()["newest"]
    assert (newest["version"], newest["kind"], newest["task"]) == (1, "sequence", "classification")
    assert (newest["input_shape"], newest["rows"], newest["classes"]) == ([6, 3], 80, 2)
    assert client.get("/v1/datasets/waves", headers=tenant.headers).json() == answer.json()
    version = client.get("/v1/datasets/waves/versions/1", headers=tenant.headers).json()
    assert version == newest


def test_the_same_again_changes_nothing_and_other_content_is_a_version(
    client: TestClient, tenant: Tenant, settings: Settings
) -> None:
    first = upload(client, tenant, waves())
    again = upload(client, tenant, waves())
    other = upload(client, tenant, waves(seed=1))
    otherwise = upload(client, tenant, waves(seed=1), kind="image")

    assert (again.status_code, again.json()) == (200, first.json())
    assert [answer.status_code for answer in (other, otherwise)] == [201, 201]
    assert otherwise.json()["versions"] == [3, 2, 1]
    assert len(stored_files(settings)) == 3
    assert list((settings.home / "uploads").iterdir()) == []


def test_lists_are_walked_in_pages(client: TestClient, tenant: Tenant) -> None:
    for name in ("a", "b", "c"):
        upload(client, tenant, waves(), name)

    first = client.get("/v1/datasets?limit=2", headers=tenant.headers).json()
    second = client.get(f"/v1/datasets?limit=2&after={first['last_id']}", headers=tenant.headers).json()

    assert [item["name"] for item in first["data"] + second["data"]] == ["c", "b", "a"]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert client.get("/v1/datasets?after=ds_none", headers=tenant.headers).status_code == 422


def test_a_bad_upload_is_told_by_member_and_leaves_nothing(
    client: TestClient, tenant: Tenant, settings: Settings
) -> None:
    answer = upload(client, tenant, npz(x=np.array([["a", 1]], object), y=np.zeros(1)))

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/body/x")
    assert stored_files(settings) == []
    assert list((settings.home / "uploads").iterdir()) == []
    assert client.get("/v1/datasets/waves", headers=tenant.headers).status_code == 404


def test_a_full_disk_is_told_as_such(
    client: TestClient, tenant: Tenant, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("api.datasets.write_contents", full)

    answer = upload(client, tenant, waves())

    assert (answer.status_code, answer.json()["code"]) == (507, "storage_error")
    assert "No space left on device" in answer.json()["detail"]
    assert list((settings.home / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "options", "pointer"),
    [
        (b"", {}, None),
        (b"neither", {}, None),
        (TABLE, {}, None),
        (waves(), {"headers": CSV}, "/body"),
        (TABLE.replace("\n7,", "\n,"), {"headers": CSV}, "/body/7/size"),
        (waves(), {"name": "Not a name"}, "/query/name"),
        (waves(), {"kind": "sound"}, "/query/kind"),
    ],
)
def test_what_is_no_data_set_is_refused(
    client: TestClient, tenant: Tenant, content: Any, options: Any, pointer: str | None
) -> None:
    answer = upload(client, tenant, content, **options)

    assert answer.status_code == 422, answer.text
    assert pointer is None or pointer in [error["pointer"] for error in answer.json()["errors"]]


@pytest.fixture
def strict(tmp_path: Path, sqlite_url: str) -> Iterator[TestClient]:
    settings = Settings(home=tmp_path, database_url=sqlite_url, maximum_dataset_bytes=100_000, maximum_body_bytes=1000)
    with TestClient(create_app(settings), client=("127.0.0.1", 50000)) as client:
        yield client


def test_an_upload_has_a_bound_of_its_own(strict: TestClient, tenant: Tenant) -> None:
    within, beyond = waves(), npz(x=np.zeros((20_000, 1)), y=np.zeros(20_000))

    assert 1000 < len(within) < 100_000
    assert upload(strict, tenant, within).status_code == 201
    answer = upload(strict, tenant, beyond)
    assert answer.status_code == 413
    assert "EVENKEEL_MAXIMUM_DATASET_BYTES" in answer.json()["detail"]


def test_a_body_without_a_length_is_counted_too(strict: TestClient, tenant: Tenant) -> None:
    parts = iter([b"x" * 50_000] * 3)

    answer = strict.post("/v1/datasets?name=endless", content=parts, headers=tenant.headers)

    assert answer.status_code == 413


def test_a_job_pins_the_version_and_what_is_known_of_it(client: TestClient, tenant: Tenant) -> None:
    upload(client, tenant, waves())

    spec = client.post("/v1/jobs", json=SMALL, headers=tenant.headers).json()["spec"]
    upload(client, tenant, waves(seed=1))
    newer = client.post("/v1/jobs:validate", json=SMALL, headers=tenant.headers).json()["spec"]

    assert (spec["dataset"]["version"], newer["dataset"]["version"]) == (1, 2)
    assert spec["dataset"]["stored"]["input_shape"] == [6, 3]
    assert spec["dataset"]["scaling"] == "standardize"
    assert client.post("/v1/jobs", json=spec, headers=tenant.headers).json()["spec"] == spec


def test_an_idempotency_key_keeps_the_version_of_its_job(client: TestClient, tenant: Tenant) -> None:
    upload(client, tenant, waves())
    headers = tenant.headers | {"Idempotency-Key": "nightly"}
    first = client.post("/v1/jobs", json=SMALL, headers=headers)
    upload(client, tenant, waves(seed=1))

    again = client.post("/v1/jobs", json=SMALL, headers=headers)
    other = client.post("/v1/jobs", json=SMALL | {"dataset": SMALL["dataset"] | {"version": 2}}, headers=headers)

    assert again.json()["id"] == first.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("dataset", "pointer", "code"),
    [
        ({"source": "uploaded"}, "/dataset/name", "missing"),
        ({"source": "uploaded", "name": "none"}, "/dataset/name", "unknown_dataset"),
        ({"source": "uploaded", "name": "Bad Name"}, "/dataset/name", "string_pattern_mismatch"),
        ({"source": "uploaded", "name": "waves", "version": 7}, "/dataset/version", "unknown_version"),
        ({"source": "uploaded", "name": "waves", "version": True}, "/dataset/version", "int_type"),
        ({"source": "uploaded", "name": "waves", "stored": {"rows": 1}}, "/dataset/stored", "not_for_users"),
        ({"source": "uploaded", "name": "waves", "test_fraction": 2}, "/dataset/test_fraction", "float_type"),
        ({"source": "digits", "name": "waves"}, "/dataset", "value_error"),
    ],
)
def test_a_data_set_that_can_not_be_named_so_is_pointed_at(
    client: TestClient, tenant: Tenant, dataset: dict[str, Any], pointer: str, code: str
) -> None:
    upload(client, tenant, waves())

    answer = client.post("/v1/jobs", json=SMALL | {"dataset": dataset}, headers=tenant.headers)

    assert answer.status_code == 422, answer.text
    assert (pointer, code) in [(error["pointer"], error["code"]) for error in answer.json()["errors"]] or (
        pointer in [error["pointer"] for error in answer.json()["errors"]] and code.endswith("_type")
    )


@pytest.mark.parametrize("family", ["convnet", "vgg", "resnet", "inception"])
def test_a_family_of_images_names_those_that_take_sequences(client: TestClient, tenant: Tenant, family: str) -> None:
    upload(client, tenant, waves())

    answer = client.post("/v1/jobs:validate", json=SMALL | {"network": {"family": family}}, headers=tenant.headers)

    assert "waves has sequences of 6 × 3: use the family recurrent or mlp" in answer.json()["detail"]


@pytest.mark.parametrize(
    "network",
    [
        {"family": "mlp"},
        {"family": "recurrent", "units": [8, 4]},
        {"family": "sequential", "layers": [{"layer": "lstm", "units": 4}, {"layer": "linear", "features": 2}]},
        {"family": "sequential", "layers": [{"layer": "flatten"}, {"layer": "linear", "features": 2}]},
    ],
)
def test_these_families_take_sequences(client: TestClient, tenant: Tenant, network: dict[str, Any]) -> None:
    upload(client, tenant, waves())

    answer = client.post("/v1/jobs:validate", json=SMALL | {"network": network}, headers=tenant.headers)

    assert answer.status_code == 200, answer.text
    assert answer.json()["layers"][0]["input_shape"] == [6, 3]


def test_others_do_not_see_it(client: TestClient, tenant: Tenant, stranger: Tenant) -> None:
    upload(client, tenant, waves())

    assert client.get("/v1/datasets", headers=stranger.headers).json()["data"] == []
    for method in ("GET", "DELETE"):
        assert client.request(method, "/v1/datasets/waves", headers=stranger.headers).status_code == 404
    assert client.post("/v1/jobs", json=SMALL, headers=stranger.headers).status_code == 422
    assert upload(client, stranger, waves(seed=5)).json()["versions"] == [1]


def test_reading_and_writing_need_the_scopes_of_jobs(client: TestClient, tenant: Tenant) -> None:
    reader = {"Authorization": f"Bearer {tenant.new_key(('jobs:read',))}"}
    writer = {"Authorization": f"Bearer {tenant.new_key(('jobs:write',))}"}

    assert upload(client, tenant, waves(), headers=reader).status_code == 403
    assert upload(client, tenant, waves(), headers=writer).status_code == 201
    assert client.get("/v1/datasets", headers=writer).status_code == 403
    assert client.delete("/v1/datasets/waves", headers=reader).status_code == 403


def test_a_data_set_stays_while_a_job_needs_it(
    client: TestClient, tenant: Tenant, database: Database, settings: Settings
) -> None:
    upload(client, tenant, waves())
    upload(client, tenant, waves(seed=1))
    job = client.post("/v1/jobs", json=SMALL, headers=tenant.headers).json()["id"]

    refused = client.delete("/v1/datasets/waves", headers=tenant.headers)
    other = client.delete("/v1/datasets/waves?version=1", headers=tenant.headers)
    Worker(database, job).end("failed", error={"code": "internal", "message": "of a test"})
    deleted = client.delete("/v1/datasets/waves", headers=tenant.headers)
    retried = client.post(f"/v1/jobs/{job}/retry", headers=tenant.headers)

    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert job in refused.json()["detail"]
    assert (other.status_code, other.json()["versions"]) == (200, [1])
    assert (deleted.status_code, deleted.json()["versions"]) == (200, [2])
    assert stored_files(settings) == []
    assert client.get("/v1/datasets/waves", headers=tenant.headers).status_code == 404
    assert client.get("/v1/datasets", headers=tenant.headers).json()["data"] == []
    assert (retried.status_code, retried.json()["errors"][0]["code"]) == (422, "deleted_dataset")
    assert upload(client, tenant, waves()).json()["versions"] == [3]


def test_digits_that_are_uploaded_train_to_the_weights_of_the_digits_that_are_there(service: Service) -> None:
    content = npz(x=DIGITS.images.astype(np.uint8), y=DIGITS.target)
    service.call("POST", "/v1/datasets", 201, params={"name": "mine", "kind": "image"}, content=content)
    spec = {
        "name": "digits",
        "network": {"family": "convnet", "channels": [4], "hidden": [8]},
        "training": {"steps": 20, "batch_size": 32, "evaluate_every": 20},
    }

    ours = service.trained(spec | {"dataset": {"source": "digits"}})["result"]
    theirs = service.trained(spec | {"dataset": {"source": "uploaded", "name": "mine"}})["result"]

    assert theirs["weights_sha256"] == ours["weights_sha256"]
    assert theirs["accuracy"] == ours["accuracy"]
    model = service.get("/v1/models/digits/versions/2")
    assert model["card"]["dataset"]["name"] == "mine"
    assert model["card"]["input"]["pixel_range"] == [0, 16]


def test_a_table_with_texts_is_trained_on_and_asked_by_its_texts(service: Service) -> None:
    service.call("POST", "/v1/datasets", 201, params={"name": "prices"}, content=TABLE, headers=CSV)
    spec = {
        "name": "prices",
        "dataset": {"source": "uploaded", "name": "prices", "scaling": "unit"},
        "network": {"family": "mlp", "hidden": [8]},
        "training": {"steps": 20, "batch_size": 16, "evaluate_every": 20},
    }

    service.trained(spec)

    card = service.get("/v1/models/prices/versions/1")["card"]
    assert card["input"]["columns"] == ["size", "colour=blue", "colour=red"]
    assert card["input"]["fields"][1] == {"name": "colour", "categories": ["blue", "red"]}
    ways = [[[5.0, "red"]], [{"size": 5.0, "colour": "red"}], [[5.0, 0.0, 1.0]]]
    answers = [service.post("/v1/models/prices/predict", {"rows": rows})["predictions"] for rows in ways]
    assert answers[0] == answers[1] == answers[2]
    other = service.post("/v1/models/prices/predict", {"rows": [[5.0, "blue"]]})["predictions"]
    assert other != answers[0]


def test_a_model_of_uploaded_sequences_is_recalibrated_on_others(service: Service) -> None:
    for name, seed in (("waves", 0), ("later", 1)):
        service.call("POST", "/v1/datasets", 201, params={"name": name}, content=waves(seed=seed))
    service.call(
        "POST", "/v1/datasets", 201, params={"name": "wide"}, content=npz(x=np.ones((9, 6, 4)), y=np.arange(9))
    )
    first = service.trained(SMALL)
    body = {"dataset": {"source": "uploaded", "name": "later"}}
    key = {"headers": {"Idempotency-Key": "again"}}

    job = service.post("/v1/models/small/recalibrate", body, 201, **key)
    service.run()
    service.call("POST", "/v1/datasets", 201, params={"name": "later"}, content=waves(seed=2))
    again = service.post("/v1/models/small/recalibrate", body, 201, **key)
    wide = service.post("/v1/models/small/recalibrate", {"dataset": {"source": "uploaded", "name": "wide"}}, 422)

    ended = service.get(f"/v1/jobs/{job['id']}")
    assert ended["status"] == "succeeded", ended["error"]
    assert ended["result"]["weights_sha256"] == first["result"]["weights_sha256"]
    assert ended["result"]["statistics_sha256"] != first["result"]["statistics_sha256"]
    assert ended["result"]["recalibrated_on"]["name"] == "later"
    assert again["id"] == job["id"]
    assert wide["errors"][0]["code"] == "other_shape"


def test_a_table_of_other_columns_does_not_recalibrate_a_model(service: Service) -> None:
    for name, text in (("prices", TABLE), ("others", TABLE.replace("red", "green"))):
        service.call("POST", "/v1/datasets", 201, params={"name": name}, content=text, headers=CSV)
    network = {"family": "mlp", "hidden": [8]}
    dataset = {"source": "uploaded", "name": "prices"}
    service.trained({"name": "prices", "dataset": dataset, "network": network, "training": SMALL["training"]})

    answer = service.post("/v1/models/prices/recalibrate", {"dataset": dataset | {"name": "others"}}, 422)

    assert answer["errors"][0]["code"] == "other_columns"
    assert "'colour=red'" in answer["detail"]
