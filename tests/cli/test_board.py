from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from cli.board import LineBoard, Tracked
from evenkeel import Event


@pytest.fixture
def tracked():
    return Tracked("digits", steps=100, batch_size=60, status="queued", phase=None, step=0)


def event(type_, level="info", message="", **data):
    return Event("job_1", 1, type_, level, message, 1, data, datetime.now(UTC), {})


def metrics(step, **latest):
    return event("metrics", last_step=step, latest={name.replace("__", "/"): value for name, value in latest.items()})


def test_a_job_is_known_by_its_events(tracked):
    tracked.take(event("status", status="running"))
    tracked.take(event("phase", phase="training"))
    tracked.take(metrics(50, train__loss=0.5, test__accuracy=0.9, throughput__examples_per_second=600.0))

    assert (tracked.stage, tracked.step, tracked.seconds_left) == ("training", 50, 5.0)
    assert tracked.figures() == ["loss 0.5", "test 90.0 %", "600 examples/s", "5 s left"]


def test_the_score_is_that_of_the_model_once_its_statistics_are_measured(tracked):
    tracked.take(metrics(100, test__accuracy=0.8))
    tracked.take(metrics(100, **{"bn/population_accuracy": 0.9}))

    assert tracked.figures() == ["test 90.0 %"]


def test_a_job_that_has_ended_is_told_from_its_beginning():
    job = SimpleNamespace(
        name="first",
        spec={"training": {"steps": 100, "batch_size": 60}},
        status="succeeded",
        phase=None,
        attempt=1,
        progress=SimpleNamespace(step=100, steps=100),
        latest_metrics={"train/loss": 0.1},
    )

    told = Tracked.of(job)

    assert (told.stage, told.step, told.figures()) == ("queued", 0, [])


def test_a_step_that_was_recorded_later_does_not_move_the_bar_back_but_a_rewind_does(tracked):
    tracked.take(metrics(50))
    tracked.take(metrics(20))
    assert tracked.step == 50

    tracked.take(event("rewind", "warning", step=30))
    assert tracked.step == 30


def test_a_failure_keeps_its_message(tracked):
    tracked.take(event("end", status="failed", error={"code": "stalled", "message": "it stalled"}))

    assert (tracked.stage, tracked.error) == ("failed", "it stalled")


def test_plain_lines_tell_changes_and_are_sparing_with_metrics(tracked, capsys):
    with LineBoard({"job_1": tracked}) as board:
        board.show("job_1", event("status", status="running"))
        board.show("job_1", event("phase", phase="training"))
        for step in range(1, 100):
            board.show("job_1", metrics(step, train__loss=1.0))
        board.show("job_1", event("log", "warning", "a loss spike"))
        board.show("job_1", event("end", status="succeeded"))

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["running", "training", "training", "a", "succeeded"]
    assert "step 99/100" in lines[-1]
