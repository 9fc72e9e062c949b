import time

import pytest

from evenkeel import Invalid, NotFound, NotReachable, WaitTimedOut


def test_a_stream_ends_after_the_end_event(service, client, answer, sse):
    service.answers = [answer(pieces=(sse(1, "status"), sse(2), sse(3, "end", status="succeeded")))]

    events = list(client.stream("job_1"))

    assert [event.seq for event in events] == [1, 2, 3]
    assert events[-1].data["status"] == "succeeded"
    assert service.requests[0].headers["Accept"] == "text/event-stream"


def test_a_cut_connection_goes_on_after_the_last_event_and_repeats_none(service, client, answer, sse):
    service.answers = [
        answer(pieces=(sse(1), sse(2), sse(3)[:20]), cut=True),
        answer(cut=True),
        answer(pieces=(sse(2), sse(3), sse(4)), cut=True),
        answer(pieces=(sse(5, "end"),)),
    ]

    assert [event.seq for event in client.stream("job_1")] == [1, 2, 3, 4, 5]
    assert [request.headers["Last-Event-Id"] for request in service.requests] == ["0", "2", "2", "4"]


def test_an_event_cut_into_single_bytes_arrives_whole(service, client, answer, sse):
    raw = sse(1, "end")
    service.answers = [answer(pieces=tuple(raw[index : index + 1] for index in range(len(raw))))]

    (event,) = client.stream("job_1")

    assert event.message == "a line\u2028broken by Unicode only"


def test_a_connection_closed_in_good_order_before_the_end_is_opened_again(service, client, answer, sse):
    service.answers = [answer(pieces=(sse(1),)), answer(pieces=(b": ping\n\n", sse(2, "end")))]

    assert [event.seq for event in client.stream("job_1")] == [1, 2]


def test_a_finished_job_with_nothing_newer_gives_an_empty_stream(service, client, answer):
    service.answers = [answer(204)]

    assert list(client.stream("job_1", after=9)) == []
    assert service.requests[0].headers["Last-Event-Id"] == "9"


def test_a_service_that_is_away_for_a_moment_is_asked_again(service, client, answer, sse):
    busy = answer(503, {"code": "unavailable", "detail": "starting", "retryable": True})
    service.answers = [busy, busy, answer(pieces=(sse(1, "end"),))]

    assert [event.seq for event in client.stream("job_1")] == [1]


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (400, Invalid)])
def test_what_asking_again_would_not_change_is_raised_at_once(service, client, answer, status, kind):
    service.answers = [answer(status, {"code": "x", "detail": "no such job", "retryable": False})]

    with pytest.raises(kind, match="no such job"):
        list(client.stream("job_1"))
    assert len(service.requests) == 1


def test_a_stream_gives_up_when_its_patience_ends(service, client, answer):
    service.answers = [answer(cut=True) for _ in range(50)]

    with pytest.raises(NotReachable):
        list(client.stream("job_1", patience_seconds=0.3))


def test_wait_returns_the_job_as_it_ended(service, client, answer, sse, job_body):
    page = {"data": [{"seq": 7}], "last_id": "7", "has_more": False}
    done = job_body(status="failed", terminal=True, error={"code": "stalled", "message": "it stalled"})
    service.answers = [
        answer(body=job_body()),
        answer(body=page),
        answer(pieces=(sse(7), sse(8, "end"))),
        answer(body=done),
    ]

    job = client.wait("job_1")

    assert (job.status, job.terminal, job.succeeded) == ("failed", True, False)
    assert service.requests[2].headers["Last-Event-Id"] == "6"


def test_waiting_ends_at_its_time_limit_though_the_connection_stays_open(service, client, answer, sse, job_body):
    page = {"data": [{"seq": 7}], "last_id": "7", "has_more": False}
    service.answers = [
        answer(body=job_body()),
        answer(body=page),
        *(answer(pieces=(sse(7), b": ping\n\n"), cut=True) for _ in range(50)),
    ]
    began = time.monotonic()

    with pytest.raises(WaitTimedOut, match="job_1"):
        client.wait("job_1", timeout_seconds=0.4)
    assert time.monotonic() - began < 2.0
