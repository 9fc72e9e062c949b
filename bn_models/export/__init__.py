"""What leaves a finished training: the ONNX graph with its receipt, and the unfolded weights."""

from bn_models.export.graph import Task, write_onnx
from bn_models.export.parity import ParityReceipt, Reference, compare, receipt, reference
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
    "receipt",
    "reference",
    "watching",
    "weights_digest",
    "write_onnx",
    "write_safetensors",
]
