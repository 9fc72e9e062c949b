"""Network families: what a user writes to get a list of layers."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from core.spec.base import Fraction, PositiveInt, Spec
from core.spec.layers import ActivationKind


class InitializationSpec(Spec):
    """How weights start; biases start at 0, gamma at 1, beta at 0."""

    kind: Literal["normal", "uniform", "xavier_normal", "xavier_uniform", "he_normal", "he_uniform"] = "he_normal"
    """`normal`: N(0, scale²); `uniform`: U(-scale, scale); the others draw with the standard
    deviation of Glorot & Bengio (2010) or He et al. (2015), times scale."""
    scale: Annotated[float, Field(strict=True, gt=0.0, le=1e6)] = 1.0
    """Standard deviation (`normal`), bound (`uniform`), or a factor on the derived one. Default: 0.1
    for `normal` and `uniform`, else 1."""

    @model_validator(mode="before")
    @classmethod
    def _write_out_scale_of_the_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") in ("normal", "uniform"):
            return {"scale": 0.1} | value
        return value


class MLPSpec(Spec):
    """Fully connected layers, each with its activation, and a linear output layer."""

    family: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[PositiveInt, ...], Field(max_length=64)] = (100, 100, 100)
    """Units of each hidden layer."""
    activation: ActivationKind = "relu"
    initialization: InitializationSpec = InitializationSpec()
    dropout: Fraction = 0.0
    """Probability that a hidden unit is dropped while training."""


class ConvNetSpec(Spec):
    """Convolution, activation and 2×2 max-pooling per stage, then fully connected layers."""

    family: Literal["convnet"] = "convnet"
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=16)] = (32, 64)
    """Feature maps of each stage."""
    kernel_size: Annotated[int, Field(strict=True, ge=1, le=31)] = 3
    """Square kernel; odd, so that padding keeps the size of the map."""
    pool_every: PositiveInt = 1
    """A 2×2 max-pooling follows every n-th stage."""
    head: Literal["flatten", "global_average"] = "flatten"
    """How feature maps become a vector."""
    hidden: Annotated[tuple[PositiveInt, ...], Field(max_length=16)] = (128,)
    """Units of the fully connected layers after the convolutions."""
    activation: ActivationKind = "relu"
    initialization: InitializationSpec = InitializationSpec()
    dropout: Fraction = 0.0
    """Probability that a unit of the fully connected layers is dropped while training."""


NetworkSpec = Annotated[MLPSpec | ConvNetSpec, Field(discriminator="family")]
FAMILIES: dict[str, type[Spec]] = {"mlp": MLPSpec, "convnet": ConvNetSpec}
