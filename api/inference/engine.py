"""The models in memory: ONNX Runtime sessions by version, loaded once, warmed up, the least used leaving first."""

import asyncio
import logging
import os
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from api.inference.batching import Batcher
from api.inference.categories import Fields
from api.inference.drift import drift_of
from api.inference.lanes import Array, Lane
from api.inference.layers import layer_drift_of
from bn_models.receipt import CPU, CUDA, available_providers, open_session
from core.artifacts import ArtifactStore
from core.errors import StorageFailed, Unavailable

logger = logging.getLogger(__name__)
ROWS_A_RUN = 64
"""Of a version whose receipt names no other number."""
VersionKey = tuple[str, int]
MOST_THREADS = 4
NO_CUDA = (
    "it asks for provider cuda, and the ONNX Runtime here has none that works, so the CPU answers: install "
    "onnxruntime-gpu in place of onnxruntime, with its CUDA libraries, or publish with provider cpu"
)
WARM_UP_RUNS = 5
WARM_UP_SECONDS = 0.5
"""Full batches are tried at warm-up only where one of them takes no longer than this."""
UNUSABLE: tuple[type[Exception], ...] = (
    StorageFailed,
    runtime.Fail,
    runtime.InvalidArgument,
    runtime.InvalidGraph,
    runtime.InvalidProtobuf,
    runtime.NotImplemented,
    runtime.RuntimeException,
)


class Watch(NamedTuple):
    """The shares of the batches whose inputs, and whose layers, are compared with the training data, and from which
    shift on one has drifted."""

    inputs: float = 0.0
    layers: float = 0.0
    threshold: float = 1.0


NOTHING = Watch()


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A version, ready to answer."""

    session: Any
    outputs: tuple[str, ...]
    widths: tuple[int, ...]
    answer: int  # which output a prediction reads: probabilities, or values in the target's units
    shape: tuple[int, ...]
    columns: tuple[str, ...]
    fields: Fields  # of a table with columns of text
    labels: tuple[str, ...] | None  # None: a regression
    rows_a_run: int
    """Publishing proved that a row has the same bits alone and in company up to this many, fewer where inputs are
    large; where that proof failed, 1: padding to one size would not do, for bits can depend on a row's place too."""
    provider: str  # what computes it: cpu or cuda
    remark: str | None  # why that is not what the version asks for, if so
    card: dict[str, Any]
    bytes: int

    @property
    def padded(self) -> bool:
        """Whether runs have this one size: what was proved on the CPU says little of another device."""
        return self.provider != "cpu"

    def run(self, chunk: Array) -> list[Array]:
        """All outputs for at most `rows_a_run` rows (n, *shape)."""
        if not self.padded:
            answers: list[Array] = self.session.run(self.outputs, {"input": chunk})
            return answers
        padded = np.zeros((self.rows_a_run, *self.shape), np.float32)
        padded[: len(chunk)] = chunk
        return [output[: len(chunk)] for output in self.session.run(self.outputs, {"input": padded})]

    def no_rows(self) -> list[Array]:
        return [np.empty((0, width), np.float32) for width in self.widths]

    def told(self, outputs: list[Array]) -> list[dict[str, Any]]:
        """`{"label", "probabilities"}` or `{"value"}` for each row."""
        answers = outputs[self.answer]
        if self.labels is None:
            return [{"value": value} for value in answers.reshape(len(answers)).tolist()]
        labels = self.labels
        return [
            {"label": labels[row.index(max(row))], "probabilities": dict(zip(labels, row, strict=True))}
            for row in answers.tolist()
        ]


