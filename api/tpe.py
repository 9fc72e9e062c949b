"""The next trials by Optuna's TPE, from those that have ended and from nothing else. Loaded only where it is asked for.

There is no study that lives on: one is filled with what the database has, asked, and thrown away. So nothing is lost
when the process ends, and the same results give the same trials.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from core.spec.search import RangeSpec, TPESearch

optuna.logging.set_verbosity(optuna.logging.WARNING)
Told = tuple[dict[str, Any], float | None]
"""The values of a trial, and what came of it; None where nothing did."""


def ask(search: TPESearch, told: Sequence[Told], count: int, higher: bool) -> list[dict[str, Any]]:
    """The values of `count` trials."""
    distributions = {path: _distribution(given) for path, given in sorted(search.ranges.items())}
    seed = int.from_bytes(hashlib.sha256(f"{search.seed}/{len(told)}".encode()).digest()[:4], "big")
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(search.first_trials, search.trials))
    study = optuna.create_study(direction="maximize" if higher else "minimize", sampler=sampler)
    for values, result in told:
        params = {path: _parameter(search.ranges[path], values[path]) for path in distributions}
        state = TrialState.FAIL if result is None else TrialState.COMPLETE
        study.add_trial(create_trial(params=params, distributions=distributions, value=result, state=state))
    asked = [study.ask(distributions) for _ in range(count)]
    return [{path: _value(search.ranges[path], trial.params[path]) for path in distributions} for trial in asked]


def _distribution(given: RangeSpec) -> BaseDistribution:
    if given.choices is not None:
        return CategoricalDistribution(tuple(range(len(given.choices))))
    low, high = given.low or 0.0, given.high or 0.0
    if given.integer:
        return IntDistribution(int(low), int(high), log=given.log)
    return FloatDistribution(low, high, log=given.log)


def _parameter(given: RangeSpec, value: Any) -> Any:
    """Choices go by their place: some are lists, which a sampler can not tell apart."""
    return value if given.choices is None else given.choices.index(value)


def _value(given: RangeSpec, parameter: Any) -> Any:
    return parameter if given.choices is None else given.choices[parameter]
