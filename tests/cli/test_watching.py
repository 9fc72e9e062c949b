import threading
from types import SimpleNamespace

import pytest

from cli.watching import watch_all


class ClosedClient:
    """As a client is once Ctrl-C has closed it under a listener."""

    def stream(self, job):
        raise RuntimeError("Cannot send a request, as the client has been closed.")
        yield


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
