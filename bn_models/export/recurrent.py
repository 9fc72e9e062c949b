"""An LSTM as ONNX nodes, its time steps written out one after the other."""

from bn_models.export.builder import Graph
from bn_models.frozen import FoldedLSTM


def write_lstm(graph: Graph, layer: FoldedLSTM, steps: int) -> None:
    """(batch, T, F) → (batch, U), or (batch, T, U).

    Of each step: gates = W_x x_t + W_h h + b; c = σ(f)c + σ(i)tanh(g); h = σ(o)tanh(c).

    W_x x of all steps is one product. Every step keeps an axis of its own, (batch, 1, …), so that a
    product with W_h takes the whole batch at once, and steps join to a sequence.
    """
    name = layer.name
    parts = _write_inputs(graph, layer, steps)
    weight = graph.constant(f"{name}/hidden.weight", layer.hidden_weight.T)
    hidden: list[str] = []
    cell: str | None = None
    for step, gates in enumerate(parts):
        at = f"{name}/step{step}"
        graph.value = gates
        if hidden:
            graph.join("MatMul", f"{at}/hidden", hidden[-1], weight)
            if layer.steps is not None:
                scale = graph.constant(f"{at}/hidden.scale", layer.steps.hidden_scale[step])
                graph.node("Mul", f"{at}/hidden.scaled", scale)
            graph.node("Add", f"{at}/gates", gates)
        cell, output = _write_cell(graph, layer, step, cell)
        hidden.append(output)
    if layer.whole_sequence:
        graph.join("Concat", name, *hidden, axis=1)
    else:
        graph.node("Flatten", name, axis=1)


def _write_inputs(graph: Graph, layer: FoldedLSTM, steps: int) -> list[str]:
    """What each step's gates get from the input, bias included: (batch, 1, 4U) each."""
    name = layer.name
    graph.node("MatMul", f"{name}/input", graph.constant(f"{name}/input.weight", layer.input_weight.T))
    shift = layer.bias
    if layer.steps is not None:
        shift = layer.steps.shift
        graph.node("Mul", f"{name}/input.scaled", graph.constant(f"{name}/input.scale", layer.steps.input_scale))
    graph.node("Add", f"{name}/input.shifted", graph.constant(f"{name}/input.shift", shift))
    if steps == 1:
        return [graph.value]
    return graph.split(f"{name}/steps", [f"{name}/step{step}.input" for step in range(steps)], axis=1)


def _write_cell(graph: Graph, layer: FoldedLSTM, step: int, before: str | None) -> tuple[str, str]:
    """The names of the new cell and hidden state, from the gates, which are the current value."""
    at = f"{layer.name}/step{step}"
    gates = graph.split(f"{at}/split", [f"{at}/{gate}.in" for gate in "ifgo"], axis=2)
    opened = {}
    for gate, value in zip("ifgo", gates, strict=True):
        opened[gate] = graph.join("Tanh" if gate == "g" else "Sigmoid", f"{at}/{gate}", value)
    cell = graph.join("Mul", f"{at}/new", opened["i"], opened["g"])
    if before is not None:
        graph.join("Mul", f"{at}/kept", opened["f"], before)
        cell = graph.node("Add", f"{at}/cell", cell)
    if layer.steps is not None:
        graph.node("Mul", f"{at}/cell.scaled", graph.constant(f"{at}/cell.scale", layer.steps.cell_scale[step]))
        graph.node("Add", f"{at}/cell.normed", graph.constant(f"{at}/cell.shift", layer.steps.cell_shift[step]))
    graph.node("Tanh", f"{at}/cell.tanh")
    return cell, graph.node("Mul", f"{at}/output", opened["o"])
