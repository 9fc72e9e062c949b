"""Trainer processes from a preloaded forkserver: 35 ms to a running trainer where a fresh start takes 2 s."""

import contextlib
import dataclasses
import importlib
import json
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from types import ModuleType

from worker.messages import Command, Message, Order, decode

PRELOAD = "worker.trainer.preload"
TRAINER = "worker.trainer.main"  # by name: this process must never import torch
DEATH_SECONDS = 5.0
MESSAGE_SECONDS = 5  # within a message; a trainer frozen in the middle of one would hold its supervisor for ever
UNKNOWN = 255  # what multiprocessing says when the forkserver, which would know, is itself gone
_starting = threading.Lock()
_warm_pid: int | None = None


class TrainerGone(Exception):
    """The trainer's end of the pipe is closed: it has ended, in whatever way."""


class Trainer:
    """A running trainer process. The pipe, not the pid, tells whether it lives: the forkserver that
    would report its exit may itself be dead."""

    def __init__(self, process: ForkServerProcess, connection: Connection) -> None:
        self._process = process
        self._connection = connection
        if process.pid is None:
            raise ValueError("the process was never started")  # and a signal to group 0 would be for ourselves
        self.pid = process.pid
        with socket.socket(fileno=os.dup(connection.fileno())) as pipe:
            pipe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", MESSAGE_SECONDS, 0))

    def receive(self, timeout_seconds: float) -> Message | None:
        """The next message, or None after the timeout. Raises TrainerGone."""
        try:
            if not self._connection.poll(max(0.0, timeout_seconds)):
                return None
            return decode(self._connection.recv_bytes())
        except (BlockingIOError, ValueError) as error:  # half a message, or what follows one
            self._signal()
            raise TrainerGone from error
        except (EOFError, OSError) as error:
            raise TrainerGone from error

    def tell(self, command: Command) -> None:
        with contextlib.suppress(OSError):
            self._connection.send_bytes(command.encode())

    def kill(self) -> None:
        """SIGKILL for the whole process group, and a wait until the pipe says that it is gone."""
        self._signal()
        self._gone_within(DEATH_SECONDS)

    def close(self) -> str:
        """Waits until it is gone, ends it when it does not end by itself, and says how it ended."""
        if not self._gone_within(DEATH_SECONDS):
            self.kill()
        self._process.join(DEATH_SECONDS)
        code = self._process.exitcode
        self._connection.close()
        if code is None or code == UNKNOWN:
            return "for an unknown reason"
        if code < 0:
            return f"by signal {signal.Signals(-code).name}"
        return f"with exit code {code}"

    def _signal(self) -> None:
        for target in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                target(self.pid, signal.SIGKILL)

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TrainerGone):
            while time.monotonic() < deadline:
                self.receive(deadline - time.monotonic())
            return False
        return True


def enter(connection: Connection, order: bytes) -> None:
    """Runs in the child, where the preload has long imported the module."""
    importlib.import_module(TRAINER).run(connection, order)


def warm_up() -> None:
    """Blocks until a forkserver is there that has imported all that a trainer needs.

    Called before a job is claimed: the seconds of a cold start, or of one after the forkserver was
    killed, must not eat into the job's lease.
    """
    global _warm_pid
    context = multiprocessing.get_context("forkserver")
    with _starting, _empty_main():
        context.set_forkserver_preload([PRELOAD])
        forkserver.ensure_running()
        pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # no public name tells which one runs
        if pid == _warm_pid:
            return
        process = context.Process(target=int, name="warm-up")
        process.start()
    process.join()
    process.close()
    _warm_pid = pid


def start(order: Order) -> Trainer:
    """A new trainer process with `order`. A forkserver that died is started again on the way."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=enter, args=(theirs, json.dumps(dataclasses.asdict(order)).encode()), name=f"trainer {order.job_id}"
    )
    try:
        with _starting, _empty_main():
            process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Trainer(process, ours)


@contextlib.contextmanager
def _empty_main() -> Iterator[None]:
    """A forkserver child runs its parent's `__main__` again: 0.65 s when that is a console script."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
