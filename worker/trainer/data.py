"""The data of one job as tensors on its device: split, scaled, and gathered by index."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bn_models.export.scaling import InputScaling, OutputScaling
from bn_models.randomness import derive_seed
from core.spec import DatasetSpec, SourceFacts
from worker.trainer import features
from worker.trainer.files import DataFolder
from worker.trainer.sources import RawData, Rows, load
from worker.trainer.uploads import load_upload

PRESCALED_BYTES = 2 * 1024**3
"""On a GPU, inputs up to this size are scaled once, as float32, instead of batch by batch."""
PROBE_ROWS = 128


@dataclass(frozen=True)
class Scaler:
    """An `InputScaling` in float32 on the device, in the order of operations of the exported graph."""

    offset: Tensor | None  # None: 0, the usual case of images
    scale: Tensor

    @classmethod
    def of(cls, scaling: InputScaling, device: torch.device) -> "Scaler":
        offset = torch.from_numpy(scaling.offset.astype(np.float32)).to(device)
        scale = torch.from_numpy(scaling.scale.astype(np.float32)).to(device)
        return cls(offset if scaling.offset.any() else None, scale)

    def __call__(self, values: Tensor) -> Tensor:
        """A new float32 tensor of scaled values."""
        scaled = values.to(torch.float32, copy=True)
        if self.offset is not None:
            scaled.sub_(self.offset)
        return scaled.mul_(self.scale)


@dataclass(frozen=True)
class Scalings:
    """How inputs and, of a regression, targets are scaled, where that is known beforehand."""

    inputs: InputScaling
    outputs: OutputScaling | None


@dataclass(frozen=True)
class Split:
    """Rows of one split. `inputs` and `targets` may hold other rows too: `rows` says which are this split's."""

    inputs: Tensor  # (all rows, *input_shape): in the data's own units, or scaled when `scaler` is None
    targets: Tensor  # (all rows,): int64 classes, or float32 scaled regression values
    rows: Tensor | None  # int64 indices; None: all rows, in their order
    scaler: Scaler | None

    def __len__(self) -> int:
        return len(self.inputs) if self.rows is None else len(self.rows)

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled inputs and targets of the given rows of the underlying tensors."""
        inputs = self.inputs.index_select(0, rows)
        return inputs if self.scaler is None else self.scaler(inputs), self.targets.index_select(0, rows)

    def between(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Scaled inputs and targets of the split's samples start..end, in the split's own order."""
        if self.rows is not None:
            return self.gather(self.rows[start:end])
        inputs = self.inputs[start:end]
        return inputs if self.scaler is None else self.scaler(inputs), self.targets[start:end]

    def stored(self) -> Tensor:
        """Inputs of this split alone, in its own order, not yet through `scaler`."""
        return self.inputs if self.rows is None else self.inputs.index_select(0, self.rows)

    def shuffled(self, seed: int) -> Tensor:
        """The rows of the split in the order that `seed` draws, for `gather`."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator).to(self.targets.device)
        return order if self.rows is None else self.rows[order]


@dataclass(frozen=True)
class Data:
    facts: SourceFacts
    training: Split
    validation: Split | None
    test: Split
    input_scaling: InputScaling
    output_scaling: OutputScaling | None  # of regression, whose targets are standardized
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    probe: NDArray[np.float32]
    """Up to PROBE_ROWS test rows in the data's own units, to compare the exported graph on."""
    fields: tuple[dict[str, Any], ...] = ()
    """Of a table with columns of text: what its columns were before each category became one."""


def prepare(spec: DatasetSpec, folder: DataFolder, device: torch.device, scalings: Scalings | None = None) -> Data:
    """Reads, splits and scales the data of a job, by its training split unless `scalings` are given.

    Raises what `sources.load` and `uploads.load_upload` raise.
    """
    raw = load(spec.source, folder) if spec.stored is None else load_upload(spec.stored, folder)
    training_rows, validation_rows, test_rows = _split(spec)
    input_scaling = scalings.inputs if scalings else _input_scaling(spec, raw, training_rows)
    output_scaling = _output_scaling(raw, training_rows)
    if output_scaling and scalings and scalings.outputs:
        output_scaling = scalings.outputs
    main = _tensors(raw.rows, input_scaling, output_scaling, device)
    test = main if raw.test is None else _tensors(raw.test, input_scaling, output_scaling, device)
    return Data(
        raw.facts,
        _subset(main, training_rows),
        _subset(main, validation_rows) if validation_rows is not None else None,
        _subset(test, test_rows),
        input_scaling,
        output_scaling,
        raw.labels,
        raw.columns,
        _probe(raw, test_rows),
        raw.fields,
    )


