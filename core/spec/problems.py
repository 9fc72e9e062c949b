"""Pydantic's findings as problems of fields: pointers into the body that the user sent, and words with the remedy."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from core.errors import FieldProblem

DISCRIMINATORS = ("family", "kind", "layer")
SHOWN_CHARACTERS = 80
OBJECT_TYPES = frozenset(("model_type", "model_attributes_type", "dict_type", "mapping_type"))
LIST_TYPES = frozenset(("tuple_type", "list_type"))
PATTERNS = {
    r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$": "must be letters, digits and '_', in parts with '.' between them",
    r"^[a-z0-9][a-z0-9._-]{0,62}$": "must be lower-case letters, digits, '.', '_' and '-', at most 63, "
    "the first a letter or a digit",
    r"^(train|validation|test|bn|optimizer|observe)/[A-Za-z0-9_.+/-]{1,120}$": "must be a series of a member, for "
    "instance bn/batch_accuracy",
    r"^(auto|cpu|cuda|cuda:[0-9]{1,3})$": "must be auto, cpu, cuda, or cuda: and a number",
}

PLAINER = (
    ("Input should be", "must be"),
    ("a valid integer", "a whole number"),
    ("a valid number", "a number"),
    ("a valid string", "a text"),
    ("a valid boolean", "true or false"),
)

Models = Sequence[type[BaseModel]]
Location = tuple[str | int, ...]


def field_problems(error: ValidationError, schema: type[BaseModel]) -> tuple[FieldProblem, ...]:
    return tuple(_problem(part, schema) for part in error.errors(include_url=False) if not _echoes_another(part))


def _echoes_another(part: Any) -> bool:
    """A list is called too short as well when its elements were refused; those are told already."""
    return part["type"] == "too_short" and bool(len(part["input"]) >= part["ctx"]["min_length"])


def _problem(part: Any, schema: type[BaseModel]) -> FieldProblem:
    kind, value = part["type"], part["input"]
    location, models = _followed(schema, part["loc"])
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        name = part["ctx"]["discriminator"].strip("'")
        name = name if name in DISCRIMINATORS else "kind"
        location = (*location, name)
        given = value.get(name) if isinstance(value, dict) and name in value else None
        start = "is missing: " if kind == "union_tag_not_found" else f"is {_shown(given)}: "
        message = f"{start}give one of {', '.join(_tags(models, name))}"
    elif kind == "extra_forbidden":
        message = _unknown(str(location[-1]), _followed(schema, part["loc"][:-1])[1])
    elif kind == "missing":
        message = f"is missing: give {_wanted(models, 'a value')}"
    elif kind in OBJECT_TYPES:
        message = f"must be {_wanted(models, 'an object')}, not {_shown(value)}"
    elif kind in LIST_TYPES:
        message = f"must be a list, not {_shown(value)}"
    elif kind in ("too_short", "too_long"):
        bound, least = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        message = f"must have {bound} {part['ctx'][least]} items, not {len(value)}"
    elif kind == "value_error":
        message = part["msg"].removeprefix("Value error, ")
    else:
        fallback = part["msg"]
        for theirs, ours in PLAINER:
            fallback = fallback.replace(theirs, ours)
        message = f"{PATTERNS.get(part.get('ctx', {}).get('pattern', ''), fallback)}, not {_shown(value)}"
    return FieldProblem(pointer(location), kind, message)


def pointer(location: Location) -> str:
    """RFC 6901."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in location)


def _unknown(name: str, models: Models) -> str:
    known = [field for model in models for field in model.model_fields]
    close = get_close_matches(name, known, n=1)
    if close:
        return f"unknown field: did you mean {close[0]}?"
    listed = f"; known here are {', '.join(known)}" if known else ""
    return f"unknown field: check its spelling, or leave it out{listed}"


def _wanted(models: Models, otherwise: str) -> str:
    """What stands at a place, for instance `an object with family (mlp, convnet)`."""
    for name in DISCRIMINATORS:
        if len(models) > 1 and all(name in model.model_fields for model in models):
            return f"an object with {name} (one of {', '.join(_tags(models, name))})"
    if len(models) == 1:
        return f"an object with {', '.join(models[0].model_fields)}"
    return otherwise


def _tags(models: Models, name: str) -> list[str]:
    return [str(model.model_fields[name].default) for model in models if name in model.model_fields]


def _followed(schema: type[BaseModel], location: Location) -> tuple[Location, Models]:
    """The place in the body, and the models that its value can be; none where it is no object of ours.

    Pydantic puts the chosen member of a union into its location; the body has no such level.
    """
    here: Models = [schema]
    kept: list[str | int] = []
    for step in location:
        tagged = [model for model in here if any(step in _tags([model], name) for name in DISCRIMINATORS)]
        fields = [model.model_fields[str(step)] for model in here if str(step) in model.model_fields]
        if tagged and len(here) > 1:
            here = tagged
        elif fields:
            kept.append(step)
            here = [model for field in fields for model in models_in(field.annotation)]
        elif step not in {model.__name__ for model in here}:
            kept.append(step)  # an element of a list, or a key: of the models that the whole list has
    return tuple(kept), here


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def _shown(value: Any) -> str:
    """As the user wrote it, that is as JSON; an object or a list by its kind only."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
