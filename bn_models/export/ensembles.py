"""Several frozen graphs as one, which answers with the mean of what they answer."""

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

from bn_models.export.graph import IR_VERSION, OPSET, Task

INPUT = "input"
ANSWERS: dict[Task, str] = {"classification": "probabilities", "regression": "value"}


def write_ensemble(graphs: Sequence[bytes], task: Task, metadata: dict[str, str] | None = None) -> bytes:
    """A checked ONNX model with the members' graphs side by side: "input" as theirs, and "probabilities" (batch,
    classes), or "value" (batch, 1) in the target's units, the mean of theirs.

    Nodes and constants of the k-th member are called `member<k>/<name>`, from 1 on; each scales its inputs as it
    was trained to. Raises ValueError when their inputs or answers have other shapes.
    """
    models = [onnx.load_from_string(content) for content in graphs]
    answer = ANSWERS[task]
    shapes = {(_shape(model.graph.input[0]), _shape(_answer(model, answer))) for model in models}
    if len(shapes) > 1:
        raise ValueError(f"the members' inputs and answers have other shapes: {sorted(shapes)}")
    nodes, constants = [], []
    for number, model in enumerate(models, 1):
        nodes += [_renamed(node, number) for node in model.graph.node]
        constants += [_constant(tensor, number) for tensor in model.graph.initializer]
    answers = [member_name(number, answer) for number in range(1, len(models) + 1)]
    first = models[0].graph
    whole = helper.make_model(
        helper.make_graph(
            [*nodes, helper.make_node("Mean", answers, [answer], name=answer)],
            "evenkeel",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, list(_shape(first.input[0])))],
            [helper.make_tensor_value_info(answer, TensorProto.FLOAT, list(_shape(_answer(models[0], answer))))],
            initializer=constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="evenkeel",
    )
    helper.set_model_props(whole, metadata or {})
    content = bytes(whole.SerializeToString())
    onnx.checker.check_model(content, full_check=True)
    return content


def member_name(number: int, name: str) -> str:
    return f"member{number}/{name}"


def _answer(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    found: onnx.ValueInfoProto = next(output for output in model.graph.output if output.name == name)
    return found


def _shape(value: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    return tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim)


def _renamed(node: onnx.NodeProto, number: int) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = member_name(number, node.name)
    del copy.input[:], copy.output[:]
    # "" stands for an input that is left out
    copy.input.extend(name if name in (INPUT, "") else member_name(number, name) for name in node.input)
    copy.output.extend(member_name(number, name) for name in node.output)
    return copy


def _constant(tensor: onnx.TensorProto, number: int) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = member_name(number, tensor.name)
    return copy
