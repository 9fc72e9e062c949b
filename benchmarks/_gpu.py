"""The benchmark of the trainer's loop on a GPU: a ResNet on random images, and the share of the chip's peak."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._plain import Contender, in_memory, plain
from benchmarks._service import ListSink, trainer
from benchmarks._workloads import random_data
from bn_models.architecture import layers_of, place
from bn_models.networks import build
from core.spec import JobSpec, SourceFacts
from worker.trainer.data import Data
from worker.trainer.device import numerics

CUDA = torch.device("cuda", 0)
CLASSES = 1000
BACKWARD = 3  # FLOPs of a step over those of its forward pass
SIDE = 8192  # of the square matrices whose product is the measured peak


def on_gpu(depth: int, size: int, batches: list[int], precisions: list[str], rounds: int) -> None:
    """Prints steps a second and the share of the peak, for each precision and batch size."""
    name = torch.cuda.get_device_name(CUDA)
    print(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, ResNet-{depth} at {size}×{size}")
    facts = SourceFacts("classification", "image", (3, size, size), CLASSES, 2 * max(batches), 128, 255)
    data = random_data(facts, CUDA, (2 * max(batches), 128))
    for precision in precisions:
        peak = measured_peak(torch.bfloat16 if precision == "bf16" else torch.float32)
        print(f"\n{precision}: a product of {SIDE}² matrices reaches {peak / 1e12:.1f} TFLOP/s")
        for batch in batches:
            for contender, run, flops in contenders(data, depth, batch, precision):
                run(5)
                rates = [run(max(5, 4096 // batch)) for _ in range(rounds)]
                rate = statistics.median(rates)
                spread = f"{min(rates):.2f}–{max(rates):.2f}"
                share = rate * flops / peak
                print(f"batch {batch:5d} {contender:28s} {rate:8.2f} steps/s ({spread}), {share:.1%} of the peak")
            torch.cuda.empty_cache()


def contenders(data: Data, depth: int, batch: int, precision: str) -> list[tuple[str, Contender, float]]:
    """The trainer, deterministic as by default and not, and a plain loop; all three networks are in memory at once."""
    found = []
    for deterministic in (True, False):
        spec = spec_of(depth, batch, precision, deterministic)
        with tempfile.TemporaryDirectory() as folder:
            run = trainer(spec, data, CUDA, Path(folder), ListSink())
        name = f"trainer{', deterministic' if deterministic else ''}"
        found.append((name, within(spec, run), flops_of(spec, data)))
    network, bf16 = plain_network(spec, data).to(CUDA), precision == "bf16"
    run = plain(network, in_memory(data, batch, bf16), True, bf16, bf16=bf16)
    return [*found, ("plain", within(spec, run), flops_of(spec, data))]


def within(spec: JobSpec, run: Contender) -> Contender:
    """Under the determinism and the float32 of a job."""

    def numbered(steps: int) -> float:
        with numerics(spec.resources):
            return run(steps)

    return numbered


def spec_of(depth: int, batch: int, precision: str, deterministic: bool) -> JobSpec:
    training: dict[str, Any] = {"steps": 10**7, "evaluate_every": 10**7, "checkpoint_every": 10**7}
    training |= {"batch_size": batch, "tail": "drop", "precision": precision}
    body: dict[str, Any] = {"dataset": {"source": "mnist"}, "network": {"family": "resnet", "depth": depth}}
    resources = {"device": "cuda", "deterministic": deterministic}
    return JobSpec.model_validate(body | {"training": training, "resources": resources, "publish": None})


def plain_network(spec: JobSpec, data: Data) -> nn.Module:
    layers = layers_of(spec.network, spec.batch_norm, data.facts.input_shape, data.facts.outputs)
    return build(layers, data.facts.input_shape, spec.network.initialization, seed=0)


def flops_of(spec: JobSpec, data: Data) -> float:
    """Of a step, forward and backward."""
    layers = layers_of(spec.network, spec.batch_norm, data.facts.input_shape, data.facts.outputs)
    return float(
        BACKWARD * spec.training.batch_size * sum(item.flops for item in place(layers, data.facts.input_shape))
    )


def measured_peak(dtype: torch.dtype) -> float:
    """FLOPs a second of a large square product, the median of ten."""
    one, other = (torch.randn(SIDE, SIDE, device=CUDA, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(13):
        torch.cuda.synchronize()
        began = time.perf_counter()
        torch.mm(one, other)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2.0 * SIDE**3 / statistics.median(seconds[3:])
