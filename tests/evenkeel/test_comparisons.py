"""Comparisons in the client, against a server whose answers are written down."""

import pytest

from evenkeel import WaitTimedOut
from evenkeel import comparisons as client_comparisons

BODY = {"base": {"dataset": {"source": "digits"}, "network": {"family": "mlp"}}, "vary": {"batch_norm": [True, False]}}


def comparison(status="running", fraction=0.5, **counts):
    return {
        "object": "comparison",
        "id": "cmp_1",
        "name": "c",
        "status": status,
        "terminal": status in ("succeeded", "cancelled"),
        "metric": "test/accuracy",
        "baseline": "b",
        "seeds": [0, 1],
        "variants": [{"name": "a"}, {"name": "b"}],
        "members": {"total": 4} | counts,
        "progress": {"step": 1, "steps": 2, "fraction": fraction},
        "created_at": "2026-11-22T17:21:00.123000Z",
        "finished_at": None,
        "a_newer_field": 1,
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client_comparisons, "WATCH_SECONDS", 0.001)


def test_a_comparison_that_was_cut_off_is_sent_again_under_one_idempotency_key(service, client, answer):
    service.answers = [answer(cut=True), answer(201, comparison())]

    made = client.comparisons.submit(BODY)

    first, second = service.requests
    assert (made.id, made.variants, made.members["total"]) == ("cmp_1", ("a", "b"), 4)
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.body == BODY
    assert made.raw["a_newer_field"] == 1


def test_watching_gives_each_change_once_to_the_end(service, client, answer):
    service.answers = [
        answer(body=body)
        for body in (
            comparison(),
            comparison(fraction=0.5),
            comparison(fraction=0.5),
            comparison(fraction=0.8),
            comparison("succeeded", 1.0),
        )
    ]

    seen = [here.fraction for here in client.comparisons.get("cmp_1").watch()]

    assert seen == [0.5, 0.8, 1.0]


def test_waiting_ends_with_the_last_state_or_in_time(service, client, answer):
    service.answers = [answer(body=comparison()), answer(body=comparison("cancelled"))]
    assert client.comparisons.get("cmp_1").wait().status == "cancelled"

    service.answers = [answer(body=comparison())] * 2
    with pytest.raises(WaitTimedOut, match="cmp_1 is still running"):
        client.comparisons.get("cmp_1").wait(timeout_seconds=0.0)


def test_reports_come_as_data_or_as_text(service, client, answer):
    service.answers = [answer(body={"sentence": "s"}), answer(body="# c")]

    assert client.comparisons.report("cmp_1")["sentence"] == "s"
    client.comparisons.report_as("cmp_1", "md")

    assert [request.path for request in service.requests] == [
        "/v1/comparisons/cmp_1/report",
        "/v1/comparisons/cmp_1/report.md",
    ]
    assert service.requests[1].headers["Accept"] == "text/markdown"


def test_lists_and_members_are_walked_page_by_page(service, client, answer, job_body):
    page = {"object": "list", "first_id": "x", "last_id": "x", "has_more": True}
    service.answers = [
        answer(body=page | {"data": [comparison()]}),
        answer(body=page | {"data": [comparison()], "has_more": False}),
        answer(body=page | {"data": [job_body()]}),
        answer(body=page | {"data": [job_body()], "has_more": False}),
        answer(202, comparison("cancelling")),
    ]

    listed = client.comparisons.list(limit=5)
    members = client.comparisons.members("cmp_1", latest_metrics=True)
    cancelled = client.comparisons.cancel("cmp_1")

    assert [item.id for item in listed] == ["cmp_1", "cmp_1"]
    assert [job.id for job in members] == ["job_1", "job_1"]
    assert cancelled.status == "cancelling"
    assert "include=latest_metrics" in service.requests[2].path
    assert "after=x" in service.requests[3].path
