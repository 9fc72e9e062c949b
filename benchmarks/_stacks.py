"""What several benchmarks need: the suite's own servers, migrated databases with queued jobs, and percentiles."""

import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.artifacts import ArtifactStore
from core.db import Database
from core.identifiers import new_id
from core.queries import events, jobs, keys
from core.queries.events import EventDraft
from core.settings import Settings
from core.spec import JobSpec
from migrations.apply import upgrade
from worker.node import Node

with warnings.catch_warnings():  # a library of the servers complains of a folder that it does not need
    warnings.simplefilter("ignore")
    from tests.servers import Postgres as Postgres
    from tests.servers import Valkey as Valkey
    from tests.servers import fresh_database

TINY: dict[str, Any] = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [16]},
    "training": {"steps": 50, "batch_size": 32, "evaluate_every": 50, "checkpoint_every": 50},
    "publish": None,
}
KINDS = ("sqlite", "postgres")


def end_in_good_order() -> None:
    """On SIGTERM too, so that no server or worker stays behind."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))


@contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    """These settings of ours and no other, for processes that are started in the block."""
    before = {name: value for name, value in os.environ.items() if name.startswith("EVENKEEL_")}
    for name in before:
        del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def cluster() -> Iterator[tuple[dict[str, str], Valkey]]:
    """The settings of a stack with Postgres and Valkey, an empty database in it; and its broker."""
    broker = Valkey()
    broker.start()
    try:
        with Postgres() as server, fresh_database(server.url) as url:
            yield {"EVENKEEL_DATABASE_URL": url, "EVENKEEL_BROKER_URL": broker.url}, broker
    finally:
        broker.close()


@contextmanager
def migrated(kind: str, server_url: str | None = None) -> Iterator[str]:
    """URL of an empty database of this kind, with our schema."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as folder:
            url = f"sqlite:///{Path(folder) / 'evenkeel.sqlite'}"
            upgrade(url)
            yield url
        return
    if server_url is None:
        raise ValueError("a Postgres database needs a server")
    with fresh_database(server_url) as url:
        upgrade(url)
        yield url


def queue_jobs(database: Database, count: int, tenants: int = 1) -> None:
    """Queued jobs as the API would write them, in the tenants' turn."""
    with database.write() as connection:
        ids = [f"ten_{number}" for number in range(tenants)]
        for tenant_id in ids:
            connection.execute(keys.create_tenant(tenant_id, tenant_id.replace("_", "-")))
        for seed in range(count):
            spec = JobSpec.model_validate(TINY | {"training": TINY["training"] | {"seed": seed}})
            job_id = new_id("job")
            row = {
                "spec": spec.model_dump(mode="json"),
                "spec_sha256": spec.digest(),
                "name": spec.name,
                "family": spec.network.family,
                "metadata": spec.metadata,
                "priority": spec.priority,
                "needs_cuda": False,
                "flops_per_step": 1,
                "steps": spec.training.steps,
            }
            connection.execute(jobs.create(id=job_id, tenant_id=ids[seed % tenants], **row))
            connection.execute(events.append(job_id, 1, 0, [EventDraft("status", "queued", {"status": "queued"})]))


def node_of(number: int, database: Database, folder: str, **settings: Any) -> Node:
    """A node as a worker process makes it, without GPUs."""
    home = Path(folder)
    store = ArtifactStore(str(home / "artifacts"))
    return Node(f"node_{number}", Settings(home=home, **settings), database, store, 0)


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies, nearest rank; nan of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
