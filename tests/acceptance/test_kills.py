"""kill -9 of every process, at any moment: the job ends as if nothing had happened."""

import random
import threading
import time
from typing import Any

import pytest

from tests.acceptance.service import RestlessReader, Service, recorded_points, wait_until

TARGETS = ("trainer", "forkserver", "worker", "up")
MOMENTS = {
    "loading": 1,
    "preparing_data": 2,
    "training": 9,
    "population_statistics": 3,
    "evaluating": 2,
    "exporting": 3,
}
"""Twenty kills for each target, and the phase that each is aimed at."""
Golden = tuple[Any, dict[str, Any], dict[str, float]]
CONVNET = {
    "dataset": {"source": "digits"},
    "network": {"family": "convnet", "channels": [8, 16], "hidden": [64], "dropout": 0.1},
    "optimizer": {"kind": "adam", "learning_rate": 0.002},
    "schedule": {"kind": "cosine", "warmup_steps": 20},
    "training": {"steps": 600, "batch_size": 32, "evaluate_every": 150, "checkpoint_every": 20},
}


@pytest.fixture(scope="module")
def golden(service: Service) -> Golden:
    """An undisturbed run: the job, its points, and when its phases began, in seconds after its trainer."""
    client = service.client()
    client.wait(client.submit(CONVNET | {"name": "warm-up"}), 120)
    job = client.wait(client.submit(CONVNET | {"name": "golden"}), 120)
    assert job.status == "succeeded", job.error
    return job, recorded_points(client, job.id), job.result["phases_seconds"]


def moment_of(phases: dict[str, float], phase: str, share: float) -> float:
    """Seconds from the trainer's first word to the share of the phase."""
    before = 0.0
    for name, seconds in phases.items():
        if name == phase:
            return before + share * seconds
        before += seconds
    raise AssertionError(f"{phase} is none of {list(phases)}")


def killed_and_checked(service: Service, golden: Golden, target: str, seconds: float, seed: int) -> None:
    golden_job, golden_points, _ = golden
    client = service.client()
    job = client.submit(CONVNET | {"name": f"killed-{target}"})
    reader = RestlessReader(service, job.id, seed)
    reader.start()
    wait_until(lambda: client.job(job.id).phase is not None or client.job(job.id).terminal)
    began = time.monotonic()
    threading.Event().wait(max(0.0, seconds - (time.monotonic() - began)))
    hit_before_the_end = not client.job(job.id).terminal
    if hit_before_the_end:
        service.kill(target, job.id)

    ended = client.wait(job.id, 120)
    reader.join(60)

    assert not reader.is_alive()
    assert ended.status == "succeeded", (ended.error, service.log.read_text()[-3000:])
    assert ended.result["weights_sha256"] == golden_job.result["weights_sha256"]
    assert ended.result["statistics_sha256"] == golden_job.result["statistics_sha256"]
    assert recorded_points(client, job.id) == golden_points
    assert reader.seqs == list(range(1, len(reader.seqs) + 1))
    assert reader.types.count("end") == 1
    print(f"{target} after {seconds:.2f} s: attempts {ended.attempt}, hit {hit_before_the_end}")


@pytest.mark.parametrize("target", TARGETS)
def test_a_job_survives_one_kill_while_it_trains(
    own_service: Service, service: Service, golden: Golden, target: str
) -> None:
    phases = golden[2]

    killed_and_checked(own_service, golden, target, moment_of(phases, "training", 0.5), seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("target", TARGETS)
def test_a_job_survives_kills_at_twenty_moments(
    own_service: Service, service: Service, golden: Golden, target: str
) -> None:
    phases = golden[2]
    chance = random.Random(target)
    moments = sorted(
        moment_of(phases, phase, chance.random()) for phase, count in MOMENTS.items() for _ in range(count)
    )

    for number, seconds in enumerate(moments):
        killed_and_checked(own_service, golden, target, seconds, seed=number)
