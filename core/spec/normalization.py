"""Batch normalization options and the estimator of its population statistics."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from core.spec.base import PositiveInt, Spec

Estimator = Literal["pooled", "algorithm_2", "running_average"]


class BatchNormSpec(Spec):
    """Batch normalization of each layer's input to its activation (Ioffe & Szegedy 2015, Algorithm 1)."""

    placement: Literal["before_activation", "after_activation"] = "before_activation"
    """Before the activation, as the paper has it, or after."""
    momentum: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] = 0.1
    """Weight of the newest batch in the running average: 0.1 here is 0.9 in Keras' convention."""
    eps: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] = 1e-5
    """Added to the variance before the square root."""
    affine: bool = True
    """Learn gamma and beta, one pair per activation (per feature map for convolutions)."""


def _expand_shorthand(value: Any) -> Any:
    """`true` stands for the object with its defaults, `false` for no batch norm."""
    if value is True:
        return {}
    if value is False:
        return None
    if isinstance(value, str | int | float | list):
        fields = ", ".join(BatchNormSpec.model_fields)
        raise ValueError(f"must be true, false, or an object with {fields}, not {value!r:.80}")
    return value


BatchNormOption = Annotated[
    BatchNormSpec | None, BeforeValidator(_expand_shorthand, json_schema_input_type=BatchNormSpec | bool | None)
]


class PopulationSpec(Spec):
    """How E[x] and Var[x] of the frozen network are measured after training."""

    estimator: Estimator = "pooled"
    """`pooled`: float64 Chan merge over all samples; `algorithm_2`: mean over batches of the batch
    moments, variance times m/(m-1), as in the paper; `running_average`: what training kept."""
    samples: PositiveInt | None = None
    """How many training samples to use; null means all of them."""
