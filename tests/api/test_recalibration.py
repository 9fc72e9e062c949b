"""Recalibration over HTTP, run by real trainers: other statistics for the same weights, and where they come from."""

import shutil
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load
from sklearn.datasets import load_digits

from api.main import create_app
from bn_models.randomness import derive_seed
from core.db import Database
from core.queries import leases
from core.settings import Settings
from core.spec import DatasetSpec
from tests.api.application import TestClient
from tests.api.bench import Tenant, Worker
from tests.api.service import Service

DIGITS: dict[str, Any] = {
    "name": "digits",
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [24, 24]},
    "training": {"steps": 120, "batch_size": 64, "evaluate_every": 60},
}
OTHER_SPLIT = {"source": "digits", "split_seed": 7, "test_fraction": 0.3}


@dataclass(frozen=True)
class Prepared:
    """A home in which the base model was trained; each test works on a copy."""

    home: Path
    tenant: Tenant
    job: Any


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Prepared]:
    home = tmp_path_factory.mktemp("trained")
    shutil.copy(migrated_sqlite, home / "evenkeel.sqlite")
    settings = Settings(home=home, database_url=f"sqlite:///{home / 'evenkeel.sqlite'}")
    database = Database(settings.resolved_database_url)
    tenant = Tenant(database, "first")
    with TestClient(create_app(settings), client=("127.0.0.1", 50000)) as client:
        job = Service(settings, database, client, tenant).trained(DIGITS)
    database.close()
    yield Prepared(home, tenant, job)


@pytest.fixture
def sqlite_url(prepared: Prepared, tmp_path: Path) -> str:
    shutil.copytree(prepared.home, tmp_path, dirs_exist_ok=True)
    return f"sqlite:///{tmp_path / 'evenkeel.sqlite'}"


@pytest.fixture
def tenant(prepared: Prepared, database: Database) -> Tenant:
    tenant = copy(prepared.tenant)
    tenant.database = database
    return tenant


@pytest.fixture
def base(prepared: Prepared) -> Any:
    return prepared.job


def recalibrated(service: Service, body: dict[str, Any], expected: str = "succeeded") -> Any:
    job = service.post("/v1/models/digits/recalibrate", body, 201)
    service.run()
    ended = service.get(f"/v1/jobs/{job['id']}")
    assert ended["status"] == expected, ended
    return ended


def weights(service: Service, version: int) -> dict[str, np.ndarray]:
    files = service.get(f"/v1/models/digits/versions/{version}")["card"]["artifacts"]["safetensors"]
    return load(service.store.get(f"content/{files['sha256'][:2]}/{files['sha256']}.safetensors", files["sha256"]))


def test_the_new_version_has_the_same_weights_and_other_statistics_and_says_where_it_comes_from(
    service: Service, base: Any
) -> None:
    job = recalibrated(service, {"dataset": OTHER_SPLIT})

    old, new = (service.get(f"/v1/models/digits/versions/{number}") for number in (1, 2))
    result = job["result"]
    assert (job["kind"], base["kind"]) == ("recalibration", "training")
    assert (result["model"], result["version"], new["job_id"]) == ("digits", 2, job["id"])
    assert new["weights_sha256"] == old["weights_sha256"] == result["weights_sha256"]
    assert new["statistics_sha256"] == result["statistics_sha256"] != old["statistics_sha256"]
    for place in (result, new, new["card"]):
        assert place["recalibrated_from"] == {
            "model": "digits",
            "version": 1,
            "job_id": base["id"],
            "weights_file_sha256": old["artifacts"]["safetensors"]["sha256"],
            "statistics_sha256": old["statistics_sha256"],
        }
        assert place["recalibrated_on"]["split_seed"] == 7
        assert set(place["before"]) == set(place["after"]) == {"loss", "accuracy"}
    assert old["recalibrated_from"] is None
    assert result["accuracy"] == result["after"]["accuracy"] == result["gap"]["population"]["accuracy"]
    assert job["spec"]["recalibration"]["version"] == 1
    assert (job["progress"]["steps"], job["progress"]["fraction"]) == (0, 1.0)
    for part in ("labels", "scaling", "output_scaling", "network", "task", "source"):
        assert new["card"][part] == old["card"][part], part
    inputs, moments = new["card"]["input"], new["card"]["input"]["moments"]
    assert inputs == old["card"]["input"] | {"moments": moments}
    assert moments != old["card"]["input"]["moments"]  # drift is told from the data of the new statistics


