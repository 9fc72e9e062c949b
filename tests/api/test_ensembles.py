"""Ensembles over HTTP, run by real trainers: several versions that answer as one, proved and told like any version."""

import shutil
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load

from api.ensembles import prepared as prepare
from api.main import create_app
from core.db import Database
from core.errors import SpecInvalid
from core.settings import Settings
from tests.api.application import TestClient
from tests.api.bench import Tenant
from tests.api.service import Service

IRIS: dict[str, Any] = {
    "name": "iris",
    "dataset": {"source": "iris"},
    "network": {"family": "mlp", "hidden": [6]},
    "training": {"steps": 30, "batch_size": 16, "evaluate_every": 30},
}
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3], [7.7, 3.8, 6.7, 2.2], [5.9, 3.0, 5.1, 1.8]]


def iris(seed: int, **changes: Any) -> dict[str, Any]:
    return IRIS | {"training": IRIS["training"] | {"seed": seed}} | changes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[tuple[Path, Tenant]]:
    """Versions 1 to 4 of `iris`: two seeds, one without batch norm, and one of another split and another scaling."""
    home = tmp_path_factory.mktemp("trained")
    shutil.copy(migrated_sqlite, home / "evenkeel.sqlite")
    settings = Settings(home=home, database_url=f"sqlite:///{home / 'evenkeel.sqlite'}")
    database = Database(settings.resolved_database_url)
    tenant = Tenant(database, "first")
    with TestClient(create_app(settings), client=("127.0.0.1", 50000)) as client:
        service = Service(settings, database, client, tenant)
        for seed in (0, 1):
            service.trained(iris(seed))
        service.trained(iris(2, batch_norm=False))
        service.trained(iris(3, dataset={"source": "iris", "split_seed": 7}))
        service.trained(
            {"name": "sugar", "dataset": {"source": "diabetes"}, "network": {"family": "mlp", "hidden": [4]}}
            | {"training": {"steps": 20, "batch_size": 32}}
        )
    database.close()
    yield home, tenant


@pytest.fixture
def sqlite_url(prepared: tuple[Path, Tenant], tmp_path: Path) -> str:
    shutil.copytree(prepared[0], tmp_path, dirs_exist_ok=True)
    return f"sqlite:///{tmp_path / 'evenkeel.sqlite'}"


@pytest.fixture
def tenant(prepared: tuple[Path, Tenant], database: Database) -> Tenant:
    tenant = copy(prepared[1])
    tenant.database = database
    return tenant


def versions(*numbers: int, model: str = "iris") -> list[dict[str, Any]]:
    return [{"model": model, "version": number} for number in numbers]


def asked(members: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"members": members, "publish": {"model": "together"}} | more


def made(service: Service, body: dict[str, Any]) -> Any:
    job = service.post("/v1/models", body, 201)
    service.run()
    ended = service.get(f"/v1/jobs/{job['id']}")
    assert ended["status"] == "succeeded", ended["error"]
    return ended


def shares(service: Service, model: str, version: int) -> np.ndarray:
    told = service.post(f"/v1/models/{model}/predict", {"rows": ROWS}, params={"version": version})["predictions"]
    return np.array([list(row["probabilities"].values()) for row in told])


def test_it_answers_with_the_mean_of_its_members_probabilities(service: Service) -> None:
    made(service, asked(versions(1, 2, 3)))

    alone = [shares(service, "iris", version) for version in (1, 2, 3)]

    assert np.allclose(shares(service, "together", 1), np.mean(alone, axis=0), atol=2e-7)
    assert np.ptp(alone, axis=0).max() > 0.01  # there was something to average
    assert "each member's own version has its drift" in service.get("/v1/models/together/drift")["layers_reason"]


def test_the_version_says_whose_answers_it_averages_and_what_each_is_worth(service: Service) -> None:
    job = made(service, asked(versions(1, 2, 3)))

    version, result = service.get("/v1/models/together/versions/1"), job["result"]
    members = [service.get(f"/v1/models/iris/versions/{number}") for number in (1, 2, 3)]

    assert (job["kind"], job["progress"]["steps"], version["job_id"]) == ("ensemble", 0, job["id"])
    for told in (version["ensemble"], version["card"]["ensemble"], result["ensemble"]):
        assert (told["averaged"], told["not_compared"]) == ("probabilities", None)
        for item, member in zip(told["members"], members, strict=True):
            assert (item["model"], item["version"], item["job_id"]) == ("iris", member["version"], member["job_id"])
            assert item["weights_sha256"] == member["weights_sha256"]
            assert item["statistics_sha256"] == member["statistics_sha256"]
            assert item["onnx_sha256"] == member["artifacts"]["onnx"]["sha256"]
            assert item["scores"]["accuracy"] == pytest.approx(member["card"]["metrics"]["accuracy"])
            assert item["scores"]["loss"] == pytest.approx(member["card"]["metrics"]["loss"], rel=1e-4)
    for part in ("task", "labels", "input", "scaling"):
        assert version["card"][part] == members[0]["card"][part], part
    assert {version["weights_sha256"], version["statistics_sha256"]}.isdisjoint(
        digest for member in members for digest in (member["weights_sha256"], member["statistics_sha256"])
    )
    assert 0.0 <= result["accuracy"] <= 1.0 and result["accuracy"] == version["card"]["metrics"]["accuracy"]
    metrics = service.get(f"/v1/jobs/{job['id']}/metrics", names="test/accuracy")["series"]
    assert metrics["test/accuracy"]["values"] == [result["accuracy"]]


