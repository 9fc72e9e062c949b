"""From a trained network to files in the artifact store: fold, export, compare, describe."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bn_models.export import OutputScaling, ParityReceipt, receipt, weights_digest, write_onnx, write_safetensors
from bn_models.folding import fold
from bn_models.networks import Network
from bn_models.normalization import BatchNorm, normalizations
from bn_models.population import PopulationStatistics, running_average
from core.artifacts import Artifact
from core.spec.base import canonical_json
from worker.trainer.evaluation import GapReport, Scores
from worker.trainer.loop import Run
from worker.trainer.moments import input_moments
from worker.trainer.quantizing import serving_options

CARD_FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """What the phases after training found. `statistics` is None without batch norm."""

    statistics: PopulationStatistics | None
    scores: Scores  # on the test split, as the model is served
    gap: GapReport | None


def publish(run: Run, trained: Trained) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Writes the ONNX graph, the unfolded weights and the card. Gives the card, and the artifacts by format.

    Raises JobFailed("parity_failed") before anything is written, StorageFailed when bytes can not be.
    """
    network, data = run.progress.network, run.data
    statistics = trained.statistics or running_average(network, run.spec.training.batch_size)
    outputs = data.output_scaling or OutputScaling(0.0, 1.0)
    state = {name: value.detach().double().cpu().numpy() for name, value in network.named_parameters()}
    folded = fold(network.layers, state, statistics)
    digests = _digests(run, trained)
    metadata = {name: digest for name, digest in digests.items() if digest is not None}
    onnx = write_onnx(folded, data.facts.input_shape, data.input_scaling, data.facts.task, outputs, metadata)
    parity = receipt(onnx, network, statistics, data.input_scaling, data.probe, data.facts.task, outputs)
    artifacts: dict[str, Artifact] = {
        "onnx": run.store.put_content(onnx, ".onnx"),
        "safetensors": run.store.put_content(write_safetensors(network, statistics, metadata), ".safetensors"),
    }
    serving = serving_options(run, onnx, artifacts)
    card = _card(run, trained, digests, parity, artifacts) | {"serving": serving}
    artifacts["card"] = run.store.put_content(canonical_json(card), ".json")
    return card, {name: asdict(artifact) for name, artifact in artifacts.items()}


def _digests(run: Run, trained: Trained) -> dict[str, str | None]:
    return {
        "spec_sha256": run.spec.digest(),
        "weights_sha256": weights_digest(run.progress.network.state_dict()),
        "statistics_sha256": trained.statistics.digest() if trained.statistics else None,
    }


def _card(
    run: Run,
    trained: Trained,
    digests: dict[str, str | None],
    parity: ParityReceipt,
    artifacts: dict[str, Artifact],
) -> dict[str, Any]:
    """All that a reader of the model must know, and that `predict` validates rows against."""
    data, spec = run.data, run.spec
    return {
        "format": CARD_FORMAT,
        "job_id": run.order.job_id,
        "task": data.facts.task,
        "source": spec.dataset.source,
        "input": _input_schema(run) | {"moments": input_moments(data)},
        "labels": list(data.labels) or None,
        "scaling": {
            "kind": spec.dataset.scaling,
            "offset": data.input_scaling.offset.tolist(),
            "scale": data.input_scaling.scale.tolist(),
        },
        "output_scaling": asdict(data.output_scaling) if data.output_scaling else None,
        "network": spec.network.model_dump(mode="json"),
        "normalization": spec.batch_norm.model_dump(mode="json") if spec.batch_norm else None,
        "population": _population(run.progress.network, trained.statistics) if trained.statistics else None,
        "metrics": finite(trained.scores),
        "gap": gap_json(trained.gap),
        "receipt": parity.as_json(),
        **digests,
        "artifacts": {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in artifacts.items()},
        "versions": {name: version(name) for name in ("evenkeel", "numpy", "onnx", "onnxruntime", "torch")},
    }


def _input_schema(run: Run) -> dict[str, Any]:
    facts = run.data.facts
    if facts.kind == "image":
        units = f"pixel values from 0 to {facts.pixel_maximum}"
        return {
            "kind": "image",
            "shape": list(facts.input_shape),
            "columns": None,
            "pixel_range": [0, facts.pixel_maximum],
            "units": units,
        }
    columns = list(run.data.columns)
    return {
        "kind": "table",
        "shape": list(facts.input_shape),
        "columns": columns,
        "pixel_range": None,
        "units": "as in the file of the source, not standardized",
    }


def _population(network: Network, statistics: PopulationStatistics) -> dict[str, Any]:
    """How the statistics were measured, and a summary of each layer; all channels stand in the safetensors file."""
    layers = {
        name: {
            "n": statistics.layers[name].n,
            "channels": len(statistics.layers[name].mean),
            "mean": _summary(statistics.layers[name].mean),
            "variance": _summary(statistics.layers[name].variance),
            "gamma": _parameter_summary(layer, "gamma"),
            "beta": _parameter_summary(layer, "beta"),
            "updates": layer.updates,
        }
        for name, layer in normalizations(network).items()
    }
    return {
        "estimator": statistics.estimator,
        "batch_size": statistics.batch_size,
        "samples": statistics.samples,
        "variance": statistics.variance,
        "sha256": statistics.digest(),
        "layers": layers,
    }


def _parameter_summary(layer: BatchNorm, name: str) -> dict[str, float] | None:
    parameter: Tensor | None = getattr(layer, name)
    return None if parameter is None else _summary(parameter.detach().to("cpu", torch.float64).numpy())


def _summary(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    return {"min": float(values.min()), "max": float(values.max()), "mean": float(values.mean())}


def finite(scores: Scores) -> dict[str, float | None]:
    """Scores for JSON, which has no NaN and no infinity."""
    return {name: score if np.isfinite(score) else None for name, score in scores.items()}


def gap_json(gap: GapReport | None) -> dict[str, Any] | None:
    return None if gap is None else {name: finite(scores) for name, scores in gap.items()}
