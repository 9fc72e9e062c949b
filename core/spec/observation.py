"""What a job watches while it trains, on rows that stay the same (Ioffe & Szegedy 2015, Figure 1 b and c)."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from core.spec.base import PositiveInt, Spec
from core.spec.layers import LayerName

Quantity = Literal["percentiles", "drift", "gradient_norm", "saturation", "affine"]
ALL: tuple[Quantity, ...] = get_args(Quantity)
Percentile = Annotated[float, Field(strict=True, ge=0.0, le=100.0)]


class ObserveSpec(Spec):
    """Figures of the layers, as series `observe/<layer>/<figure>`; training has the same bits with and without."""

    every: PositiveInt = 200
    """Steps between observations; the first step is always one."""
    split: Literal["test", "validation"] = "test"
    """Where the rows of the probe come from."""
    rows: Annotated[int, Field(strict=True, ge=2, le=100_000)] = 256
    """How many rows the probe has, the same ones at every observation; of a smaller split all."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Which rows these are. Not the seed of the training: jobs that differ in that are observed on the same rows."""
    statistics: Literal["batch", "running_average"] = "batch"
    """What batch norm normalizes the probe by: the probe's own moments, as training does with a batch, or the running
    average."""
    record: Annotated[tuple[Quantity, ...], Field(min_length=1, max_length=len(ALL))] = ALL
    """`percentiles` of the inputs to some nonlinearities, `drift` of the moments of every layer's input since the
    observation before, `gradient_norm` of every layer with parameters, share of saturated activations or dead units of
    every sigmoid, tanh and ReLU (`saturation`), mean and ends of every gamma and beta (`affine`)."""
    percentiles: Annotated[tuple[Percentile, ...], Field(min_length=1, max_length=16)] = (15.0, 50.0, 85.0)
    layers: Annotated[tuple[LayerName, ...], Field(min_length=1, max_length=256)] | None = None
    """Nonlinearities whose inputs have their percentiles recorded; null: the last hidden one. Of an LSTM its three:
    `<layer>.gates` (sigmoids), `<layer>.value` and `<layer>.cell` (tanh); its own name stands for all of them."""
    unit: Annotated[int, Field(strict=True, ge=0)] | None = None
    """The percentiles are of this unit (feature map) alone, counted from 0; null: of all of them together."""
    saturation: Annotated[float, Field(strict=True, gt=0.0, lt=0.5)] = 0.05
    """A sigmoid or tanh is saturated when its output is within this share of its range from either end: at 0.05 a
    sigmoid below 0.05 or above 0.95, a tanh beyond ±0.9. (A ReLU unit is dead that gives 0 for the whole probe.)"""

    @model_validator(mode="after")
    def _series_have_names_of_their_own(self) -> "ObserveSpec":
        names = [percentile_name(one) for one in self.percentiles]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"percentiles has two that are recorded as {twice}: leave one out")
        return self


def percentile_name(percentile: float) -> str:
    """As in the name of its series: p15, p2.5."""
    return f"p{percentile:g}"


def _expand_shorthand(value: Any) -> Any:
    """`true` stands for the object with its defaults, `false` for no observation."""
    if value is True:
        return {}
    if value is False:
        return None
    if isinstance(value, str | int | float | list):
        fields = ", ".join(ObserveSpec.model_fields)
        raise ValueError(f"must be true, false, or an object with {fields}, not {value!r:.80}")
    return value


def _is_absent(value: Any) -> bool:
    return value is None


ObserveOption = Annotated[
    ObserveSpec | None,
    BeforeValidator(_expand_shorthand, json_schema_input_type=ObserveSpec | bool | None),
    Field(exclude_if=_is_absent),
]
"""A job that observes nothing does not say so: specs from before there was observation keep their digests."""