def test_the_digests_are_over_the_members_in_their_order(service: Service) -> None:
    first, again, other = (made(service, asked(versions(*order)))["result"] for order in ((1, 2), (1, 2), (2, 1)))

    for name in ("weights_sha256", "statistics_sha256"):
        assert first[name] == again[name] != other[name]
    assert made(service, asked(versions(3, 1)))["result"]["statistics_sha256"] != first["statistics_sha256"]


def test_it_is_proved_as_any_version_is(service: Service) -> None:
    made(service, asked(versions(1, 2)))

    receipt = service.get("/v1/models/together/versions/1")["card"]["receipt"]
    checked = service.post("/v1/models/together/verify")

    assert receipt["passed"] and receipt["batch_invariant"] and receipt["all_sizes"]
    assert 0.0 < receipt["maximum_difference"] <= receipt["tolerance"] < 1e-4
    assert checked["passed"] and checked["parity"]["passed"] and checked["batch_invariance"]["passed"]
    assert set(checked["files"]) == {"onnx", "safetensors", "probe", "card"}


def test_one_graph_and_one_file_of_weights_hold_all_members(service: Service) -> None:
    made(service, asked(versions(1, 3)))

    def content(model: str, version: int, kind: str) -> bytes:
        file = service.get(f"/v1/models/{model}/versions/{version}")["artifacts"][kind]["sha256"]
        return service.store.get(f"content/{file[:2]}/{file}.{kind}", file)

    session = onnxruntime.InferenceSession(content("together", 1, "onnx"))
    assert [item.name for item in session.get_inputs()] == ["input"]
    assert [item.name for item in session.get_outputs()] == ["probabilities"]
    whole = load(content("together", 1, "safetensors"))
    for number, version in ((1, 1), (2, 3)):
        for name, values in load(content("iris", version, "safetensors")).items():
            assert np.array_equal(whole[f"member{number}/{name}"], values)


def test_other_protocols_answer_for_it_too(service: Service) -> None:
    made(service, asked(versions(1, 2)))
    body = {"inputs": [{"name": "input", "shape": [4, 4], "datatype": "FP32", "data": ROWS}]}

    (output,) = service.post("/v2/models/together/infer", body)["outputs"]

    assert (output["name"], output["shape"]) == ("probabilities", [4, 3])
    assert np.allclose(np.reshape(output["data"], (4, 3)), shares(service, "together", 1))


def test_members_may_be_named_by_job_and_by_alias(service: Service) -> None:
    first = service.get("/v1/models/iris/versions/1")["job_id"]

    job = made(
        service, asked([{"job_id": first}, {"model": "iris", "alias": "latest"}, {"model": "iris", "version": 2}])
    )

    assert [item["version"] for item in job["result"]["ensemble"]["members"]] == [1, 4, 2]


def test_members_of_other_splits_answer_together_and_are_not_compared(service: Service) -> None:
    result = made(service, asked(versions(1, 4)))["result"]

    assert "accuracy" not in result
    assert "other data or splits" in result["ensemble"]["not_compared"]
    assert [item["scores"] for item in result["ensemble"]["members"]] == [None, None]
    card = service.get("/v1/models/together/versions/1")["card"]
    assert (card["scaling"], card["metrics"]) == (None, {})  # each member scales by the figures of its own split
    alone = [shares(service, "iris", version) for version in (1, 4)]
    assert np.allclose(shares(service, "together", 1), np.mean(alone, axis=0), atol=2e-7)
    assert service.post("/v1/models/together/verify")["passed"]


def test_of_a_regression_values_are_averaged_in_the_targets_units(service: Service) -> None:
    other = {"name": "sugar", "dataset": {"source": "diabetes"}, "network": {"family": "mlp", "hidden": [3]}}
    service.trained(other | {"training": {"steps": 20, "batch_size": 32, "seed": 5}, "batch_norm": False})

    job = made(service, asked(versions(1, 2, model="sugar")))

    rows = {"rows": [[0.01 * column for column in range(10)]]}
    values = [
        service.post(f"/v1/models/{model}/predict", rows, params={"version": version})["predictions"][0]["value"]
        for model, version in (("sugar", 1), ("sugar", 2), ("together", 1))
    ]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2, rel=1e-6)
    assert {"rmse", "r2"} <= set(job["result"])
    card = service.get("/v1/models/sugar/versions/1")["card"]["metrics"]
    assert job["result"]["ensemble"]["members"][0]["scores"]["rmse"] == pytest.approx(card["rmse"], rel=1e-5)


