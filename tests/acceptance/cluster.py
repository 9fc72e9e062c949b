"""Services and workers on the cluster's stack, and what is asked of the jobs that they ran."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from evenkeel import Client, Job
from tests.acceptance.service import FAST, Service, recorded_points

TINY = {
    "dataset": {"source": "iris"},
    "network": {"family": "mlp", "hidden": [4]},
    "training": {"steps": 5, "batch_size": 16},
    "publish": None,
}
LONG = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [64, 64], "dropout": 0.1},
    "training": {"steps": 8000, "evaluate_every": 4000, "checkpoint_every": 400},
    "publish": None,
}


@contextlib.contextmanager
def serving(home: Path, settings: dict[str, str]) -> Iterator[Service]:
    service = Service(home, settings)
    service.start()
    try:
        yield service
    finally:
        service.stop()


@contextlib.contextmanager
def another_worker(service: Service, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A second node: the same database, broker and artifacts, another home."""
    environment = os.environ | FAST | service.settings
    environment |= {"EVENKEEL_HOME": str(home), "EVENKEEL_ARTIFACT_URL": str(service.home / "artifacts")}
    with home.with_suffix(".log").open("ab") as log:
        command = [str(Path(sys.executable).with_name("evenkeel")), "worker"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def submit_many(client: Client, count: int, steps: int = 5) -> list[str]:
    training = TINY["training"] | {"steps": steps}
    return [client.submit(TINY | {"training": training | {"seed": seed}}).id for seed in range(count)]


def same_as(client: Client, ended: Job, golden: Job) -> None:
    """Weights, statistics and every point."""
    assert ended.status == "succeeded", ended.error
    for name in ("weights_sha256", "statistics_sha256"):
        assert ended.result[name] == golden.result[name]
    assert recorded_points(client, ended.id) == recorded_points(client, golden.id)


def ran_once_each(client: Client, ids: list[str]) -> None:
    for job_id in ids:
        job = client.wait(job_id, 120)
        assert (job.status, job.attempt) == ("succeeded", 1), job.error
