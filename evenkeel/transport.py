"""Requests over HTTP: finding the service again, trying again when that is safe, and problems as errors."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, BinaryIO

import httpx

from evenkeel.discovery import Address
from evenkeel.errors import EvenkeelClientError, Invalid, NotReachable, from_problem

PAGE = 100
"""Items of a list that are asked for at once."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


class Backoff:
    """Pauses that double from 0.1 s to 5 s, each shortened by up to a half so that clients do not return in step."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self.reset()

    def reset(self) -> None:
        self._pause = FIRST_PAUSE_SECONDS
        self._began: float | None = None

    def sleep(self, error: EvenkeelClientError, least_seconds: float = 0.0) -> None:
        """Raises `error` once the patience is used up."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        pause = max(least_seconds, self._pause * random.uniform(0.5, 1.0))
        if now + pause - self._began > self._patience_seconds:
            raise error
        time.sleep(pause)
        self._pause = min(LONGEST_PAUSE_SECONDS, 2.0 * self._pause)


class Transport:
    """`locate` is asked again after a connection failed: a service that was restarted may have moved."""

    def __init__(self, locate: Callable[[], Address], timeout_seconds: float, patience_seconds: float) -> None:
        self._locate = locate
        self._address: Address | None = None
        self._patience_seconds = patience_seconds
        self._met = False
        # A proxy named in the environment can not reach this machine's loopback.
        direct: Any = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}
        self._http = httpx.Client(timeout=timeout_seconds, mounts=direct)

    def close(self) -> None:
        self._http.close()

    def json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        timeout_seconds: float | None = None,
    ) -> Any:
        """The decoded answer. Raises EvenkeelClientError."""
        return _decoded(
            self.send(
                method,
                path,
                params=params,
                body=body,
                headers=headers,
                repeatable=repeatable,
                timeout_seconds=timeout_seconds,
            )
        )

    def pages(self, path: str, params: Mapping[str, Any], limit: int | None, after: Any = None) -> Iterator[Any]:
        """The items of a list, page by page, at most `limit`."""
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(left, PAGE)
            page = self.json("GET", path, params={**params, "limit": size, "after": after})
            yield from page["data"]
            left = None if left is None else left - len(page["data"])
            after = page.get("last_id")
            if not page.get("has_more") or after is None:
                return

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        content: Callable[[], BinaryIO] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        timeout_seconds: float | None = None,
    ) -> httpx.Response:
        """A successful answer. `content` is opened for each try, in place of a JSON `body`. What is `repeatable` is
        sent again while the service is away, anything else only when it certainly never arrived.
        Raises EvenkeelClientError."""
        backoff = Backoff(self._patience_seconds)
        while True:
            try:
                with content() if content else nullcontext() as opened:
                    response = self._http.request(
                        method,
                        self._url(path),
                        params=_given(params),
                        content=opened,
                        json=body,
                        headers=self._headers(headers),
                        timeout=httpx.USE_CLIENT_DEFAULT if timeout_seconds is None else timeout_seconds,
                    )
            except NotReachable as error:
                if not self._met:
                    raise
                backoff.sleep(error)  # a service that was there a moment ago is starting again
                continue
            except httpx.TransportError as error:
                failure = self._lost(error)
                if not repeatable and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    raise failure from None
                backoff.sleep(failure)
                continue
            except ValueError as error:  # of the encoder: JSON has no word for NaN and infinity
                raise Invalid(
                    f"the request can not be written as JSON ({error}): leave out or replace NaN and infinite values"
                ) from None
            self._met = True
            if response.is_success:
                return response
            problem = from_problem(response.status_code, _decoded_or_none(response))
            if not (problem.retryable and repeatable):
                raise problem
            backoff.sleep(problem, retry_after(response))

    @contextmanager
    def stream(
        self, path: str, params: Mapping[str, Any], headers: Mapping[str, str], read_timeout_seconds: float
    ) -> Iterator[httpx.Response]:
        """An open answer, its body not yet read. Raises NotReachable and the errors of problem documents."""
        timeout = httpx.Timeout(self._http.timeout.connect, read=read_timeout_seconds)
        try:
            with self._http.stream(
                "GET", self._url(path), params=_given(params), headers=self._headers(headers), timeout=timeout
            ) as response:
                if not response.is_success:
                    response.read()
                    raise from_problem(response.status_code, _decoded_or_none(response))
                self._met = True
                yield response
        except httpx.TransportError as error:
            raise self._lost(error) from None

    def _url(self, path: str) -> str:
        if self._address is None:
            self._address = self._locate()
        return self._address.url + path

    def _headers(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        key = self._address.api_key if self._address else ""
        return {"Accept": "application/json", "Authorization": f"Bearer {key}"} | dict(headers or {})

    def _lost(self, error: httpx.TransportError) -> NotReachable:
        url = self._address.url if self._address else "the service"
        self._address = None
        reason = str(error) or type(error).__name__
        return NotReachable(
            f"{url} does not answer ({reason}): see that the service runs (`evenkeel up`), or set EVENKEEL_URL",
            retryable=True,
        )


def retry_after(response: httpx.Response) -> float:
    """Seconds that the service asks for; 0 when it does not."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _decoded(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise NotReachable(
            f"{response.url} did not answer in JSON: is EVENKEEL_URL the address of an evenkeel service?"
        ) from None


def _decoded_or_none(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
