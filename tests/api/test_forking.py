"""Forks over HTTP, run by real trainers: what a checkpoint can be gone on from, and with which bits."""

from dataclasses import replace
from typing import Any

import pytest

from core.queries import checkpoints
from tests.api.service import Service
from worker.messages import CheckpointReference, CheckpointWritten
from worker.records import write_checkpoints

BASE: dict[str, Any] = {
    "name": "digits",
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [16, 16], "dropout": 0.2},
    "optimizer": {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9},
    "training": {"steps": 60, "batch_size": 32, "evaluate_every": 20, "checkpoint_every": 20},
    "publish": None,
}


def with_training(**changes: Any) -> dict[str, Any]:
    return BASE | {"training": BASE["training"] | changes}


def forked(service: Service, job: Any, expected: int = 201, **body: Any) -> Any:
    return service.post(f"/v1/jobs/{job['id']}/fork", body, expected)


def ended(service: Service, job: Any) -> Any:
    service.run()
    found = service.get(f"/v1/jobs/{job['id']}")
    assert found["status"] == "succeeded", found
    return found


def kept_steps(service: Service, job: Any) -> dict[int, str]:
    return {row["step"]: row["id"] for row in service.get(f"/v1/jobs/{job['id']}/checkpoints")["data"]}


def test_a_fork_with_more_steps_has_the_bits_and_the_points_of_a_job_that_was_asked_for_them_at_once(
    service: Service,
) -> None:
    whole = service.trained(with_training(steps=100))
    source = service.trained(BASE)

    fork = forked(service, source, changes={"training.steps": 100})
    assert fork["forked_from"] == {"job_id": source["id"], "step": 60}
    assert (fork["name"], fork["progress"]["step"], source["forked_from"]) == ("digits-fork", 60, None)
    done = ended(service, fork)

    assert done["result"]["weights_sha256"] == whole["result"]["weights_sha256"]
    assert done["result"]["statistics_sha256"] == whole["result"]["statistics_sha256"]
    series = [service.get(f"/v1/jobs/{job['id']}/metrics", names="train/loss,test/accuracy") for job in (done, whole)]
    assert series[0]["series"] == series[1]["series"]
    first = service.get(f"/v1/jobs/{fork['id']}/events", order="asc", limit=1)["data"][0]
    assert first["message"] == f"queued, to go on from step 60 of {source['id']}"


def test_a_fork_of_an_earlier_checkpoint_begins_with_the_points_up_to_it(service: Service) -> None:
    source = service.trained(BASE)

    fork = forked(
        service, source, checkpoint=kept_steps(service, source)[40], changes={"optimizer.learning_rate": 0.02}
    )

    found = service.get(f"/v1/jobs/{fork['id']}/metrics")["series"]
    assert found["test/loss"]["steps"] == [20, 40]
    assert found["train/loss"]["steps"] == list(range(1, 41))
    assert "bn/population_loss" not in found
    latest = service.get(f"/v1/jobs/{fork['id']}")["latest_metrics"]
    assert latest["test/loss"] == found["test/loss"]["values"][-1]
    done = ended(service, fork)
    rates = service.get(f"/v1/jobs/{done['id']}/metrics", names="optimizer/learning_rate")["series"]
    assert rates["optimizer/learning_rate"]["values"] == [0.1] * 40 + [0.02] * 20
    assert done["result"]["weights_sha256"] != source["result"]["weights_sha256"]


def test_the_best_checkpoint_is_asked_for_by_that_word(service: Service) -> None:
    source = service.trained(BASE)
    best = next(row for row in service.get(f"/v1/jobs/{source['id']}/checkpoints")["data"] if row["best"])

    fork = forked(service, source, checkpoint="best", changes={"training.steps": 80})

    assert fork["forked_from"]["step"] == best["step"]


def test_a_forked_checkpoint_outlives_the_rotation_of_its_job_and_the_fork_can_be_retried(service: Service) -> None:
    """The source goes on behind the fork's back: a retry of its last step repeats its rotation of files."""
    source = service.trained(with_training(steps=40))
    fork = forked(service, source, changes={"training.steps": 160})
    name = _file_of(service, fork)
    with service.database.write() as connection:
        reference = CheckpointReference(f"checkpoints/{source['id']}/later", "0" * 64, 1, 90)
        newer = [CheckpointWritten(replace(reference, step=step), False, best=step == 90) for step in (90, 91, 92)]
        obsolete = write_checkpoints(connection, source["id"], 1, newer)

    assert name not in [row.name for row in obsolete]
    assert 40 not in kept_steps(service, source)
    done = ended(service, fork)
    assert set(kept_steps(service, done)) >= {40, 140, 160}
    again = service.post(f"/v1/jobs/{done['id']}/retry", None, 201)
    assert again["forked_from"] == fork["forked_from"]
    assert ended(service, again)["result"]["weights_sha256"] == done["result"]["weights_sha256"]


