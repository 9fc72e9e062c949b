"""From a body to a comparison with its members: every member's spec is admitted before anything is written."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from api.bodies import validated
from api.rounds import first_trials, is_over
from api.submission import admitted
from bn_models.architecture import Plan
from core.errors import FieldProblem, SpecInvalid
from core.settings import Settings
from core.spec import ComparisonSpec, JobSpec, TrainingSpec
from core.spec.base import canonical_json
from core.spec.comparison import member_body, place_of, seeds_of
from core.spec.problems import pointer
from core.spec.search import STEPS, HalvingSearch, problems_of_ranges, trial_name
from core.spec.variation import Variant, variants_of

BASE = "base"
RATE = "optimizer.learning_rate"
LEFT_TO_THE_COMPARISON = {
    "priority": "members have the `priority` of the comparison: set it there",
    "publish": "`publish` of the comparison says what members publish: set it there",
}


@dataclass(frozen=True)
class AdmittedVariant:
    """A variant with the spec and the plan of its first seed."""

    variant: Variant
    spec: JobSpec
    plan: Plan

    @property
    def has_batch_norm(self) -> bool:
        return self.spec.batch_norm is not None

    def member(self, comparison: ComparisonSpec, seed: int) -> JobSpec:
        """The spec of another seed: nothing else of it differs."""
        body = member_body(comparison, self.variant, seed)
        training = self.spec.training.model_copy(update={"seed": seed})
        return self.spec.model_copy(update={"training": training, "name": body["name"]})


@dataclass(frozen=True)
class Admitted:
    """A comparison that can be run, its defaults written out."""

    spec: ComparisonSpec
    variants: tuple[AdmittedVariant, ...]
    seeds: tuple[int, ...]
    baseline: str
    metric: str
    searching: bool = False
    """Rounds of a search are to come after these members."""

    @property
    def tried(self) -> int:
        """Variants, those of a search's later rounds included."""
        return len(self.variants) if self.spec.search is None else 1 + self.spec.search.trials

    def members(self) -> Iterator[tuple[AdmittedVariant, int, JobSpec]]:
        """Seed by seed, so that pairs are whole early."""
        for seed in self.seeds:
            for variant in self.variants:
                yield variant, seed, variant.member(self.spec, seed)

    def digest(self) -> str:
        """Of what is run and how it is read, whichever way it was written down."""
        asked = self.spec.model_dump(mode="json", exclude={"base", "vary", "seeds", "baseline", "metric"})
        runs = sorted([item.variant.name, item.spec.digest()] for item in self.variants)
        whole = [asked, runs, list(self.seeds), self.baseline, self.metric]
        return hashlib.sha256(canonical_json(whole)).hexdigest()

    def plan(self) -> dict[str, Any]:
        """What a report needs to know beside the recorded points."""
        return {
            "baseline": self.baseline,
            "metric": self.metric,
            "target": self.spec.target,
            "also": list(self.spec.also),
            "ensemble": self.spec.ensemble,
            "seeds": list(self.seeds),
            "variants": [
                plan_of(item) | ({"trial": place, "rung": 0} if self.spec.search else {})
                for place, item in enumerate(self.variants)
            ],
            "search": {"rung": 0, "refused": []} if self.spec.search else None,
        }


def admit_comparison(body: Any, settings: Settings) -> Admitted:
    """Raises SpecInvalid with every problem found; one of a member names its variant."""
    spec = validated(ComparisonSpec, body)
    for name, message in LEFT_TO_THE_COMPARISON.items():
        if spec.base.get(name) is not None:
            raise SpecInvalid((FieldProblem(f"/base/{name}", "left_to_the_comparison", message),))
    seeds = seeds_of(spec)
    most = settings.maximum_members
    variants = _variants(spec, most)
    tried = len(variants) if spec.search is None else 1 + spec.search.trials
    count = tried * len(seeds)
    if count > most:
        message = (
            f"{tried} variants with {len(seeds)} seeds are {count} jobs, and {most} are the most here: "
            "take fewer, or several comparisons (EVENKEEL_MAXIMUM_MEMBERS)"
        )
        raise SpecInvalid((FieldProblem("/seeds", "too_many_members", message),))
    found = _admit_variants(spec, variants, seeds[0], settings)
    metric = spec.metric or _usual_metric(found[0].spec, spec.search is not None)
    problems = [*_problems_of_metric(metric, found), *_problems_of_baseline(spec.baseline, found)]
    if problems:
        raise SpecInvalid(tuple(problems))
    baseline = spec.baseline or _usual_baseline(found)
    written_out = spec.model_copy(update={"baseline": baseline, "metric": metric})
    searching = spec.search is not None and not is_over(spec.search, len(found) - 1)
    return Admitted(written_out, found, seeds, baseline, metric, searching)


def admit_trial(spec: ComparisonSpec, variant: Variant, seed: int, settings: Settings) -> AdmittedVariant:
    """Raises SpecInvalid."""
    return AdmittedVariant(variant, *admitted(member_body(spec, variant, seed), settings))


