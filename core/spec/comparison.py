"""The comparison spec: one base spec, what varies, and paired seeds."""

import json
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from core.errors import FieldProblem, SpecInvalid
from core.spec.base import Flag, MetadataKey, MetadataValue, Name, PositiveInt, Spec
from core.spec.problems import pointer
from core.spec.search import SearchSpec
from core.spec.variation import LONGEST_LIST, VARY_SCHEMA, Variant, put

Metric = Literal[
    "test/accuracy",
    "test/loss",
    "test/rmse",
    "test/r2",
    "validation/accuracy",
    "validation/loss",
    "validation/rmse",
    "validation/r2",
]

SeriesName = Annotated[str, Field(pattern=r"^(train|validation|test|bn|optimizer|observe)/[A-Za-z0-9_.+/-]{1,120}$")]
LONGEST_NAME = 63
BASE_SCHEMA: dict[str, Any] = {"type": "object", "description": "A job spec, as for `POST /v1/jobs`"}


def _number_or_seeds(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and 1 <= value <= LONGEST_LIST:
        return value
    listed = value if isinstance(value, list) and 1 <= len(value) <= LONGEST_LIST else [None]
    if all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63 for seed in listed):
        return value
    raise ValueError(f"must be a number of seeds from 1 on, or a list of seeds from 0 on, at most {LONGEST_LIST}")


def _target(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or value == "baseline_best" or (number and math.isfinite(value)):
        return float(value) if number else value
    raise ValueError('must be a number, null, or "baseline_best"')


class MemberPublish(Spec):
    """What each member publishes."""

    model: Name | None = None
    """The model that members become versions of; null: one model a variant, named after comparison and variant."""
    alias: Name | None = None
    """Moved by each member that ends. Null: no alias moves."""


class ComparisonSpec(Spec):
    """One call asks what some fields of a job do, over seeds that all variants share."""

    name: Name
    """Default: the base's name, or source and family, and `-comparison`."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16, default_factory=dict)]
    """Of the comparison, and of each member that its base gives none."""
    base: Annotated[dict[str, Any], WithJsonSchema(BASE_SCHEMA)]
    vary: Annotated[dict[str, Any] | None, WithJsonSchema(VARY_SCHEMA)] = None
    """Variants that are listed; or `search`."""
    search: SearchSpec | None = None
    """Variants that are drawn from ranges: `random`, `tpe`, or `halving`, beside the base itself (`base`)."""
    seeds: Annotated[int | list[int], BeforeValidator(_number_or_seeds)] = 3
    """How many, counted up from the base's `training.seed`; or which. Members of one seed begin with the same
    weights in every layer that their variants share, see the same data in the same order, and all share a split."""
    target: Annotated[Literal["baseline_best"] | float | None, BeforeValidator(_target)] = "baseline_best"
    """What steps and seconds are counted to: a value of the metric; or, seed by seed, the best that the baseline
    reached. Null: nothing."""
    baseline: str | None = None
    """The variant that others are compared with; default: the first without batch norm where that varies,
    else the first."""
    metric: Metric | None = None
    """Default: `test/accuracy`, of a regression `test/rmse`; of a search that of the validation split, where there is
    one, so that what is found is not found on the test rows."""
    also: Annotated[tuple[SeriesName, ...], Field(max_length=16)] = ()
    """Series whose last values the report shows beside the metric, for instance `bn/batch_accuracy`."""
    ensemble: Flag = False
    """The report also says what the seeds of each variant answer together, their class probabilities (or values)
    averaged, on the test split: sets `evaluation.keep_answers` in its members."""
    maximum_running: PositiveInt | None = None
    """Members that run at once; null: as many as there are slots."""
    priority: Annotated[int, Field(strict=True, ge=-100, le=100)] = -10
    """Below 0, the default of jobs: whoever submits a job beside a comparison waits for a slot, not for its end."""
    publish: MemberPublish | None = None
    """Null: nothing is exported."""

    @model_validator(mode="before")
    @classmethod
    def _name_by_default(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "name" in value or not isinstance(value.get("base"), dict):
            return value
        return {"name": _default_name(value["base"])} | value


def seeds_of(spec: ComparisonSpec) -> tuple[int, ...]:
    """The seeds, each once. Raises SpecInvalid."""
    if isinstance(spec.seeds, list):
        if len(set(spec.seeds)) < len(spec.seeds):
            twice = next(seed for seed in spec.seeds if spec.seeds.count(seed) > 1)
            message = f"has {twice} twice, and a seed gives the same run again: leave one out"
            raise SpecInvalid((FieldProblem("/seeds", "seed_twice", message),))
        return tuple(spec.seeds)
    training = spec.base.get("training")
    first = training.get("seed", 0) if isinstance(training, dict) else 0
    if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first < 2**63 - LONGEST_LIST:
        message = f"is {first!r:.40}: give a whole number from 0 on, or list the seeds of the comparison"
        raise SpecInvalid((FieldProblem("/base/training/seed", "seed", message),))
    return tuple(range(first, first + spec.seeds))


def member_body(spec: ComparisonSpec, variant: Variant, seed: int) -> dict[str, Any]:
    """The body of one member's job. Raises SpecInvalid when a path does not lead to a field."""
    body: dict[str, Any] = json.loads(json.dumps(spec.base))
    for path, value in variant.changes.items():
        put(body, path, value, variant.place)
    training = body.setdefault("training", {})
    if isinstance(training, dict):
        training["seed"] = seed
    evaluation = body.setdefault("evaluation", {}) if spec.ensemble else None
    if isinstance(evaluation, dict):
        evaluation["keep_answers"] = True
    given = body.get("metadata", {})
    body["metadata"] = spec.metadata | given if isinstance(given, dict) else given
    body["name"] = as_name(f"{spec.name}-{variant.name}", end=f"-{seed}")
    body["priority"] = spec.priority
    body["publish"] = None
    if spec.publish is not None:
        model = spec.publish.model or as_name(f"{spec.name}-{variant.name}")
        body["publish"] = {"model": model, "alias": spec.publish.alias}
    return body


def place_of(problem: FieldProblem, variant: Variant) -> str:
    """Where a problem of a member's spec stands in the comparison: at what is varied, or in the base."""
    for path in sorted(variant.changes, key=len, reverse=True):
        there = pointer(tuple(path.split(".")))
        if f"{problem.pointer}/".startswith(f"{there}/"):
            return f"{pointer((*variant.place, path))}{problem.pointer.removeprefix(there)}"
        if problem.pointer and there.startswith(f"{problem.pointer}/"):
            return pointer((*variant.place, path))
    return f"/base{problem.pointer}"


def as_name(text: str, end: str = "") -> str:
    """A `Name` close to the text, cut where it must be, and with `end` behind it."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).lstrip("._-")
    cut = plain[: LONGEST_NAME - len(end)].rstrip("._-")
    return f"{cut or 'member'}{end}"


def _default_name(base: dict[str, Any]) -> str:
    def word(section: str, key: str) -> str:
        part = base.get(section)
        return str(part.get(key, section)) if isinstance(part, dict) else section

    given = base.get("name")
    stem = given if isinstance(given, str) else f"{word('dataset', 'source')}-{word('network', 'family')}"
    return as_name(stem.replace("_", "-"), end="-comparison")
