"""Searches: variants that are drawn from ranges, within a budget, instead of listed."""

import math
import random
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.spec.base import Flag, PositiveInt, Spec
from core.spec.problems import pointer
from core.spec.variation import VARIANT_NAME, problems_of_paths

Bound = Annotated[float, Field(strict=True, ge=-1e12, le=1e12)]
STEPS = "training.steps"


class RangeSpec(Spec):
    """What a field may be: a number between two, or one of a list."""

    low: Bound | None = None
    high: Bound | None = None
    log: Flag = False
    """Draw evenly over the logarithm: as often between 0.01 and 0.1 as between 0.1 and 1."""
    integer: Flag = False
    choices: Annotated[list[Any], Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "RangeSpec":
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.integer:
                raise ValueError("has choices and bounds: give choices, or low and high")
            return self
        if self.low is None or self.high is None:
            raise ValueError("must have low and high, or choices")
        if self.low > self.high or (self.log and self.low <= 0.0):
            raise ValueError("low must not be above high, and above 0 with log")
        if self.integer and (self.low != int(self.low) or self.high != int(self.high)):
            raise ValueError("low and high must be whole numbers with integer")
        return self


class SearchBase(Spec):
    ranges: Annotated[dict[str, RangeSpec], Field(min_length=1, max_length=32)]
    """By dotted path into the job spec."""
    trials: Annotated[int, Field(strict=True, ge=1, le=1000)] = 20
    """The budget: variants that are tried, each with every seed. The base itself is a variant beside them."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Of the draws."""


class RandomSearch(SearchBase):
    """Every trial is drawn by itself."""

    kind: Literal["random"] = "random"


class TPESearch(SearchBase):
    """Tree-structured Parzen estimator (Bergstra et al. 2011): later trials are drawn where earlier ones did well.

    Trials are asked for in rounds, the next when all of the last have ended, so that they depend on results alone.
    """

    kind: Literal["tpe"] = "tpe"
    first_trials: PositiveInt = 8
    """Drawn at random, as the first round."""
    at_once: PositiveInt = 4
    """Trials of each later round."""


class HalvingSearch(SearchBase):
    """Successive halving (Jamieson & Talwalkar 2016): all trials train a little, the best go on from their checkpoints.

    The last rung trains `training.steps`, each one before it a `factor`-th of the next. A schedule runs over the steps
    of each rung.
    """

    kind: Literal["halving"] = "halving"
    factor: Annotated[int, Field(strict=True, ge=2, le=100)] = 3
    """One in so many goes on to the next rung."""
    rungs: Annotated[int, Field(strict=True, ge=2, le=10)] = 3

    def steps(self, most: int) -> tuple[int, ...]:
        """Steps of each rung; the last has `most`."""
        return tuple(math.ceil(most / self.factor ** (self.rungs - 1 - rung)) for rung in range(self.rungs))

    def survivors(self, trials: int) -> int:
        return max(1, trials // self.factor)


SearchSpec = Annotated[RandomSearch | TPESearch | HalvingSearch, Field(discriminator="kind")]


def problems_of_ranges(search: SearchSpec) -> Iterator[FieldProblem]:
    """Paths that lead nowhere, or that the search itself decides."""
    yield from problems_of_paths(tuple(search.ranges), "/search/ranges")
    if isinstance(search, HalvingSearch):
        for path in search.ranges:
            if path in (STEPS, "training"):
                message = f"can not be searched by halving, which decides {STEPS}: leave it out, or search otherwise"
                yield FieldProblem(f"/search/ranges{pointer((path,))}", "not_varied", message)


def drawn(search: SearchSpec, number: int) -> dict[str, Any]:
    """The values of trial `number`, from 1 on, drawn at random: from the search's seed and the number alone."""
    chance = random.Random(f"{search.seed}/{number}")
    return {path: value_at(search.ranges[path], chance.random()) for path in sorted(search.ranges)}


def value_at(given: RangeSpec, share: float) -> Any:
    """The value so far along the range, 0 ≤ share < 1."""
    if given.choices is not None:
        return given.choices[int(share * len(given.choices))]
    low, high = given.low or 0.0, given.high or 0.0
    if given.integer:
        top = high + 1.0
        value = math.exp(math.log(low) + share * math.log(top / low)) if given.log else low + share * (top - low)
        return min(int(value), int(high))
    if given.log:
        return min(math.exp(math.log(low) + share * math.log(high / low)), high) if high > low else low
    return low + share * (high - low)


def trial_name(number: int, values: dict[str, Any]) -> str:
    """For instance `#3 learning_rate=0.0123`; the number alone where that would be too long."""
    parts = (f"{path.split('.')[-1]}={value:.4g}" for path, value in values.items() if _is_number(value))
    words = (f"{path.split('.')[-1]}={value}" for path, value in values.items() if isinstance(value, str | bool))
    name = f"#{number} {', '.join((*parts, *words))}".strip()
    return name if VARIANT_NAME.fullmatch(name) else f"#{number}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
