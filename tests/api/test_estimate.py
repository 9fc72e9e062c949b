"""How long a job will take, from what past ones took."""

from types import SimpleNamespace
from typing import Any

import pytest

from api import estimate as module
from api.estimate import STEP_OVERHEAD_SECONDS, estimate
from core.spec import JobSpec

STEPS = 100
HERE = 20e9
"""FLOPs a second that the test of this machine finds."""


@pytest.fixture(autouse=True)
def calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "calibrated_flop_rate", lambda: HERE)


def job(family: str = "mlp") -> JobSpec:
    return JobSpec.model_validate(
        {"dataset": {"source": "digits"}, "network": {"family": family}, "training": {"steps": STEPS}}
    )


def past(flops: float, rate: float, seconds: float = 10.0, family: str = "mlp") -> Any:
    """A job whose steps of so many FLOPs went at `rate` FLOPs a second beside their overhead."""
    result = {"steps_per_second": 1.0 / (flops / rate + STEP_OVERHEAD_SECONDS), "training_seconds": seconds}
    return SimpleNamespace(family=family, flops_per_step=flops, result=result)


def seconds_at(flops: float, rate: float) -> float:
    return round(STEPS * (flops / rate + STEP_OVERHEAD_SECONDS), 3)


def test_without_a_past_the_machine_is_tested() -> None:
    told = estimate(job(), 10**9, [])

    assert (told.basis, told.seconds) == ("calibrated", seconds_at(1e9, HERE))


def test_steps_of_a_like_size_tell_and_not_the_many_small_ones() -> None:
    history = [*(past(1e6, 1e9) for _ in range(20)), *(past(size * 1e9, 60e9) for size in (0.8, 0.9, 1, 1.1, 1.2))]

    told = estimate(job(), 10**9, history)

    assert (told.basis, told.seconds) == ("measured", seconds_at(1e9, 60e9))


def test_steps_far_larger_than_any_that_was_measured_are_not_as_slow_as_those() -> None:
    assert estimate(job(), 10**9, [past(1e6, 1e9)]).seconds == seconds_at(1e9, HERE)
    assert estimate(job(), 10**9, [past(1e8, 90e9)]).seconds == seconds_at(1e9, 90e9)
    assert estimate(job(), 10**6, [past(1e6, 1e9)]).seconds == seconds_at(1e6, 1e9)


def test_a_training_of_a_moment_tells_nothing_of_its_steps() -> None:
    assert estimate(job(), 10**6, [past(1e6, 1e8, seconds=0.1)]).basis == "calibrated"


def test_another_family_counts_only_where_the_same_has_no_past() -> None:
    conv, mlp = past(1e9, 40e9, family="convnet"), past(1e9, 60e9)

    assert estimate(job("convnet"), 10**9, [mlp, conv]).seconds == seconds_at(1e9, 40e9)
    assert estimate(job("convnet"), 10**9, [mlp]).seconds == seconds_at(1e9, 60e9)
