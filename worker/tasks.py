"""Celery's part of a worker: the only file with its decorators. A bell that comes over the broker is
passed on to the node's own, and acknowledged at once: no message is held for the length of a job."""

import logging
import threading
import time
from typing import Any

from celery import Celery, signals
from celery.apps.worker import Worker

from core.bell import ring_here
from core.queue import BELL, PULSE, consumer, node_queue, queue_for, send
from worker.node import Node
from worker.vitals import Vitals

log = logging.getLogger("evenkeel.worker")

PULSE_SECONDS = 10.0
SILENT_PERIODS = 3
"""A worker whose connection looks alive but that no longer hears its own pulses starts over."""


class Ear(Worker):  # type: ignore[misc]  # Celery has no types
    def set_process_status(self, info: Any) -> None:
        """The process has its title already; Celery would write its own over it."""


class Listener:
    """Consumes bells until SIGTERM, or until it finds itself deaf."""

    def __init__(self, node: Node, broker_url: str, vitals: Vitals) -> None:
        self._node = node
        self._vitals = vitals
        self._broker_url = broker_url
        self._heard_at = time.monotonic()
        self.deaf = False
        self._bells = [queue_for(needs_cuda=False)] + ([queue_for(needs_cuda=True)] if node.gpus else [])
        self._worker = self._build(consumer(broker_url, [node_queue(node.id), *self._bells]))

    def run(self) -> None:
        """Blocks; Celery handles the signals of this process, and the node drains with it."""
        threading.Thread(target=self._pulse, daemon=True, name="pulse").start()
        threading.Thread(target=self._listen_once_warm, daemon=True, name="bells").start()
        self._worker.start()
        self._node.drain()

    def _build(self, app: Celery) -> Ear:
        def bell() -> None:
            ring_here(self._node.settings.home)

        def pulse() -> None:
            self._heard()

        def drain(**_: Any) -> None:
            self._node.drain()

        app.task(name=BELL, shared=False)(bell)
        app.task(name=PULSE, shared=False)(pulse)
        signals.worker_shutting_down.connect(drain, weak=False)
        return Ear(
            app=app,
            pool="threads",
            concurrency=1,  # bells are passed on in microseconds; jobs run in the slots' own threads
            hostname=f"{self._node.id}@evenkeel",
            queues=[node_queue(self._node.id)],
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            loglevel=self._node.settings.log_level.upper(),
            quiet=True,
        )

    def _listen_once_warm(self) -> None:
        """A bell that comes to a worker which is still loading its trainers' libraries would be lost on it, while
        another one is ready: that one would find the job at its next poll only."""
        self._node.warm.wait()
        ear = self._worker.consumer
        for name in self._bells:
            ear.app.amqp.queues.select_add(ear.app.amqp.queues[name])  # for every connection from now on
            ear.call_soon(ear.add_task_queue, name)  # and for the one that may stand

    def _pulse(self) -> None:
        """Proves consumption, not connection: while the broker takes pulses, they must come back."""
        silent, sent_at = 0, self._heard_at
        while not self._node.draining.is_set():
            silent = silent + 1 if self._heard_at < sent_at else 0  # since the last one, however late this one is due
            if silent >= SILENT_PERIODS:
                log.error("no pulse came back %d times, though the broker took them: starting over", SILENT_PERIODS)
                self.deaf = True
                self._node.drain()
                self._worker.stop()
                return
            sent_at = time.monotonic()
            if not send(self._broker_url, PULSE, node_queue(self._node.id)):
                self._heard()  # a broker that is away is no reason to start over: the node looks by itself
            self._node.draining.wait(PULSE_SECONDS)

    def _heard(self) -> None:
        self._heard_at = time.monotonic()
        self._vitals.heard()
