"""Ensembles: versions of models that answer together, as one model."""

from typing import Annotated

from pydantic import Field, model_validator

from core.spec.base import LARGEST_VERSION, MetadataKey, MetadataValue, Name, PositiveInt, Sha256, Spec, StoredFile
from core.spec.optimization import ResourcesSpec

FEWEST_MEMBERS, MOST_MEMBERS = 2, 32


class EnsembleMember(Spec):
    """A job whose model version is meant, or a version of a model."""

    job_id: Annotated[str, Field(pattern=r"^job_[a-z0-9]{1,34}$")] | None = None
    model: Name | None = None
    version: Annotated[int, Field(strict=True, ge=1, le=LARGEST_VERSION)] | None = None
    """Of `model`; default: that of the alias."""
    alias: Name | None = None
    """Of `model`; default: `latest`, or else the newest version."""

    @model_validator(mode="after")
    def _names_one_version(self) -> "EnsembleMember":
        if (self.job_id is None) == (self.model is None):
            raise ValueError("needs either job_id or model: give one of them")
        if self.job_id is not None and (self.version is not None or self.alias is not None):
            raise ValueError("names a job, which made one version: leave version and alias out")
        if self.version is not None and self.alias is not None:
            raise ValueError(f"version {self.version} and alias {self.alias!r} both name a version: give one of them")
        return self


class EnsemblePublish(Spec):
    """The model that the ensemble becomes a version of."""

    model: Name
    alias: Name | None = "latest"
    """Moved to the new version in the same transaction; null: no alias moves."""


class EnsembleRequest(Spec):
    """Average the class probabilities, or the values, of several versions, and serve them as one model."""

    members: Annotated[tuple[EnsembleMember, ...], Field(min_length=FEWEST_MEMBERS, max_length=MOST_MEMBERS)]
    publish: EnsemblePublish
    resources: ResourcesSpec = ResourcesSpec()
    name: Name | None = None
    """Of the job; default: the model's name and `-ensemble`."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16, default_factory=dict)]
    priority: Annotated[int, Field(strict=True, ge=-100, le=100)] = 0


class MemberVersion(Spec):
    """A version as it was when the ensemble was asked for."""

    model: Name
    version: PositiveInt
    job_id: str
    weights_sha256: Sha256
    statistics_sha256: Sha256 | None
    onnx: StoredFile
    safetensors: StoredFile
    card: StoredFile


class EnsembleSpec(Spec):
    """The versions that a job averages. Written by the service into the spec, so that a job says all of itself."""

    members: tuple[MemberVersion, ...]
    not_compared: str | None
    """Why no test scores can be told; null: all members were trained on the same split of the same data."""
    request_sha256: Sha256
    """Of what was asked for, so that an idempotency key recognizes it when an alias has moved meanwhile."""
