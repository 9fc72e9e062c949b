"""The trainer's loop as the service runs it, with a list or with the real ledger on SQLite for a sink."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from benchmarks._plain import Contender, timed
from bn_models.architecture import layers_of
from bn_models.networks import build
from core.artifacts import ArtifactStore
from core.db import Database
from core.identifiers import new_id
from core.queries import events, jobs, keys
from core.queries.events import EventDraft
from core.settings import Settings
from core.spec import JobSpec
from migrations.apply import upgrade
from worker.claims import claim_next
from worker.ledger import Ledger
from worker.messages import Command, Message, Order, Points, Started
from worker.node import Node
from worker.trainer.checkpoint import Progress
from worker.trainer.data import Data
from worker.trainer.device import fingerprint
from worker.trainer.layout import arrange
from worker.trainer.loop import Loop
from worker.trainer.monitor import Monitor
from worker.trainer.optimization import build_optimizer
from worker.trainer.patience import Patience
from worker.trainer.reporting import Reporter
from worker.trainer.run import Run
from worker.trainer.step import AutogradPasses, InPlace

COMMIT_SECONDS = 1.0  # as often as a supervisor commits


class RoundOver(Exception):
    """The steps of a round are done; raised where the loop asks for a command."""


class ListSink:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.left = 0

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def command(self) -> Command | None:
        if self.left == 0:
            self.messages.clear()
            raise RoundOver
        self.left -= 1
        return None


class LedgerSink(ListSink):
    """Writes in the loop's own thread what a supervisor writes in another process, so its cost counts in full."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger, self._next = ledger, 0.0

    def send(self, message: Message) -> None:
        if isinstance(message, Points):
            self._ledger.points(message)
        if time.monotonic() >= self._next:
            self._ledger.commit()
            self._next = time.monotonic() + COMMIT_SECONDS


def trainer(
    spec: JobSpec, data: Data, device: torch.device, folder: Path, sink: ListSink, by_hand: bool = True
) -> Contender:
    """`by_hand` False: by autograd, also where the trainer would do without."""
    layers = layers_of(spec.network, spec.batch_norm, data.facts.input_shape, data.facts.outputs)
    network = build(layers, data.facts.input_shape, spec.network.initialization, seed=0)
    arrange(network, device, spec.training)
    progress = Progress(network, build_optimizer(network, spec.optimizer), Monitor("test/loss"))
    order = Order("job_benchmark", spec.model_dump(mode="json"), 1, 1, str(folder), str(folder), "")
    reporter = Reporter(sink)
    patience = Patience(order.storage_patience_seconds, reporter)
    loop = Loop(Run(order, spec, device, data, progress, ArtifactStore(str(folder)), patience, reporter))
    if not by_hand:
        loop._passes = AutogradPasses(list(network.parameters()), InPlace(network), 0.0, None)
    if spec.training.compile:
        loop.warm_up()

    def advance(steps: int) -> None:
        sink.left = steps
        with suppress(RoundOver):
            loop.train()

    return timed(advance, device)


@contextmanager
def ledger_sink(spec: JobSpec, device: torch.device, home: Path) -> Iterator[LedgerSink]:
    """A job of this spec, claimed by a node on a fresh database."""
    settings = Settings(home=home)
    url = settings.resolved_database_url
    upgrade(url)
    database = Database(url)
    node = Node("node_benchmark", settings, database, ArtifactStore(settings.resolved_artifact_url), 0)
    job_id = new_id("job")
    with database.write() as connection:
        connection.execute(keys.create_tenant("ten_benchmark", "benchmark"))
        connection.execute(
            jobs.create(
                id=job_id,
                tenant_id="ten_benchmark",
                spec=spec.model_dump(mode="json"),
                spec_sha256=spec.digest(),
                name=spec.name,
                family=spec.network.family,
                metadata={},
                priority=0,
                needs_cuda=False,
                flops_per_step=1,
                steps=spec.training.steps,
            )
        )
        connection.execute(events.append(job_id, 1, 0, [EventDraft("status", "queued", {"status": "queued"})]))
    claim = claim_next(node, 0)
    if claim is None:
        raise RuntimeError("the job that was just made is not there to be claimed")
    ledger = Ledger(database, node.store, claim, settings.lease_seconds)
    ledger.begin(Started(fingerprint(device, spec), 0))
    try:
        yield LedgerSink(ledger)
    finally:
        database.close()
