"""Families and plans over HTTP: what there is to choose, what a spec would run, and where a written list is wrong."""

import json
from typing import Any

import pytest
from sqlalchemy import text

from core.db import Database
from core.spec import FAMILIES, JobSpec
from tests.api.application import TestClient
from tests.api.bench import SPEC, Tenant, submit

CONV = {"layer": "conv2d", "channels": 4, "kernel_size": 3, "padding": 1}
SMALL_LIST = [CONV, {"layer": "normalization"}, {"layer": "flatten"}, {"layer": "linear", "features": 10}]


def catalogue(client: TestClient, tenant: Tenant) -> dict[str, Any]:
    data = client.get("/v1/architectures", headers=tenant.headers).json()["data"]
    return {item["family"]: item for item in data}


def validate(client: TestClient, tenant: Tenant, **change: Any) -> Any:
    return client.post("/v1/jobs:validate", json=SPEC | change, headers=tenant.headers)


def written(*layers: Any) -> dict[str, Any]:
    return {"family": "sequential", "layers": list(layers)}


def problem(answer: Any) -> tuple[str, str]:
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    return error["pointer"], error["message"]


def test_every_family_comes_with_schema_size_and_description(client: TestClient, tenant: Tenant) -> None:
    families = catalogue(client, tenant)

    assert list(families) == list(FAMILIES)
    assert all(item["json_schema"]["type"] == "object" and item["description"] for item in families.values())
    assert "units" in families["recurrent"]["json_schema"]["properties"]
    assert families["mlp"]["parameters"] == 784 * 100 + 2 * 100 * 100 + 3 * 200 + 100 * 10 + 10
    assert families["resnet"]["parameters"] == 272_186  # 272,474 for three colours; the first convolution sees one


@pytest.mark.parametrize("family", FAMILIES)
def test_the_example_of_every_family_is_a_job_of_the_size_it_states(
    client: TestClient, tenant: Tenant, family: str
) -> None:
    entry = catalogue(client, tenant)[family]
    example = entry["example"]

    answer = validate(
        client, tenant, dataset={"source": "mnist"}, network=example["network"], batch_norm=example["batch_norm"]
    )

    assert (example["input_shape"], example["outputs"]) == ([1, 28, 28], 10)
    assert answer.json()["parameters"] == entry["parameters"]


def test_a_plan_shows_the_layers_with_what_is_inside_of_them(client: TestClient, tenant: Tenant) -> None:
    plan = validate(client, tenant, network={"family": "resnet", "blocks": [1, 1], "width": 4}).json()

    residual = next(item for item in plan["layers"] if item["name"] == "stage2.block1.residual")
    assert (residual["input_shape"], residual["output_shape"]) == ([4, 8, 8], [8, 4, 4])
    assert [item["name"] for item in residual["inside"]["shortcut"]] == [
        "stage2.block1.shortcut.conv",
        "stage2.block1.shortcut.batch_norm",
    ]
    assert residual["parameters"] == sum(item["parameters"] for part in residual["inside"].values() for item in part)
    assert sum(item["parameters"] for item in plan["layers"]) == plan["parameters"]


def test_a_written_list_is_planned_with_names_and_options(client: TestClient, tenant: Tenant) -> None:
    plan = validate(client, tenant, network=written(*SMALL_LIST), batch_norm={"eps": 1e-3}).json()

    assert [item["name"] for item in plan["layers"]] == ["conv2d1", "normalization1", "flatten1", "linear1"]
    assert plan["layers"][0]["layer"]["bias"] is False
    assert plan["layers"][1]["layer"]["options"]["eps"] == 1e-3
    assert plan["layers"][0]["inside"] is None


@pytest.mark.parametrize(
    ("layers", "pointer", "words"),
    [
        ([{"layer": "linear", "features": 10}], "/network/layers/0", "layer linear1 gets samples of shape (1, 8, 8)"),
        (SMALL_LIST[:3], "/network/layers", "ends with flatten1, which gives (256,)"),
        ([*SMALL_LIST[:3], {"layer": "linear", "features": 3}], "/network/layers", "linear with features 10"),
        (
            [{"layer": "residual", "body": [{"layer": "normalization"}, {**CONV, "kernel_size": 11}]}],
            "/network/layers/0/body/1",
            "smaller than its 11×11 window",
        ),
        (
            [{"layer": "normalization"}, {"layer": "parallel", "branches": [[], [{"layer": "lstm", "units": 3}]]}],
            "/network/layers/1/branches/1/0",
            "image_rows",
        ),
        ([{**CONV, "chanels": 4}], "/network/layers/0/chanels", "did you mean channels?"),
        (
            [{"layer": "residual", "body": [{"layer": "dense"}]}],
            "/network/layers/0/body/0/layer",
            "give one of linear,",
        ),
    ],
)
def test_a_wrong_layer_is_pointed_at_in_the_list_as_it_was_written(
    client: TestClient, tenant: Tenant, layers: list[Any], pointer: str, words: str
) -> None:
    at, message = problem(validate(client, tenant, network=written(*layers)))

    assert at == pointer
    assert words in message


def test_a_pointer_counts_the_places_that_batch_norm_leaves_out(client: TestClient, tenant: Tenant) -> None:
    answer = validate(
        client, tenant, network=written(CONV, {"layer": "normalization"}, SMALL_LIST[3]), batch_norm=False
    )

    assert problem(answer)[0] == "/network/layers/2"


def test_an_override_that_fits_no_layer_is_refused_with_the_nearest(client: TestClient, tenant: Tenant) -> None:
    pointer, message = problem(validate(client, tenant, batch_norm={"layers": {"hiden1": False}}))

    assert pointer == "/batch_norm/layers/hiden1"
    assert "hidden1.batch_norm" in message


def test_a_key_of_an_older_version_still_finds_its_job(client: TestClient, tenant: Tenant, database: Database) -> None:
    first = submit(client, tenant, **{"Idempotency-Key": "k"}).json()
    older = JobSpec.model_validate(SPEC).model_dump(mode="json")
    older["batch_norm"] = {"placement": "before_activation", "momentum": 0.1, "eps": 1e-5, "affine": True}
    _store(database, first["id"], older)

    again = submit(client, tenant, **{"Idempotency-Key": "k"})
    other = submit(client, tenant, SPEC | {"batch_norm": {"eps": 1e-4}}, **{"Idempotency-Key": "k"})

    assert (again.status_code, again.json()["id"]) == (201, first["id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert other.json()["code"] == "idempotency_mismatch"


def test_a_key_of_a_spec_that_is_refused_today_is_no_error_of_the_server(
    client: TestClient, tenant: Tenant, database: Database
) -> None:
    first = submit(client, tenant, **{"Idempotency-Key": "k"}).json()
    _store(database, first["id"], {"a": "spec of long ago"})

    answer = submit(client, tenant, **{"Idempotency-Key": "k"})

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")


def _store(database: Database, job_id: str, spec: dict[str, Any]) -> None:
    with database.write() as connection:
        connection.execute(
            text("UPDATE jobs SET spec = :spec, spec_sha256 = :digest WHERE id = :id"),
            {"spec": json.dumps(spec), "digest": "0" * 64, "id": job_id},
        )
