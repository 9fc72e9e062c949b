"""Shapes, parameters and FLOPs of a list of layers, nested ones included, without torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from core.errors import FieldProblem, SpecInvalid
from core.spec import layers as spec
from core.spec.layers import Layer, Normalization

Shape = tuple[int, ...]
Counts = tuple[Shape, int, int]  # (output shape, parameters, FLOPs)

LIST_POINTER = "/network/layers"


@dataclass(frozen=True)
class Placed:
    """A layer in its place. Shapes are of one sample; `flops` of its forward pass.

    FLOPs are two per multiply-add of linear, convolution and LSTM weights, padding included, and
    nothing else: what torch's FlopCounterMode counts. `inside` are the placed layers of a residual
    layer (body, shortcut) or of the branches of a parallel one, which its own counts include.
    """

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    parameters: int
    flops: int
    inside: tuple[tuple["Placed", ...], ...] = ()


class LayerDoesNotFit(SpecInvalid):
    """A layer can not take what the one before it gives."""

    def __init__(self, pointer: str, layer: Layer, message: str) -> None:
        super().__init__((FieldProblem(pointer, "layer_does_not_fit", f"layer {layer.name} {message}"),))
        self.layer = layer


def place(layers: tuple[Layer, ...], input_shape: Shape, pointer: str = LIST_POINTER) -> tuple[Placed, ...]:
    """Each layer with its shapes and counts, for samples of `input_shape`: (columns,), (C, H, W) or (T, F).

    `pointer` is where the list stands in the body. Raises LayerDoesNotFit, naming the layer.
    """
    placed: list[Placed] = []
    shape = input_shape
    for index, layer in enumerate(layers):
        placed.append(_placed(layer, shape, f"{pointer}/{index}"))
        shape = placed[-1].output_shape
    return tuple(placed)


def flat(placed: tuple[Placed, ...]) -> Iterator[Placed]:
    """The simple layers, those inside of others too, in the order of computation."""
    for item in placed:
        if item.inside:
            for branch in item.inside:
                yield from flat(branch)
        else:
            yield item


def _placed(layer: Layer, shape: Shape, pointer: str) -> Placed:
    if isinstance(layer, spec.Residual):
        inside = (
            place(layer.body, shape, f"{pointer}/body"),
            place(layer.shortcut, shape, f"{pointer}/shortcut"),
        )
        return _around(layer, shape, inside, _sum_shape(layer, shape, inside, pointer))
    if isinstance(layer, spec.Parallel):
        branches = tuple(
            place(branch, shape, f"{pointer}/branches/{index}") for index, branch in enumerate(layer.branches)
        )
        return _around(layer, shape, branches, _joined_shape(layer, shape, branches, pointer))
    return Placed(layer, shape, *_measure(layer, shape, pointer))


def _around(layer: Layer, shape: Shape, inside: tuple[tuple[Placed, ...], ...], output_shape: Shape) -> Placed:
    parameters = sum(item.parameters for branch in inside for item in branch)
    flops = sum(item.flops for branch in inside for item in branch)
    return Placed(layer, shape, output_shape, parameters, flops, inside)


def _end(branch: tuple[Placed, ...], shape: Shape) -> Shape:
    return branch[-1].output_shape if branch else shape


def _sum_shape(layer: spec.Residual, shape: Shape, inside: tuple[tuple[Placed, ...], ...], pointer: str) -> Shape:
    body, shortcut = (_end(branch, shape) for branch in inside)
    if body != shortcut:
        over = f"its shortcut, with {layer.shortcut[-1].name} last," if layer.shortcut else "the identity beside it"
        raise LayerDoesNotFit(
            pointer,
            layer,
            f"adds shapes that differ: its body, with {layer.body[-1].name} last, gives {body}, and {over} gives "
            f"{shortcut}: give both the same, for instance by a 1×1 convolution with the body's stride in the shortcut",
        )
    return body


def _joined_shape(layer: spec.Parallel, shape: Shape, branches: tuple[tuple[Placed, ...], ...], pointer: str) -> Shape:
    ends = [_end(branch, shape) for branch in branches]
    for index, end in enumerate(ends):
        if len(end) != 3:
            raise LayerDoesNotFit(
                pointer, layer, f"joins maps (C, H, W), and its branch {index} gives {end}: end it with maps"
            )
        if end[1:] != ends[0][1:]:
            raise LayerDoesNotFit(
                pointer,
                layer,
                f"joins maps of one size, and branch 0 gives {ends[0]} where branch {index} gives {end}: "
                "give every branch the same strides, and padding that keeps the size",
            )
    return (sum(end[0] for end in ends), *ends[0][1:])


def _measure(layer: Layer, shape: Shape, pointer: str) -> Counts:
    """The counts of one simple layer on one sample of `shape`."""
    match layer:
        case spec.Linear():
            (columns,) = _vector(layer, shape, pointer)
            weights = columns * layer.features
            return (layer.features,), weights + layer.features * _biased(layer), 2 * weights
        case spec.Conv2d():
            channels = _maps(layer, shape, pointer)[0]
            size = _windows(layer, shape, pointer)
            weights = layer.channels * channels * layer.kernel_size**2
            return (layer.channels, *size), weights + layer.channels * _biased(layer), 2 * weights * prod(size)
        case spec.MaxPool2d() | spec.AveragePool2d():
            return (_maps(layer, shape, pointer)[0], *_windows(layer, shape, pointer)), 0, 0
        case spec.GlobalAveragePool2d():
            return (_maps(layer, shape, pointer)[0],), 0, 0
        case spec.Flatten():
            return (prod(shape),), 0, 0
        case spec.ImageRows():
            channels, height, width = _maps(layer, shape, pointer)
            return (height, channels * width), 0, 0
        case spec.LSTM():
            return _measure_lstm(layer, shape, pointer)
        case (
            spec.BatchNorm()
            | spec.Whitening()
            | spec.LayerNorm()
            | spec.GroupNorm()
            | spec.InstanceNorm()
            | spec.LocalResponseNorm()
        ):
            return shape, _affine_parameters(layer, _channels(layer, shape, pointer)), 0
    return shape, 0, 0


def _measure_lstm(layer: spec.LSTM, shape: Shape, pointer: str) -> Counts:
    """Four gates of `units`, each from the input and the hidden state, at every step."""
    if len(shape) != 2:
        raise LayerDoesNotFit(
            pointer,
            layer,
            f"gets samples of shape {shape}, and needs a sequence (T, F): for an image, put an image_rows layer before",
        )
    steps, features = shape
    gates = 4 * layer.units
    weights = gates * (features + layer.units)
    parameters = weights + gates
    if layer.batch_norm is not None:
        learns_gamma, learns_beta = learned(layer.batch_norm.affine)
        parameters += (2 * gates + layer.units) * learns_gamma + layer.units * learns_beta
    output_shape = (layer.units,) if layer.outputs == "last" else (steps, layer.units)
    return output_shape, parameters, 2 * weights * steps


def learned(affine: bool | str) -> tuple[bool, bool]:
    """Whether (gamma, beta) are learned."""
    return affine in (True, "gamma"), affine in (True, "beta")


def _affine_parameters(layer: Normalization, channels: int) -> int:
    if isinstance(layer, spec.LocalResponseNorm):
        return 0
    return channels * sum(learned(layer.options.affine))


def _biased(layer: spec.Linear | spec.Conv2d) -> bool:
    """A bias that is not decided yet is counted; `layers_of` leaves none undecided."""
    return layer.bias is not False


def _vector(layer: Layer, shape: Shape, pointer: str) -> Shape:
    if len(shape) != 1:
        raise LayerDoesNotFit(
            pointer, layer, f"gets samples of shape {shape}, and needs a vector: put a flatten layer before it"
        )
    return shape


def _maps(layer: Layer, shape: Shape, pointer: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise LayerDoesNotFit(
            pointer, layer, f"gets samples of shape {shape}, and needs feature maps (C, H, W): give it an image"
        )
    channels, height, width = shape
    return channels, height, width


def _channels(layer: Normalization, shape: Shape, pointer: str) -> int:
    """Of a vector each column is a channel; a normalization of a sequence would not know its channels."""
    if len(shape) == 2:
        raise LayerDoesNotFit(
            pointer,
            layer,
            f"gets a sequence {shape}, and normalizes vectors or feature maps: give the lstm layer batch_norm, "
            "or end the sequence before it (outputs: last)",
        )
    channels = shape[0]
    if isinstance(layer, spec.GroupNorm) and channels % layer.options.groups:
        raise LayerDoesNotFit(
            pointer,
            layer,
            f"has {layer.options.groups} groups, which do not divide its {channels} channels: "
            f"set groups to one of {_divisors(channels)}",
        )
    return channels


def _divisors(channels: int) -> str:
    return ", ".join(str(number) for number in range(1, min(channels, 256) + 1) if channels % number == 0)


def _windows(layer: spec.Conv2d | spec.MaxPool2d | spec.AveragePool2d, shape: Shape, pointer: str) -> tuple[int, int]:
    """How many places the layer's window has along each axis of its maps."""
    most = layer.kernel_size - 1 if isinstance(layer, spec.Conv2d) else layer.kernel_size // 2
    if layer.padding > most:
        raise LayerDoesNotFit(
            pointer,
            layer,
            f"pads by {layer.padding}, and a {layer.kernel_size}×{layer.kernel_size} window at the edge would see "
            f"padding only: set padding to at most {most}",
        )
    height, width = (size + 2 * layer.padding - layer.kernel_size for size in shape[1:])
    if min(height, width) < 0:
        raise LayerDoesNotFit(
            pointer,
            layer,
            f"gets maps of {shape[1]}×{shape[2]}, smaller than its {layer.kernel_size}×{layer.kernel_size} window: "
            "use fewer stages, pool less often, or make the window smaller",
        )
    return height // layer.stride + 1, width // layer.stride + 1
