"""Layers, recalibration and verification through the client."""

import pytest

from evenkeel.results import Job

SUMMARY = dict.fromkeys(("min", "p5", "p25", "p50", "p75", "p95", "max", "mean"), 0.5)
LAYER = {
    "object": "layer_report",
    "name": "hidden1.batch_norm",
    "kind": "batch_norm",
    "channels": 8,
    "statistics": "pooled",
    "n": 120,
    "frozen": True,
    "updates": 90,
    "expected_updates": 90,
    "gamma": SUMMARY,
    "beta": None,
    "mean": SUMMARY,
    "variance": SUMMARY,
    "gain": SUMMARY,
    "dead": {"count": 2, "channels": [1, 5]},
    "exploding": {"count": 0, "channels": []},
    "running_average_distance": {"mean": 0.1, "variance": 0.2},
}


def test_layers_are_read_with_their_step(service, client, answer):
    service.answers = [
        answer(body={"object": "list", "step": 100, "final": True, "steps": [50, 100], "data": [LAYER], "reason": None})
    ]

    reports = client.layers("job_1", step=120)

    assert service.requests[0].path == "/v1/jobs/job_1/layers?step=120"
    assert (reports.step, reports.final, reports.steps, reports.reason) == (100, True, (50, 100), None)
    (layer,) = reports.layers
    assert (layer.name, layer.frozen, layer.updates, layer.dead, layer.beta) == (
        "hidden1.batch_norm",
        True,
        90,
        2,
        None,
    )
    assert layer.raw["dead"]["channels"] == [1, 5]


def test_members_of_an_ensemble_are_jobs_names_versions_or_objects(service, client, answer, job_body):
    service.answers = [answer(cut=True), answer(201, job_body(kind="ensemble"))]
    trained = Job.read(job_body(id="job_2"))

    job = client.ensemble("both", [trained, "job_3", "digits", ("digits", 4), {"model": "digits", "alias": "old"}])

    first, second = service.requests
    assert job.kind == "ensemble"
    assert (first.method, first.path) == ("POST", "/v1/models")
    assert first.body == {
        "members": [
            {"job_id": "job_2"},
            {"job_id": "job_3"},
            {"model": "digits"},
            {"model": "digits", "version": 4},
            {"model": "digits", "alias": "old"},
        ],
        "publish": {"model": "both", "alias": "latest"},
    }
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


def test_a_recalibration_that_was_cut_off_is_sent_again_under_one_idempotency_key(service, client, answer, job_body):
    service.answers = [answer(cut=True), answer(201, job_body(kind="recalibration"))]

    job = client.recalibrate("digits", {"source": "digits"}, version=3, publish_alias="latest", priority=5)

    first, second = service.requests
    assert job.kind == "recalibration"
    assert first.path == "/v1/models/digits/recalibrate"
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert second.body == {
        "dataset": {"source": "digits"},
        "version": 3,
        "publish": {"alias": "latest"},
        "priority": 5,
    }


@pytest.mark.parametrize("passed", [True, False])
def test_a_verification_is_read_with_its_figures(service, client, answer, passed):
    body = {
        "model": "digits",
        "version": 2,
        "passed": passed,
        "files": {"onnx": {"sha256": "0" * 64, "intact": True, "message": None}},
        "parity": {"passed": passed, "maximum_difference": 1e-7, "tolerance": 1e-5, "rows": 128},
        "parity_reason": None,
        "batch_invariance": {"passed": True, "sizes": [1, 2, 64]},
        "error": None,
        "seconds": 0.2,
        "verified_at": "2026-11-22T17:21:00.123Z",
    }
    service.answers = [answer(body=body)]

    checked = client.verify("digits", alias="production")

    assert (service.requests[0].method, service.requests[0].path) == (
        "POST",
        "/v1/models/digits/verify?alias=production",
    )
    assert (checked.passed, checked.version, checked.parity["rows"]) == (passed, 2, 128)


def test_all_channels_are_fetched_page_by_page(service, client, answer):
    page = {"model": "digits", "version": 1, "population": {"estimator": "pooled"}, "layers": None}
    service.answers = [
        answer(body=page),
        answer(body=page | {"layers": [{"layer": "a"}], "last_layer": "a", "has_more": True}),
        answer(body=page | {"layers": [{"layer": "b"}], "last_layer": "b", "has_more": False}),
    ]

    found = client.population("digits", version=1, channels=True)

    assert [layer["layer"] for layer in found["layers"]] == ["a", "b"]
    assert "after=a" in service.requests[2].path and "version=1" in service.requests[2].path