def _variants(spec: ComparisonSpec, most: int) -> tuple[Variant, ...]:
    """Those that are listed; or the base and the first round of a search."""
    if (spec.vary is None) == (spec.search is None):
        message = "has vary and search: give one of them" if spec.search else "needs vary, or search: give one of them"
        raise SpecInvalid((FieldProblem("/vary", "vary_or_search", message),))
    if spec.search is None:
        return variants_of(spec.vary or {}, most)
    problems = tuple(problems_of_ranges(spec.search))
    if problems:
        raise SpecInvalid(problems)
    place = ("search", "ranges")
    base = Variant(BASE, {}, place)
    rung = {}
    if isinstance(spec.search, HalvingSearch):
        training = spec.base.get("training")
        steps = training.get("steps") if isinstance(training, dict) else None
        rungs = spec.search.steps(_whole_steps(steps))
        if len(set(rungs)) < len(rungs):
            message = (
                f"is {spec.search.rungs}, which for {rungs[-1]} steps gives rungs of {', '.join(map(str, rungs))}: "
                "take fewer, or raise base.training.steps"
            )
            raise SpecInvalid((FieldProblem("/search/rungs", "rungs_without_steps", message),))
        rung = {STEPS: rungs[0]}
    drawn = enumerate(first_trials(spec.search), 1)
    return (base, *(Variant(trial_name(number, values), values | rung, place) for number, values in drawn))


def _whole_steps(given: Any) -> int:
    """What the base trains; what is no number of steps is refused when the base is admitted."""
    return given if isinstance(given, int) and not isinstance(given, bool) and given > 0 else TrainingSpec().steps


def _admit_variants(
    spec: ComparisonSpec, variants: tuple[Variant, ...], seed: int, settings: Settings
) -> tuple[AdmittedVariant, ...]:
    found: list[AdmittedVariant] = []
    refused: dict[FieldProblem, list[str]] = {}
    for variant in variants:
        try:
            body = member_body(spec, variant, seed)
        except SpecInvalid as error:
            _remember(refused, error.problems, variant)
            continue
        try:
            found.append(AdmittedVariant(variant, *admitted(body, settings)))
        except SpecInvalid as error:
            placed = tuple(replace(problem, pointer=place_of(problem, variant)) for problem in error.problems)
            _remember(refused, placed, variant)
    if refused:
        raise SpecInvalid(tuple(_told(problem, names, len(variants)) for problem, names in refused.items()))
    return tuple(found)


def _remember(refused: dict[FieldProblem, list[str]], problems: tuple[FieldProblem, ...], variant: Variant) -> None:
    for problem in problems:
        refused.setdefault(problem, []).append(variant.name)


def _told(problem: FieldProblem, names: list[str], variants: int) -> FieldProblem:
    """A problem of every variant is the base's; any other says whose it is."""
    if len(names) == variants and problem.pointer.startswith("/base"):
        return problem
    shown = ", ".join(f'"{name}"' for name in names[:3])
    others = f" and {len(names) - 3} others" if len(names) > 3 else ""
    return replace(problem, message=f"variant {shown}{others}: {problem.message}")


def _usual_metric(spec: JobSpec, searched: bool) -> str:
    split = "validation" if searched and spec.dataset.split_sizes()[1] else "test"
    return f"{split}/accuracy" if spec.dataset.facts.task == "classification" else f"{split}/rmse"


def _usual_baseline(found: tuple[AdmittedVariant, ...]) -> str:
    if found[0].variant.name == BASE and found[0].variant.place[0] == "search":
        return BASE
    without = [item.variant.name for item in found if not item.has_batch_norm]
    return without[0] if without and len(without) < len(found) else found[0].variant.name


def _problems_of_metric(metric: str, found: tuple[AdmittedVariant, ...]) -> Iterator[FieldProblem]:
    split, score = metric.split("/")
    for item in found:
        name, dataset = item.variant.name, item.spec.dataset
        scores = ("loss", "accuracy") if dataset.facts.task == "classification" else ("loss", "rmse", "r2")
        if score not in scores:
            message = f'variant "{name}" is a {dataset.facts.task}, whose metrics are {", ".join(scores)}: take one'
            yield FieldProblem("/metric", "other_task", message)
        if split == "validation" and dataset.split_sizes()[1] == 0:
            message = f'variant "{name}" holds no rows out: set dataset.validation_fraction, or take test/{score}'
            yield FieldProblem("/metric", "no_validation", message)


def _problems_of_baseline(name: str | None, found: tuple[AdmittedVariant, ...]) -> Iterator[FieldProblem]:
    names = [item.variant.name for item in found]
    if name is not None and name not in names:
        shown = "; ".join(names[:10])
        message = f"is {name!r:.80}, and there is no such variant: take one of {shown}"
        yield FieldProblem(pointer(("baseline",)), "unknown_variant", message)


def plan_of(item: AdmittedVariant) -> dict[str, Any]:
    spec, facts = item.spec, item.spec.dataset.facts
    others = {path: value for path, value in item.variant.changes.items() if path != RATE}
    return {
        "name": item.variant.name,
        "changes": item.variant.changes,
        "batch_norm": item.has_batch_norm,
        "learning_rate": spec.optimizer.learning_rate,
        "group": ", ".join(f"{path}={canonical_json(value).decode()}" for path, value in others.items()),
        "same_but_for_the_rate": _digest_but_for_the_rate(spec),
        "batch_size": spec.training.batch_size,
        "steps": spec.training.steps,
        "chance": 1.0 / facts.outputs if facts.task == "classification" else None,
        "parameters": item.plan.parameters,
    }


def _digest_but_for_the_rate(spec: JobSpec) -> str:
    """Equal for variants that differ in their learning rate alone, however they were written down."""
    plain = spec.model_dump(mode="json", exclude={"name", "publish"})
    plain["optimizer"] = {name: value for name, value in plain["optimizer"].items() if name != "learning_rate"}
    return hashlib.sha256(canonical_json(plain)).hexdigest()