def test_the_phases_are_those_of_a_job_that_trains_nothing(service: Service, base: Any) -> None:
    job = recalibrated(service, {"dataset": OTHER_SPLIT})

    events = service.get(f"/v1/jobs/{job['id']}/events", order="asc", limit=100)["data"]
    phases = [event["data"]["phase"] for event in events if event["type"] == "phase"]
    assert phases == ["loading", "preparing_data", "population_statistics", "evaluating", "exporting"]
    assert service.get(f"/v1/jobs/{job['id']}/layers")["final"]


def test_statistics_and_accuracies_are_those_of_an_independent_computation(service: Service, base: Any) -> None:
    """Of the first layer in float64, which no estimator's treatment of other layers touches."""
    job = recalibrated(service, {"dataset": OTHER_SPLIT})

    old, new = weights(service, 1), weights(service, 2)
    images = load_digits().images.reshape(-1, 64) / 16.0
    spec = job["spec"]["dataset"]
    assert job["result"]["population"]["samples"] == job["result"]["population"]["of"]
    rows, tested = split_rows(spec)
    inputs = images[rows] @ new["hidden1.linear.weight"].astype(np.float64).T
    assert np.allclose(new["hidden1.batch_norm.population_mean"], inputs.mean(0), rtol=1e-5, atol=1e-6)
    assert np.allclose(new["hidden1.batch_norm.population_variance"], inputs.var(0), rtol=1e-5)
    assert not np.allclose(old["hidden1.batch_norm.population_mean"], inputs.mean(0), rtol=1e-4)
    targets = load_digits().target
    for state, told in ((old, job["result"]["before"]), (new, job["result"]["after"])):
        right = answers(state, images[tested]).argmax(1) == targets[tested]
        assert right.mean() == pytest.approx(told["accuracy"], abs=1.5 / len(tested))


