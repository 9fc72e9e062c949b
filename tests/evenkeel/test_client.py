import json
import math

import numpy as np
import pytest

from core.spec import JobSpec
from evenkeel import (
    Client,
    Conflict,
    EvenkeelClientError,
    Invalid,
    NotFound,
    NotReachable,
    PermissionDenied,
    ServerFailed,
    Unauthenticated,
)

SPEC = {"dataset": {"source": "digits"}, "network": {"family": "mlp"}}


def test_a_submission_that_was_cut_off_is_sent_again_under_one_idempotency_key(service, client, answer, job_body):
    service.answers = [answer(cut=True), answer(201, job_body())]

    job = client.submit(SPEC)

    first, second = service.requests
    assert job.id == "job_1"
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.body == second.body == SPEC
    assert first.headers["Authorization"] == "Bearer ek_key_secret"


def test_two_submissions_have_two_idempotency_keys(service, client, answer, job_body):
    service.answers = [answer(201, job_body()), answer(201, job_body())]

    client.submit(SPEC)
    client.submit(SPEC, idempotency_key="mine")

    assert service.requests[0].headers["Idempotency-Key"] != "mine"
    assert service.requests[1].headers["Idempotency-Key"] == "mine"


def test_rows_that_json_can_not_say_are_refused_with_the_remedy(client):
    with pytest.raises(Invalid, match="replace NaN and infinite values"):
        client.predict("first", [[math.nan]])


def test_a_spec_object_is_sent_with_its_defaults_written_out(service, client, answer, job_body):
    service.answers = [answer(201, job_body())]

    client.submit(JobSpec.model_validate(SPEC))

    assert service.requests[0].body["training"]["batch_size"] == 60


def test_a_retry_that_was_cut_off_is_sent_again_as_the_same_one(service, client, answer, job_body):
    service.answers = [answer(cut=True), answer(201, job_body())]

    client.retry("job_1")

    first, second = (request.headers["Idempotency-Key"] for request in service.requests)
    assert first == second


def test_a_key_that_was_cut_off_is_not_made_twice(service, client, answer):
    service.answers = [answer(cut=True)]

    with pytest.raises(NotReachable):
        client.create_key("app", ["models:infer"])
    assert len(service.requests) == 1


def test_a_service_that_asks_for_time_is_given_it(service, client, answer, job_body):
    service.answers = [
        answer(503, {"code": "unavailable", "detail": "later", "retryable": True}, {"Retry-After": "1"}),
        answer(body=job_body()),
    ]

    assert client.job("job_1").status == "running"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthenticated),
        (403, PermissionDenied),
        (404, NotFound),
        (409, Conflict),
        (413, Invalid),
        (422, Invalid),
        (500, ServerFailed),
    ],
)
def test_every_status_has_its_error(service, client, answer, status, kind):
    service.answers = [answer(status, {"detail": "because", "code": "some_code", "request_id": "req_1"})]

    with pytest.raises(kind) as caught:
        client.job("job_1")
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, "some_code", "req_1")
    assert str(caught.value) == "because"


def test_an_error_names_the_fields_that_are_wrong(service, client, answer):
    problem = {"pointer": "/training/batch_size", "code": "too_small", "message": "use at least 2"}
    service.answers = [answer(422, {"detail": "no", "code": "invalid_spec", "errors": [problem]})]

    with pytest.raises(Invalid) as caught:
        client.submit(SPEC)
    assert caught.value.errors[0].pointer == "/training/batch_size"
    assert caught.value.errors[0].message == "use at least 2"


def test_an_answer_that_is_no_problem_document_is_still_an_error_of_ours(service, client, answer):
    service.answers = [answer(500, ["what?"])]

    with pytest.raises(EvenkeelClientError, match="500"):
        client.job("job_1")


def test_metrics_bring_back_what_json_can_not_say(service, client, answer):
    series = {"steps": [1, 2, 3], "values": [0.5, None, None], "nonfinite": {"2": "inf", "3": "nan"}, "total_points": 3}
    service.answers = [answer(body={"object": "metrics", "series": {"train/loss": series}})]

    loss = client.metrics("job_1", ["train/loss"], max_points=10)["train/loss"]

    assert loss.values[:2] == (0.5, math.inf)
    assert math.isnan(loss.values[2])
    assert service.requests[0].path == "/v1/jobs/job_1/metrics?names=train%2Floss&since_step=0&max_points=10"


def test_the_first_step_that_reaches_a_value_is_found(service, client, answer):
    series = {"steps": [10, 20, 30], "values": [0.5, 0.92, 0.91], "total_points": 3}
    service.answers = [answer(body={"series": {"test/accuracy": series}})] * 2

    accuracy = client.metrics("job_1")["test/accuracy"]

    assert accuracy.first_step_reaching(0.9) == 20
    assert accuracy.first_step_reaching(0.99) is None


