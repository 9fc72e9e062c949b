"""The parity receipt: the exported graph against the unfolded network in float64, on stored probe rows."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from bn_models.export.graph import Task
from bn_models.export.scaling import IDENTITY, InputScaling, OutputScaling
from bn_models.networks import Network
from bn_models.population import PopulationStatistics, using
from core.errors import JobFailed

Array = NDArray[Any]

RELATIVE_TOLERANCE = 1e-5  # of the largest output
FLOAT32_FACTOR = 4.0  # times the error that the unfolded network itself makes in float32
COMPANY_SIZES = (1, 2, 3, 4, 5, 8, 13, 16, 31, 32, 64)


@dataclass(frozen=True)
class ParityReceipt:
    """`maximum_difference` is of logits, or of values in the target's units; likewise the other figures.

    `batch_invariant`: a row's answer has the same bits alone and in company of up to 63 others.
    """

    passed: bool
    maximum_difference: float
    tolerance: float
    float32_error: float
    output_scale: float
    rows: int
    batch_invariant: bool
    onnxruntime: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def receipt(
    onnx_bytes: bytes,
    network: Network,
    statistics: PopulationStatistics,
    scaling: InputScaling,
    probe_rows: Array,
    task: Task,
    output_scaling: OutputScaling = IDENTITY,
) -> ParityReceipt:
    """The comparison on `probe_rows` (N, *input_shape), in the data's own units.

    Raises JobFailed `parity_failed`, with both figures, when the graph differs by more than the tolerance.
    """
    result = compare(onnx_bytes, network, statistics, scaling, probe_rows, task, output_scaling)
    if not result.passed:
        raise JobFailed(
            "parity_failed",
            f"the exported graph differs from the unfolded float64 network by {result.maximum_difference:.3g} on "
            f"{result.rows} probe rows; {result.tolerance:.3g} is allowed; the checkpoint is kept, retry the export",
        )
    return result


def compare(
    onnx_bytes: bytes,
    network: Network,
    statistics: PopulationStatistics,
    scaling: InputScaling,
    probe_rows: Array,
    task: Task,
    output_scaling: OutputScaling = IDENTITY,
) -> ParityReceipt:
    """The receipt, passed or not."""
    rows = probe_rows.astype(np.float32)
    exact = _unfolded(network, statistics, scaling, rows, torch.float64)
    single = _unfolded(network, statistics, scaling, rows, torch.float32)
    if task == "regression":
        exact, single = output_scaling.apply(exact), output_scaling.apply(single)
    session = _session(onnx_bytes)
    answers = _run(session, rows)
    difference, float32_error = _largest(answers - exact), _largest(single - exact)
    output_scale = _largest(exact)
    tolerance = max(RELATIVE_TOLERANCE * output_scale, FLOAT32_FACTOR * float32_error)
    return ParityReceipt(
        passed=bool(np.isfinite(tolerance)) and difference <= tolerance,  # false also when either is NaN
        maximum_difference=difference,
        tolerance=tolerance,
        float32_error=float32_error,
        output_scale=output_scale,
        rows=len(rows),
        batch_invariant=_is_batch_invariant(session, rows),
        onnxruntime=onnxruntime.__version__,
    )


def _unfolded(
    network: Network, statistics: PopulationStatistics, scaling: InputScaling, rows: Array, dtype: torch.dtype
) -> Array:
    """Outputs of a copy of the network, on the CPU in `dtype`, under population statistics; as float64."""
    copy = Network(network.layers, network.input_shape).to(dtype)
    copy.load_state_dict(network.state_dict())
    with torch.inference_mode(), using(copy, statistics):
        outputs: Array = copy(torch.from_numpy(scaling.apply(rows)).to(dtype)).double().numpy()
    return outputs


def _session(onnx_bytes: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, rows: Array) -> Array:
    """The first output: logits, or values."""
    answers: Array = session.run([session.get_outputs()[0].name], {"input": rows})[0]
    return answers


def _is_batch_invariant(session: onnxruntime.InferenceSession, rows: Array) -> bool:
    company = np.resize(rows, (max(COMPANY_SIZES), *rows.shape[1:]))
    alone = np.concatenate([_run(session, company[index : index + 1]) for index in range(4)])
    return all(_run(session, company[:size])[:4].tobytes() == alone[:size].tobytes() for size in COMPANY_SIZES)


def _largest(values: Array) -> float:
    return float(np.abs(values).max())
