"""What belongs to one attempt at a job."""

from dataclasses import dataclass

import torch

from core.artifacts import Artifact, ArtifactStore
from core.spec import JobSpec
from worker.messages import Order
from worker.trainer.checkpoint import Progress
from worker.trainer.data import Data
from worker.trainer.patience import Patience
from worker.trainer.reporting import Reporter


@dataclass(frozen=True)
class Run:
    """All that belongs to one attempt."""

    order: Order
    spec: JobSpec
    device: torch.device
    data: Data
    progress: Progress
    store: ArtifactStore
    patience: Patience
    reporter: Reporter

    def put(self, content: bytes, suffix: str) -> Artifact:
        """Into the artifact store, by its content; patient while the store is away."""
        return self.patience.insist(lambda: self.store.put_content(content, suffix))
