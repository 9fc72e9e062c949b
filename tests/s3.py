"""An S3 that speaks real HTTP: moto's server in this process."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import s3fs
from moto.server import ThreadedMotoServer


class S3:
    """A server on a free port; `environment` is what finds it."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._address = address
        self._start(0)
        self.environment = environment(f"http://{address}:{self._port}")

    def bucket(self) -> str:
        """The name of a fresh bucket."""
        name = f"evenkeel-{uuid.uuid4().hex[:12]}"
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        files.mkdir(name)
        files.close_session(files.loop, files._s3creator)
        return name

    def answer_first(self, status: str, times: int) -> list[str]:
        """The next requests get `status`, as from a store that is too busy. Gives the paths asked for, as they come."""
        served, asked = self._server._server, []
        answer = self._app

        def app(environ: dict[str, Any], start_response: Any) -> Any:
            asked.append(environ["PATH_INFO"])
            if len(asked) > times:
                return answer(environ, start_response)
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(status, [("Content-Length", "0")])
            return [b""]

        served.app = app
        return asked

    def go_away(self) -> None:
        """Nobody listens on its port any more."""
        self._server.stop()
        self._server._server.server_close()
        self._here = False

    def come_back(self) -> None:
        """As it was, with its objects and without what `answer_first` did; nothing happens when it is here."""
        if self._here:
            self._server._server.app = self._app
        else:
            self._start(self._port)

    def _start(self, port: int) -> None:
        self._server = ThreadedMotoServer(self._address, port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]
        self._app = self._server._server.app
        self._here = True


def environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch, address: str = "127.0.0.1") -> Iterator[S3]:
    server = S3(address)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    try:
        yield server
    finally:
        if server._here:
            server.go_away()
