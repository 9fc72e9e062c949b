"""What a search draws, and how its trials and rungs come about."""

import math
from statistics import fmean
from typing import Any

import pytest

from core.spec.search import HalvingSearch, RandomSearch, RangeSpec, drawn, trial_name, value_at

SHARES = [place / 10_000 for place in range(10_000)]


def values(**given: Any) -> list[Any]:
    return [value_at(RangeSpec.model_validate(given), share) for share in SHARES]


def test_a_number_is_drawn_evenly_between_its_bounds() -> None:
    found = values(low=-2.0, high=6.0)

    assert (found[0], fmean(found)) == (-2.0, pytest.approx(2.0, abs=0.01))
    assert max(found) < 6.0


def test_over_the_logarithm_every_decade_is_as_likely() -> None:
    found = values(low=0.001, high=10.0, log=True)

    assert fmean(math.log10(value) for value in found) == pytest.approx(-1.0, abs=0.01)
    assert found[0] == pytest.approx(0.001)
    assert max(found) <= 10.0


def test_whole_numbers_are_drawn_with_both_bounds_each_as_likely() -> None:
    found = values(low=3, high=6, integer=True)

    assert {value: found.count(value) for value in set(found)} == {3: 2500, 4: 2500, 5: 2500, 6: 2500}
    logarithmic = values(low=1, high=256, integer=True, log=True)
    assert (min(logarithmic), max(logarithmic)) == (1, 256)
    assert all(type(value) is int for value in found + logarithmic)


def test_a_range_of_one_value_gives_it() -> None:
    assert set(values(low=0.5, high=0.5, log=True)) == {0.5}
    assert set(values(low=4, high=4, integer=True)) == {4}


def test_choices_are_drawn_alike() -> None:
    found = values(choices=[[1], "two", None])

    assert [found.count(choice) for choice in ([1], "two", None)] == pytest.approx([3333, 3333, 3333], abs=1)


def test_a_trial_is_drawn_from_seed_and_number_whatever_other_trials_there_are() -> None:
    few = RandomSearch.model_validate({"ranges": {"a": {"low": 0, "high": 1}, "b": {"low": 0, "high": 1}}, "trials": 2})
    many = few.model_copy(update={"trials": 50})

    assert drawn(few, 2) == drawn(many, 2)
    assert drawn(few, 1) != drawn(few, 2)
    assert drawn(few.model_copy(update={"seed": 1}), 1) != drawn(few, 1)


@pytest.mark.parametrize(
    ("most", "factor", "rungs", "steps"),
    [(2700, 3, 3, (300, 900, 2700)), (100, 2, 3, (25, 50, 100)), (10, 3, 3, (2, 4, 10)), (1, 3, 2, (1, 1))],
)
def test_each_rung_trains_a_share_of_the_next_and_the_last_all_steps(
    most: int, factor: int, rungs: int, steps: tuple[int, ...]
) -> None:
    search = HalvingSearch.model_validate({"ranges": {"a": {"low": 0, "high": 1}}, "factor": factor, "rungs": rungs})

    assert search.steps(most) == steps
    assert [search.survivors(count) for count in (27, 9, 2)] == [27 // factor, 9 // factor, max(1, 2 // factor)]


def test_a_trial_is_named_after_its_number_and_its_values() -> None:
    assert trial_name(3, {"optimizer.learning_rate": 0.012346, "training.tail": "drop"}) == (
        "#3 learning_rate=0.01235, tail=drop"
    )
    assert trial_name(4, {"network.hidden": [1, 2]}) == "#4"
    assert trial_name(5, {f"a.{'long' * 5}{place}": 1.0 for place in range(9)}) == "#5"
