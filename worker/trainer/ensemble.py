"""Ensembles: published versions that answer as one, with the mean of their probabilities or values.

No step is trained, so there is nothing to checkpoint: an attempt that is interrupted begins again.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from bn_models.export import (
    OutputScaling,
    Reference,
    probe_count,
    proved,
    reference_of,
    unfolded,
    write_ensemble,
)
from bn_models.export.ensembles import member_name
from bn_models.networks import Network, build
from bn_models.population import using
from core.artifacts import Artifact, ArtifactStore
from core.errors import JobFailed
from core.spec import InitializationSpec, JobSpec
from core.spec.base import canonical_json
from core.spec.ensemble import EnsembleSpec, MemberVersion
from core.spec.layers import Layer
from core.states import Phase
from worker.messages import Finished, Order, Started
from worker.trainer.answers import probabilities
from worker.trainer.data import Data, prepare
from worker.trainer.device import fingerprint, peak_memory_bytes
from worker.trainer.evaluation import Scores, outputs_under
from worker.trainer.files import DataFolder
from worker.trainer.gap import finite
from worker.trainer.patience import Patience
from worker.trainer.published import Version, read_version
from worker.trainer.publishing import CARD_FORMAT, libraries, probe_file
from worker.trainer.reporting import Reporter
from worker.trainer.uploads import data_folder

Array = NDArray[Any]
LAYERS = TypeAdapter[tuple[Layer, ...]](tuple[Layer, ...])
DTYPES = (torch.float64, torch.float32)
TINY = np.finfo(np.float64).tiny
UNWATCHED = "the layers of members are not watched in an ensemble: each member's own version has its drift"


@dataclass(frozen=True)
class Member:
    """One version, unfolded: `graph` is its folded graph as ONNX."""

    wanted: MemberVersion
    version: Version
    network: Network
    graph: bytes

    @property
    def outputs(self) -> OutputScaling | None:
        return self.version.scalings.outputs

    @property
    def scaling(self) -> tuple[Any, Any]:
        """Of inputs and targets, as the card has it."""
        return self.version.card["scaling"], self.version.card["output_scaling"]

    def answers(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (N, classes), or values (N, 1) in the target's units, from outputs of the network."""
        return probabilities(outputs) if self.outputs is None else self.outputs.apply(outputs)


@dataclass(frozen=True)
class Measured:
    """Test scores of the ensemble and, in their order, of its members; none where nothing could be compared."""

    together: Scores
    alone: list[Scores]


def combine(
    order: Order,
    spec: JobSpec,
    device: torch.device,
    store: ArtifactStore,
    reporter: Reporter,
    begin: Callable[[Phase], None],
) -> Finished:
    """Reads the members, evaluates them alone and together, and exports them as one graph.

    Raises JobFailed("storage_error") when the files of a member are not what they were, ("invalid_data") when
    members do not fit one another, ("parity_failed") when the graph does not give what the networks do.
    """
    wanted = spec.ensemble
    if wanted is None:
        raise ValueError("the spec asks for no ensemble")
    reporter.sink.send(Started(fingerprint(device, spec), 0))
    reporter.begin("loading")
    patience = Patience(order.storage_patience_seconds, reporter)
    members = [_member(store, patience, item) for item in wanted.members]
    begin("preparing_data")
    folder = data_folder(order, store, patience)
    data = prepare(spec.dataset, folder, device, members[0].version.scalings)
    begin("evaluating")
    measured = _measured(spec, wanted, members, data, folder, device, reporter)
    begin("exporting")
    result = _result(wanted, members, measured, reporter, device)
    onnx, receipt = _exported(members, data.probe, result)

    def put(content: bytes, suffix: str) -> Artifact:
        return patience.insist(lambda: store.put_content(content, suffix))

    artifacts = {
        "onnx": put(onnx, ".onnx"),
        "safetensors": put(_weights(members, result), ".safetensors"),
        "probe": put(probe_file(receipt.reference), ".safetensors"),
    }
    watch = {"layers": [], "left_out": {"members": UNWATCHED}}
    card = _card(order, spec, members, result, artifacts) | {"receipt": receipt.as_json(), "watch": watch}
    artifacts["card"] = put(canonical_json(card), ".json")
    reporter.end_phase()
    result["phases_seconds"] = dict(reporter.phase_seconds)
    return Finished(result, card, {name: asdict(file) for name, file in artifacts.items()})


def _member(store: ArtifactStore, patience: Patience, wanted: MemberVersion) -> Member:
    told = f"version {wanted.version} of {wanted.model}"
    version = read_version(store, patience, wanted.card, wanted.safetensors)
    layers = LAYERS.validate_json(version.metadata["layers"])
    shape = tuple(json.loads(version.metadata["input_shape"]))
    network = build(layers, shape, InitializationSpec(), seed=0)
    version.fill(network, wanted.weights_sha256, told)
    return Member(wanted, version, network, patience.insist(lambda: store.get(wanted.onnx.name, wanted.onnx.sha256)))


def _measured(
    spec: JobSpec,
    wanted: EnsembleSpec,
    members: Sequence[Member],
    data: Data,
    folder: DataFolder,
    device: torch.device,
    reporter: Reporter,
) -> Measured:
    if wanted.not_compared is not None:
        reporter.log("warning", f"no test scores: {wanted.not_compared}")
        return Measured({}, [{} for _ in members])
    answers, targets = [], np.zeros(0)
    for member in members:
        scaled = data
        if member.scaling != members[0].scaling:
            scaled = prepare(spec.dataset, folder, device, member.version.scalings)
        network = member.network.to(device)
        outputs, classes = outputs_under(network, scaled.test, using(network, member.version.statistics))
        member.network.to("cpu")
        answers.append(member.answers(outputs.double().cpu().numpy()))
        wanted_here = classes.cpu().numpy()
        targets = wanted_here if member.outputs is None else member.outputs.apply(wanted_here.astype(np.float64))
    together = scores_of(np.mean(answers, axis=0), targets)
    for score, value in together.items():
        reporter.record(f"test/{score}", 0, value)
    reporter.flush()
    return Measured(together, [scores_of(one, targets) for one in answers])


