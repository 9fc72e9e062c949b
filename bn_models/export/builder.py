"""Nodes and constants of an ONNX graph, in the order in which they are written."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class Graph:
    """`value` is the name of what the last node gave; the next node takes it unless told otherwise.

    What clients ask for by name is `public`: a layer of that name becomes `<layer>/layer`. Whatever else is
    not a layer has a slash in its name, which no layer has.
    """

    def __init__(self, given: str, public: tuple[str, ...]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.value = given
        self._public = {given, *public}
        self._constants: set[str] = set()

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """A float32 constant, or an int64 one where the array has integers (shapes, indices)."""
        if name not in self._constants:
            dtype = np.int64 if array.dtype.kind == "i" else np.float32
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=dtype), name))
            self._constants.add(name)
        return name

    def shape(self, *sizes: int) -> str:
        """The constant shape of one batch: 0 keeps the batch axis as it is."""
        return self.constant("/shape/" + "x".join(map(str, sizes)), np.array((0, *sizes)))

    def node(self, operator: str, name: str, *others: str, **attributes: Any) -> str:
        """Applies `operator` to the current value (and `others`). Gives the name of the result, which is current."""
        return self.join(operator, name, self.value, *others, **attributes)

    def join(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Applies `operator` to `inputs`. Gives the name of the result, which is current."""
        self.value = f"{name}/layer" if name in self._public else name
        self.nodes.append(helper.make_node(operator, inputs, [self.value], name=self.value, **attributes))
        return self.value

    def output(self, operator: str, name: str, *others: str, **attributes: Any) -> str:
        """`node`, under a public name."""
        self.nodes.append(helper.make_node(operator, [self.value, *others], [name], name=name, **attributes))
        self.value = name
        return name

    def split(self, name: str, outputs: list[str], axis: int) -> list[str]:
        """Cuts the current value into equal parts."""
        self.nodes.append(
            helper.make_node("Split", [self.value], outputs, name=name, axis=axis, num_outputs=len(outputs))
        )
        return outputs
