"""The words of the one layer list that every network family is a function to, and that a user may write by hand.

Sizes of inputs are never written: they follow from the layer before (see
`bn_models.architecture.shapes`), so a list cannot contradict itself. Names are unique in the whole
list, the bodies of residual and parallel layers included; they name parameters (`<layer>.weight`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from core.spec.base import Flag, Fraction, PositiveInt, Spec
from core.spec.normalization import (
    BatchOptions,
    GroupOptions,
    InstanceOptions,
    LayerOptions,
    LocalResponseOptions,
    WhiteningOptions,
)

ActivationKind = Literal["relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu"]
LayerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=100)]
Pixels = Annotated[int, Field(strict=True, ge=1, le=1024)]
Padding = Annotated[int, Field(strict=True, ge=0)]


class Named(Spec):
    name: LayerName


class Linear(Named):
    """(columns,) → (features,)."""

    layer: Literal["linear"] = "linear"
    features: PositiveInt
    bias: Flag | None = None
    """Null: a bias, unless a normalization that subtracts the mean of each channel follows at once."""


class Conv2d(Named):
    """(C, H, W) → (channels, H', W'), a square window."""

    layer: Literal["conv2d"] = "conv2d"
    channels: PositiveInt
    kernel_size: Pixels
    stride: Pixels = 1
    padding: Padding = 0
    bias: Flag | None = None
    """As of a linear layer."""


class BatchNorm(Named):
    layer: Literal["batch_norm"] = "batch_norm"
    options: BatchOptions


class Whitening(Named):
    layer: Literal["whitening"] = "whitening"
    options: WhiteningOptions


class LayerNorm(Named):
    layer: Literal["layer_norm"] = "layer_norm"
    options: LayerOptions


class GroupNorm(Named):
    layer: Literal["group_norm"] = "group_norm"
    options: GroupOptions


class InstanceNorm(Named):
    layer: Literal["instance_norm"] = "instance_norm"
    options: InstanceOptions


class LocalResponseNorm(Named):
    layer: Literal["local_response_norm"] = "local_response_norm"
    options: LocalResponseOptions


class Activation(Named):
    layer: Literal["activation"] = "activation"
    kind: ActivationKind


class Dropout(Named):
    layer: Literal["dropout"] = "dropout"
    probability: Fraction


class MaxPool2d(Named):
    layer: Literal["max_pool2d"] = "max_pool2d"
    kernel_size: Pixels
    stride: Pixels
    padding: Padding = 0


class AveragePool2d(Named):
    """Padding zeros do not count in the average."""

    layer: Literal["average_pool2d"] = "average_pool2d"
    kernel_size: Pixels
    stride: Pixels
    padding: Padding = 0


class GlobalAveragePool2d(Named):
    layer: Literal["global_average_pool2d"] = "global_average_pool2d"


class Flatten(Named):
    layer: Literal["flatten"] = "flatten"


class ImageRows(Named):
    """(C, H, W) → a sequence of H steps with C·W features: the rows of the image, top to bottom."""

    layer: Literal["image_rows"] = "image_rows"


class LSTM(Named):
    """(T, F) → (units,), the last hidden state, or (T, units) with `outputs` "sequence".

    With `batch_norm`, the batch-normalized LSTM of Cooijmans et al. (2016): BN(W_h h), BN(W_x x) and
    BN(c), each with statistics of its own for every time step and gamma (and beta of BN(c)) shared over time.
    """

    layer: Literal["lstm"] = "lstm"
    units: PositiveInt
    batch_norm: BatchOptions | None = None
    outputs: Literal["last", "sequence"] = "last"


class Residual(Named):
    """body(x) + shortcut(x) (He et al. 2015); an empty shortcut is the identity.

    The activation after it is a layer of its own.
    """

    layer: Literal["residual"] = "residual"
    body: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=64)]
    shortcut: Annotated[tuple[Layer, ...], Field(max_length=64)] = ()


class Parallel(Named):
    """Every branch gets the same maps; their outputs are joined along the channels (Szegedy et al. 2014).

    An empty branch is the identity.
    """

    layer: Literal["parallel"] = "parallel"
    branches: Annotated[
        tuple[Annotated[tuple[Layer, ...], Field(max_length=64)], ...], Field(min_length=1, max_length=16)
    ]


Normalization = BatchNorm | Whitening | LayerNorm | GroupNorm | InstanceNorm | LocalResponseNorm
SimpleLayer = (
    Linear
    | Conv2d
    | Normalization
    | Activation
    | Dropout
    | MaxPool2d
    | AveragePool2d
    | GlobalAveragePool2d
    | Flatten
    | ImageRows
    | LSTM
)
Layer = Annotated[SimpleLayer | Residual | Parallel, Field(discriminator="layer")]

Residual.model_rebuild()
Parallel.model_rebuild()