def scores_of(answers: NDArray[np.float64], targets: Array) -> Scores:
    """Of probabilities (N, classes) with classes (N,): loss, the mean of −log p, and accuracy. Of values (N, 1) with
    values (N,), in the target's units: rmse, and r2 = 1 − SSE/SST, NaN for constant targets."""
    if targets.dtype.kind == "i":
        told = answers[np.arange(len(targets)), targets]
        loss = -float(np.log(np.maximum(told, TINY)).mean())
        return {"loss": loss, "accuracy": float((answers.argmax(axis=1) == targets).mean())}
    errors = float(np.square(answers.reshape(-1) - targets).sum())
    total = float(np.square(targets - targets.mean()).sum())
    r2 = 1.0 - errors / total if total > 0.0 else math.nan
    return {"rmse": math.sqrt(errors / len(targets)), "r2": r2}


def _exported(members: Sequence[Member], probe: Array, result: dict[str, Any]) -> tuple[bytes, Any]:
    """(the graph, its receipt): against the mean of what the unfolded networks give in float64."""
    task = members[0].version.card["task"]
    metadata = {name: result[name] for name in ("weights_sha256", "statistics_sha256") if result[name] is not None}
    try:
        onnx = write_ensemble([member.graph for member in members], task, metadata)
    except ValueError as error:
        raise JobFailed("invalid_data", str(error)) from error
    return onnx, proved(onnx, _reference(members, probe))


def _reference(members: Sequence[Member], probe: Array) -> Reference:
    rows = probe[: min(probe_count(member.network) for member in members)].astype(np.float32)
    exact, single = (np.mean([_unfolded(member, rows, dtype) for member in members], axis=0) for dtype in DTYPES)
    return reference_of(rows, exact, single)


def _unfolded(member: Member, rows: Array, dtype: torch.dtype) -> NDArray[np.float64]:
    version = member.version
    outputs = unfolded(member.network, version.statistics, version.scalings.inputs, rows, dtype)
    return member.answers(outputs)


def _weights(members: Sequence[Member], result: dict[str, Any]) -> bytes:
    """All members' files of weights in one, their tensors and metadata as `member<k>/<name>`."""
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for number, member in enumerate(members, 1):
        tensors |= {member_name(number, name): value for name, value in member.version.tensors.items()}
        metadata |= {member_name(number, name): text for name, text in member.version.metadata.items()}
    own = {name: result[name] for name in ("weights_sha256", "statistics_sha256") if result[name] is not None}
    return safetensors.torch.save(tensors, metadata | own | {"members": str(len(members))})


def _result(
    wanted: EnsembleSpec, members: Sequence[Member], measured: Measured, reporter: Reporter, device: torch.device
) -> dict[str, Any]:
    """Digests are over those of the members, in their order; a member without statistics counts as such."""
    statistics = [member.wanted.statistics_sha256 for member in members]
    return {
        "model": None,
        "weights_sha256": digest_of([member.wanted.weights_sha256 for member in members]),
        "statistics_sha256": digest_of(statistics) if any(statistics) else None,
        **finite(measured.together),
        "ensemble": {
            "averaged": "probabilities" if members[0].outputs is None else "values",
            "not_compared": wanted.not_compared,
            "members": [
                {
                    **item.wanted.model_dump(mode="json", exclude={"onnx", "safetensors", "card"}),
                    "onnx_sha256": item.wanted.onnx.sha256,
                    "scores": finite(alone) or None,
                }
                for item, alone in zip(members, measured.alone, strict=True)
            ],
        },
        "gap": None,
        "population": None,
        "parameters": sum(one.numel() for member in members for one in member.network.parameters()),
        "steps": 0,
        "best_step": None,
        "steps_per_second": None,
        "examples_per_second": None,
        "training_seconds": 0.0,
        "phases_seconds": dict(reporter.phase_seconds),
        "peak_memory_bytes": peak_memory_bytes(device),
    }


def digest_of(digests: Sequence[str | None]) -> str:
    return hashlib.sha256(canonical_json(list(digests))).hexdigest()


def _card(
    order: Order, spec: JobSpec, members: Sequence[Member], result: dict[str, Any], artifacts: dict[str, Artifact]
) -> dict[str, Any]:
    """What inputs and labels are, as the members' cards say it; what is each member's own stands in theirs."""
    first = members[0].version.card
    shared = ("task", "source", "dataset", "input", "labels")
    same = all(member.version.card["scaling"] == first["scaling"] for member in members)
    return {
        "format": CARD_FORMAT,
        "job_id": order.job_id,
        **{name: first[name] for name in shared},
        "scaling": first["scaling"] if same else None,
        "output_scaling": None,
        "network": None,
        "normalization": None,
        "population": None,
        "metrics": {name: result[name] for name in ("loss", "accuracy", "rmse", "r2") if name in result},
        "gap": None,
        "serving": None,
        "ensemble": result["ensemble"],
        "spec_sha256": spec.digest(),
        "weights_sha256": result["weights_sha256"],
        "statistics_sha256": result["statistics_sha256"],
        "artifacts": {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in artifacts.items()},
        "versions": libraries(),
    }
