"""The family `inception`: the network of the batch norm paper (Ioffe & Szegedy 2015, appendix, Figure 5) as a list."""

from dataclasses import dataclass

from bn_models.architecture.blocks import Blocks
from bn_models.architecture.mlp import dropped
from core.spec.layers import (
    AveragePool2d,
    Conv2d,
    GlobalAveragePool2d,
    Layer,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Parallel,
)
from core.spec.network import InceptionSpec
from core.spec.normalization import LocalResponseOptions


@dataclass(frozen=True)
class Module:
    """A row of the figure's table: feature maps of each convolution, 0 where there is none.

    Without a 1×1 branch and a projection (3c and 4e) every branch has stride 2, and the pooling
    passes its maps through.
    """

    name: str
    single: int  # 1×1
    triple_reduce: int  # 1×1 before the 3×3
    triple: int
    double_reduce: int  # 1×1 before the two 3×3
    double: int
    pool: str
    projection: int  # 1×1 after the pooling

    @property
    def stride(self) -> int:
        return 1 if self.projection else 2


# The projections of 4c and 4d are 96, where the figure prints 128: only so do they give the 576 maps
# that the figure prints as their output, and 4e the 1024 of its own.
MODULES = (
    #               1×1  reduce 3×3  reduce 2×(3×3)  pool    projection
    Module("3a", 64, 64, 64, 64, 96, "average", 32),
    Module("3b", 64, 64, 96, 64, 96, "average", 64),
    Module("3c", 0, 128, 160, 64, 96, "max", 0),
    Module("4a", 224, 64, 96, 96, 128, "average", 128),
    Module("4b", 192, 96, 128, 96, 128, "average", 128),
    Module("4c", 160, 128, 160, 128, 160, "average", 96),
    Module("4d", 96, 128, 192, 160, 192, "average", 96),
    Module("4e", 0, 128, 192, 192, 256, "max", 0),
    Module("5a", 352, 192, 320, 160, 224, "average", 128),
    Module("5b", 352, 192, 320, 192, 224, "max", 128),
)
SMALL = ("3a", "3b", "3c", "4a", "4b", "4e", "5a")


def inception_layers(network: InceptionSpec, blocks: Blocks, outputs: int) -> tuple[Layer, ...]:
    """The stem, the inception modules, a global average, and a linear output layer."""
    builder = _Builder(network, blocks)
    layers = [*(builder.stem() if network.variant == "full" else builder.small_stem())]
    for module in MODULES:
        if network.variant == "full" or module.name in SMALL:
            layers.append(builder.module(module))
    layers.append(GlobalAveragePool2d(name="head.global_average"))
    return (*layers, *dropped("head", network.dropout), Linear(name="output.linear", features=outputs))


@dataclass(frozen=True)
class _Builder:
    network: InceptionSpec
    blocks: Blocks

    def stem(self) -> tuple[Layer, ...]:
        """Maps of a 224×224 image come to 28×28; response normalization as in GoogLeNet (Szegedy et al. 2014)."""
        return (
            *self.conv("stem.7x7", 64, 7, stride=2),
            MaxPool2d(name="stem.pool1", kernel_size=3, stride=2, padding=1),
            *self.response_norm("stem.response_norm1"),
            *self.conv("stem.3x3_reduce", 64, 1),
            *self.conv("stem.3x3", 192, 3),
            *self.response_norm("stem.response_norm2"),
            MaxPool2d(name="stem.pool2", kernel_size=3, stride=2, padding=1),
        )

    def small_stem(self) -> tuple[Layer, ...]:
        return (*self.conv("stem.3x3", 64, 3), *self.response_norm("stem.response_norm"))

    def module(self, row: Module) -> Parallel:
        """1×1 | 1×1, 3×3 | 1×1, 3×3, 3×3 | pooling, 1×1, joined along the maps."""
        name, stride = f"inception{row.name}", row.stride
        single = self.conv(f"{name}.1x1", row.single, 1) if row.single else ()
        triple = (
            *self.conv(f"{name}.3x3_reduce", row.triple_reduce, 1),
            *self.conv(f"{name}.3x3", row.triple, 3, stride),
        )
        double = (
            *self.conv(f"{name}.double_3x3_reduce", row.double_reduce, 1),
            *self.conv(f"{name}.double_3x3_1", row.double, 3),
            *self.conv(f"{name}.double_3x3_2", row.double, 3, stride),
        )
        pooling = MaxPool2d if row.pool == "max" else AveragePool2d
        projection = self.conv(f"{name}.projection", row.projection, 1) if row.projection else ()
        pooled = (pooling(name=f"{name}.pool", kernel_size=3, stride=stride, padding=1), *projection)
        branches = tuple(branch for branch in (single, triple, double, pooled) if branch)
        return Parallel(name=f"{name}.joined", branches=branches)

    def conv(self, block: str, channels: int, kernel_size: int, stride: int = 1) -> tuple[Layer, ...]:
        """A convolution with its activation; padding keeps the size but for the stride."""
        conv = Conv2d(
            name=f"{block}.conv",
            channels=max(1, round(channels * self.network.width)),
            kernel_size=kernel_size,
            stride=stride,
            padding=kernel_size // 2,
        )
        return (conv, *self.blocks.activated(block, self.network.activation))

    def response_norm(self, name: str) -> tuple[Layer, ...]:
        if not self.network.local_response_norm:
            return ()
        return (LocalResponseNorm(name=name, options=LocalResponseOptions()),)
