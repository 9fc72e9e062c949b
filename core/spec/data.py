"""Data sources and data sets that users bring, their splits and the scaling of their inputs."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator
from pydantic.json_schema import SkipJsonSchema

from core.spec.base import LARGEST_VERSION, Fraction, Name, PositiveInt, Sha256, Spec, StoredFile

Source = Literal["digits", "iris", "wine", "breast_cancer", "diabetes", "mnist", "fashion_mnist", "uploaded"]
Scaling = Literal["none", "unit", "standardize"]
Task = Literal["classification", "regression"]
Kind = Literal["image", "table", "sequence"]
OF_UPLOADS = ("name", "version", "stored")
"""Fields of `DatasetSpec` that only a data set that was uploaded has."""


@dataclass(frozen=True)
class SourceFacts:
    """What admission must know of a source before any data is read."""

    task: Task
    kind: Kind
    input_shape: tuple[int, ...]  # (C, H, W) of an image, (columns,) of a table, (T, F) of a sequence
    outputs: int
    rows: int  # all rows, the test rows of an official split included
    test_rows: int | None  # of the official split; None: split by fraction
    pixel_maximum: float | None = None  # of images that have no value below 0


SOURCES: dict[str, SourceFacts] = {
    "digits": SourceFacts("classification", "image", (1, 8, 8), 10, 1797, None, 16),
    "iris": SourceFacts("classification", "table", (4,), 3, 150, None),
    "wine": SourceFacts("classification", "table", (13,), 3, 178, None),
    "breast_cancer": SourceFacts("classification", "table", (30,), 2, 569, None),
    "diabetes": SourceFacts("regression", "table", (10,), 1, 442, None),
    "mnist": SourceFacts("classification", "image", (1, 28, 28), 10, 70_000, 10_000, 255),
    "fashion_mnist": SourceFacts("classification", "image", (1, 28, 28), 10, 70_000, 10_000, 255),
}


class StoredDataset(Spec):
    """One version of an uploaded data set. Written by the service into the spec, so that a job says all of itself."""

    sha256: Sha256
    """Of what was uploaded."""
    file: StoredFile
    """Its arrays in the artifact store."""
    task: Task
    kind: Kind
    input_shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=3)]
    outputs: PositiveInt
    rows: PositiveInt
    test_rows: PositiveInt | None
    pixel_maximum: Annotated[int | float, Field(gt=0)] | None

    @property
    def facts(self) -> SourceFacts:
        return SourceFacts(
            self.task, self.kind, self.input_shape, self.outputs, self.rows, self.test_rows, self.pixel_maximum
        )


class DatasetSpec(Spec):
    """Which data, how it is split, and how its inputs are scaled."""

    source: Source
    """`uploaded`: a data set of yours, by its `name`, see `POST /v1/datasets`."""
    name: Name | None = None
    """Of an uploaded data set."""
    version: Annotated[int, Field(strict=True, ge=1, le=LARGEST_VERSION)] | None = None
    """Of an uploaded data set; default: the newest one when the job is submitted."""
    stored: SkipJsonSchema[StoredDataset | None] = None
    """Written by the service, of the version of the data set."""
    scaling: Scaling = "unit"
    """`unit`: pixels divided by the source's largest pixel value, each column of a table or feature of a
    sequence by its largest absolute value in the training rows; `standardize`: minus the training mean,
    divided by the training standard deviation (by column or feature; for images over all pixels, after the
    division); `none`: as in the file. Default: `unit` for images without negative values, else `standardize`."""
    validation_fraction: Fraction = 0.0
    """Share of the training rows held out for validation. Default: 0.1 for data without an official split,
    0 for data with one (mnist, fashion_mnist, uploads with x_test), whose training set is used whole."""
    test_fraction: Annotated[float, Field(strict=True, gt=0.0, lt=1.0)] | None = None
    """Share of all rows held out for the test; null where the source has an official test set.
    Default: 0.2 elsewhere."""
    split_seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Which rows fall into which split; apart from `training.seed`, so that seeds share a split."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_known(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A source of ours has no name and version; of an upload that was not looked up, no default is known."""
        fields = write(self)
        if self.source != "uploaded":
            return {name: value for name, value in fields.items() if name not in OF_UPLOADS}
        if self.stored is None:
            return {name: value for name, value in fields.items() if name in self.model_fields_set}
        return dict(fields)

    @model_validator(mode="before")
    @classmethod
    def _write_out_defaults_of_the_source(cls, value: Any) -> Any:
        facts = _facts_of(value) if isinstance(value, dict) else None
        if facts is None:
            return value
        official = facts.test_rows is not None
        return {
            "scaling": "unit" if facts.kind == "image" and facts.pixel_maximum else "standardize",
            "validation_fraction": 0.0 if official else 0.1,
            "test_fraction": None if official else 0.2,
        } | value

    @model_validator(mode="after")
    def _fits_the_source(self) -> "DatasetSpec":
        if self.source != "uploaded":
            given = [name for name in OF_UPLOADS if getattr(self, name) is not None]
            if given:
                raise ValueError(
                    f"{given[0]} is of data sets that were uploaded: leave it out, or set source to 'uploaded'"
                )
        elif self.name is None:
            raise ValueError("source 'uploaded' needs the name of a data set: give name, see GET /v1/datasets")
        elif self.stored is None:
            return self  # the service knows the rest, and says it when it has looked
        self._fits_the_facts(self.facts)
        return self

    def _fits_the_facts(self, facts: SourceFacts) -> None:
        if facts.kind == "image" and self.scaling == "unit" and not facts.pixel_maximum:
            raise ValueError(
                f"scaling 'unit' divides pixels from 0 on, and {self.title} has others: use 'standardize' or 'none'"
            )
        if facts.test_rows is not None and self.test_fraction is not None:
            raise ValueError(f"{self.title} has an official test set: leave test_fraction out")
        if facts.test_rows is None and self.test_fraction is None:
            raise ValueError(f"{self.title} has no official test set: give test_fraction, for instance 0.2")

    @property
    def title(self) -> str:
        """What people call it: the name of an upload, else the source."""
        return self.name or self.source

    @property
    def facts(self) -> SourceFacts:
        """Raises LookupError for an upload of which the service has not yet written what it knows."""
        if self.source != "uploaded":
            return SOURCES[self.source]
        if self.stored is None:
            raise LookupError(f"nothing is known yet of the data set {self.name}")
        return self.stored.facts

    def split_sizes(self) -> tuple[int, int, int]:
        """Rows for (training, validation, test); each held-out share is rounded down, but at least one test row."""
        facts = self.facts
        test = facts.test_rows if facts.test_rows is not None else max(1, int(facts.rows * (self.test_fraction or 0.0)))
        validation = int((facts.rows - test) * self.validation_fraction)
        return facts.rows - test - validation, validation, test


def _facts_of(value: dict[str, Any]) -> SourceFacts | None:
    """Of a body that has not been validated; None where it says too little, or what it says can not be."""
    source, stored = value.get("source"), value.get("stored")
    if source != "uploaded":
        return SOURCES.get(source) if isinstance(source, str) else None
    try:
        return None if stored is None else StoredDataset.model_validate(stored).facts
    except ValidationError:
        return None