class Engine:
    """Bounded by the bytes of the model files it holds; the newest stays even when it alone is larger.

    Belongs to the event loop; files are read and sessions made in a thread. Who waits for a version that
    leaves memory is still answered by it.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        memory_bytes: int,
        queue_rows: int,
        threads: int | None,
        watch: Watch = NOTHING,
    ) -> None:
        self._watch = watch
        self._artifacts = artifacts
        self._memory_bytes = memory_bytes
        self._loaded: OrderedDict[VersionKey, Lane] = OrderedDict()
        self._loading: dict[VersionKey, asyncio.Task[Lane]] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self.batcher = Batcher(threads or min(MOST_THREADS, len(os.sched_getaffinity(0))), queue_rows)

    def close(self) -> None:
        for beside in (self._loader, self._watcher):
            beside.shutdown(wait=False, cancel_futures=True)
        self.batcher.close()

    def lanes(self) -> list[Lane]:
        return list(self._loaded.values())

    def holds(self, key: VersionKey) -> bool:
        """Whether it is in memory now; from any thread, and without counting as use."""
        return key in self._loaded

    def loaded(self, key: VersionKey) -> Lane | None:
        """The version `key`, if it is in memory; it counts as used."""
        lane = self._loaded.get(key)
        if lane is not None:
            self._loaded.move_to_end(key)
        return lane

    async def load(self, key: VersionKey, found: "Found", card: dict[str, Any]) -> Lane:
        """Reads the file, checks its digest, warms the session up, and keeps it. Who asks for one version
        at the same time waits for one load.

        Raises Unavailable, for this version only, when the file is missing, corrupt, or no model.
        """
        lane = self.loaded(key)
        if lane is not None:
            return lane
        task = self._loading.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(key, found, card))
            self._loading[key] = task
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(task)

    def unload(self, key: VersionKey) -> bool:
        """Takes a version out of memory; whether it was there. The next request loads it again."""
        lane = self._loaded.pop(key, None)
        if lane is not None:
            lane.alive = False
        return lane is not None

    async def _load(self, key: VersionKey, found: "Found", card: dict[str, Any]) -> Lane:
        loop = asyncio.get_running_loop()
        lane = await loop.run_in_executor(self._loader, self._open, key, found, card)
        self._loaded[key] = lane
        while len(self._loaded) > 1 and sum(held.bytes for held in self.lanes()) > self._memory_bytes:
            self.unload(next(iter(self._loaded)))
        return lane

    def _open(self, key: VersionKey, found: "Found", card: dict[str, Any]) -> Lane:
        try:
            quantized = (card.get("serving") or {}).get("quantization")
            file = found.artifacts["onnx" if quantized is None else f"onnx_{quantized}"]
            model = served_model(self._artifacts.get(file["name"], file["sha256"]), card)
            seconds = warmed_up(model)
            lane = Lane(model, key, found.name, found.statistics_sha256, found.weights_sha256, *seconds)
            if model.remark is not None:
                logger.warning("version %d of model %s: %s", lane.version, lane.name, model.remark)
            self._watch_over(lane, found)
            return lane
        except UNUSABLE as error:
            raise Unavailable(f"version {key[1]} of model {found.name} can not be loaded: {error}") from error

    def _watch_over(self, lane: Lane, found: "Found") -> None:
        watch, card = self._watch, lane.model.card
        lane.drift = drift_of(lane.model, lane.name, lane.version, watch.inputs, watch.threshold)
        what = f"model {lane.name}, version {lane.version}"
        lane.layers = layer_drift_of(
            self._artifacts, found.artifacts, card, what, self._watcher, watch.layers, watch.threshold
        )


@dataclass(frozen=True)
class Found:
    """What the database says of a version that is to be served, besides its card."""

    name: str
    artifacts: dict[str, Any]
    statistics_sha256: str | None
    weights_sha256: str


def served_model(content: bytes, card: dict[str, Any]) -> ServedModel:
    serving = card.get("serving") or {}
    wanted = serving.get("provider", "cpu")
    classification = card["task"] == "classification"
    receipt = card.get("receipt") or {}
    row_by_row = receipt.get("batch_invariant") is False or serving.get("quantization") is not None
    session = open_session(content, receipt.get("threads", 1), _providers(wanted))
    provider = "cuda" if CUDA in session.get_providers() else "cpu"
    outputs = {output.name: int(output.shape[-1]) for output in session.get_outputs()}
    return ServedModel(
        session=session,
        outputs=tuple(outputs),
        widths=tuple(outputs.values()),
        answer=list(outputs).index("probabilities" if classification else "value"),
        shape=tuple(card["input"]["shape"]),
        columns=tuple(card["input"].get("columns") or ()),
        fields=tuple(card["input"].get("fields") or ()),
        labels=tuple(map(str, card["labels"])) if classification else None,
        rows_a_run=1 if row_by_row else receipt.get("largest_batch", ROWS_A_RUN),
        provider=provider,
        remark=None if wanted == provider else NO_CUDA,
        card=card,
        bytes=len(content),
    )


def _providers(wanted: str) -> tuple[str, ...]:
    return (CUDA, *CPU) if wanted == "cuda" and CUDA in available_providers() else CPU


def warmed_up(model: ServedModel) -> tuple[float, float]:
    """Seconds that a batch of one row takes, and a full one; the session's buffers are allocated after it."""
    alone = _seconds(model, 1)
    full = model.rows_a_run
    if alone * full > WARM_UP_SECONDS:
        return alone, alone * full
    return alone, _seconds(model, full)


def _seconds(model: ServedModel, count: int) -> float:
    """Processor time, not the clock's: a machine that is busy with others must not make a model look slow."""
    rows = np.zeros((count, *model.shape), np.float32)
    taken = []
    for _ in range(WARM_UP_RUNS):
        began = time.thread_time()
        model.run(rows)
        taken.append(time.thread_time() - began)
        if sum(taken) > WARM_UP_SECONDS:
            break
    return min(taken)
