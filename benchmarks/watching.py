"""What does it cost to watch the layers of a served model?

Processor time of one batch by the session that answers, by the second session that a share of the batches takes
besides, and, for comparison, by one session whose graph has the nodes of both and is asked for the answer alone.
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import thread_time
from typing import Any

import numpy as np
import torch

from bn_models.architecture import layers_of
from bn_models.export import InputScaling, reference, watching, write_onnx
from bn_models.folding import fold
from bn_models.networks import build
from bn_models.population import measure
from bn_models.receipt import WATCHED, open_session
from core.spec import JobSpec, PopulationSpec

FAMILIES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "mlp": ({"family": "mlp", "hidden": [100, 100, 100]}, (784,)),
    "convnet": ({"family": "convnet"}, (1, 28, 28)),
    "resnet": ({"family": "resnet", "blocks": [1, 1, 1], "width": 16}, (3, 32, 32)),
}
SCALING = InputScaling(np.array(127.5), np.array(1 / 60))
SHARE = 0.01
ANSWER = ["logits", "probabilities"]


def exported(family: str) -> tuple[bytes, bytes, np.ndarray]:
    """The graph, the nodes that show its layers, and 64 rows."""
    network, shape = FAMILIES[family]
    spec = JobSpec.model_validate({"dataset": {"source": "mnist"}, "network": network})
    built = build(layers_of(spec.network, spec.batch_norm, shape, 10), shape, spec.network.initialization, seed=0)
    rows = np.random.default_rng(0).integers(0, 256, (64, *shape)).astype(np.float32)
    statistics = measure(built, torch.from_numpy(SCALING.apply(rows)).float(), PopulationSpec(), 32, seed=0)
    state = {name: value.detach().numpy() for name, value in built.named_parameters()}
    graph = write_onnx(fold(built.layers, state, statistics), shape, SCALING, "classification")
    proved = reference(built, statistics, SCALING, rows, "classification")
    return graph, watching(graph, built, statistics, SCALING, proved).fragment, rows


def microseconds(run: Callable[[], Any], runs: int) -> float:
    taken = []
    for _ in range(runs):
        began = thread_time()
        run()
        taken.append(thread_time() - began)
    return median(taken) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    print("family   rows  answer µs  watched µs  at 1 % of the batches  one graph for both, answer alone")
    for family in FAMILIES:
        graph, nodes, rows = exported(family)
        alone, watched = open_session(graph), open_session(graph + nodes)
        for size in (1, 64):
            given = {"input": rows[:size]}
            answer, looking, both = (
                microseconds(lambda session=session, names=names, given=given: session.run(names, given), runs)
                for session, names in ((alone, ANSWER), (watched, WATCHED), (watched, ANSWER))
            )
            share, slower = SHARE * looking / answer, both / answer - 1
            print(f"{family:8} {size:4} {answer:10.1f} {looking:11.1f} {share:+22.1%} {slower:+33.1%}")


if __name__ == "__main__":
    main()
