"""JSON bodies, read strictly: what could be misread or not stored is refused here, with its place."""

import json
from typing import Any, NoReturn, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from api.inference.bodies import unpacked
from core.errors import FieldProblem, InputInvalid, Malformed, SpecInvalid, TooLarge, told
from core.spec.base import Spec
from core.spec.problems import field_problems

MAXIMUM_BYTES = 1024 * 1024
"""No spec is near it; rows to predict have their own, larger limit."""
MAXIMUM_DEPTH = 64
LARGEST_INTEGER = 2**63 - 1

B = TypeVar("B", bound=BaseModel)


async def read_json(request: Request) -> Any:
    """The body as JSON.

    Raises Malformed (no JSON, a name twice), TooLarge, UnsupportedMedia (packed in a way that is not read here), or
    SpecInvalid (a value that no database can hold).
    """
    content = await request.body()
    encoding = request.headers.get("content-encoding")
    if encoding is not None:
        content = unpacked(content, encoding.encode(), MAXIMUM_BYTES)
    if len(content) > MAXIMUM_BYTES:
        raise TooLarge(f"the body has {len(content)} bytes, and a request like this may have {MAXIMUM_BYTES}")
    return parse(content)


async def no_body(request: Request) -> None:
    """For actions that take none: what was sent would be ignored. Raises InputInvalid."""
    if (await request.body()).strip() not in (b"", b"{}", b"null"):
        message = "this takes no body: leave it out, and a version or an alias is a query parameter"
        raise InputInvalid(message, (FieldProblem("", "no_body", message),))


NO_BODY = Depends(no_body)


def parse(content: bytes) -> Any:
    if not content.strip():
        raise Malformed("the body is empty: send a JSON object")
    try:
        value = json.loads(content, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise Malformed(f"the body is nested deeper than {MAXIMUM_DEPTH} levels") from None
    except UnicodeDecodeError:
        raise Malformed("the body is not UTF-8") from None
    except ValueError as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    _refuse_unstorable(value, "", MAXIMUM_DEPTH)
    return value


def validated(schema: type[B], value: Any) -> B:
    """`value` as `schema`.

    Raises SpecInvalid, or InputInvalid for what is no spec, with a pointer to every field that is wrong.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        problems = field_problems(error, schema)
        if issubclass(schema, Spec):
            raise SpecInvalid(problems) from None
        raise InputInvalid(told(problems), problems) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Malformed(f"the name {twice!r} stands twice in one object: leave one out")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise Malformed(f"the body is not JSON: {name} is no JSON number")


def _refuse_unstorable(value: Any, pointer: str, depth: int) -> None:
    if depth == 0:
        raise Malformed(f"the body is nested deeper than {MAXIMUM_DEPTH} levels")
    if isinstance(value, str):
        _refuse_unstorable_text(value, pointer)
    elif isinstance(value, dict):
        for name, item in value.items():
            _refuse_unstorable_text(name, pointer)
            _refuse_unstorable(item, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}", depth - 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_unstorable(item, f"{pointer}/{index}", depth - 1)
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise _refused(pointer, "integer_too_large", f"is beyond 64 bits: at most {LARGEST_INTEGER}")
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise _refused(pointer, "not_finite", "is infinite as a 64-bit float: give a smaller number")


def _refuse_unstorable_text(text: str, pointer: str) -> None:
    if "\0" in text:
        raise _refused(pointer, "nul_character", "contains a NUL character: remove it")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _refused(pointer, "lone_surrogate", "contains half of a surrogate pair, which is no text: remove it")


def _refused(pointer: str, code: str, message: str) -> SpecInvalid:
    return SpecInvalid((FieldProblem(pointer, code, message),))
