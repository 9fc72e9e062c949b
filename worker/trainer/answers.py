"""What a network answers on the test split, kept in a file: `evaluation.keep_answers`."""

from dataclasses import asdict
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from bn_models.normalization import evaluation
from bn_models.population import PopulationStatistics, using
from worker.trainer.evaluation import outputs_under
from worker.trainer.run import Run


def kept_answers(run: Run, statistics: PopulationStatistics | None) -> dict[str, Any] | None:
    """The file as an artifact, if the spec asks for it: `answers` float32 (N, classes), probabilities, or (N, 1),
    values in the target's units; `targets` int64 (N,), or float64 in these units. As the network is served."""
    if not run.spec.evaluation.keep_answers:
        return None
    network, data = run.progress.network, run.data
    mode = evaluation(network) if statistics is None else using(network, statistics)
    outputs, targets = outputs_under(network, data.test, mode)
    answers, wanted = outputs.double().cpu().numpy(), targets.cpu().numpy()
    scaling = data.output_scaling
    if scaling is None:
        answers = probabilities(answers)
    else:
        answers, wanted = scaling.apply(answers), scaling.apply(wanted.astype(np.float64))
    content = safetensors.numpy.save({"answers": answers.astype(np.float32), "targets": wanted})
    return asdict(run.put(content, ".safetensors"))


def probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the classes of (N, classes)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares
