"""The words of the one layer list that every network family is a function to.

Sizes of inputs are never written: they follow from the layer before (see
`bn_models.architecture.shapes`), so a list cannot contradict itself.
"""

from typing import Annotated, Literal

from pydantic import Field

from core.spec.base import Fraction, PositiveInt, Spec
from core.spec.normalization import BatchNormSpec

ActivationKind = Literal["relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu"]


class Linear(Spec):
    layer: Literal["linear"] = "linear"
    name: str
    features: PositiveInt
    bias: bool = True


class Conv2d(Spec):
    layer: Literal["conv2d"] = "conv2d"
    name: str
    channels: PositiveInt
    kernel_size: PositiveInt
    stride: PositiveInt = 1
    padding: Annotated[int, Field(strict=True, ge=0)] = 0
    bias: bool = True


class BatchNorm(Spec):
    layer: Literal["batch_norm"] = "batch_norm"
    name: str
    options: BatchNormSpec


class Activation(Spec):
    layer: Literal["activation"] = "activation"
    name: str
    kind: ActivationKind


class Dropout(Spec):
    layer: Literal["dropout"] = "dropout"
    name: str
    probability: Fraction


class MaxPool2d(Spec):
    layer: Literal["max_pool2d"] = "max_pool2d"
    name: str
    kernel_size: PositiveInt
    stride: PositiveInt


class GlobalAveragePool2d(Spec):
    layer: Literal["global_average_pool2d"] = "global_average_pool2d"
    name: str


class Flatten(Spec):
    layer: Literal["flatten"] = "flatten"
    name: str


Layer = Annotated[
    Linear | Conv2d | BatchNorm | Activation | Dropout | MaxPool2d | GlobalAveragePool2d | Flatten,
    Field(discriminator="layer"),
]
