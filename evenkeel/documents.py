"""What is sent, as JSON has it."""

from collections.abc import Mapping
from typing import Any

from core.spec import ComparisonSpec, JobSpec


def plain(spec: JobSpec | ComparisonSpec | Mapping[str, Any]) -> dict[str, Any]:
    return spec.model_dump(mode="json") if isinstance(spec, JobSpec | ComparisonSpec) else dict(spec)


def listed(rows: Any) -> Any:
    """Rows as lists: of an array with `tolist`, or of a sequence of such arrays, lists or objects by column name."""
    return rows.tolist() if hasattr(rows, "tolist") else [_listed_row(row) for row in rows]


def _listed_row(row: Any) -> Any:
    return row.tolist() if hasattr(row, "tolist") else row
