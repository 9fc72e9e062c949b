"""The one error tree. Every class carries its HTTP status, its code and its remedy in the message.

EvenkeelError
├── SpecInvalid            422  a spec that can not be run; one FieldProblem per field
├── InputInvalid           422  rows that a model can not answer
├── Malformed              400  a request that can not be read: no JSON, a header that is none
├── Unauthorized           401  no key, or a wrong, expired or revoked one
├── Forbidden              403  the key lacks a scope
├── NotFound               404  no such thing, or another tenant's
├── NotAllowed             405  this address does not answer this method
├── Conflict               409  the job's state, or a first request still running, forbids it
├── IdempotencyMismatch    422  the key was used with another body
├── TooLarge               413  a body beyond the configured limit
├── Overloaded             429  more is waiting than may wait; try again
├── Unsupported            501  a part of a protocol that is not served here
├── DeadlinePassed         504  no answer within the time that the request gave
├── UnsupportedMedia       415  a body in a form or an encoding that is not read here
├── Unavailable            503  the database or a model is away for now; try again
├── StorageFailed          507  artifact bytes can not be written or read
│   └── StorageAway        503  the store can not be asked, which says nothing of what it holds; try again
├── SettingsInvalid             an environment variable or a flag that can not be used
└── JobFailed                   ends a job with one of the closed list of codes
"""

from dataclasses import dataclass
from typing import Literal

JobErrorCode = Literal[
    "invalid_data",
    "out_of_memory",
    "non_finite_loss",
    "non_finite_statistics",
    "worker_lost",
    "stalled",
    "deadline_exceeded",
    "parity_failed",
    "storage_error",
    "internal",
]


@dataclass(frozen=True)
class FieldProblem:
    """One field that is wrong: `pointer` is an RFC 6901 JSON pointer into the body."""

    pointer: str
    code: str
    message: str


def told(problems: tuple[FieldProblem, ...]) -> str:
    """All in one line; what is wrong with the body as a whole has no pointer."""
    return "; ".join(f"{problem.pointer}: {problem.message}".removeprefix(": ") for problem in problems)


class EvenkeelError(Exception):
    status = 500
    code = "internal"
    retryable = False

    def __init__(
        self, message: str, problems: tuple[FieldProblem, ...] = (), retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.problems = problems
        self.retry_after_seconds = retry_after_seconds


class SpecInvalid(EvenkeelError):
    status, code = 422, "invalid_spec"

    def __init__(self, problems: tuple[FieldProblem, ...]) -> None:
        super().__init__(f"the spec can not be run: {told(problems)}", problems)


class InputInvalid(EvenkeelError):
    status, code = 422, "invalid_input"


class Malformed(EvenkeelError):
    status, code = 400, "malformed_request"


class Unauthorized(EvenkeelError):
    status, code = 401, "unauthorized"


class Forbidden(EvenkeelError):
    status, code = 403, "forbidden"


class NotFound(EvenkeelError):
    status, code = 404, "not_found"


class NotAllowed(EvenkeelError):
    status, code = 405, "method_not_allowed"


class Conflict(EvenkeelError):
    status, code = 409, "conflict"


class IdempotencyMismatch(EvenkeelError):
    status, code = 422, "idempotency_mismatch"


class TooLarge(EvenkeelError):
    status, code = 413, "too_large"


class UnsupportedMedia(EvenkeelError):
    status, code = 415, "unsupported_media_type"


class Overloaded(EvenkeelError):
    status, code, retryable = 429, "overloaded", True


class Unsupported(EvenkeelError):
    status, code = 501, "unsupported"


class DeadlinePassed(EvenkeelError):
    status, code, retryable = 504, "deadline_passed", True


class Unavailable(EvenkeelError):
    status, code, retryable = 503, "unavailable", True


class StorageFailed(EvenkeelError):
    status, code, retryable = 507, "storage_error", True


class StorageAway(StorageFailed):
    status = 503


class SettingsInvalid(EvenkeelError):
    code = "invalid_settings"


class JobFailed(EvenkeelError):
    """Raised in a trainer; becomes `error` of the job's row."""

    def __init__(self, code: JobErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
