"""Shapes, parameters and FLOPs of a list of layers, without torch."""

from dataclasses import dataclass
from math import prod

from core.errors import FieldProblem, SpecInvalid
from core.spec.layers import BatchNorm, Conv2d, Flatten, GlobalAveragePool2d, Layer, Linear, MaxPool2d

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Placed:
    """A layer in its place. Shapes are of one sample; `flops` of its forward pass.

    FLOPs are two per multiply-add of linear and convolution layers, padding included, and nothing
    else: what torch's FlopCounterMode counts.
    """

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    parameters: int
    flops: int


def place(layers: tuple[Layer, ...], input_shape: Shape) -> tuple[Placed, ...]:
    """Each layer with its shapes and counts, for samples of `input_shape`.

    Raises SpecInvalid, naming the layer, when a layer can not take what the one before it gives.
    """
    placed: list[Placed] = []
    shape = input_shape
    for index, layer in enumerate(layers):
        output_shape, parameters, flops = _measure(layer, shape, index)
        placed.append(Placed(layer, shape, output_shape, parameters, flops))
        shape = output_shape
    return tuple(placed)


def _measure(layer: Layer, shape: Shape, index: int) -> tuple[Shape, int, int]:
    """(output shape, parameters, FLOPs) of one layer on one sample of `shape`."""
    if isinstance(layer, Linear):
        (columns,) = _require(layer, index, shape, 1)
        weights = columns * layer.features
        return (layer.features,), weights + layer.features * layer.bias, 2 * weights
    if isinstance(layer, Conv2d):
        channels, height, width = _require(layer, index, shape, 3)
        weights = layer.channels * channels * layer.kernel_size**2
        rows, columns = (_window(layer, index, size, layer.padding) for size in (height, width))
        return (layer.channels, rows, columns), weights + layer.channels * layer.bias, 2 * weights * rows * columns
    if isinstance(layer, MaxPool2d):
        channels, height, width = _require(layer, index, shape, 3)
        return (channels, *(_window(layer, index, size, 0) for size in (height, width))), 0, 0
    if isinstance(layer, GlobalAveragePool2d):
        return (_require(layer, index, shape, 3)[0],), 0, 0
    if isinstance(layer, Flatten):
        return (prod(shape),), 0, 0
    if isinstance(layer, BatchNorm):
        return shape, 2 * shape[0] * layer.options.affine, 0
    return shape, 0, 0


def _require(layer: Layer, index: int, shape: Shape, axes: int) -> Shape:
    if len(shape) != axes:
        wanted = "a vector: put a flatten layer before it" if axes == 1 else "feature maps (C, H, W): give it an image"
        raise _wrong(layer, index, f"gets samples of shape {shape}, and needs {wanted}")
    return shape


def _window(layer: Conv2d | MaxPool2d, index: int, size: int, padding: int) -> int:
    """How many places a window of the layer's kernel has along an axis of `size`."""
    room = size + 2 * padding - layer.kernel_size
    if room < 0:
        raise _wrong(
            layer,
            index,
            f"gets maps of size {size}, smaller than its {layer.kernel_size}×{layer.kernel_size} window: "
            "use fewer stages, or pool less often (a larger pool_every)",
        )
    return room // layer.stride + 1


def _wrong(layer: Layer, index: int, message: str) -> SpecInvalid:
    problem = FieldProblem(f"/network/layers/{index}", "layer_does_not_fit", f"layer {layer.name} {message}")
    return SpecInvalid((problem,))
