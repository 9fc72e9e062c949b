"""Models, their versions and aliases as clients see them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.clock import rfc3339

LARGEST_VERSION = 2**31 - 1


class Model(BaseModel):
    object: Literal["model"] = "model"
    id: str
    name: str
    created_at: str
    latest_version: int
    aliases: dict[str, int]


class StoredFile(BaseModel):
    sha256: str
    bytes: int


class ModelVersion(BaseModel):
    object: Literal["model_version"] = "model_version"
    model: str
    version: int
    job_id: str
    weights_sha256: str
    statistics_sha256: str | None
    """Null: the network has no batch norm."""
    card: dict[str, Any]
    artifacts: dict[str, StoredFile]
    aliases: list[str]
    created_at: str


class Alias(BaseModel):
    object: Literal["alias"] = "alias"
    model: str
    name: str
    version: int
    updated_at: str


class AliasRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    version: Annotated[int, Field(ge=1, le=LARGEST_VERSION)]


class Removed(BaseModel):
    object: Literal["alias"] = "alias"
    model: str
    name: str
    deleted: Literal[True] = True


class Population(BaseModel):
    """Population statistics that stand in the frozen network, layer by layer."""

    object: Literal["population"] = "population"
    model: str
    version: int
    statistics_sha256: str | None
    population: dict[str, Any] | None
    """Null: the network has no batch norm."""


def model_of(row: Any, latest_version: int, aliases: dict[str, int]) -> Model:
    return Model(
        id=row.id,
        name=row.name,
        created_at=rfc3339(row.created_at) or "",
        latest_version=latest_version,
        aliases=aliases,
    )


def version_of(model: str, row: Any, aliases: list[str]) -> ModelVersion:
    return ModelVersion(
        model=model,
        version=row.version,
        job_id=row.job_id,
        weights_sha256=row.weights_sha256,
        statistics_sha256=row.statistics_sha256,
        card=row.card,
        artifacts=row.artifacts,
        aliases=aliases,
        created_at=rfc3339(row.created_at) or "",
    )


def alias_of(model: str, row: Any) -> Alias:
    return Alias(model=model, name=row.name, version=row.version, updated_at=rfc3339(row.updated_at) or "")
