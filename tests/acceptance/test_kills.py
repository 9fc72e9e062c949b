"""kill -9 of every process, at any moment: the job ends as if nothing had happened."""

import random
import threading
import time
from typing import Any

import pytest

from tests.acceptance.service import RestlessReader, Service, recorded_points, wait_until

pytestmark = pytest.mark.timeout(300)  # whole services on a machine that may be busy

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
    "network": {"family": "convnet", "channels": [24, 48], "hidden": [64], "dropout": 0.1},
    "optimizer": {"kind": "adam", "learning_rate": 0.002},
    "schedule": {"kind": "cosine", "warmup_steps": 20},
    "training": {"steps": 300, "batch_size": 32, "evaluate_every": 150, "checkpoint_every": 20},
}


@pytest.fixture(scope="module")
def golden(service: Service) -> Golden:
    """An undisturbed run: the job, its points, and when its phases began, in seconds after its trainer."""
    client = service.client()
    client.wait(client.submit(CONVNET | {"name": "warm-up"}), 120)
    job = client.wait(client.submit(CONVNET | {"name": "golden"}), 120)
    assert job.status == "succeeded", job.error
    return job, recorded_points(client, job.id), job.result["phases_seconds"]


def killed_and_checked(service: Service, golden: Golden, target: str, aim: str, share: float, seed: int) -> bool:
    """Kills `target` when the phase `aim` of a job has run for about `share` of its usual time, and checks
    that the job ends as the golden one. False: the job was faster, and had ended before the kill."""
    golden_job, golden_points, phases = golden
    client = service.client()
    job = client.submit(CONVNET | {"name": f"killed-{target}"})
    reader = RestlessReader(service, job.id, seed)
    reader.start()
    order = list(phases)
    late = order[order.index(aim) :]
    wait_until(lambda: client.job(job.id).phase in late or client.job(job.id).terminal)
    threading.Event().wait(share * phases[aim])
    here = client.job(job.id)
    hit = not here.terminal and service.kill(target, job.id)
    killed_at = time.monotonic()
    wait_until(lambda: client.job(job.id).attempt > here.attempt or client.job(job.id).terminal)
    waited = time.monotonic() - killed_at

    ended = client.wait(job.id, 120)
    reader.join(60)

    assert not reader.is_alive()
    assert ended.status == "succeeded", (ended.error, service.log.read_text()[-3000:])
    assert ended.result["weights_sha256"] == golden_job.result["weights_sha256"]
    assert ended.result["statistics_sha256"] == golden_job.result["statistics_sha256"]
    assert recorded_points(client, job.id) == golden_points
    assert reader.seqs == list(range(1, len(reader.seqs) + 1))
    assert reader.types.count("end") == 1
    print(
        f"{target}, aimed at {aim}: {here.phase} at {here.progress.step}, hit {hit}, attempts {ended.attempt}, "
        f"taken up or ended after {waited:.1f} s"
    )
    return hit


@pytest.mark.parametrize("target", TARGETS)
def test_a_job_survives_one_kill_while_it_trains(own_service: Service, golden: Golden, target: str) -> None:
    assert killed_and_checked(own_service, golden, target, "training", 0.3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("target", TARGETS)
def test_a_job_survives_kills_at_twenty_moments(own_service: Service, golden: Golden, target: str) -> None:
    chance = random.Random(target)
    aims = [phase for phase, count in MOMENTS.items() for _ in range(count)]

    for number, aim in enumerate(aims):
        hit = any(
            killed_and_checked(own_service, golden, target, aim, 0.8 * chance.random() / tries, seed=number)
            for tries in (1, 2, 4, 8, 16)
        )
        assert hit