def split_rows(spec: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, test rows)."""
    training, validation, test = DatasetSpec.model_validate(spec).split_sizes()
    generator = torch.Generator().manual_seed(derive_seed(spec["split_seed"], "split"))
    order = torch.randperm(training + validation + test, generator=generator).numpy()
    return order[:training], order[training + validation :]


def answers(state: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    for layer in ("hidden1", "hidden2"):
        mean, variance = (state[f"{layer}.batch_norm.population_{part}"] for part in ("mean", "variance"))
        inputs = (inputs @ state[f"{layer}.linear.weight"].T - mean) / np.sqrt(variance + 1e-5)
        inputs = np.maximum(inputs * state[f"{layer}.batch_norm.gamma"] + state[f"{layer}.batch_norm.beta"], 0.0)
    return inputs @ state["output.linear.weight"].T + state["output.linear.bias"]


def test_the_same_data_and_estimator_give_the_same_statistics_again(service: Service, base: Any) -> None:
    job = recalibrated(service, {"dataset": {"source": "digits"}})

    assert job["result"]["statistics_sha256"] == base["result"]["statistics_sha256"]
    assert job["result"]["before"] == job["result"]["after"]


def test_no_alias_moves_unless_it_is_asked_for(service: Service, base: Any) -> None:
    recalibrated(service, {"dataset": OTHER_SPLIT})
    untouched = service.get("/v1/models/digits")["aliases"]

    recalibrated(service, {"dataset": OTHER_SPLIT, "publish": {"alias": "latest"}})

    assert untouched == {"latest": 1}
    assert service.get("/v1/models/digits")["aliases"] == {"latest": 3}
    assert service.post("/v1/models/digits/predict", {"rows": [[0.0] * 64]})["version"] == 3


def test_a_recalibrated_version_can_be_recalibrated_and_verified(service: Service, base: Any) -> None:
    recalibrated(service, {"dataset": OTHER_SPLIT})

    job = recalibrated(service, {"version": 2, "dataset": {"source": "digits"}})

    assert job["result"]["recalibrated_from"]["version"] == 2
    assert job["result"]["statistics_sha256"] == base["result"]["statistics_sha256"]
    for version in (1, 2, 3):
        assert service.post("/v1/models/digits/verify", None, params={"version": version})["passed"]


def test_a_retry_of_a_recalibration_repeats_it(service: Service, base: Any) -> None:
    first = recalibrated(service, {"dataset": OTHER_SPLIT})

    again = service.post(f"/v1/jobs/{first['id']}/retry", None, 201)
    service.run()

    ended = service.get(f"/v1/jobs/{again['id']}")
    assert (ended["kind"], ended["retry_of"]) == ("recalibration", first["id"])
    assert ended["result"]["version"] == 3
    assert ended["result"]["statistics_sha256"] == first["result"]["statistics_sha256"]


def test_whitening_and_lstm_are_recalibrated_too(service: Service) -> None:
    small = {"steps": 20, "batch_size": 64, "evaluate_every": 20}
    for name, part in (
        ("white", {"network": {"family": "mlp", "hidden": [20]}, "batch_norm": {"kind": "whitening"}}),
        ("rows", {"network": {"family": "recurrent", "units": [8]}}),
    ):
        service.trained({"name": name, "dataset": {"source": "digits"}, "training": small} | part)
        job = service.post(f"/v1/models/{name}/recalibrate", {"dataset": OTHER_SPLIT}, 201)
        service.run()
        ended = service.get(f"/v1/jobs/{job['id']}")
        assert ended["status"] == "succeeded", ended["error"]
        first, second = (service.get(f"/v1/models/{name}/versions/{number}") for number in (1, 2))
        assert first["weights_sha256"] == second["weights_sha256"]
        assert first["statistics_sha256"] != second["statistics_sha256"]


def test_it_is_served_as_the_version_that_it_comes_from(service: Service) -> None:
    serving = {"threads": 2, "quantization": "int8", "watch": ["hidden2.batch_norm"], "provider": "cpu"}
    service.trained(DIGITS | {"training": {"steps": 20, "batch_size": 64}, "publish": {"serving": serving}})

    recalibrated(service, {"dataset": OTHER_SPLIT, "alias": "latest"})

    for number in (1, 2):
        newest = service.get("/v1/models/digits/versions", order="desc", limit=2)["data"][number - 1]
        card = newest["card"]
        assert card["serving"] == serving | {"measured": card["serving"]["measured"]}
        assert card["serving"]["measured"]["score"] == "accuracy"
        assert card["receipt"]["threads"] == 2
        assert [layer["name"] for layer in card["watch"]["layers"]] == ["hidden2.batch_norm"]
        assert "onnx_int8" in newest["artifacts"]


def test_a_frozen_layer_is_measured_anew(service: Service) -> None:
    service.trained(DIGITS | {"batch_norm": {"freeze_last_steps": 100}})

    job = recalibrated(service, {"dataset": OTHER_SPLIT})

    card = service.get("/v1/models/digits/versions/3")["card"]
    assert job["result"]["population"]["samples"] == job["result"]["population"]["of"]
    assert not card["population"]["layers"]["hidden1.batch_norm"]["frozen"]


def test_scores_in_the_target_s_units_stay_those_of_the_base(service: Service) -> None:
    spec = {"name": "sugar", "dataset": {"source": "diabetes"}, "network": {"family": "mlp", "hidden": [8]}}
    service.trained(spec | {"training": {"steps": 60, "batch_size": 32}})

    job = service.post("/v1/models/sugar/recalibrate", {"dataset": {"source": "diabetes", "split_seed": 3}}, 201)
    service.run()

    result = service.get(f"/v1/jobs/{job['id']}")["result"]
    old, new = (service.get(f"/v1/models/sugar/versions/{number}")["card"] for number in (1, 2))
    assert set(result["before"]) == {"loss", "rmse", "r2"}
    assert new["output_scaling"] == old["output_scaling"] and new["scaling"] == old["scaling"]
    assert result["after"]["rmse"] == pytest.approx(
        np.sqrt(result["after"]["loss"]) * old["output_scaling"]["scale"], rel=1e-9
    )


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/dataset", "missing"),
        ({"dataset": {"source": "iris"}}, "/dataset/source", "other_shape"),
        ({"dataset": OTHER_SPLIT | {"scaling": "none"}}, "/dataset/scaling", "scaling_of_the_model"),
        (
            {"dataset": OTHER_SPLIT, "population": {"estimator": "running_average"}},
            "/population/estimator",
            "nothing_to_measure",
        ),
        ({"dataset": OTHER_SPLIT, "population": {"samples": 1}}, "/population/samples", "too_few_samples"),
        ({"dataset": OTHER_SPLIT, "version": 1, "alias": "latest"}, "", "value_error"),
        ({"dataset": OTHER_SPLIT, "steps": 5}, "/steps", "extra_forbidden"),
    ],
)
def test_what_can_not_be_recalibrated_is_refused_with_its_place(
    service: Service, base: Any, body: dict[str, Any], pointer: str, code: str
) -> None:
    problem = service.post("/v1/models/digits/recalibrate", body, 422)

    assert (problem["errors"][0]["pointer"], problem["errors"][0]["code"]) == (pointer, code)


def test_a_model_without_statistics_has_nothing_to_recalibrate(service: Service) -> None:
    service.trained(DIGITS | {"batch_norm": False})

    problem = service.post("/v1/models/digits/recalibrate", {"dataset": OTHER_SPLIT}, 422)

    assert problem["errors"][0]["code"] == "no_statistics"
    assert "no layer with population statistics" in problem["detail"]


def test_an_unknown_model_version_or_alias_is_not_found(service: Service, base: Any) -> None:
    service.post("/v1/models/nobody/recalibrate", {"dataset": OTHER_SPLIT}, 404)
    service.post("/v1/models/digits/recalibrate", {"dataset": OTHER_SPLIT, "version": 9}, 404)
    service.post("/v1/models/digits/recalibrate", {"dataset": OTHER_SPLIT, "alias": "none"}, 404)


def test_the_internal_fields_are_not_for_users(service: Service, base: Any) -> None:
    job = recalibrated(service, {"dataset": OTHER_SPLIT})

    for path in ("/v1/jobs", "/v1/jobs:validate"):
        problem = service.post(path, job["spec"], 422)
        assert problem["errors"][0]["pointer"] == "/recalibration"
        assert "/v1/models/{name}/recalibrate" in problem["detail"]


def test_one_idempotency_key_is_one_job_though_the_alias_has_moved_meanwhile(service: Service, base: Any) -> None:
    key = {"Idempotency-Key": "once"}
    body = {"dataset": OTHER_SPLIT, "publish": {"alias": "latest"}}
    first = service.post("/v1/models/digits/recalibrate", body, 201, headers=key)
    service.run()

    again = service.post("/v1/models/digits/recalibrate", body, 201, headers=key)
    other = service.post("/v1/models/digits/recalibrate", {"dataset": {"source": "digits"}}, 422, headers=key)

    assert service.get("/v1/models/digits")["aliases"] == {"latest": 2}
    assert again["id"] == first["id"] and again["status"] == "succeeded"
    assert other["code"] == "idempotency_mismatch"


def test_a_key_needs_the_scope_of_submitting_jobs(client: TestClient, tenant: Tenant, base: Any) -> None:
    headers = {"Authorization": f"Bearer {tenant.new_key(('models:read', 'models:infer'))}"}

    assert (
        client.post("/v1/models/digits/recalibrate", json={"dataset": OTHER_SPLIT}, headers=headers).status_code == 403
    )


def test_a_recalibration_that_waits_is_cancelled_like_any_job(service: Service, base: Any) -> None:
    job = service.post("/v1/models/digits/recalibrate", {"dataset": OTHER_SPLIT}, 201)

    cancelled = service.post(f"/v1/jobs/{job['id']}/cancel", None, 202)

    assert cancelled["status"] == "cancelled"
    assert service.get("/v1/models/digits")["latest_version"] == 1


def test_a_lost_lease_lets_the_next_worker_do_it(service: Service, base: Any) -> None:
    job = service.post("/v1/models/digits/recalibrate", {"dataset": OTHER_SPLIT}, 201)
    Worker(service.database, job["id"])  # claims it and is heard of no more
    with service.database.write() as connection:
        connection.execute(leases.reclaim("node_1", 3))

    service.run()

    ended = service.get(f"/v1/jobs/{job['id']}")
    assert (ended["status"], ended["attempt"], ended["result"]["version"]) == ("succeeded", 2, 2)


def test_a_base_file_that_is_corrupt_fails_the_job_and_names_it(service: Service, base: Any) -> None:
    file = service.get("/v1/models/digits/versions/1")["card"]["artifacts"]["safetensors"]["sha256"]
    service.store.put(f"content/{file[:2]}/{file}.safetensors", b"rubbish")

    ended = recalibrated(service, {"dataset": OTHER_SPLIT}, "failed")

    assert ended["error"]["code"] == "storage_error"
    assert file in ended["error"]["message"]
