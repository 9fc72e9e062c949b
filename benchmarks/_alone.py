"""A training of the paper's MNIST network as a script of one's own: torch, the files, a loop, and nothing else.

python -m benchmarks._alone FOLDER SEED BATCH_NORM STEPS EVALUATE_EVERY
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks._plain import plain, shuffled
from benchmarks._plain_networks import plain_mlp
from worker.trainer.idx import read_idx  # numpy, no more

BATCH = 60
Tensors = tuple[Tensor, Tensor]


def load(folder: Path) -> tuple[Tensors, Tensors]:
    """(training, test): pixels from 0 to 1, and digits."""

    def split(name: str, count: int) -> Tensors:
        pixels = read_idx(folder / f"{name}-images-idx3-ubyte.gz", (count, 28, 28))
        digits = read_idx(folder / f"{name}-labels-idx1-ubyte.gz", (count,))
        return torch.tensor(pixels, dtype=torch.float32).div_(255.0), torch.tensor(digits, dtype=torch.int64)

    return split("train", 60_000), split("t10k", 10_000)


def train(data: tuple[Tensors, Tensors], seed: int, batch_norm: bool, steps: int, evaluate_every: int) -> list[float]:
    """Test accuracies, after each `evaluate_every` steps."""
    (inputs, targets), (test_inputs, test_targets) = data
    torch.manual_seed(seed)
    network = plain_mlp(batch_norm)
    loop = plain(network, shuffled(inputs, targets, BATCH), fused=True)
    found = []
    for _ in range(steps // evaluate_every):
        loop(evaluate_every)
        with torch.inference_mode():
            correct = network.eval()(test_inputs).argmax(1) == test_targets
        network.train()
        found.append(correct.float().mean().item())
    return found


def main() -> None:
    folder, seed, batch_norm, steps, evaluate_every = sys.argv[1:]
    torch.set_num_threads(1)
    print(train(load(Path(folder)), int(seed), batch_norm == "True", int(steps), int(evaluate_every)))


if __name__ == "__main__":
    main()
