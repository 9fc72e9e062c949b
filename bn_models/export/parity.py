"""The parity receipt: the exported graph against the unfolded network in float64, on stored probe rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bn_models.architecture import place
from bn_models.export.graph import Task
from bn_models.export.scaling import IDENTITY, InputScaling, OutputScaling
from bn_models.networks import Network, rows_at_once
from bn_models.population import PopulationStatistics, using
from bn_models.receipt import Check, check
from core.errors import JobFailed

Array = NDArray[Any]

RELATIVE_TOLERANCE = 1e-5  # of the largest output
FLOAT32_FACTOR = 4.0  # times the error that the unfolded network itself makes in float32
PROBE_FLOPS = 1e11  # of all probe rows together: some ten seconds of one core, most of them in float64
FEWEST_PROBE_ROWS = 4


@dataclass(frozen=True)
class Reference:
    """Probe rows (N, *input_shape) in the data's own units, and what the unfolded network makes of them in float64.

    `outputs` are logits, or values in the target's units, like `float32_error`, the largest error
    of the unfolded network in float32, and `output_scale`, the largest output.
    """

    rows: NDArray[np.float32]
    outputs: NDArray[np.float64]
    float32_error: float
    output_scale: float

    @property
    def tolerance(self) -> float:
        return max(RELATIVE_TOLERANCE * self.output_scale, FLOAT32_FACTOR * self.float32_error)


@dataclass(frozen=True)
class ParityReceipt:
    """The check, and where its tolerance comes from."""

    check: Check
    reference: Reference

    @property
    def passed(self) -> bool:
        return self.check.passed

    @property
    def maximum_difference(self) -> float:
        return self.check.maximum_difference

    @property
    def tolerance(self) -> float:
        return self.check.tolerance

    @property
    def batch_invariant(self) -> bool:
        return self.check.batch_invariant

    def as_json(self) -> dict[str, Any]:
        """`batch_invariant` holds for batches of up to `largest_batch` rows; `sizes` are those that were tried."""
        tried = self.check.invariance
        return {
            "passed": self.passed,
            "maximum_difference": self.maximum_difference,
            "tolerance": self.tolerance,
            "float32_error": self.reference.float32_error,
            "output_scale": self.reference.output_scale,
            "rows": self.check.rows,
            "batch_invariant": tried.batch_invariant,
            "largest_batch": tried.largest_batch,
            "sizes": list(tried.sizes),
            "all_sizes": tried.complete,
            "threads": self.check.threads,
            "onnxruntime": self.check.onnxruntime,
        }


def reference(
    network: Network,
    statistics: PopulationStatistics,
    scaling: InputScaling,
    probe_rows: Array,
    task: Task,
    output_scaling: OutputScaling = IDENTITY,
) -> Reference:
    """What the graph has to answer to `probe_rows` (N, *input_shape); of a large network to the first of them."""
    rows = probe_rows[: probe_count(network)].astype(np.float32)
    exact = unfolded(network, statistics, scaling, rows, torch.float64)
    single = unfolded(network, statistics, scaling, rows, torch.float32)
    if task == "regression":
        exact, single = output_scaling.apply(exact), output_scaling.apply(single)
    return reference_of(rows, exact, single)


def reference_of(rows: NDArray[np.float32], exact: Array, single: Array) -> Reference:
    """Of outputs that are known, in float64 (`exact`) and as float32 gives them (`single`)."""
    return Reference(rows, exact, _largest(single - exact), _largest(exact))


def probe_count(network: Network) -> int:
    """How many rows are compared at most."""
    flops = sum(item.flops for item in place(network.layers, network.input_shape))
    return max(FEWEST_PROBE_ROWS, int(PROBE_FLOPS // max(1, flops)))


def receipt(
    onnx_bytes: bytes,
    network: Network,
    statistics: PopulationStatistics,
    scaling: InputScaling,
    probe_rows: Array,
    task: Task,
    output_scaling: OutputScaling = IDENTITY,
    threads: int = 1,
) -> ParityReceipt:
    """With sessions of so many `threads`, the comparison on `probe_rows` (N, *input_shape), in the data's own units.

    Raises JobFailed `parity_failed`, with both figures, when the graph differs by more than the tolerance.
    """
    return proved(onnx_bytes, reference(network, statistics, scaling, probe_rows, task, output_scaling), threads)


def proved(onnx_bytes: bytes, expected: Reference, threads: int = 1) -> ParityReceipt:
    """The receipt of a graph that gives what it has to. Raises as `receipt` does."""
    result = compare(onnx_bytes, expected, threads)
    if not result.passed:
        raise JobFailed(
            "parity_failed",
            f"the exported graph differs from the unfolded float64 network by {result.maximum_difference:.3g} on "
            f"{result.check.rows} probe rows; {result.tolerance:.3g} is allowed; "
            "the checkpoint is kept, retry the export",
        )
    return result


def compare(onnx_bytes: bytes, expected: Reference, threads: int = 1) -> ParityReceipt:
    """The receipt, passed or not."""
    return ParityReceipt(check(onnx_bytes, expected.rows, expected.outputs, expected.tolerance, threads), expected)


def unfolded(
    network: Network,
    statistics: PopulationStatistics,
    scaling: InputScaling,
    rows: Array,
    dtype: torch.dtype,
    prepare: Callable[[Network], None] | None = None,
) -> Array:
    """Outputs of a copy of the network, on the CPU in `dtype`, under population statistics; as float64.
    `prepare` gets the copy before it runs."""
    copy = Network(network.layers, network.input_shape).to(dtype)
    copy.load_state_dict(network.state_dict())
    if prepare is not None:
        prepare(copy)
    at_once = rows_at_once(copy, torch.device("cpu"))
    with torch.inference_mode(), using(copy, statistics):
        outputs: list[Array] = [
            copy(torch.from_numpy(scaling.apply(rows[start : start + at_once])).to(dtype)).double().numpy()
            for start in range(0, len(rows), at_once)
        ]
    return np.concatenate(outputs)


def _largest(values: Array) -> float:
    return float(np.abs(values).max())
