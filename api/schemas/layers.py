"""Reports on the normalization layers of a job."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Summary = dict[str, float | None]
"""min, p5, p25, p50, p75, p95, max and mean over the channels; null where a figure is not finite."""


class Channels(BaseModel):
    count: int
    channels: list[int]
    """The first sixteen of them."""


class LayerReport(BaseModel):
    """A layer that normalizes by moments over samples."""

    model_config = ConfigDict(extra="allow")
    object: Literal["layer_report"] = "layer_report"
    name: str
    kind: Literal["batch_norm", "whitening"]
    channels: int
    statistics: str
    """Whose mean and variance these are: `running_average`, or at the end the estimator of the population."""
    n: int | None
    """Values a channel behind them."""
    frozen: bool
    updates: int
    """Of the running average."""
    expected_updates: int | None
    """One a step, or one a ghost batch. Null for a recalibration, whose steps were another job's."""
    gamma: Summary | None
    beta: Summary | None
    mean: Summary
    variance: Summary
    gain: Summary
    """gamma / sqrt(variance + eps): by how much a small change of the input is multiplied."""
    dead: Channels
    exploding: Channels
    running_average_distance: Summary | None
    """At the end, root mean squares over the channels: of the running mean's distance from the population mean
    in deviations, and of the logarithm of the variances' ratio."""


class LayerReports(BaseModel):
    object: Literal["list"] = "list"
    job_id: str
    step: int | None
    """The evaluation that this report is of; null: there is none yet."""
    final: bool
    """By the statistics that are published."""
    steps: list[int]
    """Those that have a report: the newest twenty evaluations."""
    data: list[LayerReport]
    """In order of computation."""
    reason: str | None
    """Why there is nothing."""
    created_at: str | None


def reports_of(job_id: str, row: Any, steps: list[int], reason: str | None, created_at: str | None) -> LayerReports:
    return LayerReports(
        job_id=job_id,
        step=row.step if row else None,
        final=bool(row and row.final),
        steps=steps,
        data=[LayerReport.model_validate(layer) for layer in row.layers] if row else [],
        reason=reason,
        created_at=created_at,
    )
