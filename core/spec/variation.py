"""What varies in a comparison: a grid of paths, or variants by name; and how a path is written into a job spec."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from typing import Any

from core.errors import FieldProblem, SpecInvalid
from core.spec.job import JobSpec
from core.spec.problems import models_in, pointer

LONGEST_LIST = 1000
"""Seeds, values of one path, variants: far beyond what a service admits as members."""
SHOWN_CHARACTERS = 32
VARIANT_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,80}")
NOT_VARIED = {
    "name": "members are named after the comparison, their variant and their seed",
    "priority": "all members have the `priority` of the comparison",
    "publish": "`publish` of the comparison says what all members publish",
    "training.seed": "`seeds` of the comparison pairs the members",
    "recalibration": "it is written by the service",
    "ensemble": "it is written by the service",
    "fork": "it is written by the service",
}
"""Fields that the comparison decides for its members, and where it does."""
VARY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "description": (
        "A grid, dotted paths into the job spec to lists of values, all of which are combined; or "
        '`{"variants": {name: {path: value}}}`, variants by name with the fields that each has otherwise'
    ),
    "examples": [
        {"batch_norm": [True, False], "optimizer.learning_rate": [0.1, 0.5]},
        {"variants": {"plain": {"batch_norm": False}, "after": {"batch_norm.placement": "after_activation"}}},
    ],
}


@dataclass(frozen=True)
class Variant:
    """`changes`: values by dotted path, as they were asked for."""

    name: str
    changes: dict[str, Any]
    place: tuple[str, ...] = ("vary",)
    """Where in the comparison's body its paths stand."""


def variants_of(vary: dict[str, Any], most: int) -> tuple[Variant, ...]:
    """All variants: those by name as they were given, those of a grid in the order of its paths by name, because
    JSON and databases keep no order of fields.

    Raises SpecInvalid when there are more than `most`, or when one can not be told from another.
    """
    problems = tuple(_problems_of_shape(vary))
    if problems:
        raise SpecInvalid(problems)
    named = vary.get("variants")
    count = len(named) if named is not None else _product(len(values) for values in vary.values())
    if count > most:
        message = f"makes {count} variants, and {most} are the most here: vary less, or in several comparisons"
        raise SpecInvalid((FieldProblem("/vary", "too_many_variants", message),))
    if named is not None:
        return tuple(Variant(name, dict(changes), ("vary", "variants", name)) for name, changes in named.items())
    vary = dict(sorted(vary.items()))
    chosen = [dict(zip(vary, values, strict=True)) for values in product(*vary.values())]
    return tuple(Variant(_grid_name(vary, changes, number), changes) for number, changes in enumerate(chosen, 1))


def _problems_of_shape(vary: dict[str, Any]) -> Iterator[FieldProblem]:
    if not vary:
        yield FieldProblem("/vary", "empty", 'is empty: name a path, for instance {"batch_norm": [true, false]}')
    if "variants" in vary:
        yield from _problems_of_variants(vary)
        return
    yield from problems_of_paths(tuple(vary), "/vary")
    for path, values in vary.items():
        place = pointer(("vary", path))
        if not isinstance(values, list) or not 1 <= len(values) <= LONGEST_LIST:
            yield FieldProblem(place, "list", f"must be a list of 1 to {LONGEST_LIST} values that {path} takes in turn")
        elif len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
            yield FieldProblem(place, "value_twice", "has a value twice: leave one out")


def _problems_of_variants(vary: dict[str, Any]) -> Iterator[FieldProblem]:
    named = vary["variants"]
    if len(vary) > 1:
        others = ", ".join(path for path in vary if path != "variants")
        yield FieldProblem("/vary", "two_ways", f"has variants by name and a grid ({others}): give one of them")
    if not isinstance(named, dict) or not 1 <= len(named) <= LONGEST_LIST:
        message = 'must be an object of names to fields, for instance {"plain": {"batch_norm": false}}'
        yield FieldProblem("/vary/variants", "object", message)
        return
    for name, changes in named.items():
        place = pointer(("vary", "variants", name))
        if not VARIANT_NAME.fullmatch(name):
            yield FieldProblem(
                place, "name", "a variant's name has 1 to 80 characters, none of them a control character"
            )
        if isinstance(changes, dict):
            yield from problems_of_paths(tuple(changes), place)
        else:
            yield FieldProblem(
                place, "object", 'must be an object of paths to values, for instance {"batch_norm": false}'
            )


