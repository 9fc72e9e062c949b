"""Two workers that share nothing but the database, the broker and S3."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from evenkeel import Client
from tests.acceptance.places import Place, two_places
from tests.acceptance.service import FAST, recorded_points, wait_until
from tests.s3 import s3_server
from tests.servers import Postgres, free_port, valkey_server

EVENKEEL = str(Path(sys.executable).with_name("evenkeel"))
JOB = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [64, 64], "dropout": 0.1},
    "training": {"steps": 8000, "evaluate_every": 4000, "checkpoint_every": 400},
}


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


@dataclass
class Nodes:
    """`workers` by the id of their node."""

    client: Client
    homes: dict[str, Path] = field(default_factory=dict)
    workers: dict[str, psutil.Process] = field(default_factory=dict)

    def kill(self, node_id: str) -> None:
        """Everything of that worker at once, as when its machine loses power."""
        worker = self.workers[node_id]
        for process in [worker, *worker.children(recursive=True)]:
            process.kill()


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    with ExitStack() as stack:
        address, *places = stack.enter_context(two_places())
        postgres = stack.enter_context(Postgres())
        valkey = stack.enter_context(valkey_server(address))
        s3 = stack.enter_context(s3_server(monkeypatch, address))
        common = os.environ | FAST | s3.environment
        common |= {
            "EVENKEEL_DATABASE_URL": postgres.listen(address),
            "EVENKEEL_BROKER_URL": valkey.url,
            "EVENKEEL_ARTIFACT_URL": f"s3://{s3.bucket()}/artifacts",
            "EVENKEEL_SLOTS": "1",
        }
        client = stack.enter_context(api(common, tmp_path))
        nodes = Nodes(client)
        for place in places:
            add_worker(nodes, place, common, tmp_path / place.name, stack.enter_context)
        wait_until(lambda: len(client.nodes()) == 2)
        yield nodes


@contextmanager
def api(common: dict[str, str], folder: Path) -> Iterator[Client]:
    port, home = free_port(), folder / "api"
    subprocess.run([EVENKEEL, "migrate", "--home", str(home)], env=common, check=True, capture_output=True)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    command = [EVENKEEL, "api", "--home", str(home), "--port", str(port)]
    key = (home / "admin-key").read_text().strip()
    with running(command, common, folder / "api.log"), Client(url, key, patience_seconds=60) as client:
        wait_until(ready)
        yield client


def add_worker(
    nodes: Nodes,
    place: Place,
    common: dict[str, str],
    home: Path,
    enter: Callable[..., subprocess.Popen[bytes]],
) -> None:
    command = [*place.prefix, EVENKEEL, "worker", "--home", str(home)]
    process = enter(running(command, common, home.with_suffix(".log")))
    wait_until((home / "node-id").exists)
    node_id = wait_until(lambda: (home / "node-id").read_text().strip())
    nodes.homes[node_id], nodes.workers[node_id] = home, psutil.Process(process.pid)


def runners(client: Client, job_id: str) -> list[str]:
    """The node of each attempt."""
    return [event.data["worker"] for event in client.events(job_id) if "worker" in event.data]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_when_the_first_of_two_nodes_is_killed_the_second_goes_on_from_its_checkpoint(nodes: Nodes) -> None:
    client = nodes.client
    golden = client.wait(client.submit(JOB), 120)
    job = client.submit(JOB)
    wait_until(lambda: client.checkpoints(job.id))

    nodes.kill(runners(client, job.id)[0])
    ended = client.wait(job.id, 120)

    first, second = runners(client, job.id)
    assert (ended.status, ended.attempt, first != second) == ("succeeded", 2, True), ended.error
    assert ended.result["weights_sha256"] == golden.result["weights_sha256"]
    assert ended.result["statistics_sha256"] == golden.result["statistics_sha256"]
    assert recorded_points(client, job.id) == recorded_points(client, golden.id)
    assert not any("begins again" in event.message for event in client.events(job.id))
    trained = round(ended.result["steps_per_second"] * ended.result["training_seconds"])
    assert trained in range(0, 8000, 400), "the second attempt began at a checkpoint"
    print(f"killed on {first}; {second} went on from step {8000 - trained}")
    assert not any((home / "artifacts").exists() for home in nodes.homes.values())
