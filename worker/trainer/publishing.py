"""From a trained network to files in the artifact store: fold, export, compare, describe."""

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import safetensors.numpy

from bn_models.export import (
    OutputScaling,
    ParityReceipt,
    Reference,
    receipt,
    watching,
    weights_digest,
    write_onnx,
    write_safetensors,
)
from bn_models.folding import fold
from bn_models.networks import Network
from bn_models.normalization import Statistical, normalizations
from bn_models.population import LayerStatistics, PopulationStatistics, running_average
from core.artifacts import Artifact
from core.spec.base import canonical_json
from worker.trainer.gap import finite
from worker.trainer.health import affine_of, summary
from worker.trainer.measuring import Trained
from worker.trainer.moments import input_moments
from worker.trainer.quantizing import serving_options
from worker.trainer.run import Run

CARD_FORMAT = 1


def publish(
    run: Run, trained: Trained, lineage: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Writes the ONNX graph, the unfolded weights, the probe and the card. Gives the card, and the artifacts by
    format. `lineage` stands in the card too, before all else.

    Raises JobFailed("parity_failed") before anything is written, StorageFailed when bytes can not be.
    """
    network, data = run.progress.network, run.data
    statistics = trained.statistics or running_average(network, run.spec.training.batch_size)
    outputs = data.output_scaling or OutputScaling(0.0, 1.0)
    state = {name: value.detach().cpu().numpy() for name, value in network.named_parameters()}
    folded = fold(network.layers, state, statistics)
    digests = _digests(run, trained)
    metadata = {name: digest for name, digest in digests.items() if digest is not None}
    onnx = write_onnx(folded, data.facts.input_shape, data.input_scaling, data.facts.task, outputs, metadata)
    parity = receipt(onnx, network, statistics, data.input_scaling, data.probe, data.facts.task, outputs, _threads(run))
    artifacts: dict[str, Artifact] = {
        "onnx": run.put(onnx, ".onnx"),
        "safetensors": run.put(write_safetensors(network, statistics, metadata), ".safetensors"),
        "probe": run.put(probe_file(parity.reference), ".safetensors"),
    }
    comparable = (lineage or {}).get("not_compared") is None
    serving = serving_options(run, onnx, artifacts, run.put, comparable)
    seen = watching(onnx, network, statistics, data.input_scaling, parity.reference, _watched(run))
    if seen.layers:
        artifacts["watch"] = run.put(seen.fragment, ".onnx-part")
    options = {"serving": serving, "watch": {"layers": [*map(asdict, seen.layers)], "left_out": seen.left_out}}
    card = _card(run, trained, digests, parity, artifacts) | options | (lineage or {})
    artifacts["card"] = run.put(canonical_json(card), ".json")
    return card, {name: asdict(artifact) for name, artifact in artifacts.items()}


def probe_file(reference: Reference) -> bytes:
    """What `verify` runs again: rows in the data's own units (float32), and what the unfolded network makes of
    them in float64."""
    return safetensors.numpy.save({"rows": reference.rows, "outputs": reference.outputs.astype(np.float64)})


def _threads(run: Run) -> int:
    """Of the sessions that will serve it, for which its bits are proved."""
    serving = run.spec.publish.serving if run.spec.publish else None
    return serving.threads if serving else 1


def _watched(run: Run) -> tuple[str, ...] | None:
    serving = run.spec.publish.serving if run.spec.publish else None
    return serving.watch if serving else None


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
        "dataset": _dataset(run),
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
        "population": _population(run, trained, trained.statistics) if trained.statistics else None,
        "metrics": finite(trained.scores),
        "gap": trained.gap,
        "receipt": parity.as_json(),
        **digests,
        "artifacts": {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in artifacts.items()},
        "versions": libraries(),
    }


def libraries() -> dict[str, str]:
    """What a card says of the libraries that made it."""
    return {name: version(name) for name in ("evenkeel", "numpy", "onnx", "onnxruntime", "torch")}


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
    if facts.kind == "sequence":
        steps, features = facts.input_shape
        units = f"as uploaded, not scaled: {steps} steps in time, each with {features} features"
    else:
        units = "as in the file of the source, not standardized"
        units += ", and 0 or 1 for each category of a column of text" if run.data.fields else ""
    return {
        "kind": facts.kind,
        "shape": list(facts.input_shape),
        "columns": list(run.data.columns) or None,
        "fields": list(run.data.fields) or None,
        "pixel_range": None,
        "units": units,
    }


def _dataset(run: Run) -> dict[str, Any] | None:
    """Of a model of uploaded data: which."""
    dataset = run.spec.dataset
    if dataset.stored is None:
        return None
    return {"name": dataset.name, "version": dataset.version, "sha256": dataset.stored.sha256}


def _population(run: Run, trained: Trained, statistics: PopulationStatistics) -> dict[str, Any]:
    """How the statistics were measured, and a summary of each layer; all channels stand in the safetensors file."""
    return {
        **(trained.population or {}),
        "estimator": statistics.estimator,
        "batch_size": statistics.batch_size,
        "samples": statistics.samples,
        "variance": statistics.variance,
        "sha256": statistics.digest(),
        "layers": {
            name: {"position": position, **_layer_summary(run.progress.network, name, layer, statistics.layers[name])}
            for position, (name, layer) in enumerate(normalizations(run.progress.network).items())
        },
    }


def _layer_summary(network: Network, name: str, layer: Statistical, measured: LayerStatistics) -> dict[str, Any]:
    gamma, beta = affine_of(network, name, layer)
    return {
        "n": measured.n,
        "channels": len(measured.mean),
        "mean": summary(measured.mean),
        "variance": summary(measured.variance),
        "covariance": covariance_summary(measured),
        "gamma": None if gamma is None else summary(gamma),
        "beta": None if beta is None else summary(beta),
        "updates": layer.updates,
        "frozen": layer.frozen,
    }


def covariance_summary(measured: LayerStatistics) -> dict[str, Any] | None:
    """Of a whitening layer, its channels being whitened in groups: how far from uncorrelated they were, and the
    largest ratio of a group's eigenvalues."""
    if measured.covariance is None:
        return None
    channels, size = measured.covariance.shape
    starts = range(0, channels, size)
    groups = [measured.covariance[start : start + size, : min(size, channels - start)] for start in starts]
    deviations = [np.sqrt(np.maximum(np.diag(group), np.finfo(np.float64).tiny)) for group in groups]
    correlations = [
        np.abs(group / np.outer(deviation, deviation))[~np.eye(len(group), dtype=bool)]
        for group, deviation in zip(groups, deviations, strict=True)
    ]
    spectra = [np.linalg.eigvalsh(group) for group in groups]
    condition = max(float(spectrum[-1] / spectrum[0]) if spectrum[0] > 0.0 else np.inf for spectrum in spectra)
    beside = np.concatenate(correlations)
    return {
        "group_size": size,
        "groups": len(groups),
        "largest_correlation": float(beside.max()) if beside.size else 0.0,
        "mean_correlation": float(beside.mean()) if beside.size else 0.0,
        "condition": condition if np.isfinite(condition) else None,
    }
