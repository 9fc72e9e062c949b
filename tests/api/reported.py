"""Plans and members of comparisons, as reports are made of."""

from typing import Any

from api.reports.members import Member

STEPS = (10, 20, 30, 40)


def plan(*variants: str, **changes: Any) -> dict[str, Any]:
    names = variants or ("with", "without")
    return {
        "baseline": names[-1],
        "metric": "test/accuracy",
        "target": "baseline_best",
        "seeds": [0, 1, 2],
        "variants": [
            {
                "name": name,
                "changes": {"batch_norm": name == "with"},
                "learning_rate": 0.1,
                "group": "",
                "same_but_for_the_rate": name,
                "batch_size": 60,
                "chance": 0.1,
            }
            for name in names
        ],
    } | changes


def member(variant: str, seed: int, *values: float, outcome: Any = "succeeded", **more: Any) -> Member:
    fields = {"step": 40, "batch_size": 60, "evaluations": tuple(zip(STEPS, values, strict=False))}
    return Member(variant, seed, outcome, **(fields | more))