def test_one_idempotency_key_is_one_job_though_the_alias_has_moved_meanwhile(service: Service) -> None:
    key = {"Idempotency-Key": "once"}
    body = asked([{"model": "iris", "alias": "latest"}, *versions(1)])
    first = service.post("/v1/models", body, 201, headers=key)
    service.call("PUT", "/v1/models/iris/aliases/latest", json={"version": 2})

    again = service.post("/v1/models", body, 201, headers=key)
    other = service.post("/v1/models", asked(versions(1, 2)), 422, headers=key)

    assert again["id"] == first["id"]
    assert other["code"] == "idempotency_mismatch"


def test_a_retry_repeats_it_and_nothing_else_can_be_made_of_it(service: Service) -> None:
    first = made(service, asked(versions(1, 2)))
    again = service.post(f"/v1/jobs/{first['id']}/retry", None, 201)
    service.run()

    ended = service.get(f"/v1/jobs/{again['id']}")
    assert (ended["kind"], ended["result"]["version"]) == ("ensemble", 2)
    assert ended["result"]["weights_sha256"] == first["result"]["weights_sha256"]
    assert "trains nothing" in service.post(f"/v1/jobs/{first['id']}/fork", {}, 409)["detail"]
    refused = service.post("/v1/models/together/recalibrate", {"dataset": {"source": "iris"}}, 422)
    assert refused["errors"][0]["code"] == "is_an_ensemble"
    nested = service.post("/v1/models", asked([{"model": "together"}, *versions(3)]), 422)
    assert nested["errors"][0]["code"] == "ensemble_of_ensembles"
    assert "ask the jobs of its members" in service.call("GET", f"/v1/jobs/{first['id']}/network", 409)["detail"]
    assert "ask the jobs" in service.get(f"/v1/jobs/{first['id']}/layers")["reason"]
    assert service.get("/v1/models/together/population", channels=True)["layers"] == []


@pytest.mark.parametrize(
    ("members", "place", "code", "told"),
    [
        (versions(1), "/members", "too_short", "at least 2"),
        (versions(1, 2, 1), "/members/2", "member_twice", "leave one out"),
        ([*versions(1), {"model": "sugar"}], "/members/1", "other_task", "another task than version 1 of iris"),
        (versions(1, 9), "/members/1/model", "not_found", "no version 9"),
        ([*versions(1), {"model": "nobody"}], "/members/1/model", "not_found", "no model nobody"),
        ([*versions(1), {"job_id": "job_nobody"}], "/members/1/job_id", "not_found", "no job job_nobody"),
        ([*versions(1), {"version": 1}], "/members/1", "value_error", "give one of them"),
        ([*versions(1), {"job_id": "job_1", "version": 1}], "/members/1", "value_error", "leave version and alias out"),
        ([*versions(1), {"model": "iris", "version": 1, "alias": "x"}], "/members/1", "value_error", "both name"),
        (versions(*range(1, 40)), "/members", "too_long", "at most 32"),
    ],
)
def test_what_can_not_answer_together_is_refused_with_its_place(
    service: Service, members: list[dict[str, Any]], place: str, code: str, told: str
) -> None:
    problem = service.post("/v1/models", asked(members), 422)

    (found,) = problem["errors"]
    assert (found["pointer"], found["code"]) == (place, code), found
    assert told in found["message"]


def test_members_are_no_larger_together_than_one_network_may_be(service: Service, tenant: Tenant) -> None:
    small = service.settings.model_copy(update={"maximum_parameters": 100})

    with pytest.raises(SpecInvalid, match="parameters together, and 100 are the most here: take fewer members"):
        prepare(service.database, tenant.id, asked(versions(1, 2)), None, small)


def test_jobs_that_have_not_ended_or_published_nothing_are_no_members(service: Service) -> None:
    waiting = service.post("/v1/jobs", iris(9), 201)["id"]
    service.run()
    silent = service.trained(iris(10, publish=None))["id"]
    queued = service.post("/v1/jobs", iris(11), 201)["id"]

    problem = service.post("/v1/models", asked([{"job_id": name} for name in (waiting, silent, queued)]), 422)

    assert [item["pointer"] for item in problem["errors"]] == ["/members/1/job_id", "/members/2/job_id"]
    assert "published nothing" in problem["errors"][0]["message"]
    assert "is queued" in problem["errors"][1]["message"]


def test_the_section_is_not_for_users_and_another_tenant_has_no_such_members(service: Service) -> None:
    job = made(service, asked(versions(1, 2)))

    refused = service.post("/v1/jobs", job["spec"], 422)
    other = Tenant(service.database, "second")
    problem = service.post("/v1/models", asked(versions(1, 2)), 422, headers=other.headers)

    assert refused["errors"][0]["pointer"] == "/ensemble"
    assert [item["code"] for item in problem["errors"]] == ["not_found", "not_found"]