def problems_of_paths(
    paths: tuple[str, ...], place: str, decided_elsewhere: Mapping[str, str] = NOT_VARIED
) -> Iterator[FieldProblem]:
    """Paths that lead to no field of a job spec, or to one that is decided elsewhere, or into one another."""
    for path in paths:
        here = f"{place}{pointer((path,))}"
        steps = path.split(".")
        decided = next((name for name in decided_elsewhere if path == name or path.startswith(f"{name}.")), None)
        if decided is not None:
            yield FieldProblem(here, "not_varied", f"can not be varied: {decided_elsewhere[decided]}")
        elif steps[0] not in JobSpec.model_fields:
            close = get_close_matches(path, _known_paths(), n=1) or get_close_matches(
                steps[0], JobSpec.model_fields, n=1
            )
            hint = f"did you mean {close[0]}?" if close else f"begin with one of {', '.join(JobSpec.model_fields)}"
            yield FieldProblem(here, "unknown_path", f"no field of a job spec: {hint}")
        for other in paths:
            if path.startswith(f"{other}."):
                yield FieldProblem(here, "overlap", f"lies within {other}, which is varied too: vary one of them")


def _known_paths() -> list[str]:
    """The fields of a job spec, two levels deep."""
    inner = [
        f"{section}.{name}"
        for section, field in JobSpec.model_fields.items()
        for model in models_in(field.annotation)
        for name in model.model_fields
    ]
    return [*JobSpec.model_fields, *dict.fromkeys(inner)]


def put(body: dict[str, Any], path: str, value: Any, place: tuple[str, ...]) -> None:
    """Writes a value where the path leads. Raises SpecInvalid, pointing into `place`, when it leads into no object."""
    steps = path.split(".")
    here: Any = body
    for depth, step in enumerate(steps[:-1]):
        if isinstance(here, dict) and here.get(step, True) is True:
            here[step] = {}  # `true` stands for the object with its defaults
        here = here[_key(here, step, path, place)]
        if not isinstance(here, dict | list):
            where = ".".join(steps[: depth + 1])
            message = f"{where} of the base is {json.dumps(here)[:SHOWN_CHARACTERS]}, which has no fields: vary {where}"
            raise SpecInvalid((FieldProblem(pointer((*place, path)), "not_an_object", message),))
    here[_key(here, steps[-1], path, place)] = value


def _key(here: dict[str, Any] | list[Any], step: str, path: str, place: tuple[str, ...]) -> Any:
    if isinstance(here, dict):
        return step
    if step.isascii() and step.isdigit() and int(step) < len(here):
        return int(step)
    message = f"{step!r:.40} is no place in a list of {len(here)}: give a number from 0 on"
    raise SpecInvalid((FieldProblem(pointer((*place, path)), "no_such_place", message),))


def _grid_name(vary: dict[str, list[Any]], changes: dict[str, Any], number: int) -> str:
    """For instance `batch_norm=true, learning_rate=0.1`; a number where that would be too long."""
    last = [path.split(".")[-1] for path in vary]
    shown = {path: end if last.count(end) == 1 else path for path, end in zip(vary, last, strict=True)}
    name = ", ".join(f"{shown[path]}={_word(value, vary[path])}" for path, value in changes.items())
    return name if VARIANT_NAME.fullmatch(name) else f"variant {number}"


def _word(value: Any, values: list[Any]) -> str:
    """The value as one would write it, an object also by its kind or its fields; or its place in the list, where
    that is long or another is written alike."""
    exact = [json.dumps(other) for other in values].index(json.dumps(value))
    for written in (_as_written, _in_short):
        texts = [written(other) for other in values]
        if len(texts[exact]) <= SHOWN_CHARACTERS and texts.count(texts[exact]) == 1:
            return texts[exact]
    return f"#{exact + 1}"


def _as_written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _in_short(value: Any) -> str:
    if not isinstance(value, dict) or not value:
        return _as_written(value)
    kind = value.get("kind")
    return kind if isinstance(kind, str) else "+".join(value)


def _product(numbers: Iterator[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