def test_a_fork_that_failed_before_its_first_own_checkpoint_is_retried_from_where_it_came(service: Service) -> None:
    source = service.trained(BASE)
    fork = forked(service, source, changes={"optimizer.learning_rate": 1e6, "training.steps": 90})
    service.run()
    assert service.get(f"/v1/jobs/{fork['id']}")["error"]["code"] == "non_finite_loss"

    again = service.post(f"/v1/jobs/{fork['id']}/retry", None, 201)

    assert again["progress"]["step"] == 60
    assert set(kept_steps(service, again)) == {60}
    assert service.get(f"/v1/jobs/{again['id']}/metrics")["series"]["train/loss"]["steps"][-1] == 60


@pytest.mark.parametrize(
    ("changes", "pointer", "said"),
    [
        ({"training.steps": 60}, "/changes/training.steps", "set at least 61"),
        ({"network.hidden": [16, 17], "training.steps": 90}, "/changes/network.hidden", "hidden2.linear"),
        ({"batch_norm": False, "training.steps": 90}, "/changes/batch_norm", "other weights"),
        ({"batch_norm.affine": False, "training.steps": 90}, "/changes/batch_norm.affine", "other weights"),
        ({"dataset": {"source": "wine"}, "training.steps": 90}, "/changes/dataset", "other weights"),
        ({"dataset.split_seed": 3, "training.steps": 90}, "/changes/dataset.split_seed", "leave it at 0"),
        ({"optimizer": {"kind": "adam"}, "training.steps": 90}, "/changes/optimizer/kind", "leave it at sgd"),
        ({"optimizer.momentum": 0.0, "training.steps": 90}, "/changes/optimizer.momentum", "momenta"),
        ({"training.batch": 3}, "/changes/training.batch", "did you mean batch_size"),
        ({"fork": {}}, "/changes/fork", "written by the service"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_change_that_makes_the_checkpoint_unfit_is_refused_where_it_stands(
    service: Service, changes: dict[str, Any], pointer: str, said: str
) -> None:
    source = service.trained(BASE)

    problems = forked(service, source, 422, changes=changes)["errors"]

    assert [problem["pointer"] for problem in problems] == [pointer]
    assert said in problems[0]["message"]


def test_what_leaves_weights_and_split_alone_may_change(service: Service) -> None:
    source = service.trained(BASE)

    fork = forked(
        service,
        source,
        changes={
            "training": {
                "steps": 70,
                "batch_size": 16,
                "seed": 5,
                "order": "fixed_batches",
                "augmentation": {"crop": 1},
            },
            "network.dropout": 0.0,
            "network.activation": "tanh",
            "batch_norm.momentum": 0.5,
            "optimizer.weight_decay": 0.01,
            "schedule": {"kind": "cosine"},
            "name": "slower",
        },
    )

    assert fork["name"] == "slower"
    assert ended(service, fork)["result"]["steps"] == 70


def test_a_job_without_a_checkpoint_and_one_of_another_tenant_are_not_forked(service: Service, stranger: Any) -> None:
    waiting = service.post("/v1/jobs", BASE, 201)

    assert "no checkpoint yet" in forked(service, waiting, 409)["detail"]
    service.call("POST", f"/v1/jobs/{waiting['id']}/fork", 404, json={}, headers=stranger.headers)
    assert "not_for_users" in str(service.post("/v1/jobs", BASE | {"fork": {}}, 422))


def test_an_unknown_checkpoint_is_refused_with_those_that_are_kept(service: Service) -> None:
    source = service.trained(BASE)

    problem = forked(service, source, 422, checkpoint="ckpt_none", changes={"training.steps": 90})["errors"][0]

    assert problem["pointer"] == "/checkpoint"
    assert all(kept in problem["message"] for kept in kept_steps(service, source).values())


def test_a_key_makes_one_fork_though_newer_checkpoints_have_come(service: Service) -> None:
    source = service.trained(BASE)
    body, key = {"changes": {"training.steps": 90}}, {"Idempotency-Key": "once"}
    path = f"/v1/jobs/{source['id']}/fork"

    first = service.post(path, body, 201, headers=key)
    again = service.post(path, body, 201, headers=key)

    assert first["id"] == again["id"]
    service.post(path, {"changes": {"training.steps": 91}}, 422, headers=key)


def test_a_fork_whose_checkpoint_file_is_gone_fails_instead_of_beginning_anew(service: Service) -> None:
    source = service.trained(BASE)
    fork = forked(service, source, changes={"training.steps": 90})
    service.store.delete(_file_of(service, fork))

    service.run()

    found = service.get(f"/v1/jobs/{fork['id']}")
    assert (found["status"], found["error"]["code"]) == ("failed", "storage_error")
    assert source["id"] in found["error"]["message"]


def _file_of(service: Service, job: Any) -> str:
    with service.database.read() as connection:
        return str(connection.execute(checkpoints.of_job(job["id"])).first().name)  # type: ignore[union-attr]
