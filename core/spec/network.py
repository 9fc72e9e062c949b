"""Network families: what a user writes to get a list of layers."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from core.spec.base import Flag, Fraction, PositiveInt, Spec
from core.spec.initialization import InitializationSpec
from core.spec.layers import ActivationKind
from core.spec.sequential import SequentialSpec

__all__ = [
    "FAMILIES",
    "ConvNetSpec",
    "InceptionSpec",
    "InitializationSpec",
    "MLPSpec",
    "NetworkSpec",
    "RecurrentSpec",
    "ResNetSpec",
    "SequentialSpec",
    "VGGSpec",
]

BlockCount = Annotated[int, Field(strict=True, ge=1, le=200)]
Head = Literal["flatten", "global_average"]


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
    head: Head = "flatten"
    """How feature maps become a vector."""
    hidden: Annotated[tuple[PositiveInt, ...], Field(max_length=16)] = (128,)
    """Units of the fully connected layers after the convolutions."""
    activation: ActivationKind = "relu"
    initialization: InitializationSpec = InitializationSpec()
    dropout: Fraction = 0.0
    """Probability that a unit of the fully connected layers is dropped while training."""


class VGGSpec(Spec):
    """Stages of 3×3 convolutions and 2×2 max-pooling, then fully connected layers (Simonyan & Zisserman 2014)."""

    family: Literal["vgg"] = "vgg"
    depth: Literal[11, 13, 16, 19] = 11
    """Layers with weights in the paper: configuration A, B, D or E of its Table 1."""
    width: PositiveInt = 64
    """Feature maps of the first stage; the later ones have 2, 4, 8 and 8 times as many."""
    head: Head = "flatten"
    """How feature maps become a vector."""
    hidden: Annotated[tuple[PositiveInt, ...], Field(max_length=16)] = (512,)
    """Units of the fully connected layers after the convolutions; in the paper 4096 and 4096."""
    activation: ActivationKind = "relu"
    initialization: InitializationSpec = InitializationSpec()
    dropout: Fraction = 0.0
    """Probability that a unit of the fully connected layers is dropped while training."""


# blocks a stage, for the depths of He et al. (2015): Table 1 (ImageNet) and section 4.2 (CIFAR, 6n+2)
_IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_SMALL_BLOCKS = {depth: ((depth - 2) // 6,) * 3 for depth in (20, 32, 44, 56, 110)}
_CONVOLUTIONS = {"basic": 2, "bottleneck": 3}


class ResNetSpec(Spec):
    """Stages of residual blocks, then a global average and a linear output layer (He et al. 2015)."""

    family: Literal["resnet"] = "resnet"
    depth: PositiveInt = 20
    """Layers with weights. 18, 34, 50, 101 and 152 write out the other fields as in Table 1 of the
    paper, 20, 32, 44, 56 and 110 as in its section 4.2; with `blocks` given, it follows from them."""
    block: Literal["basic", "bottleneck"] = "basic"
    """Two 3×3 convolutions, or 1×1, 3×3 and 1×1 with four times as many maps at the end."""
    blocks: Annotated[tuple[BlockCount, ...], Field(min_length=1, max_length=6)] = (3, 3, 3)
    """Blocks of each stage; every stage but the first halves the maps and doubles their number."""
    width: PositiveInt = 16
    """Feature maps of the first stage."""
    stem: Literal["small", "imagenet"] = "small"
    """A 3×3 convolution; or a 7×7 one with stride 2 and a 3×3 max-pooling with stride 2."""
    shortcut: Literal["identity", "projection"] = "identity"
    """`identity`: a 1×1 convolution only where the shape changes (option B of the paper);
    `projection`: in every block (option C)."""
    activation: ActivationKind = "relu"
    initialization: InitializationSpec = InitializationSpec()
    dropout: Fraction = 0.0
    """Probability that a value of the global average is dropped while training."""

    @model_validator(mode="before")
    @classmethod
    def _write_out_the_depth(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        block, blocks = value.get("block", "basic"), value.get("blocks")
        if "depth" not in value and isinstance(blocks, list | tuple):
            if block in tuple(_CONVOLUTIONS) and all(isinstance(count, int) for count in blocks):
                return value | {"depth": _depth(block, blocks)}
            return value  # what is wrong with them is said where it stands
        depth = value.get("depth", 20)
        if not isinstance(depth, int):
            return value
        if depth in _IMAGENET_BLOCKS:
            kind = "basic" if depth < 50 else "bottleneck"
            preset = {"block": kind, "blocks": _IMAGENET_BLOCKS[depth], "width": 64, "stem": "imagenet"}
        else:
            preset = {"blocks": _SMALL_BLOCKS[depth]} if depth in _SMALL_BLOCKS else {}
        return preset | {"depth": depth} | value

    @model_validator(mode="after")
    def _depth_counts_the_blocks(self) -> "ResNetSpec":
        counted = _depth(self.block, self.blocks)
        if self.depth != counted:
            presets = ", ".join(str(depth) for depth in sorted({*_IMAGENET_BLOCKS, *_SMALL_BLOCKS}))
            raise ValueError(
                f"depth is {self.depth}, and {sum(self.blocks)} {self.block} blocks have {counted} layers with "
                f"weights: leave depth out, or leave block and blocks out with a depth of {presets}"
            )
        return self


def _depth(block: str, blocks: tuple[int, ...] | list[int]) -> int:
    """The stem and the output layer count too."""
    return _CONVOLUTIONS[block] * sum(blocks) + 2


class InceptionSpec(Spec):
    """The network of the batch norm paper: its Inception, Figure 5 (Ioffe & Szegedy 2015, appendix)."""

    family: Literal["inception"] = "inception"
    variant: Literal["small", "full"] = "small"
    """`full`: as in the paper, for 224×224; `small`: a 3×3 stem that keeps the size, and modules 3a, 3b,
    3c, 4a, 4b, 4e and 5a, for images of 8×8 to 64×64."""
    width: Annotated[float, Field(strict=True, gt=0.0, le=8.0)] = 0.25
    """Factor on the feature maps of the paper's table. Default: 1 for `full`, 0.25 for `small`."""
    local_response_norm: Flag = False
    """Local response normalization after the stages of the stem, as the paper's baseline without batch norm has it."""
    activation: ActivationKind = "relu"
    initialization: InitializationSpec = InitializationSpec()
    dropout: Fraction = 0.0
    """Probability that a value of the global average is dropped while training; 0.4 in the paper's baseline."""

    @model_validator(mode="before")
    @classmethod
    def _write_out_the_width_of_the_variant(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("variant") == "full":
            return {"width": 1.0} | value
        return value


class RecurrentSpec(Spec):
    """LSTM layers one above the other and a linear output layer; with batch norm as of Cooijmans et al. (2016).

    Images are read as sequences of their rows, top to bottom.
    """

    family: Literal["recurrent"] = "recurrent"
    units: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=8)] = (100,)
    """Units of each LSTM layer."""
    initialization: InitializationSpec = InitializationSpec(kind="xavier_uniform")
    dropout: Fraction = 0.0
    """Probability that an output of an LSTM layer is dropped while training."""


NetworkSpec = Annotated[
    MLPSpec | ConvNetSpec | VGGSpec | ResNetSpec | InceptionSpec | RecurrentSpec | SequentialSpec,
    Field(discriminator="family"),
]
FAMILIES: dict[str, type[Spec]] = {
    "mlp": MLPSpec,
    "convnet": ConvNetSpec,
    "vgg": VGGSpec,
    "resnet": ResNetSpec,
    "inception": InceptionSpec,
    "recurrent": RecurrentSpec,
    "sequential": SequentialSpec,
}
