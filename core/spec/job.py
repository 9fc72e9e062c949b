"""The job spec: what a user asks for, once, whole."""

from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.json_schema import SkipJsonSchema

from core.spec.base import NAME, MetadataKey, MetadataValue, Name, Spec
from core.spec.data import DatasetSpec
from core.spec.ensemble import EnsembleSpec
from core.spec.evaluation import EvaluationSpec
from core.spec.fork import ForkSpec
from core.spec.network import NetworkSpec
from core.spec.normalization import BatchNormOption, BatchNormSpec, PopulationSpec
from core.spec.observation import ObserveOption
from core.spec.optimization import ConstantSchedule, OptimizerSpec, ResourcesSpec, ScheduleSpec, SGDSpec, TrainingSpec
from core.spec.recalibration import RecalibrationSpec
from core.spec.serving import ServingSpec

RECURRENT_GAMMA = 0.1
"""Where gamma starts in a batch-normalized LSTM: near 1 the gates would saturate (Cooijmans et al. 2016, section 4)."""
DEFAULT_KINDS = {"optimizer": "sgd", "schedule": "constant"}
"""What an object of these sections is that does not say its kind."""

LINEAGE = ("recalibration", "ensemble", "fork")


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
    """Default: source (or the data set's name) and family, for instance `mnist-mlp`."""
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
    observe: ObserveOption = None
    """Percentiles, drift, gradients, saturation, gamma and beta as series. `true`: with its defaults; null: nothing."""
    population: PopulationSpec = PopulationSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    resources: ResourcesSpec = ResourcesSpec()
    publish: PublishSpec | None
    """Absent: a version under the job's name. Null: nothing is exported."""
    recalibration: SkipJsonSchema[RecalibrationSpec | None] = None
    """Written by the service, for jobs that come from `POST /v1/models/{name}/recalibrate`."""

    ensemble: SkipJsonSchema[EnsembleSpec | None] = None
    """Written by the service, for jobs that come from `POST /v1/models`."""

    fork: SkipJsonSchema[ForkSpec | None] = None
    """Written by the service, for jobs that come from `POST /v1/jobs/{id}/fork`."""

    @property
    def trains(self) -> bool:
        """Does it make steps?"""
        return self.recalibration is None and self.ensemble is None

    @model_serializer(mode="wrap")
    def _without_what_no_user_writes(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A training does not say that it is no recalibration, no ensemble and no fork."""
        return {name: value for name, value in write(self).items() if name not in LINEAGE or value is not None}

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
        if "batch_norm" not in value or value["batch_norm"] is True or isinstance(value["batch_norm"], dict):
            value["batch_norm"] = _for_the_family(value)
        publish = value.setdefault("publish", {})
        if isinstance(publish, dict) and "model" not in publish:
            named = isinstance(value["name"], str) and NAME.fullmatch(value["name"])
            # A name that is refused is refused once, where it stands.
            value["publish"] = publish | {"model": value["name"] if named else "unnamed"}
        return value


def _for_the_family(value: dict[str, Any]) -> Any:
    """`batch_norm` with the gamma that a recurrent network starts with, unless it learns none or says another."""
    network, given = value.get("network"), value.get("batch_norm", True)
    options = {} if given is True else given
    recurrent = isinstance(network, dict) and network.get("family") == "recurrent"
    if not recurrent or options.get("kind", "batch") != "batch" or options.get("affine", True) not in (True, "gamma"):
        return given
    return {"initial_gamma": RECURRENT_GAMMA} | options


def _default_name(value: dict[str, Any]) -> str:
    def word(section: str, key: str) -> str:
        part = value.get(section)
        return str(part.get(key, section)) if isinstance(part, dict) else section

    data = word("dataset", "name") if word("dataset", "source") == "uploaded" else word("dataset", "source")
    return f"{data}-{word('network', 'family')}".replace("_", "-").lower()[:63]
