"""What the service says of batch norm layers and of a model that it checked, as small frozen objects."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from evenkeel.results import Raw


@dataclass(frozen=True)
class Layer:
    """A layer that normalizes by moments over samples. Summaries are mappings: min, p5 … p95, max, mean."""

    name: str
    kind: str
    channels: int
    statistics: str
    frozen: bool
    updates: int
    expected_updates: int | None
    gamma: Raw | None
    beta: Raw | None
    mean: Raw
    variance: Raw
    gain: Raw
    dead: int
    exploding: int
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        return cls(
            raw["name"],
            raw["kind"],
            raw["channels"],
            raw["statistics"],
            raw["frozen"],
            raw["updates"],
            raw.get("expected_updates"),
            raw.get("gamma"),
            raw.get("beta"),
            raw["mean"],
            raw["variance"],
            raw["gain"],
            raw["dead"]["count"],
            raw["exploding"]["count"],
            raw,
        )


@dataclass(frozen=True)
class LayerReports:
    """The layers of a job as they stood after `step`; `reason` says why there are none."""

    step: int | None
    final: bool
    steps: tuple[int, ...]
    layers: tuple[Layer, ...]
    reason: str | None
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        layers = tuple(Layer.read(layer) for layer in raw["data"])
        return cls(raw.get("step"), bool(raw.get("final")), tuple(raw["steps"]), layers, raw.get("reason"), raw)


@dataclass(frozen=True)
class Verification:
    """A frozen model, checked again on the machine of the service."""

    model: str
    version: int
    passed: bool
    files: Raw
    parity: Raw | None
    parity_reason: str | None
    batch_invariance: Raw | None
    error: str | None
    seconds: float
    verified_at: datetime
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        return cls(
            raw["model"],
            raw["version"],
            raw["passed"],
            raw["files"],
            raw.get("parity"),
            raw.get("parity_reason"),
            raw.get("batch_invariance"),
            raw.get("error"),
            raw["seconds"],
            datetime.fromisoformat(raw["verified_at"]),
            raw,
        )
