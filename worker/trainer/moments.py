"""Mean and variance of the training inputs, for the model's card: what drift is measured against."""

from typing import Any

import numpy as np
import torch

from worker.trainer.data import Data

ROWS = 16_384
"""Training rows that are looked at, drawn at random; all where there are fewer."""
CHUNK_ROWS = 2048


def input_moments(data: Data) -> dict[str, Any]:
    """In the data's own units, float64: one a column of a table, a channel of an image, a feature of a
    sequence."""
    order = data.training.shuffled(0)[:ROWS]
    total = squares = np.zeros(())
    values = 0
    for start in range(0, len(order), CHUNK_ROWS):
        inputs, _ = data.training.gather(order[start : start + CHUNK_ROWS])
        chunk = inputs.to("cpu", torch.float64).numpy()
        chunk = chunk.swapaxes(1, 2) if data.facts.kind == "sequence" else chunk
        by_channel = chunk.reshape(*chunk.shape[:2], -1)
        total = total + by_channel.sum(axis=(0, 2))
        squares = squares + np.square(by_channel).sum(axis=(0, 2))
        values += len(chunk) * by_channel.shape[2]
    mean = total / values
    variance = np.maximum(squares / values - np.square(mean), 0.0)
    scale, offset = data.input_scaling.scale.reshape(-1), data.input_scaling.offset.reshape(-1)
    return {
        "mean": (mean / scale + offset).tolist(),
        "variance": (variance / np.square(scale)).tolist(),
        "rows": len(order),
    }
