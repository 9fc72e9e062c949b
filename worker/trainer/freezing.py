"""`freeze_last_steps`: from a step on, layers normalize by the population statistics computed when it begins."""

import time

from bn_models.normalization import normalizations
from bn_models.population import freeze, measure
from worker.trainer.run import Run


def freezing_steps(run: Run) -> frozenset[int]:
    """The steps before which layers are to be frozen. The loop asks so at every step, so this is done once."""
    steps, layers = run.spec.training.steps, normalizations(run.progress.network).values()
    return frozenset(
        max(1, steps - layer.options.freeze_last_steps + 1) for layer in layers if layer.options.freeze_last_steps
    )


def freeze_due(run: Run, step: int) -> None:
    """Freezes the layers whose last steps begin with `step`, at the statistics of the training data now, dropout off.

    A run that resumes at the very boundary does what an undisturbed one did: a checkpoint from before it
    has the layers unfrozen, and the same weights give the same statistics; one from behind it has them
    frozen, in the state of the layers.
    """
    steps, network = run.spec.training.steps, run.progress.network
    due = [
        name
        for name, layer in normalizations(network).items()
        if not layer.frozen and step > steps - layer.options.freeze_last_steps
    ]
    if not due:
        return
    began = time.monotonic()
    data, training = run.data.training, run.spec.training
    statistics = measure(network, data.stored(), run.spec.population, training.batch_size, training.seed, data.scaler)
    freeze(network, statistics, due)
    listed = ", ".join(due[:5]) + (f" and {len(due) - 5} more" if len(due) > 5 else "")
    run.reporter.log(
        "info",
        f"before step {step}: {listed} frozen at population statistics ({statistics.estimator}, "
        f"{statistics.samples} samples, {time.monotonic() - began:.2f} s)",
        {"kind": "freeze", "layers": due, "estimator": statistics.estimator, "samples": statistics.samples},
    )
