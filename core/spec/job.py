"""The job spec: what a user asks for, once, whole."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from core.spec.base import NAME, Name, Spec
from core.spec.data import DatasetSpec
from core.spec.network import NetworkSpec
from core.spec.normalization import BatchNormOption, BatchNormSpec, PopulationSpec
from core.spec.optimization import ConstantSchedule, OptimizerSpec, ResourcesSpec, ScheduleSpec, SGDSpec, TrainingSpec
from core.spec.serving import ServingSpec

NO_NUL = r"^[^\x00]*$"  # Postgres can not store it
MetadataKey = Annotated[str, Field(min_length=1, max_length=64, pattern=NO_NUL)]
MetadataValue = Annotated[str, Field(max_length=512, pattern=NO_NUL)]


DEFAULT_KINDS = {"optimizer": "sgd", "schedule": "constant"}
"""What an object of these sections is that does not say its kind."""


class PublishSpec(Spec):
    """The model that the finished job becomes a version of."""

    model: Name
    """Default: the job's name."""
    alias: Name | None = "latest"
    """Moved to the new version in the same transaction; null: no alias moves."""
    serving: ServingSpec | None = None
    """Null: float32 on one CPU thread."""


class JobSpec(Spec):
    name: Name
    """Default: source and family, for instance `mnist-mlp`."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16, default_factory=dict)]
    priority: Annotated[int, Field(strict=True, ge=-100, le=100)] = 0
    """Queued jobs of a higher priority run first."""
    dataset: DatasetSpec
    network: NetworkSpec
    batch_norm: BatchNormOption = BatchNormSpec()
    """`true` stands for the object with its defaults, `false` for no batch norm."""
    optimizer: OptimizerSpec = SGDSpec()
    schedule: ScheduleSpec = ConstantSchedule()
    training: TrainingSpec = TrainingSpec()
    population: PopulationSpec = PopulationSpec()
    resources: ResourcesSpec = ResourcesSpec()
    publish: PublishSpec | None
    """Absent: a version under the job's name. Null: nothing is exported."""

    @model_validator(mode="before")
    @classmethod
    def _write_out_defaults_of_other_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if "name" not in value:
            value["name"] = _default_name(value)
        for section, kind in DEFAULT_KINDS.items():
            if isinstance(value.get(section), dict):
                value[section] = {"kind": kind} | value[section]
        publish = value.setdefault("publish", {})
        if isinstance(publish, dict) and "model" not in publish:
            named = isinstance(value["name"], str) and NAME.fullmatch(value["name"])
            # A name that is refused is refused once, where it stands.
            value["publish"] = publish | {"model": value["name"] if named else "unnamed"}
        return value


def _default_name(value: dict[str, Any]) -> str:
    def word(section: str, key: str) -> str:
        part = value.get(section)
        return str(part.get(key, section)) if isinstance(part, dict) else section

    return f"{word('dataset', 'source')}-{word('network', 'family')}".replace("_", "-").lower()[:63]
