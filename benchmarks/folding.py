"""What does batch norm cost at inference, and what is left of that once it is folded?

    python -m benchmarks.folding [--rounds 9] [--quick]

The same frozen network three times as ONNX, run as the service runs it (one thread): folded; with each batch norm as
the affine nodes of an exporter that does not fold, with ONNX Runtime's own fusions and without them. Beside these the
network as torch evaluates it, and one without batch norm layers (other answers: what the layers alone cost there). All
take turns in one process; microseconds a call, medians over the rounds, the lowest and the highest.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
import torch

from benchmarks._serving_models import FAMILIES, SCALING, frozen, rows
from bn_models.architecture import layers_of
from bn_models.export import write_onnx
from bn_models.folding import FoldedNetwork
from bn_models.frozen import freeze
from bn_models.networks import build
from bn_models.population import apply
from bn_models.receipt import open_session

ROUND_SECONDS = 0.3
Call = Callable[[], object]


def contenders(family: str, count: int) -> dict[str, Call]:
    """Calls that answer `count` rows each; "folded" first."""
    model = frozen(family)
    inputs = rows(count).reshape(count, *model.shape)
    state = {name: value.double().numpy() for name, value in model.network.state_dict().items()}
    layers = model.network.layers
    unmerged = FoldedNetwork(tuple(freeze(layer, state, model.statistics) for layer in layers), layers)
    affine = write_onnx(unmerged, model.shape, SCALING, "classification")
    spec, shape = FAMILIES[family]
    without = build(layers_of(spec, None, shape, 10), shape, spec.initialization, seed=1)
    scaled = torch.from_numpy(SCALING.apply(inputs)).float()

    def network() -> object:
        with torch.inference_mode():
            return torch.softmax(model.network(scaled), 1)

    def network_without() -> object:
        with torch.inference_mode():
            return torch.softmax(without(scaled), 1)

    apply(model.network, model.statistics)
    model.network.eval()
    without.eval()
    return {
        "folded": calls_of(open_session(model.onnx), inputs),
        "affine nodes, fused by ONNX Runtime": calls_of(open_session(affine), inputs),
        "affine nodes, not fused": calls_of(without_fusions(affine), inputs),
        "torch, batch norm as layers": network,
        "torch, no batch norm": network_without,
    }


def calls_of(opened: onnxruntime.InferenceSession, inputs: np.ndarray) -> Call:
    return lambda: opened.run(["probabilities"], {"input": inputs})


def without_fusions(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def measure(found: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Microseconds a call; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, call in found.items():
            calls, begun = 0, time.perf_counter()
            while (taken := time.perf_counter() - begun) < ROUND_SECONDS:
                call()
                calls += 1
            if number:
                times[name].append(1e6 * taken / calls)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="three rounds of one row")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"1 thread, ONNX Runtime {onnxruntime.__version__}, torch {torch.__version__}, {platform.python_version()}")
    for family in FAMILIES:
        for count in (1,) if given.quick else (1, 64):
            print(f"\n{family}, {count} row{'s' if count > 1 else ''} a call")
            times = measure(contenders(family, count), 3 if given.quick else given.rounds)
            base = statistics.median(times["folded"])
            for name, values in times.items():
                middle = statistics.median(values)
                spread = f"({min(values):.1f}–{max(values):.1f})"
                print(f"  {name:37s} {middle:9.1f} µs {spread:20s} {middle / base:5.2f} × folded")


if __name__ == "__main__":
    main()
