"""Rows that no training has seen, for the demo: test rows of a data set spec, split exactly as the trainer splits.

A process of its own, because it loads what a trainer loads. Reads a dataset spec and a count from its
arguments; writes `{"rows": […], "labels": […]}`, rows in the data's own units.
"""

import json
import sys

import torch

from cli import processes
from core.spec import DatasetSpec
from worker.trainer.data import prepare
from worker.trainer.files import DataFolder


def main() -> None:
    settings = processes.settings()
    dataset, count = processes.arguments()
    spec = DatasetSpec.model_validate_json(dataset)
    data = prepare(spec, DataFolder(settings.resolved_data_dir, settings.data_mirror_url), torch.device("cpu"))
    targets = data.test.targets if data.test.rows is None else data.test.targets[data.test.rows]
    rows = data.test.stored()[: int(count)].flatten(1)
    json.dump(
        {"rows": rows.tolist(), "labels": [data.labels[int(target)] for target in targets[: int(count)]]}, sys.stdout
    )
