"""The models in memory: ONNX Runtime sessions by version, loaded once, the least used leaving first."""

import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from api.inference.categories import Fields
from api.inference.rows import Array
from bn_models.receipt import open_session
from core.artifacts import ArtifactStore
from core.errors import FieldProblem, InputInvalid, StorageFailed, Unavailable

ROWS_A_RUN = 64
"""Of a version whose receipt names no other number."""
THREADS = min(4, os.cpu_count() or 1)
VersionKey = tuple[str, int]
UNUSABLE: tuple[type[Exception], ...] = (
    StorageFailed,
    runtime.Fail,
    runtime.InvalidArgument,
    runtime.InvalidGraph,
    runtime.InvalidProtobuf,
    runtime.NotImplemented,
    runtime.RuntimeException,
)


@dataclass(frozen=True)
class ServedModel:
    """A version, ready to answer."""

    session: Any
    output: str
    shape: tuple[int, ...]
    columns: tuple[str, ...]
    fields: Fields  # of a table with columns of text
    labels: tuple[str, ...] | None  # None: a regression
    rows_a_run: int
    """Publishing proved that a row has the same bits alone and in company up to this many, fewer where inputs are
    large; where that proof failed, 1: padding to one size would not do, for bits can depend on a row's place too."""
    bytes: int

    def predict(self, rows: Array) -> list[dict[str, Any]]:
        """`{"label", "probabilities"}` or `{"value"}` for each of `rows` (n, *shape), in bounded memory.

        Raises InputInvalid for a row whose answer is not a number.
        """
        predictions: list[dict[str, Any]] = []
        for start in range(0, len(rows), self.rows_a_run):
            (answers,) = self.session.run([self.output], {"input": rows[start : start + self.rows_a_run]})
            _refuse_nonfinite(answers, start)
            predictions += self._told(answers)
        return predictions

    def _told(self, answers: Array) -> list[dict[str, Any]]:
        if self.labels is None:
            return [{"value": value} for value in answers.reshape(len(answers)).tolist()]
        labels = self.labels
        best = answers.argmax(axis=1).tolist()
        return [
            {"label": labels[winner], "probabilities": dict(zip(labels, row, strict=True))}
            for winner, row in zip(best, answers.tolist(), strict=True)
        ]


class Engine:
    """Bounded by the bytes of the model files it holds; the newest stays even when it alone is larger."""

    def __init__(self, artifacts: ArtifactStore, memory_bytes: int) -> None:
        self._artifacts = artifacts
        self._memory_bytes = memory_bytes
        self._loaded: OrderedDict[VersionKey, ServedModel] = OrderedDict()
        self._loading: dict[VersionKey, Lock] = {}
        self._lock = Lock()
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="predict")

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)

    def loaded(self, key: VersionKey) -> ServedModel | None:
        """The version `key`, if it is in memory."""
        with self._lock:
            model = self._loaded.get(key)
            if model is not None:
                self._loaded.move_to_end(key)
            return model

    def load(self, key: VersionKey, name: str, artifact: dict[str, Any], card: dict[str, Any]) -> ServedModel:
        """Reads the file, checks its digest, and keeps it. Requests for one version wait for one load.

        Raises Unavailable, for this version only, when the file is missing, corrupt, or no model.
        """
        with self._lock:
            loading = self._loading.setdefault(key, Lock())
        with loading:
            model = self.loaded(key)
            if model is None:
                model = self._open(key, name, artifact, card)
                self._keep(key, model)
            return model

    def _open(self, key: VersionKey, name: str, artifact: dict[str, Any], card: dict[str, Any]) -> ServedModel:
        try:
            return served_model(self._artifacts.get(artifact["name"], artifact["sha256"]), card)
        except UNUSABLE as error:
            raise Unavailable(f"version {key[1]} of model {name} can not be loaded: {error}") from error

    def _keep(self, key: VersionKey, model: ServedModel) -> None:
        with self._lock:
            self._loaded[key] = model
            self._loading.pop(key, None)
            while len(self._loaded) > 1 and sum(held.bytes for held in self._loaded.values()) > self._memory_bytes:
                self._loaded.popitem(last=False)


def served_model(content: bytes, card: dict[str, Any]) -> ServedModel:
    classification = card["task"] == "classification"
    receipt = card.get("receipt") or {}
    return ServedModel(
        session=open_session(content),  # as the receipt was made
        output="probabilities" if classification else "value",
        shape=tuple(card["input"]["shape"]),
        columns=tuple(card["input"].get("columns") or ()),
        fields=tuple(card["input"].get("fields") or ()),
        labels=tuple(map(str, card["labels"])) if classification else None,
        rows_a_run=1 if receipt.get("batch_invariant") is False else receipt.get("largest_batch", ROWS_A_RUN),
        bytes=len(content),
    )


def _refuse_nonfinite(answers: Array, start: int) -> None:
    bad = ~np.isfinite(answers.reshape(len(answers), -1)).all(axis=1)
    if bad.any():
        index = start + int(bad.argmax())
        message = "the model's answer is not a number: the values are far outside of what it was trained on"
        raise InputInvalid(f"/rows/{index}: {message}", (FieldProblem(f"/rows/{index}", "answer_not_finite", message),))
