"""What the seeds of a variant answer together: their probabilities, or values, averaged on the same test rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.reports.members import Answers, Member
from api.reports.statistics import Estimate, estimate

MOST_SUBSETS = 20
"""Of one size; where there are more, the first in lexical order of the places of the seeds."""
EVERY_SIZE = 8
"""Up to so many members each size is shown, then powers of two, and all."""
Correct = NDArray[np.float64]


@dataclass(frozen=True)
class SizeOfEnsemble:
    """All ensembles of so many of the seeds, at most 20. They share members, so that they have no interval."""

    members: int
    ensembles: int
    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Ensemble:
    variant: str
    score: str
    """`accuracy`, or `rmse` in the target's units; of the test split, under the statistics of inference."""
    seeds: list[int]
    rows: int
    single: Estimate
    """Of one seed, over seeds."""
    together: float
    """Of all seeds' answers averaged."""
    gain: Estimate
    """`together` minus the mean of one, `n` being test rows: the interval is over rows, for these very members, and
    null for an rmse, which is no mean over rows."""
    sizes: list[SizeOfEnsemble]


def ensembles_of(plan: Mapping[str, Any], members: Mapping[str, Sequence[Member]]) -> list[Ensemble]:
    """One for each variant of whose seeds two or more ended well. `members`: by variant, in the order of the seeds."""
    if not plan.get("ensemble"):
        return []
    found = []
    for name, here in members.items():
        told = [(item.seed, item.answers) for item in here if item.answers is not None]
        if len(told) > 1:
            found.append(_ensemble(name, [seed for seed, _ in told], [answers for _, answers in told]))
    return found


def _ensemble(variant: str, seeds: list[int], answers: Sequence[Answers]) -> Ensemble:
    targets = answers[0].targets
    whole = np.stack([one.answers.astype(np.float64) for one in answers])
    classes = targets.dtype.kind == "i"
    singles = [_score(one, targets, classes) for one in whole]
    together = whole.mean(axis=0)
    sizes = [_of_size(whole, targets, classes, size) for size in sizes_of(len(seeds))]
    single = estimate(singles)
    return Ensemble(
        variant=variant,
        score="accuracy" if classes else "rmse",
        seeds=seeds,
        rows=len(targets),
        single=single,
        together=_score(together, targets, classes),
        gain=_gain(whole, together, targets) if classes else _plain_gain(together, targets, single),
        sizes=sizes,
    )


def sizes_of(count: int) -> list[int]:
    small = range(1, min(count, EVERY_SIZE) + 1)
    doubled = [2**power for power in range(count.bit_length()) if EVERY_SIZE < 2**power < count]
    return [*small, *doubled, *([count] if count > EVERY_SIZE else [])]


def _of_size(whole: NDArray[np.float64], targets: NDArray[Any], classes: bool, size: int) -> SizeOfEnsemble:
    subsets = [chosen for chosen, _ in zip(combinations(range(len(whole)), size), range(MOST_SUBSETS), strict=False)]
    scores = [_score(whole[list(chosen)].mean(axis=0), targets, classes) for chosen in subsets]
    return SizeOfEnsemble(size, len(scores), math.fsum(scores) / len(scores), min(scores), max(scores))


def _score(answers: NDArray[np.float64], targets: NDArray[Any], classes: bool) -> float:
    if classes:
        return float(_correct(answers, targets).mean())
    return float(np.sqrt(np.square(answers.reshape(-1) - targets).mean()))


def _gain(whole: NDArray[np.float64], together: NDArray[np.float64], targets: NDArray[Any]) -> Estimate:
    """Row by row: is the ensemble right, less the share of its members that are."""
    alone = np.mean([_correct(one, targets) for one in whole], axis=0)
    return estimate((_correct(together, targets) - alone).tolist())


def _plain_gain(together: NDArray[np.float64], targets: NDArray[Any], single: Estimate) -> Estimate:
    return Estimate(len(targets), _score(together, targets, False) - (single.mean or 0.0), None, None)


def _correct(answers: NDArray[np.float64], targets: NDArray[Any]) -> Correct:
    right: Correct = (answers.argmax(axis=1) == targets).astype(np.float64)
    return right
