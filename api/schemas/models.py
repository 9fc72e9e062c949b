"""Models, their versions and aliases as clients see them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.clock import rfc3339

LARGEST_VERSION = 2**31 - 1
LINEAGE = ("recalibrated_from", "recalibrated_on", "before", "after", "ensemble")


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
    recalibrated_from: dict[str, Any] | None
    """The version whose weights these are, if their statistics were measured anew; null: trained by `job_id`."""
    recalibrated_on: dict[str, Any] | None
    """The data set of the new statistics."""
    before: dict[str, float | None] | None
    """Test scores on that data under the statistics of the version before, if its labels are the model's."""
    after: dict[str, float | None] | None
    ensemble: dict[str, Any] | None
    """The versions whose answers it averages, each with its digests and scores; null: it is a single network."""
    card: dict[str, Any]
    artifacts: dict[str, StoredFile]
    aliases: list[str]
    created_at: str


class Canary(BaseModel):
    """A second version that answers a share of the requests."""

    model_config = ConfigDict(extra="forbid", strict=True)
    version: Annotated[int, Field(ge=1, le=LARGEST_VERSION)]
    weight: Annotated[float, Field(gt=0.0, lt=1.0)]


class Alias(BaseModel):
    object: Literal["alias"] = "alias"
    model: str
    name: str
    version: int
    canary: Canary | None
    shadow: int | None
    """A version that gets copies of the requests; its answers are only compared."""
    updated_at: str


class AliasRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    version: Annotated[int, Field(ge=1, le=LARGEST_VERSION)]
    canary: Canary | None = None
    shadow: Annotated[int, Field(ge=1, le=LARGEST_VERSION)] | None = None


class AliasMove(BaseModel):
    """How the alias stood from this time on. `version` null: it was deleted."""

    object: Literal["alias_move"] = "alias_move"
    id: str
    version: int | None
    canary: Canary | None
    shadow: int | None
    reason: str
    created_at: str


class Shadowing(BaseModel):
    """What this process saw of a shadow since it was loaded."""

    object: Literal["shadow_report"] = "shadow_report"
    model: str
    alias: str
    version: int
    shadow: int | None
    requests: int
    rows: int
    skipped: int
    """Requests that were not copied, because the shadow could not keep up."""
    disagreements: int
    """Rows with another label; for a regression, rows that differ by more than a thousandth of the larger value."""
    largest_difference: float | None
    mean_difference: float | None
    """Of probabilities, or of values in the target's units."""


class Removed(BaseModel):
    object: Literal["alias"] = "alias"
    model: str
    name: str
    deleted: Literal[True] = True


class LayerChannels(BaseModel):
    """Values by channel. A parameter that the layer does not learn is null."""

    object: Literal["layer_channels"] = "layer_channels"
    layer: str
    mean: list[float]
    variance: list[float]
    covariance: list[list[float]] | None
    """Of whitening: row i has the covariances of channel i with the channels of its own group."""
    running_mean: list[float] | None
    running_variance: list[float] | None
    gamma: list[float] | None
    beta: list[float] | None


class Population(BaseModel):
    """Population statistics that stand in the frozen network, layer by layer."""

    object: Literal["population"] = "population"
    model: str
    version: int
    statistics_sha256: str | None
    population: dict[str, Any] | None
    """How they were measured, with a summary of each layer. Null: no layer of the network has any."""
    layers: list[LayerChannels] | None = None
    """Every channel, a page of layers in order of computation; only with `channels=true`."""
    last_layer: str | None = None
    """What `after` takes to go on."""
    has_more: bool = False


class LayersDrift(BaseModel):
    """What normalized layers get now against their population statistics; see `api.inference.layers`."""

    rows: int
    share: float
    """Of the batches, how many were looked at."""
    threshold: float
    exceeded: list[str]
    watched: list[dict[str, Any]]
    """Per layer the channel that is furthest off: `shift` in deviations that the layer normalizes by, `z`, which grows
    with the rows, and its deviation now (1 in training); how many channels are `beyond` the threshold; and how many
    are `blind`, because a gamma of 0 hides them."""
    left_out: dict[str, str]
    """Layers with statistics that can not be watched, and why."""
    problem: str | None
    """Why nothing is looked at any more, if so."""
    events: list[dict[str, Any]]


class Drift(BaseModel):
    """Running moments of the inputs against those of the training data; see `api.inference.drift`."""

    object: Literal["drift"] = "drift"
    model: str
    version: int
    statistics_sha256: str | None
    rows: int
    share: float
    """Of the batches, how many were looked at."""
    threshold: float
    exceeded: list[str]
    inputs: list[dict[str, Any]]
    """Per column of a table, or channel of an image: mean and deviation in training and now, `shift` in deviations
    of the training data, and `z`, which grows with the rows."""
    events: list[dict[str, Any]]
    inputs_reason: str | None = None
    """Why no inputs are looked at, if so."""
    layers: LayersDrift | None
    layers_reason: str | None
    """Why no layers are looked at, if so."""


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
        **{name: row.card.get(name) for name in LINEAGE},
        card=row.card,
        artifacts=row.artifacts,
        aliases=aliases,
        created_at=rfc3339(row.created_at) or "",
    )


def alias_of(model: str, row: Any) -> Alias:
    return Alias(
        model=model,
        name=row.name,
        version=row.version,
        canary=canary_of(row),
        shadow=row.shadow_version,
        updated_at=rfc3339(row.updated_at) or "",
    )


def move_of(row: Any) -> AliasMove:
    return AliasMove(
        id=str(row.id),
        version=row.version,
        canary=canary_of(row),
        shadow=row.shadow_version,
        reason=row.reason,
        created_at=rfc3339(row.created_at) or "",
    )


def canary_of(row: Any) -> Canary | None:
    if row.canary_version is None:
        return None
    return Canary(version=row.canary_version, weight=row.canary_weight)
