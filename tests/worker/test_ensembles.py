"""An ensemble under its supervisor: killed and begun again, and what a damaged member does."""

from typing import Any

import pytest

from api.ensembles import prepared
from api.submission import submit
from core.queries import models
from tests.worker.bench import DIGITS, TENANT, Bench, trainer_of, wait_until

SMALL = DIGITS | {"name": "digits", "training": DIGITS["training"] | {"steps": 20, "evaluate_every": 20}}
LARGE = SMALL | {"network": {"family": "mlp", "hidden": [1500, 1500]}}


def trained(bench: Bench, spec: dict[str, Any]) -> None:
    for seed in (0, 1):
        job_id = bench.submit(spec | {"training": spec["training"] | {"seed": seed}})
        bench.run()
        assert bench.row(job_id).state == "succeeded", bench.row(job_id).error


def submitted(bench: Bench) -> str:
    body = {"members": [{"model": "digits", "version": number} for number in (1, 2)], "publish": {"model": "both"}}
    row, _ = submit(bench.node.database, prepared(bench.node.database, TENANT, body, None, bench.node.settings))
    return str(row.id)


def versions(bench: Bench, name: str) -> list[Any]:
    with bench.node.database.read() as connection:
        model = connection.execute(models.by_name(TENANT, name)).one_or_none()
        return [] if model is None else list(connection.execute(models.versions(model.id, 10, descending=False)).all())


@pytest.mark.slow
def test_a_killed_trainer_is_followed_by_one_that_makes_the_version(bench: Bench) -> None:
    trained(bench, LARGE)
    golden = submitted(bench)
    bench.run()
    job_id = submitted(bench)

    thread = bench.run_aside()
    wait_until(lambda: bench.row(job_id).fingerprint)
    trainer_of(job_id).kill()
    bench.finish(thread)
    bench.run()

    first, second = bench.row(golden), bench.row(job_id)
    assert (second.state, second.attempt) == ("succeeded", 2)
    assert second.result["accuracy"] == first.result["accuracy"]
    files = [row.artifacts["onnx"]["sha256"] for row in versions(bench, "both")]
    assert len(files) == 2 and len(set(files)) == 1
    assert [event.seq for event in bench.events(job_id)] == list(range(1, second.next_seq))


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "card"])
def test_a_member_whose_file_is_not_what_it_was_fails_the_job_with_the_reason(bench: Bench, kind: str) -> None:
    trained(bench, SMALL)
    job_id = submitted(bench)
    bench.node.store.delete(versions(bench, "digits")[1].artifacts[kind]["name"])

    bench.run()

    ended = bench.row(job_id)
    assert (ended.state, ended.error["code"]) == ("failed", "storage_error")
    assert versions(bench, "both") == []
