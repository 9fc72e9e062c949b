"""What the service answers, as small frozen objects. Fields that a newer service adds are found in `raw`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

Raw = Mapping[str, Any]
_NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Progress:
    step: int
    steps: int
    fraction: float
    eta_seconds: float | None


@dataclass(frozen=True)
class Job:
    id: str
    kind: str
    name: str
    status: str
    terminal: bool
    status_reason: str | None
    phase: str | None
    attempt: int
    progress: Progress
    latest_metrics: Mapping[str, float | None]
    spec: Raw
    metadata: Mapping[str, str]
    error: Raw | None
    result: Raw | None
    retry_of: str | None
    forked_from: Raw | None
    """The job and the step whose checkpoint it went on from."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    raw: Raw = field(repr=False, compare=False)

    @property
    def succeeded(self) -> bool:
        return self.status == "succeeded"

    @classmethod
    def read(cls, raw: Raw) -> Self:
        progress = raw["progress"]
        return cls(
            id=raw["id"],
            kind=raw.get("kind", "training"),
            name=raw["name"],
            status=raw["status"],
            terminal=raw["terminal"],
            status_reason=raw.get("status_reason"),
            phase=raw.get("phase"),
            attempt=raw["attempt"],
            progress=Progress(progress["step"], progress["steps"], progress["fraction"], progress.get("eta_seconds")),
            latest_metrics=raw.get("latest_metrics") or {},
            spec=raw["spec"],
            metadata=raw.get("metadata") or {},
            error=raw.get("error"),
            result=raw.get("result"),
            retry_of=raw.get("retry_of"),
            forked_from=raw.get("forked_from"),
            created_at=datetime.fromisoformat(raw["created_at"]),
            started_at=optional_time(raw.get("started_at")),
            finished_at=optional_time(raw.get("finished_at")),
            raw=raw,
        )


@dataclass(frozen=True)
class Event:
    job_id: str
    seq: int
    type: str
    level: str
    message: str
    attempt: int
    data: Raw
    created_at: datetime
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        return cls(
            raw["job_id"],
            raw["seq"],
            raw["type"],
            raw["level"],
            raw["message"],
            raw["attempt"],
            raw["data"],
            datetime.fromisoformat(raw["created_at"]),
            raw,
        )


@dataclass(frozen=True)
class Series:
    """Points of one metric; values that were not finite are nan, inf or -inf."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    total_points: int

    @classmethod
    def read(cls, name: str, raw: Raw) -> Self:
        marks = raw.get("nonfinite") or {}
        values = tuple(
            _NONFINITE[marks.get(str(step), "nan")] if value is None else value
            for step, value in zip(raw["steps"], raw["values"], strict=True)
        )
        return cls(name, tuple(raw["steps"]), values, raw.get("total_points", len(values)))

    def first_step_reaching(self, value: float) -> int | None:
        """The first recorded step whose value is at least this one."""
        return next((step for step, here in zip(self.steps, self.values, strict=True) if here >= value), None)


@dataclass(frozen=True)
class Checkpoint:
    step: int
    sha256: str
    best: bool
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        return cls(raw["step"], raw["sha256"], bool(raw.get("best")), raw)


@dataclass(frozen=True)
class Validation:
    """A spec that could be run: what it would cost."""

    spec: Raw
    spec_sha256: str
    parameters: int
    flops_per_step: int
    steps_per_epoch: int
    layers: tuple[Raw, ...]
    """The network as its list of layers; what stands inside of one is under `inside`."""
    estimated_seconds: float | None
    estimate_basis: str | None
    warnings: tuple[str, ...]
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        estimate = raw.get("estimate") or {}
        return cls(
            raw["spec"],
            raw["spec_sha256"],
            raw["parameters"],
            raw["flops_per_step"],
            raw["steps_per_epoch"],
            tuple(raw.get("layers") or ()),
            estimate.get("seconds"),
            estimate.get("basis"),
            tuple(raw.get("warnings") or ()),
            raw,
        )


@dataclass(frozen=True)
class Model:
    name: str
    latest_version: int | None
    aliases: Mapping[str, int]
    created_at: datetime
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        return cls(
            raw["name"],
            raw.get("latest_version"),
            raw.get("aliases") or {},
            datetime.fromisoformat(raw["created_at"]),
            raw,
        )


@dataclass(frozen=True)
class ModelVersion:
    model: str
    version: int
    job_id: str
    weights_sha256: str
    statistics_sha256: str | None
    recalibrated_from: Raw | None
    ensemble: Raw | None
    """The versions whose answers it averages; None of a single network."""
    aliases: tuple[str, ...]
    card: Raw
    artifacts: Raw
    created_at: datetime
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        return cls(
            raw["model"],
            raw["version"],
            raw["job_id"],
            raw["weights_sha256"],
            raw.get("statistics_sha256"),
            raw.get("recalibrated_from"),
            raw.get("ensemble"),
            tuple(raw.get("aliases") or ()),
            raw.get("card") or {},
            raw.get("artifacts") or {},
            datetime.fromisoformat(raw["created_at"]),
            raw,
        )


@dataclass(frozen=True)
class Prediction:
    """`label` and `probabilities` of a classifier, or `value` of a regression in the target's units."""

    label: str | None
    probabilities: Mapping[str, float] | None
    value: float | None


@dataclass(frozen=True)
class Predictions:
    """Answers in the order of the rows, and which frozen model gave them."""

    model: str
    version: int
    statistics_sha256: str | None
    predictions: tuple[Prediction, ...]

    @property
    def labels(self) -> tuple[str | None, ...]:
        return tuple(prediction.label for prediction in self.predictions)

    @property
    def values(self) -> tuple[float | None, ...]:
        return tuple(prediction.value for prediction in self.predictions)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        return cls(
            raw["model"],
            raw["version"],
            raw.get("statistics_sha256"),
            tuple(
                Prediction(part.get("label"), part.get("probabilities"), part.get("value"))
                for part in raw["predictions"]
            ),
        )


@dataclass(frozen=True)
class Key:
    """`text` is the key itself: only the answer that created it has it."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    text: str | None = field(repr=False)
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        return cls(
            raw["id"],
            raw["name"],
            tuple(raw["scopes"]),
            datetime.fromisoformat(raw["created_at"]),
            optional_time(raw.get("expires_at")),
            optional_time(raw.get("revoked_at")),
            raw.get("key"),
            raw,
        )


def optional_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
