"""What leaves a finished training: the ONNX graph with its receipt, and the unfolded weights."""

from bn_models.export.ensembles import write_ensemble
from bn_models.export.graph import Task, write_onnx
from bn_models.export.parity import (
    ParityReceipt,
    Reference,
    compare,
    probe_count,
    proved,
    receipt,
    reference,
    reference_of,
    unfolded,
)
from bn_models.export.scaling import InputScaling, OutputScaling
from bn_models.export.watching import Watching, watching
from bn_models.export.weights import weights_digest, write_safetensors

__all__ = [
    "InputScaling",
    "OutputScaling",
    "ParityReceipt",
    "Reference",
    "Task",
    "Watching",
    "compare",
    "probe_count",
    "proved",
    "receipt",
    "reference",
    "reference_of",
    "unfolded",
    "watching",
    "weights_digest",
    "write_ensemble",
    "write_onnx",
    "write_safetensors",
]
