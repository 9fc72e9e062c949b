"""Rows and predictions, for the interface's own description: the route itself looks at numbers, not at fields."""

from typing import Any

from pydantic import BaseModel


class Rows(BaseModel):
    rows: list[Any]
    """Each row flat, nested to the input's shape, or an object by column name; in the data's own units."""


class Predictions(BaseModel):
    model: str
    version: int
    statistics_sha256: str | None
    """Digest of the population statistics that the answer comes from; null without batch norm."""
    predictions: list[dict[str, Any]]
    """Per row `{"label", "probabilities"}`, or `{"value"}` in the target's units."""