def test_lists_are_read_page_by_page_up_to_the_limit(service, client, answer, job_body):
    first = {"data": [job_body(id=f"job_{n}") for n in range(100)], "last_id": "job_99", "has_more": True}
    second = {"data": [job_body(id=f"job_{n}") for n in range(100, 120)], "last_id": "job_119", "has_more": True}
    service.answers = [answer(body=first), answer(body=second)]

    jobs = client.jobs(limit=120, status=["running", "queued"], metadata={"team": "vision"})

    assert [job.id for job in jobs] == [f"job_{n}" for n in range(120)]
    assert "limit=100" in service.requests[0].path
    assert "metadata%5Bteam%5D=vision" in service.requests[0].path
    assert "status=running%2Cqueued" in service.requests[0].path
    assert "after=job_99" in service.requests[1].path
    assert "limit=20" in service.requests[1].path


def test_rows_may_be_arrays_lists_or_objects(service, client, answer):
    body = {
        "model": "m",
        "version": 3,
        "statistics_sha256": "ab",
        "predictions": [{"label": "7", "probabilities": {"7": 0.9}}, {"value": 1.5}],
    }
    service.answers = [answer(body=body)] * 3

    client.predict("m", np.array([[1.0, 2.0]]))
    client.predict("m", [np.array([1.0, 2.0])])
    answered = client.predict("m", [{"age": 3}], version=3)

    assert [request.body for request in service.requests] == [
        {"rows": [[1.0, 2.0]]},
        {"rows": [[1.0, 2.0]]},
        {"rows": [{"age": 3}]},
    ]
    assert answered.labels == ("7", None)
    assert answered.values == (None, 1.5)
    assert service.requests[2].path.endswith("?version=3")


def test_a_key_shows_its_text_only_when_asked_for(service, client, answer):
    body = {
        "id": "key_1",
        "name": "ci",
        "scopes": ["jobs:read"],
        "created_at": "2026-11-22T17:21:00Z",
        "key": "ek_1_secret",
    }
    service.answers = [answer(201, body)]

    key = client.create_key("ci", ["jobs:read"])

    assert key.text == "ek_1_secret"
    assert "secret" not in repr(key)


class TestFindingTheService:
    @pytest.fixture(autouse=True)
    def _bare_environment(self, monkeypatch, tmp_path):
        for name in ("EVENKEEL_URL", "EVENKEEL_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("EVENKEEL_HOME", str(tmp_path))

    def test_on_the_same_machine_no_flags_are_needed(self, service, answer, job_body, tmp_path):
        (tmp_path / "service.json").write_text(json.dumps({"url": service.url, "pid": 1}))
        (tmp_path / "admin-key").write_text("ek_home_key\n")
        service.answers = [answer(body=job_body())]

        with Client() as client:
            client.job("job_1")

        assert service.requests[0].headers["Authorization"] == "Bearer ek_home_key"

    def test_the_environment_wins_over_the_home(self, service, answer, job_body, tmp_path, monkeypatch):
        (tmp_path / "service.json").write_text('{"url": "http://127.0.0.1:1"}')
        (tmp_path / "admin-key").write_text("ek_home_key\n")
        monkeypatch.setenv("EVENKEEL_URL", service.url)
        monkeypatch.setenv("EVENKEEL_API_KEY", "ek_from_environment")
        service.answers = [answer(body=job_body())]

        with Client() as client:
            client.job("job_1")

        assert service.requests[0].headers["Authorization"] == "Bearer ek_from_environment"

    def test_without_a_service_the_remedy_is_named(self, tmp_path):
        with Client() as client, pytest.raises(NotReachable, match="evenkeel up"):
            client.jobs()

    def test_without_a_key_the_remedy_is_named(self, tmp_path):
        (tmp_path / "service.json").write_text('{"url": "http://127.0.0.1:1"}')

        with Client() as client, pytest.raises(Unauthenticated, match="EVENKEEL_API_KEY"):
            client.jobs()

    def test_an_address_without_a_scheme_is_refused_by_name(self):
        with Client("localhost:8321", "ek_a_b") as client, pytest.raises(NotReachable, match="http://"):
            client.jobs()

    def test_a_service_that_came_back_on_another_port_is_found_again(self, service, answer, job_body, tmp_path):
        (tmp_path / "admin-key").write_text("ek_home_key\n")
        file = tmp_path / "service.json"
        file.write_text(json.dumps({"url": "http://127.0.0.1:9"}))
        service.answers = [answer(body=job_body())]

        with Client(patience_seconds=0.0) as client:
            with pytest.raises(NotReachable):
                client.job("job_1")
            file.write_text(json.dumps({"url": service.url}))

            assert client.job("job_1").id == "job_1"
