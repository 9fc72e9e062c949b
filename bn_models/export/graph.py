"""The frozen network as an ONNX graph, written node by node with onnx's own builder; nothing is traced."""

from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bn_models.export.scaling import IDENTITY, InputScaling, OutputScaling
from bn_models.folding import Affine, FoldedConv2d, FoldedLayer, FoldedLinear, FoldedNetwork
from core.spec import layers as spec
from core.spec.layers import ActivationKind

Task = Literal["classification", "regression"]

OPSET = 20  # the first with Gelu
IR_VERSION = 10
OPERATORS: dict[ActivationKind, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "gelu": ("Gelu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "elu": ("Elu", {"alpha": 1.0}),
}


class Graph:
    """Nodes and float32 constants in order; `value` is the name of what the last node gave.

    `maps`: the current value is feature maps (batch, C, H, W), not vectors (batch, C).
    """

    def __init__(self, maps: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.value = "input"
        self.maps = maps

    def constant(self, name: str, array: NDArray[np.float64]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=np.float32), name))
        return name

    def node(self, operator: str, name: str, *others: str, **attributes: Any) -> None:
        """Applies `operator` to the current value (and `others`); the result is called `name`."""
        self.nodes.append(helper.make_node(operator, [self.value, *others], [name], name=name, **attributes))
        self.value = name


def write_onnx(
    folded: FoldedNetwork,
    input_shape: tuple[int, ...],
    scaling: InputScaling,
    task: Task,
    output_scaling: OutputScaling = IDENTITY,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """A checked ONNX model: "input" float32 (batch, *input_shape) in the data's own units.

    Classification gives "logits" and "probabilities", (batch, classes); regression gives "value",
    (batch, 1), in the target's units. Weights are cast to float32 here and nowhere before.
    """
    graph = Graph(maps=len(input_shape) == 3)
    _write_scaling(graph, scaling)
    for layer in folded.layers:
        _write_layer(graph, layer)
    last = next(layer for layer in reversed(folded.layers) if isinstance(layer, FoldedLinear | FoldedConv2d))
    outputs = _write_outputs(graph, task, output_scaling)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "evenkeel",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *input_shape])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", last.bias.size]) for name in outputs],
            initializer=graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="evenkeel",
    )
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _write_scaling(graph: Graph, scaling: InputScaling) -> None:
    # Not folded into the first layer: with columns of mean 1000 and deviation 0.1 its float32 bias would cancel.
    if np.any(scaling.offset != 0.0):
        graph.node("Sub", "input.centered", graph.constant("input.offset", scaling.offset))
    if np.any(scaling.scale != 1.0):
        graph.node("Mul", "input.scaled", graph.constant("input.scale", scaling.scale))


def _write_layer(graph: Graph, layer: FoldedLayer) -> None:
    name = layer.name
    match layer:
        case FoldedLinear():
            weight, bias = graph.constant(f"{name}.weight", layer.weight), graph.constant(f"{name}.bias", layer.bias)
            graph.node("Gemm", name, weight, bias, transB=1)
        case FoldedConv2d():
            weight, bias = graph.constant(f"{name}.weight", layer.weight), graph.constant(f"{name}.bias", layer.bias)
            graph.node("Conv", name, weight, bias, strides=[layer.stride] * 2, pads=[layer.padding] * 4)
        case Affine():
            _write_affine(graph, layer)
        case spec.Activation(kind="silu"):
            before = graph.value
            graph.node("Sigmoid", f"{name}.sigmoid")
            graph.node("Mul", name, before)
        case spec.Activation():
            operator, attributes = OPERATORS[layer.kind]
            graph.node(operator, name, **attributes)
        case spec.MaxPool2d():
            graph.node("MaxPool", name, kernel_shape=[layer.kernel_size] * 2, strides=[layer.stride] * 2)
        case spec.GlobalAveragePool2d():
            graph.node("GlobalAveragePool", f"{name}.maps")
            graph.node("Flatten", name, axis=1)
            graph.maps = False
        case spec.Flatten():
            graph.node("Flatten", name, axis=1)
            graph.maps = False


def _write_affine(graph: Graph, layer: Affine) -> None:
    per_channel = (-1, 1, 1) if graph.maps else (-1,)
    scale = graph.constant(f"{layer.name}.scale", layer.scale.reshape(per_channel))
    shift = graph.constant(f"{layer.name}.shift", layer.shift.reshape(per_channel))
    graph.node("Mul", f"{layer.name}.scaled", scale)
    graph.node("Add", layer.name, shift)


def _write_outputs(graph: Graph, task: Task, scaling: OutputScaling) -> tuple[str, ...]:
    """Writes and names the outputs; nodes of their own, because clients ask for them by these names."""
    if task == "classification":
        graph.node("Identity", "logits")
        graph.node("Softmax", "probabilities", axis=1)
        return ("logits", "probabilities")
    scale = graph.constant("output.scale", np.array(scaling.scale))
    offset = graph.constant("output.offset", np.array(scaling.offset))
    graph.node("Mul", "output.scaled", scale)
    graph.node("Add", "value", offset)
    return ("value",)
