"""What does the whole service cost a training, records in SQL included?

    python -m benchmarks.service_speed [--rounds 5] [--steps 4000] [--data FOLDER] [--quick]

The paper's MNIST network, batches of 60, one thread. A careful plain PyTorch loop (benchmarks/_plain.py)
and jobs of a real service take turns in one run. Both compute loss and accuracy at every step; the service also
writes both and the learning rate to its database. A job's rate is its steps by the seconds of its training phase,
in which it also evaluates the test set once and writes a checkpoint, which the plain loop does not.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks._plain import in_memory, plain
from benchmarks._workloads import WORKLOADS, load_data
from cli.hosting import service
from evenkeel import Client

MLP = WORKLOADS["mlp"]


def job_rate(client: Client, steps: int, extra: dict[str, Any]) -> float:
    """Steps a second of one job."""
    training = {"steps": steps, "evaluate_every": steps, "checkpoint_every": steps} | extra
    job = client.wait(client.submit(MLP.spec(training=training).model_dump(mode="json")), 300)
    phases = (job.result or {})["phases_seconds"]
    recorded = client.metrics(job, ["train/loss"], max_points=100_000)["train/loss"]
    assert len(recorded.steps) == steps
    return steps / float(phases["training"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all?")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.steps = 1, 500
    if not (given.data / "mnist").is_dir():
        print(f"not measured: no MNIST files in {given.data.name}/mnist; give --data")
        return
    torch.set_num_threads(1)
    data, _ = load_data(given.data, torch.device("cpu"))
    loop = plain(MLP.plain(True), in_memory(data, MLP.batch_size, channels_last=False), fused=True)
    loop(500)
    ratios: dict[str, list[float]] = {"service": [], "with gradient norm": []}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        (home / "data").mkdir()
        (home / "data" / "mnist").symlink_to(given.data.absolute() / "mnist")
        with service(home), Client(home=home) as client:
            job_rate(client, 500, {})
            for _ in range(given.rounds):
                rate = loop(given.steps)
                ratios["service"].append(job_rate(client, given.steps, {}) / rate)
                ratios["with gradient norm"].append(
                    job_rate(client, given.steps, {"record_gradient_norm": True}) / rate
                )
                print(f"plain {rate:.0f} steps/s; ratios {[f'{values[-1]:.3f}' for values in ratios.values()]}")
    for name, values in ratios.items():
        middle, worst = statistics.median(values), min(values)
        print(f"{name}: {middle:.3f} of plain PyTorch (median of {given.rounds}, worst {worst:.3f})")


if __name__ == "__main__":
    main()
