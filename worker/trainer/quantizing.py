"""The int8 graph of a version that asks for it, with what it loses on the test split."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bn_models.export.quantized import one_at_a_time, quantize
from core.artifacts import Artifact
from worker.trainer.run import Run

ROWS = 1000
"""Test rows that the loss is measured on; all where there are fewer."""


def serving_options(
    run: Run, onnx: bytes, artifacts: dict[str, Artifact], put: Callable[[bytes, str], Artifact], comparable: bool
) -> dict[str, Any] | None:
    """The card's `serving`; has the int8 graph `put` beside the others. None: nothing was asked for.

    `comparable`: whether the test split has the model's own labels, so that the loss can be measured.
    """
    publish = run.spec.publish
    if publish is None or publish.serving is None:
        return None
    options = publish.serving.model_dump(mode="json")
    if publish.serving.quantization is None:
        return options
    small = quantize(onnx)
    artifacts["onnx_int8"] = put(small, ".onnx")
    if not comparable:
        return options | {"measured": None}
    rows, targets = _test_rows(run)
    score = "accuracy" if run.data.facts.task == "classification" else "rmse"
    before, after = (_score(graph, rows, targets, run) for graph in (onnx, small))
    return options | {
        "measured": {
            "score": score,
            "rows": len(rows),
            "float32": before,
            "int8": after,
            "difference": after - before,
            "bytes": asdict(artifacts["onnx_int8"])["bytes"],
        }
    }


def _test_rows(run: Run) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Rows in the data's own units, and classes or values in the target's units."""
    data = run.data
    scaled, targets = data.test.between(0, min(ROWS, len(data.test)))
    own = scaled.to("cpu", torch.float64).numpy() / data.input_scaling.scale + data.input_scaling.offset
    wanted = targets.cpu().numpy()
    if data.output_scaling is not None:
        wanted = wanted * data.output_scaling.scale + data.output_scaling.offset
    return own.astype(np.float32), wanted


def _score(onnx: bytes, rows: NDArray[np.float32], targets: NDArray[Any], run: Run) -> float:
    """Of rows that are answered one at a time, as they are served."""
    name = "probabilities" if run.data.facts.task == "classification" else "value"
    answers = one_at_a_time(onnx, name, rows)
    if run.data.facts.task == "classification":
        return float((answers.argmax(axis=1) == targets).mean())
    return float(np.sqrt(np.square(answers.reshape(-1) - targets.reshape(-1)).mean()))
