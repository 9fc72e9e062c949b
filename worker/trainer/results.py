"""What stands on the row of a finished job."""

from typing import Any

from bn_models.architecture import place
from bn_models.export import weights_digest
from worker.trainer.device import peak_memory_bytes
from worker.trainer.gap import finite
from worker.trainer.measuring import Trained
from worker.trainer.run import Run

_BACKWARD = 3
"""FLOPs of a step over those of its forward pass: the backward pass costs two more."""


def result_of(run: Run, trained: Trained, steps: int, seconds: float) -> dict[str, Any]:
    """The result of a job; `steps` and `seconds` are of the training of this attempt alone.

    Scores are of the test split under population statistics: loss and accuracy, or loss, rmse and r2.
    """
    network, training = run.progress.network, run.spec.training
    placed = place(network.layers, network.input_shape)
    rate = steps / seconds if steps else None
    return {
        "model": None,
        "weights_sha256": weights_digest(network.state_dict()),
        "statistics_sha256": trained.statistics.digest() if trained.statistics else None,
        **finite(trained.scores),
        "gap": trained.gap,
        "population": trained.population,
        **({"shifted": trained.shifted} if trained.shifted else {}),
        **({"answers": trained.answers} if trained.answers else {}),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "flops_per_step": _BACKWARD * training.batch_size * sum(item.flops for item in placed),
        "steps": run.progress.step,
        "best_step": run.progress.monitor.best_step,
        "steps_per_second": rate,
        "examples_per_second": rate * training.batch_size if rate is not None else None,
        "training_seconds": seconds,
        "phases_seconds": dict(run.reporter.phase_seconds),
        "peak_memory_bytes": peak_memory_bytes(run.device),
    }
