"""Pydantic's findings as problems of fields, with JSON pointers into the body that the user sent."""

from typing import Any

from pydantic import ValidationError

from core.errors import FieldProblem

DISCRIMINATORS = ("family", "kind", "layer")
SHOWN_CHARACTERS = 80


def field_problems(error: ValidationError, body: Any) -> tuple[FieldProblem, ...]:
    return tuple(_problem(part, body) for part in error.errors(include_url=False))


def _problem(part: Any, body: Any) -> FieldProblem:
    message = part["msg"].removeprefix("Value error, ")
    if part["type"] == "extra_forbidden":
        message = "unknown field: check its spelling, or leave it out"
    elif part["type"] not in ("missing", "value_error") and not isinstance(part["input"], dict | list):
        message = f"{message}, not {_shown(part['input'])}"
    return FieldProblem(pointer(part["loc"], body), part["type"], message)


def pointer(location: tuple[str | int, ...], body: Any) -> str:
    """RFC 6901 pointer. Pydantic puts the chosen member of a union into the location; the body has no such level."""
    steps = []
    here = body
    for step in location:
        if isinstance(here, dict) and step not in here and any(here.get(name) == step for name in DISCRIMINATORS):
            continue
        if isinstance(here, dict) and step not in here and str(step).endswith("Spec"):
            continue
        steps.append(str(step).replace("~", "~0").replace("/", "~1"))
        here = _child(here, step)
    return "".join(f"/{step}" for step in steps)


def _child(here: Any, step: str | int) -> Any:
    if isinstance(here, dict):
        return here.get(step)
    if isinstance(here, list) and isinstance(step, int) and step < len(here):
        return here[step]
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
