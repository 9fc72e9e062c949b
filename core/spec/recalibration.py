"""Recalibration: new population statistics for the weights of a published version."""

from typing import Annotated

from pydantic import Field, model_validator

from core.spec.base import LARGEST_VERSION, MetadataKey, MetadataValue, Name, PositiveInt, Sha256, Spec, StoredFile
from core.spec.data import DatasetSpec
from core.spec.normalization import PopulationSpec
from core.spec.optimization import ResourcesSpec


class RecalibrationPublish(Spec):
    """Where the new version, which is always one of the same model, is to be found."""

    alias: Name | None = None
    """Moved to the new version in the same transaction. Null: no alias moves, so that what is served
    stays as it is until the figures before and after have been looked at."""


class RecalibrationRequest(Spec):
    """Measure population statistics anew, on other data and for the same weights; all but `dataset` may be left out."""

    version: Annotated[int, Field(strict=True, ge=1, le=LARGEST_VERSION)] | None = None
    """The version whose weights are taken; default: that of the alias."""
    alias: Name | None = None
    """Default: `latest`, or else the newest version."""
    dataset: DatasetSpec
    """Inputs of the shape that the model takes. They are scaled as the model has it, never by the new data."""
    population: PopulationSpec = PopulationSpec()
    resources: ResourcesSpec = ResourcesSpec()
    publish: RecalibrationPublish = RecalibrationPublish()
    name: Name | None = None
    """Of the job; default: the model's name and `-recalibration`."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16, default_factory=dict)]
    priority: Annotated[int, Field(strict=True, ge=-100, le=100)] = 0

    @model_validator(mode="after")
    def _one_way_to_name_a_version(self) -> "RecalibrationRequest":
        if self.version is not None and self.alias is not None:
            raise ValueError(f"version {self.version} and alias {self.alias!r} both name a version: give one of them")
        return self


class RecalibrationSpec(Spec):
    """The version that a job recalibrates. Written by the service into the spec, so that a job says all of itself."""

    model: Name
    version: PositiveInt
    job_id: str
    """The job that made the base version."""
    outputs: PositiveInt
    """Of the network: what the new data are labelled with does not change it."""
    weights_sha256: Sha256
    """Of the parameters: the new version has the same."""
    statistics_sha256: Sha256
    safetensors: StoredFile
    """Weights and population statistics of the base version."""
    card: StoredFile
    """Scaling, labels and shapes, which the new version takes over."""
    request_sha256: Sha256
    """Of what was asked for, so that an idempotency key recognizes it when an alias has moved meanwhile."""
