"""The list of nodes: each worker writes that it is there."""

import logging
import platform
import socket
from importlib.metadata import PackageNotFoundError, version

from sqlalchemy import Connection

from core.errors import Unavailable
from core.queries import nodes
from worker.node import Node

log = logging.getLogger("evenkeel.worker")
TOLD = ("evenkeel", "torch", "onnxruntime", "celery")


def run(node: Node, slots: int) -> None:
    """Writes until the node drains."""
    known = False
    while True:
        try:
            known = sign(node, slots, known)
        except Unavailable as error:
            log.warning("registry: %s", error.message)
        if node.draining.wait(node.settings.node_seconds):
            return


def sign(node: Node, slots: int, known: bool) -> bool:
    """One sign of life; the first of a worker says who it is. Answers that this is known now."""
    with node.database.write() as connection:
        if known:
            connection.execute(nodes.seen(node.id))
        else:
            _introduce(connection, node, slots)
    return True


def _introduce(connection: Connection, node: Node, slots: int) -> None:
    columns = {"host": socket.gethostname(), "slots": slots, "gpus": node.gpus, "versions": _versions()}
    if connection.execute(nodes.started(node.id, **columns)).rowcount == 0:
        connection.execute(nodes.create(id=node.id, **columns))
    connection.execute(nodes.forget())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
