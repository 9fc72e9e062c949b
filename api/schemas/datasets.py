"""Data sets that were uploaded, as clients see them."""

from typing import Any, Literal

from pydantic import BaseModel

from core.clock import rfc3339
from core.spec.data import Kind, Task


class DatasetField(BaseModel):
    """A column as it was uploaded."""

    name: str
    categories: list[str] | None
    """Of a column of text; each has become an input of its own. Null: numbers."""


class DatasetVersion(BaseModel):
    object: Literal["dataset_version"] = "dataset_version"
    version: int
    sha256: str
    """Of what was uploaded."""
    bytes: int
    kind: Kind
    task: Task
    input_shape: list[int]
    """Of one row: (columns,) of a table, (T, F) of a sequence, (C, H, W) of an image."""
    rows: int
    """All rows, the test rows included."""
    test_rows: int | None
    """Of the official test set. Null: there is none, and a job splits the rows."""
    classes: int | None
    """Null: a regression."""
    labels: list[str] | None
    """By class number."""
    columns: list[str] | None
    """Of a table with a header: the inputs in their order, those of categories as `column=category`."""
    fields: list[DatasetField] | None
    """Of a table with a header: its columns as they were uploaded, without the target."""
    pixel_maximum: float | None
    options: dict[str, Any]
    """How it was to be read."""
    created_at: str


class Dataset(BaseModel):
    object: Literal["dataset"] = "dataset"
    id: str
    name: str
    newest: DatasetVersion
    versions: list[int]
    """All that are there, the newest first."""
    created_at: str


class DeletedDataset(BaseModel):
    object: Literal["dataset"] = "dataset"
    id: str
    name: str
    versions: list[int]
    deleted: Literal[True] = True


def dataset_of(row: Any, versions: list[Any]) -> Dataset:
    """`versions`: rows of all that are there, the newest first; at least one."""
    return Dataset(
        id=row.id,
        name=row.name,
        newest=version_of(versions[0]),
        versions=[version.version for version in versions],
        created_at=rfc3339(row.created_at) or "",
    )


def version_of(row: Any) -> DatasetVersion:
    facts, contents = row.facts, row.contents
    return DatasetVersion(
        version=row.version,
        sha256=row.sha256,
        bytes=row.bytes,
        kind=facts["kind"],
        task=facts["task"],
        input_shape=facts["input_shape"],
        rows=facts["rows"],
        test_rows=facts["test_rows"],
        classes=facts["outputs"] if facts["task"] == "classification" else None,
        labels=contents["labels"] or None,
        columns=contents["columns"] or None,
        fields=contents["fields"] or None,
        pixel_maximum=facts["pixel_maximum"],
        options=row.options,
        created_at=rfc3339(row.created_at) or "",
    )
