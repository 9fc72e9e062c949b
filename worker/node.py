"""A node: what all slots of one worker process share."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from core.artifacts import ArtifactStore
from core.bell import ring_here
from core.db import Database
from core.identifiers import new_id
from core.settings import Settings
from worker.pause import Pause


@dataclass(frozen=True)
class Node:
    id: str
    settings: Settings
    database: Database
    store: ArtifactStore
    gpus: int
    draining: threading.Event = field(default_factory=threading.Event)
    warm: threading.Event = field(default_factory=threading.Event)
    """Set once a trainer can be started here: until then bells are for others."""
    starting: Pause = field(default_factory=Pause)
    """After trainers that did not come up on this node."""
    reading: Pause = field(default_factory=Pause)
    """After trainers that could not read a checkpoint."""

    def drain(self) -> None:
        """No new jobs; running ones go back to the queue. The bell wakes whoever waits for work."""
        self.draining.set()
        ring_here(self.settings.home)

    def rest(self) -> None:
        """Blocks while this node had better leave jobs to others."""
        self.starting.wait(self.draining)
        self.reading.wait(self.draining)

    def owner(self, slot: int) -> str:
        """Who holds a lease; `reclaim` finds the leases of a node by its part before the colon."""
        return f"{self.id}:{slot}"


def node_id(home: Path) -> str:
    """The same for every worker that ever runs on this home; the caller holds the worker's lock."""
    path = home / "node-id"
    if path.exists():
        return path.read_text().strip()
    fresh = new_id("node")
    path.write_text(f"{fresh}\n")
    return fresh
