"""The one renderer of errors: RFC 9457 problem details for every failed request, FastAPI's own included."""

from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from core.errors import EvenkeelError, FieldProblem, StorageFailed, Unauthorized, Unavailable
from core.spec.problems import PLAINER

MEDIA_TYPE = "application/problem+json"
SHOWN_CHARACTERS = 500
CODES_OF_STATUS = {
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}


PLAIN_STATUS = {422: 400, 507: 503}
"""The Open Inference Protocol knows a bad request as 400 only, and a model that can not be read as not ready."""


def speaks_plainly(path: str) -> bool:
    """Whether errors of this path have the form of the Open Inference Protocol, and not RFC 9457's."""
    return path == "/v2" or path.startswith(("/v2/", "/invocations", "/ping")) or path.endswith(":predict")


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    fields: tuple[FieldProblem, ...] = (),
    retryable: bool = False,
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem document as a response; `{"error"}` where a protocol of others says so."""
    if speaks_plainly(request.url.path):
        plain = {"error": _storable(detail), "code": code, "request_id": request.scope["state"]["request_id"]}
        return Response(orjson.dumps(plain), PLAIN_STATUS.get(status, status), headers, "application/json")
    content: dict[str, Any] = {
        "type": f"urn:evenkeel:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        "errors": [
            {"pointer": field.pointer, "code": field.code, "message": _storable(field.message)} for field in fields
        ],
        "request_id": request.scope["state"]["request_id"],
        "retryable": retryable,
    }
    content["detail"], content["instance"] = _storable(detail), _storable(request.url.path)
    return Response(orjson.dumps(content), status, headers=headers, media_type=MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(EvenkeelError, _render_ours)
    app.add_exception_handler(HTTPException, _render_http)
    app.add_exception_handler(RequestValidationError, _render_validation)


def unexpected(request: Request) -> Response:
    """What the user is told of an error of ours; the log has the rest, under the request's id."""
    detail = "an internal error; please report it with this request_id"
    return problem(request, 500, "internal", detail)


async def _render_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, EvenkeelError)  # registered for nothing else
    return our_problem(request, error)


def our_problem(request: Request, error: EvenkeelError) -> Response:
    headers = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    elif isinstance(error, Unavailable | StorageFailed):
        headers["Retry-After"] = "5"
    return problem(request, error.status, error.code, error.message, error.problems, error.retryable, headers)


async def _render_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODES_OF_STATUS.get(error.status_code, "malformed_request")
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"there is no {request.method} {request.url.path}: see /docs"
    elif error.status_code == 405:
        detail = f"{request.url.path} does not answer {request.method}: see /docs"
    return problem(request, error.status_code, code, detail, headers=dict(error.headers or {}))


async def _render_validation(request: Request, error: Exception) -> Response:
    """Query parameters and headers; bodies are validated by our own specs and schemas."""
    assert isinstance(error, RequestValidationError)
    fields = tuple(
        FieldProblem("/".join(("", *map(str, part["loc"]))), part["type"], f"{_plainly(part)}, not {_shown(part)}")
        for part in error.errors()
    )
    detail = "; ".join(f"{field.pointer}: {field.message}" for field in fields)
    return problem(request, 422, "invalid_request", detail, fields)


def _plainly(part: dict[str, Any]) -> str:
    """In the words that problems of bodies have."""
    message = str(part["msg"]).partition(", unable to ")[0]
    for theirs, ours in PLAINER:
        message = message.replace(theirs, ours)
    return message


def _shown(part: dict[str, Any]) -> str:
    return repr(part.get("input"))[:80]


def _storable(text: str) -> str:
    """Cut to a readable length, and free of lone surrogates, which are not UTF-8."""
    cut = text if len(text) <= SHOWN_CHARACTERS * 4 else f"{text[: SHOWN_CHARACTERS * 4]}…"
    return cut.encode("utf-8", "replace").decode()
