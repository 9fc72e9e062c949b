"""The frozen network as an ONNX graph, written node by node with onnx's own builder; nothing is traced."""

from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from bn_models.architecture import flat, place
from bn_models.export.builder import Graph
from bn_models.export.nodes import write_layers
from bn_models.export.scaling import IDENTITY, InputScaling, OutputScaling
from bn_models.folding import FoldedNetwork

Task = Literal["classification", "regression"]

OPSET = 20  # the first with Gelu
IR_VERSION = 10


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
    (batch, 1), in the target's units. Weights are cast to float32 here and nowhere before. Nodes are
    called as the layers are; what a layer needs several nodes for is called `<layer>/<part>`.
    """
    placed = place(folded.source, input_shape)
    outputs = ("logits", "probabilities") if task == "classification" else ("value",)
    graph = Graph("input", outputs)
    _write_scaling(graph, scaling)
    write_layers(graph, folded.layers, {item.layer.name: item for item in flat(placed)})
    _write_outputs(graph, task, output_scaling)
    columns = placed[-1].output_shape
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "evenkeel",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *input_shape])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *columns]) for name in outputs],
            initializer=graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="evenkeel",
    )
    helper.set_model_props(model, metadata or {})
    content = bytes(model.SerializeToString())
    onnx.checker.check_model(content, full_check=True)  # the bytes: a model it would serialize once more
    return content


def _write_scaling(graph: Graph, scaling: InputScaling) -> None:
    # Not folded into the first layer: with columns of mean 1000 and deviation 0.1 its float32 bias would cancel.
    if np.any(scaling.offset != 0.0):
        graph.node("Sub", "/input/centered", graph.constant("/input/offset", scaling.offset))
    if np.any(scaling.scale != 1.0):
        graph.node("Mul", "/input/scaled", graph.constant("/input/scale", scaling.scale))


def _write_outputs(graph: Graph, task: Task, scaling: OutputScaling) -> None:
    """Nodes of their own, because clients ask for them by these names."""
    if task == "classification":
        graph.output("Identity", "logits")
        graph.output("Softmax", "probabilities", axis=1)
    else:
        scale = graph.constant("/output/scale", np.array(scaling.scale))
        offset = graph.constant("/output/offset", np.array(scaling.offset))
        graph.node("Mul", "/output/scaled", scale)
        graph.output("Add", "value", offset)
