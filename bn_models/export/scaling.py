"""How the data's own units become what the network was trained on, and back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class InputScaling:
    """scaled = (x − offset) · scale; float64 arrays that broadcast over one sample, without the batch axis.

    Pixels 0–255 to 0–1: offset 0, scale 1/255. Standardized: offset the training mean, scale 1 / deviation.
    """

    offset: Array
    scale: Array

    def apply(self, rows: Array) -> Array:
        """Rows (N, *input_shape) in the data's own units → what the network takes, in float64."""
        return (rows.astype(np.float64) - self.offset) * self.scale


@dataclass(frozen=True)
class OutputScaling:
    """value = output · scale + offset, in the target's units; a network trained on
    (target − mean) / deviation has offset = mean and scale = deviation."""

    offset: float
    scale: float

    def apply(self, outputs: Array) -> Array:
        return outputs * self.scale + self.offset


IDENTITY = OutputScaling(0.0, 1.0)
