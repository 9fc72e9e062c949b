"""Label noise: some training labels are wrong, the same ones whenever the job runs."""

from dataclasses import replace

import torch

from bn_models.randomness import derive_seed
from worker.trainer.data import Split


def with_noise(split: Split, fraction: float, classes: int, seed: int) -> Split:
    """The split with `fraction` of its labels replaced by one of the other classes, each as likely.

    Which rows and which classes comes from the seed; other splits that share the tensor stay as they are.
    """
    if fraction == 0.0:
        return split
    generator = torch.Generator().manual_seed(derive_seed(seed, "label_noise"))
    chosen = torch.randperm(len(split), generator=generator)[: round(fraction * len(split))]
    away = torch.randint(1, classes, (len(chosen),), generator=generator).to(split.targets.device)
    chosen = chosen.to(split.targets.device)
    rows = chosen if split.rows is None else split.rows[chosen]
    targets = split.targets.clone()
    targets[rows] = (targets[rows] + away) % classes
    return replace(split, targets=targets)
