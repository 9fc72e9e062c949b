"""The worker process: slots, reaper and bell of one node, with a broker or without."""

import fcntl
import importlib
import logging
import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import TextIO

import setproctitle

from core.artifacts import ArtifactStore
from core.bell import hear, open_bell
from core.db import open_database
from core.errors import EvenkeelError, SettingsInvalid, Unavailable
from core.queries import leases
from core.settings import Settings, load_settings
from worker import reaper, registry
from worker.node import Node, node_id
from worker.slots import gpu_count, slot_count
from worker.supervisor import run_next
from worker.vitals import Vitals

log = logging.getLogger("evenkeel.worker")

LISTENER = "worker.tasks"  # by name: Celery is loaded only where there is a broker
LOCK_SECONDS = 10.0  # a predecessor that was told to end has ended by then
EXIT_SECONDS = 9.5  # SIGTERM to exit
RETRY_SECONDS = 1.0


def run(settings: Settings, parent_fd: int | None = None) -> int:
    """Runs jobs until SIGTERM or SIGINT; answers the exit code. With `parent_fd`: also until the other
    end of that pipe is closed, which ends the process at once."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    setproctitle.setproctitle("evenkeel: worker")
    if parent_fd is not None:
        threading.Thread(target=_end_with_parent, args=(parent_fd,), daemon=True).start()
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = hold_lock(settings.home / "worker.lock", LOCK_SECONDS)
    node = Node(
        node_id(settings.home),
        settings,
        open_database(settings),
        ArtifactStore(settings.resolved_artifact_url, settings.artifact_cache_dir, settings.artifact_cache_bytes),
        gpu_count(),
    )
    vitals = Vitals(settings.home)
    try:
        if settings.broker_url is not None:
            return _run_with_broker(node, settings.broker_url, vitals)
        return Slots(node, vitals).run()
    finally:
        node.database.close()
        node.store.close()
        lock.close()


def _run_with_broker(node: Node, broker_url: str, vitals: Vitals) -> int:
    """Celery has the main thread, as it handles the signals; the slots run aside."""
    listener = importlib.import_module(LISTENER).Listener(node, broker_url, vitals)
    slots = threading.Thread(target=Slots(node, vitals).work, name="slots")
    slots.start()
    try:
        listener.run()
    finally:
        node.drain()
        slots.join(EXIT_SECONDS)
    return 1 if listener.deaf else 0


class Slots:
    """The slots of this node, their reaper, and the ear that hears of work."""

    def __init__(self, node: Node, vitals: Vitals) -> None:
        self._node = node
        self._vitals = vitals
        self._slots = slot_count(node.settings, node.gpus)
        self._work = threading.Semaphore(0)
        self._idle = threading.Semaphore(0)

    def run(self) -> int:
        """As `work`, until SIGTERM or SIGINT; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._node.drain())
        self.work()
        return 0

    def work(self) -> None:
        """Blocks until the node drains and every slot has given its job back."""
        node = self._node
        self._reclaim()
        threads = [threading.Thread(target=self._slot, args=(slot,), daemon=True) for slot in range(self._slots)]
        threads.append(threading.Thread(target=reaper.run, args=(node,), daemon=True))
        threads.append(threading.Thread(target=registry.run, args=(node, self._slots), daemon=True))
        for thread in threads:
            thread.start()
        log.info("worker %s: %d slots, %d GPUs", node.id, self._slots, node.gpus)
        self._listen()
        self._work.release(self._slots)
        deadline = time.monotonic() + EXIT_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _reclaim(self) -> None:
        for job_id in reaper.reclaim(self._node):
            log.info("%s: back from this node's last life", job_id)

    def _listen(self) -> None:
        """Wakes a free slot per bell, or when a look at the database finds work that no bell told of."""
        bell = open_bell(self._node.settings.home)
        try:
            while not self._node.draining.is_set():
                select.select([bell], [], [], self._node.settings.resolved_poll_seconds)
                rung = hear(bell)
                if rung or self._work_waits():
                    self._work.release(min(max(1, rung), self._slots))
                self._vitals.looked()
        finally:
            os.close(bell)

    def _work_waits(self) -> bool:
        if not self._idle_slots():
            return False
        try:
            with self._node.database.read() as connection:
                return bool(connection.execute(leases.waiting(cuda=self._node.gpus > 0)).scalar_one())
        except Unavailable as error:
            log.warning("%s", error.message)
            return False

    def _idle_slots(self) -> bool:
        if not self._idle.acquire(blocking=False):
            return False
        self._idle.release()
        return True

    def _slot(self, slot: int) -> None:
        """Runs job after job; sleeps when there is none."""
        while True:
            self._node.rest()
            if self._node.draining.is_set():
                return
            if not self._run_next(slot):
                self._idle.release()
                self._work.acquire()
                self._idle.acquire()

    def _run_next(self, slot: int) -> bool:
        try:
            return run_next(self._node, slot)
        except EvenkeelError as error:
            log.warning("slot %d: %s", slot, error.message)
        except Exception:
            log.exception("slot %d: the supervisor failed; a lease that it still holds will expire", slot)
        self._node.draining.wait(RETRY_SECONDS)
        return True


def hold_lock(path: Path, patience_seconds: float) -> TextIO:
    """The open file that holds the lock. Raises SettingsInvalid when another process keeps it."""
    file = path.open("a+")
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.close()
                raise SettingsInvalid(f"another worker runs on this home ({path.parent}): stop it first") from None
            threading.Event().wait(0.05)


def _end_with_parent(parent_fd: int) -> None:
    """The trainers end with this process: each watches it."""
    os.read(parent_fd, 1)
    os._exit(1)


def main() -> int:
    """Entry without a parent: `evenkeel worker`."""
    return run(load_settings())
