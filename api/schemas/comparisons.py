"""Comparisons as clients see them."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from core.clock import rfc3339
from core.queries.comparisons import DIVERGED
from core.states import TERMINAL

ComparisonStatus = Literal["queued", "running", "cancelling", "succeeded", "cancelled"]


class MemberCounts(BaseModel):
    total: int
    queued: int = 0
    running: int = 0
    paused: int = 0
    succeeded: int = 0
    diverged: int = 0
    """Ended by a loss or statistics that are no numbers: a result of the comparison, not a fault."""
    failed: int = 0
    """Ended otherwise; `retry` of such a job runs the member again."""
    cancelled: int = 0


class VariantOfComparison(BaseModel):
    name: str
    changes: dict[str, Any]
    """Values by dotted path into the job spec."""
    parameters: int
    members: MemberCounts


class ComparisonProgress(BaseModel):
    step: int
    """Of all members together; one that has ended counts as done."""
    steps: int
    fraction: float


class Comparison(BaseModel):
    object: Literal["comparison"] = "comparison"
    id: str
    name: str
    status: ComparisonStatus
    """`succeeded` when every member has ended, however it ended: `members` says how; and no round of a search is to
    come."""
    terminal: bool
    metric: str
    baseline: str
    seeds: list[int]
    variants: list[VariantOfComparison]
    members: MemberCounts
    progress: ComparisonProgress
    spec: dict[str, Any]
    metadata: dict[str, str]
    created_at: str
    started_at: str | None
    finished_at: str | None


class PlannedVariant(BaseModel):
    name: str
    changes: dict[str, Any]
    spec: dict[str, Any]
    """Of the first seed, with its defaults."""
    parameters: int
    flops_per_step: int
    estimated_seconds: float
    """Of one member."""
    warnings: list[str]


class ComparisonValidation(BaseModel):
    object: Literal["comparison_validation"] = "comparison_validation"
    valid: Literal[True] = True
    name: str
    spec_sha256: str
    metric: str
    baseline: str
    seeds: list[int]
    members: int
    estimated_seconds: float
    """Of all members, one after the other."""
    variants: list[PlannedVariant]


def comparison_of(row: Any, members: Sequence[Any]) -> Comparison:
    """`members`: the newest job of each, as `queries.comparisons.states` gives them."""
    status = _status(row, members)
    terminal = status in ("succeeded", "cancelled")
    started = [member.started_at for member in members if member.started_at is not None]
    finished = [member.finished_at for member in members if member.finished_at is not None]
    return Comparison(
        id=row.id,
        name=row.name,
        status=status,
        terminal=terminal,
        metric=row.plan["metric"],
        baseline=row.plan["baseline"],
        seeds=row.plan["seeds"],
        variants=[
            VariantOfComparison(
                name=variant["name"],
                changes=variant["changes"],
                parameters=variant["parameters"],
                members=_counts([member for member in members if member.variant == variant["name"]]),
            )
            for variant in row.plan["variants"]
        ],
        members=_counts(members),
        progress=_progress(members),
        spec=row.spec,
        metadata=row.metadata,
        created_at=rfc3339(row.created_at) or "",
        started_at=rfc3339(min(started, default=None)),
        finished_at=rfc3339(max(finished, default=None)) if terminal else None,
    )


def outcome_of(state: str, error: dict[str, Any] | None) -> str:
    """A job's state, but for one: `diverged`."""
    return "diverged" if state == "failed" and error and error.get("code") in DIVERGED else state


def _status(row: Any, members: Sequence[Any]) -> ComparisonStatus:
    still = [member for member in members if member.state not in TERMINAL]
    if not still:
        if row.cancel_requested_at is not None:
            return "cancelled"
        return "running" if row.searching else "succeeded"
    if all(member.cancel_requested_at is not None for member in still):
        return "cancelling"
    begun = any(member.started_at is not None or member.state in TERMINAL for member in members)
    return "running" if begun else "queued"


def _counts(members: Sequence[Any]) -> MemberCounts:
    outcomes = [outcome_of(member.state, member.error) for member in members]
    return MemberCounts(total=len(members), **{name: outcomes.count(name) for name in set(outcomes)})


def _progress(members: Sequence[Any]) -> ComparisonProgress:
    steps = sum(member.steps for member in members)
    done = sum(member.steps if member.state in TERMINAL else member.step for member in members)
    return ComparisonProgress(step=done, steps=steps, fraction=round(done / steps, 6) if steps else 1.0)
