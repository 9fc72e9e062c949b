"""Places for nodes: network namespaces of their own where this machine allows it, else only homes of their own."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Commands run there when they begin with `prefix`."""

    name: str
    prefix: tuple[str, ...]


@contextmanager
def two_places() -> Iterator[tuple[str, Place, Place]]:
    """An address that servers may listen on, and two places that reach it and not each other."""
    with ExitStack() as stack:
        if os.geteuid() == 0 and shutil.which("ip"):
            with suppress(subprocess.CalledProcessError):  # a container that lets nobody do this
                network = f"10.{random.randint(64, 127)}"
                places = [stack.enter_context(_namespace(network, number)) for number in (1, 2)]
                yield f"{network}.1.1", places[0], places[1]
                return
        yield "127.0.0.1", Place("first", ()), Place("second", ())


@contextmanager
def _namespace(network: str, number: int) -> Iterator[Place]:
    name = f"evenkeel{os.getpid()}-{number}"
    outside, inside = f"ek{os.getpid()}o{number}", f"ek{os.getpid()}i{number}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        _ip("address", "add", f"{network}.{number}.1/24", "dev", outside)
        _ip("link", "set", outside, "up")
        _ip("-n", name, "address", "add", f"{network}.{number}.2/24", "dev", inside)
        _ip("-n", name, "link", "set", inside, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "route", "add", "default", "via", f"{network}.{number}.1")
        yield Place(name, ("ip", "netns", "exec", name))
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", outside)
        _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
