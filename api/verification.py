"""The checks that publishing made, done again: files, parity and batch invariance on this machine."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from api.inference.engine import UNUSABLE
from api.schemas.verification import FileCheck, Invariance, Parity, Verification
from api.tensors import Tensors
from bn_models.receipt import Invariance as Tried
from bn_models.receipt import check, invariance, open_session
from core.artifacts import ArtifactStore
from core.errors import StorageFailed

MADE_ROWS = 64
SEED = 0
NO_PROBE = "this version was published without probe rows: publish it again, by a retry of its job"
_one_at_a_time = Lock()
"""A check keeps a core busy for up to a minute; predictions come first."""


@dataclass(frozen=True)
class Graph:
    """What was found out by running the graph."""

    parity: Parity | None = None
    parity_reason: str | None = None
    invariance: Invariance | None = None
    error: str | None = None

    @property
    def passed(self) -> bool:
        parts = [part.passed for part in (self.parity, self.invariance) if part is not None]
        return self.error is None and all(parts)


def verify(store: ArtifactStore, model: str, version: Any) -> Verification:
    """Reads and runs the files of `version`, a row of model_versions. What is wrong is an answer, not an error."""
    with _one_at_a_time:
        began = time.perf_counter()
        contents: dict[str, bytes] = {}
        files = {name: _read(store, name, file, contents) for name, file in sorted(version.artifacts.items())}
        graph = _run(contents, version.card) if "onnx" in contents else Graph(error="there is no graph to run")
    return Verification(
        model=model,
        version=version.version,
        passed=all(file.intact for file in files.values()) and graph.passed,
        files=files,
        parity=graph.parity,
        parity_reason=graph.parity_reason,
        batch_invariance=graph.invariance,
        error=graph.error,
        receipt=version.card.get("receipt"),
        weights_sha256=version.weights_sha256,
        statistics_sha256=version.statistics_sha256,
        onnxruntime=onnxruntime.__version__,
        seconds=round(time.perf_counter() - began, 6),
        verified_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )


def _read(store: ArtifactStore, name: str, file: dict[str, Any], contents: dict[str, bytes]) -> FileCheck:
    try:
        contents[name] = store.get(file["name"], file["sha256"])
    except StorageFailed as error:
        return FileCheck(sha256=file["sha256"], intact=False, message=error.message)
    return FileCheck(sha256=file["sha256"], intact=True)


def _run(contents: dict[str, bytes], card: dict[str, Any]) -> Graph:
    proved = card.get("receipt") or {}
    threads = proved.get("threads", 1)
    try:
        if "probe" in contents and "tolerance" in proved:
            probe = Tensors(contents["probe"])
            checked = check(contents["onnx"], probe["rows"], probe["outputs"], float(proved["tolerance"]), threads)
            difference = checked.maximum_difference
            parity = Parity(
                passed=checked.passed,
                maximum_difference=difference if np.isfinite(difference) else None,
                tolerance=checked.tolerance,
                rows=checked.rows,
            )
            return Graph(parity, None, _invariance(checked.invariance, proved))
        session = open_session(contents["onnx"], threads)
        return Graph(None, NO_PROBE, _invariance(invariance(session, _made_rows(card)), proved))
    except UNUSABLE as error:
        return Graph(error=f"the graph can not be run: {error}")


def _invariance(tried: Tried, proved: dict[str, Any]) -> Invariance:
    one_by_one = proved.get("batch_invariant") is False
    return Invariance(
        passed=tried.batch_invariant or one_by_one,
        batch_invariant=tried.batch_invariant,
        served_row_by_row=one_by_one,
        sizes=sorted(tried.sizes),
        all_sizes=tried.complete,
    )


def _made_rows(card: dict[str, Any]) -> NDArray[np.float32]:
    """Rows that the model could meet, in the data's own units."""
    random, shape = np.random.default_rng(SEED), tuple(card["input"]["shape"])
    pixels = card["input"].get("pixel_range")
    if pixels:
        return random.integers(pixels[0], pixels[1] + 1, (MADE_ROWS, *shape)).astype(np.float32)
    scaling = card.get("scaling") or {"offset": [0.0], "scale": [1.0]}
    drawn = random.normal(size=(MADE_ROWS, *shape)) / np.array(scaling["scale"]) + np.array(scaling["offset"])
    rows: NDArray[np.float32] = drawn.astype(np.float32)
    return rows
