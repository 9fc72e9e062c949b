"""What proves a frozen graph: its answers against a float64 reference, and one row's bits in any company.

Free of torch, so that a server can repeat on its own machine what was proved at publishing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]

LARGEST_BATCH = 64
BATCH_ELEMENTS = 2**22  # of a batch's input: a network's activations are some ten times as large
RANDOM_SIZES = 32
SECONDS = 20.0  # for all companies; a network that is too slow for the whole protocol is tried in fewer
FEWEST_RANDOM_SIZES = 2
LEAST_LARGEST_BATCH = 8  # however slow: a version is never served in larger batches than were tried
SEED = 20150211
CPU = ("CPUExecutionProvider",)
CUDA = "CUDAExecutionProvider"
WATCHED = ("/watch/means", "/watch/squares")
"""What the nodes give that show the normalized layers: see `bn_models.export.watching`."""


@dataclass(frozen=True)
class Invariance:
    """Whether a row has the same bits alone and in random company of each of the `sizes` that were tried.

    `complete`: the sizes were every power of two up to 64 and 32 random ones, not fewer for the sake of
    time and memory. `largest_batch` is the largest size for which the answer holds.
    """

    batch_invariant: bool
    sizes: tuple[int, ...]
    complete: bool

    @property
    def largest_batch(self) -> int:
        return max(self.sizes)


@dataclass(frozen=True)
class Check:
    """`passed` is parity: the largest difference is a number and within the tolerance."""

    passed: bool
    maximum_difference: float
    tolerance: float
    rows: int
    invariance: Invariance
    threads: int
    onnxruntime: str

    @property
    def batch_invariant(self) -> bool:
        return self.invariance.batch_invariant


def check(onnx_bytes: bytes, rows: Array, expected_float64: Array, tolerance: float, threads: int = 1) -> Check:
    """Runs the graph on `rows` (N, *input_shape), in the data's own units, on this machine's ONNX Runtime.

    `expected_float64` is what the unfolded network gives in float64: logits, or values in the target's units.
    """
    session = open_session(onnx_bytes, threads)
    rows = rows.astype(np.float32)
    difference = float(np.abs(answers(session, rows) - expected_float64).max())
    return Check(
        passed=bool(np.isfinite(tolerance)) and difference <= tolerance,  # false also when either is NaN
        maximum_difference=difference,
        tolerance=tolerance,
        rows=len(rows),
        invariance=invariance(session, rows),
        threads=threads,
        onnxruntime=onnxruntime.__version__,
    )


def open_session(onnx_bytes: bytes, threads: int = 1, providers: Sequence[str] = CPU) -> onnxruntime.InferenceSession:
    """A session with `threads` threads that do not spin while they wait."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(onnx_bytes, options, providers=list(providers))


def available_providers() -> tuple[str, ...]:
    return tuple(onnxruntime.get_available_providers())


def answers(session: onnxruntime.InferenceSession, rows: Array) -> Array:
    """The first output, logits or values, of rows sent in batches of bounded memory."""
    size = largest_batch(rows)
    return np.concatenate([_run(session, rows[start : start + size]) for start in range(0, len(rows), size)])


def largest_batch(rows: Array) -> int:
    """The most rows like these to send at once: a power of two up to 64, fewer where rows are large."""
    size = LARGEST_BATCH
    while size > 1 and size * rows[0].size > BATCH_ELEMENTS:
        size //= 2
    return size


def invariance(session: onnxruntime.InferenceSession, rows: Array) -> Invariance:
    """Compares the bits of each of `rows` alone with those at a random place among random others.

    Batches of all powers of two up to 64 and of 32 random sizes; of fewer and smaller ones where that
    would take more than some SECONDS, or much memory.
    """
    alone = _Alone(session, rows)
    sizes, complete = _sizes(largest_batch(rows), int(SECONDS / alone.seconds_a_row()) - len(rows))
    random = np.random.default_rng(SEED)
    same = True
    for size in sizes:
        company = random.integers(0, len(rows), size)
        together = session.run(None, {"input": rows[company]})
        for place, index in enumerate(company.tolist()):
            same = same and alone.bits(index) == _bits(together, place)
    return Invariance(same, sizes, complete)


def _sizes(largest: int, affordable_rows: int) -> tuple[tuple[int, ...], bool]:
    """The sizes to try, with so many rows in all of them together, and whether they are the whole protocol."""
    while largest > LEAST_LARGEST_BATCH and (2 + FEWEST_RANDOM_SIZES) * largest > affordable_rows:
        largest //= 2
    powers = [2**power for power in range(largest.bit_length())]
    drawn = np.random.default_rng(SEED).integers(2, largest + 1, RANDOM_SIZES).tolist() if largest > 1 else []
    fitting = int(np.searchsorted(np.cumsum(drawn), affordable_rows - sum(powers), side="right"))
    kept = drawn[: max(FEWEST_RANDOM_SIZES, fitting)]
    return (*powers, *kept), largest == LARGEST_BATCH and len(kept) == RANDOM_SIZES


class _Alone:
    """The bits of all outputs of each row when it is sent alone; computed when first asked for."""

    def __init__(self, session: onnxruntime.InferenceSession, rows: Array) -> None:
        self._session, self._rows = session, rows
        self._known: dict[int, bytes] = {}

    def bits(self, index: int) -> bytes:
        if index not in self._known:
            self._known[index] = _bits(self._session.run(None, {"input": self._rows[index : index + 1]}), 0)
        return self._known[index]

    def seconds_a_row(self) -> float:
        """The least of three runs; the very first one also plans and allocates."""
        self.bits(0)
        times = []
        for _ in range(3):
            start = perf_counter()
            _run(self._session, self._rows[:1])
            times.append(perf_counter() - start)
        return min(times)


def _bits(outputs: list[Array], place: int) -> bytes:
    return b"".join(output[place].tobytes() for output in outputs)


def _run(session: onnxruntime.InferenceSession, rows: Array) -> Array:
    first: Array = session.run([session.get_outputs()[0].name], {"input": rows})[0]
    return first
