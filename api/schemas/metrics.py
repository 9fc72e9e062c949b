"""Metric series as clients see them."""

from typing import Literal

from pydantic import BaseModel


class Series(BaseModel):
    steps: list[int]
    values: list[float | None]
    """Null where the value is no number: `nonfinite` says which."""
    nonfinite: dict[str, Literal["nan", "inf", "-inf"]] | None = None
    """By step; absent when all values are numbers."""
    total_points: int
    """Before downsampling."""


class Metrics(BaseModel):
    object: Literal["metrics"] = "metrics"
    job_id: str
    series: dict[str, Series]
