"""Data sources, their splits and the scaling of their inputs."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from core.spec.base import Fraction, Spec

Source = Literal["digits", "iris", "wine", "breast_cancer", "diabetes", "mnist", "fashion_mnist"]
Scaling = Literal["none", "unit", "standardize"]


@dataclass(frozen=True)
class SourceFacts:
    """What admission must know of a source before any data is read."""

    task: Literal["classification", "regression"]
    kind: Literal["image", "table"]
    input_shape: tuple[int, ...]  # (C, H, W) of an image, (columns,) of a table
    outputs: int
    rows: int  # all rows, the test rows of an official split included
    test_rows: int | None  # of the official split; None: split by fraction
    pixel_maximum: int | None = None


SOURCES: dict[str, SourceFacts] = {
    "digits": SourceFacts("classification", "image", (1, 8, 8), 10, 1797, None, 16),
    "iris": SourceFacts("classification", "table", (4,), 3, 150, None),
    "wine": SourceFacts("classification", "table", (13,), 3, 178, None),
    "breast_cancer": SourceFacts("classification", "table", (30,), 2, 569, None),
    "diabetes": SourceFacts("regression", "table", (10,), 1, 442, None),
    "mnist": SourceFacts("classification", "image", (1, 28, 28), 10, 70_000, 10_000, 255),
    "fashion_mnist": SourceFacts("classification", "image", (1, 28, 28), 10, 70_000, 10_000, 255),
}


class DatasetSpec(Spec):
    """Which data, how it is split, and how its inputs are scaled."""

    source: Source
    scaling: Scaling = "unit"
    """`unit`: pixels divided by the source's largest pixel value; `standardize`: minus the training
    mean, divided by the training standard deviation (per column; for images over all pixels, after
    the division); `none`: as in the file. Default: `unit` for images, `standardize` for tables."""
    validation_fraction: Fraction = 0.0
    """Share of the training rows held out for validation. Default: 0.1 for sources without an
    official split, 0 for mnist and fashion_mnist, whose training set is used whole."""
    test_fraction: Annotated[float, Field(strict=True, gt=0.0, lt=1.0)] | None = None
    """Share of all rows held out for the test; null where the source has an official test set.
    Default: 0.2 elsewhere."""
    split_seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Which rows fall into which split; apart from `training.seed`, so that seeds share a split."""

    @model_validator(mode="before")
    @classmethod
    def _write_out_defaults_of_the_source(cls, value: Any) -> Any:
        facts = (
            SOURCES.get(value["source"]) if isinstance(value, dict) and isinstance(value.get("source"), str) else None
        )
        if facts is None:
            return value
        official = facts.test_rows is not None
        return {
            "scaling": "unit" if facts.kind == "image" else "standardize",
            "validation_fraction": 0.0 if official else 0.1,
            "test_fraction": None if official else 0.2,
        } | value

    @model_validator(mode="after")
    def _fits_the_source(self) -> "DatasetSpec":
        if self.facts.kind == "table" and self.scaling == "unit":
            raise ValueError(
                f"scaling 'unit' divides pixels, and {self.source} is a table: use 'standardize' or 'none'"
            )
        if self.facts.test_rows is not None and self.test_fraction is not None:
            raise ValueError(f"{self.source} has an official test set: leave test_fraction out")
        if self.facts.test_rows is None and self.test_fraction is None:
            raise ValueError(f"{self.source} has no official test set: give test_fraction, for instance 0.2")
        return self

    @property
    def facts(self) -> SourceFacts:
        return SOURCES[self.source]

    def split_sizes(self) -> tuple[int, int, int]:
        """Rows for (training, validation, test); each held-out share is rounded down, but at least one test row."""
        facts = self.facts
        test = facts.test_rows if facts.test_rows is not None else max(1, int(facts.rows * (self.test_fraction or 0.0)))
        validation = int((facts.rows - test) * self.validation_fraction)
        return facts.rows - test - validation, validation, test
