"""The trainer process: a pipe to its supervisor as a sink, and an end when the supervisor ends."""

import json
import multiprocessing
import os
import threading
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import get_args

import setproctitle

from worker.messages import CheckpointReference, Command, Message, Order, Thresholds, encode
from worker.trainer.memory import keep_freed_memory
from worker.trainer.reporting import SinkClosed
from worker.trainer.session import train

ORPHANED = 3
"""Exit code of a trainer whose supervisor is gone."""
_COMMANDS: dict[bytes, Command] = {command.encode(): command for command in get_args(Command)}


def run(connection: Connection, order_json: bytes) -> None:
    """Runs in a child of the forkserver: one attempt at a job, reported over `connection`.

    `order_json` is a `worker.messages.Order` as JSON; commands come as their encoded names.
    """
    with suppress(OSError):
        os.setsid()  # a group of its own, so that a supervisor can end it with all that it started
    keep_freed_memory()
    order = decode_order(order_json)
    setproctitle.setproctitle(f"evenkeel: trainer {order.job_id}")
    pipe = Pipe(connection)
    try:
        train(order, pipe)
    except SinkClosed:
        os._exit(ORPHANED)


def decode_order(order_json: bytes) -> Order:
    fields = json.loads(order_json)
    candidates = tuple(CheckpointReference(**candidate) for candidate in fields.pop("checkpoints", ()))
    thresholds = Thresholds(**fields.pop("thresholds", {}))
    return Order(**fields, checkpoints=candidates, thresholds=thresholds)


class Pipe:
    """The sink of a trainer process. A thread listens, so that asking for a command is only reading a field."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._command: Command | None = None
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()

    def send(self, message: Message) -> None:
        try:
            self._connection.send_bytes(encode(message))
        except OSError as error:
            raise SinkClosed from error

    def command(self) -> Command | None:
        return self._command

    def _listen(self) -> None:
        """Ends the process within milliseconds of its supervisor: nobody would take what it still has to say."""
        parent = multiprocessing.parent_process()
        sentinels = [] if parent is None else [parent.sentinel]
        while True:
            try:
                if any(ready is not self._connection for ready in wait([self._connection, *sentinels])):
                    os._exit(ORPHANED)
                self._command = _COMMANDS.get(self._connection.recv_bytes(), self._command)
            except (EOFError, OSError):
                os._exit(ORPHANED)