def _split(spec: DatasetSpec) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Row indices of (training, validation, test); None for training or test: all rows of their own file."""
    training, validation, test = spec.split_sizes()
    official = spec.facts.test_rows is not None
    if official and validation == 0:
        return None, None, None
    generator = torch.Generator().manual_seed(derive_seed(spec.split_seed, "split"))
    order = torch.randperm(training + validation + (0 if official else test), generator=generator)
    rows, held_out, tested = order[:training], order[training : training + validation], order[training + validation :]
    return rows, held_out if validation else None, None if official else tested


def _probe(raw: RawData, test_rows: Tensor | None) -> NDArray[np.float32]:
    inputs = (raw.test or raw.rows).inputs
    rows = inputs[:PROBE_ROWS] if test_rows is None else inputs[test_rows[:PROBE_ROWS].numpy()]
    return rows.astype(np.float32)


def _subset(split: Split, rows: Tensor | None) -> Split:
    return Split(split.inputs, split.targets, None if rows is None else rows.to(split.targets.device), split.scaler)


def _tensors(rows: Rows, inputs: InputScaling, outputs: OutputScaling | None, device: torch.device) -> Split:
    """All rows on the device. Images on a CPU stay bytes: gathering and then scaling 60 of them is as
    fast as gathering floats, takes no memory of this process and no time before the first step."""
    stored = torch.from_numpy(rows.inputs).to(device)
    scaler = Scaler.of(inputs, device)
    scaled_bytes = 4 * stored.numel()
    if stored.dtype != torch.uint8 or (device.type == "cuda" and scaled_bytes <= PRESCALED_BYTES):
        return Split(scaler(stored), _targets(rows, outputs, device), None, None)
    return Split(stored, _targets(rows, outputs, device), None, scaler)


def _targets(rows: Rows, outputs: OutputScaling | None, device: torch.device) -> Tensor:
    if outputs is None:
        return torch.from_numpy(rows.targets).to(device)
    return torch.from_numpy(((rows.targets - outputs.offset) / outputs.scale).astype(np.float32)).to(device)


def _input_scaling(spec: DatasetSpec, raw: RawData, rows: Tensor | None) -> InputScaling:
    if spec.scaling == "none":
        return InputScaling(np.zeros(1), np.ones(1))
    if spec.scaling == "unit" and raw.facts.kind == "image":
        return InputScaling(np.zeros(1), np.full(1, 1.0 / (raw.facts.pixel_maximum or 1)))
    inputs, chosen = raw.rows.inputs, None if rows is None else rows.numpy()
    if spec.scaling == "unit":
        largest = features.largest(inputs, chosen)
        return InputScaling(np.zeros(1), 1.0 / np.where(largest > 0.0, largest, 1.0))
    if raw.facts.kind == "image" and inputs.dtype == np.uint8:
        return standardizing(*features.moments_of_bytes(inputs if chosen is None else inputs[chosen]))
    if raw.facts.kind == "table" and inputs.dtype == np.float64:
        table = inputs if chosen is None else inputs[chosen]
        return standardizing(table.mean(axis=0), table.std(axis=0))
    return standardizing(*features.moments(inputs, chosen, by_feature=raw.facts.kind != "image"))


def _output_scaling(raw: RawData, rows: Tensor | None) -> OutputScaling | None:
    if raw.facts.task == "classification":
        return None
    targets = raw.rows.targets if rows is None else raw.rows.targets[rows.numpy()]
    return OutputScaling(float(targets.mean()), float(targets.std()) or 1.0)


def standardizing(mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> InputScaling:
    """A column that never changes is only centred; below float32's resolution a deviation is rounding.

    The offset is rounded here, as training and the exported graph subtract it in float32: of a
    column of mean 1000 and deviation 0.1 another digit would be a difference of 1e-4 deviations.
    """
    changes = deviation > np.finfo(np.float32).eps * np.abs(mean)
    return InputScaling(mean.astype(np.float32).astype(np.float64), 1.0 / np.where(changes, deviation, 1.0))
