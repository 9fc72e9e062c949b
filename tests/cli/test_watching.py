import threading
from types import SimpleNamespace

import pytest

from cli import watching
from cli.watching import show_made, watch_all


class ClosedClient:
    """As a client is once Ctrl-C has closed it under a listener."""

    def stream(self, job):
        raise RuntimeError("Cannot send a request, as the client has been closed.")
        yield


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_ends_the_watching_and_says_that_the_job_goes_on(monkeypatch, capsys, as_json):
    monkeypatch.setattr(watching, "watch_all", interrupted)
    job = SimpleNamespace(id="job_1", name="first", status="running")

    code = show_made(SimpleNamespace(wait=interrupted), job, as_json, watch=True)

    told = capsys.readouterr().err
    assert code == 130
    assert "job_1 goes on" in told and "evenkeel cancel job_1" in told and told.count("\n") == 1


def test_a_listener_ends_without_a_traceback_and_its_error_reaches_the_caller(monkeypatch):
    spilt = []
    monkeypatch.setattr(threading, "excepthook", spilt.append)
    job = SimpleNamespace(
        id="job_1",
        name="first",
        spec={"training": {"steps": 1, "batch_size": 2}},
        attempt=0,
        progress=SimpleNamespace(step=0, steps=1),
    )

    with pytest.raises(RuntimeError, match="closed"):
        watch_all(ClosedClient(), [(job, None)])

    assert spilt == []
