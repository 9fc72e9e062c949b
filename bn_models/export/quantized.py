"""The frozen graph with int8 weights, and activations quantized as they come (dynamically)."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic


def quantize(onnx_bytes: bytes) -> bytes:
    """Weights of Gemm and Conv as signed 8-bit integers with one scale a channel; inputs and outputs stay float32.

    The scale of the activations is taken over all rows of a batch, so that a row's answer depends on its
    company: such a graph must be run one row at a time.
    """
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # it advises a pre-processing that needs traced shapes, which these graphs have
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "int8.onnx"
            quantize_dynamic(onnx.load_from_string(onnx_bytes), target, per_channel=True, weight_type=QuantType.QInt8)
            return target.read_bytes()
    finally:
        root.setLevel(before)


def one_at_a_time(onnx_bytes: bytes, output: str, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """`output` for each row (N, *input_shape) by itself, on one thread: as an int8 version is served."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([output], {"input": row[None]})[0] for row in rows])
