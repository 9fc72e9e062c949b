"""What a client can be told, as one small tree. Every message names the remedy.

EvenkeelClientError
├── NotReachable        no service was found, or it does not answer
├── Unauthenticated     401  no key, or a wrong, expired or revoked one
├── PermissionDenied    403  the key lacks a scope
├── NotFound            404
├── Conflict            409  the job's state forbids it
├── Invalid             400, 413, 422  the request can not be carried out as it stands; see `errors`
├── ServerFailed        5xx
└── WaitTimedOut        the job goes on; only the waiting ended
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FieldError:
    """One field that is wrong: `pointer` is a JSON pointer into what was sent."""

    pointer: str
    code: str
    message: str


class EvenkeelClientError(Exception):
    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "client_error",
        errors: tuple[FieldError, ...] = (),
        retryable: bool = False,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.errors = errors
        self.retryable = retryable
        self.request_id = request_id


class NotReachable(EvenkeelClientError):
    pass


class Unauthenticated(EvenkeelClientError):
    pass


class PermissionDenied(EvenkeelClientError):
    pass


class NotFound(EvenkeelClientError):
    pass


class Conflict(EvenkeelClientError):
    pass


class Invalid(EvenkeelClientError):
    pass


class ServerFailed(EvenkeelClientError):
    pass


class WaitTimedOut(EvenkeelClientError):
    pass


_KINDS: dict[int, type[EvenkeelClientError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    422: Invalid,
}


def from_problem(status: int, body: Any) -> EvenkeelClientError:
    """The error that a problem document stands for; a body that is none still becomes one."""
    problem = body if isinstance(body, dict) else {}
    errors = tuple(
        FieldError(str(part.get("pointer", "")), str(part.get("code", "")), str(part.get("message", "")))
        for part in problem.get("errors") or ()
        if isinstance(part, dict)
    )
    detail = str(problem.get("detail") or problem.get("title") or f"the service answered {status}")
    kind = _KINDS.get(status, ServerFailed if status >= 500 else EvenkeelClientError)
    return kind(
        detail,
        status=status,
        code=str(problem.get("code") or "unknown"),
        errors=errors,
        retryable=bool(problem.get("retryable", status in (502, 503, 504))),
        request_id=problem.get("request_id"),
    )
