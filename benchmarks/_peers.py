"""The same training by Lightning and by Ignite, where they are installed; they are no part of this project."""

import logging
import tempfile
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks._plain import Clock, Contender

if find_spec("lightning"):
    import lightning
    from lightning.pytorch.loggers import CSVLogger
if find_spec("ignite"):
    from ignite.engine import create_supervised_trainer

Loader = DataLoader[tuple[Tensor, ...]]
SETTLING = 20  # first steps of a fit, in which a framework still sets itself up


def peers(network: Any, loader: Loader) -> dict[str, Contender]:
    """By name; `network` makes a plain module."""
    found: dict[str, Contender] = {}
    if find_spec("lightning"):
        found["Lightning, barebones"] = with_lightning(network(), loader, log=False)
        found["Lightning, CSV logger"] = with_lightning(network(), loader, log=True)
    if find_spec("ignite"):
        found["Ignite"] = with_ignite(network(), loader)
    return found


class FitClock:
    """Steps a second, without the first SETTLING of each fit."""

    def __init__(self) -> None:
        self.count, self.began = 0, 0.0

    def tick(self) -> None:
        self.count += 1
        if self.count == SETTLING:
            self.began = Clock.now()

    def rate(self) -> float:
        return (self.count - SETTLING) / (Clock.now() - self.began)


def with_lightning(network: nn.Module, loader: Loader, log: bool) -> Contender:
    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.clock, self.result = network, FitClock(), 0.0

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            x, y = batch
            logits = self.network(x)
            loss = functional.cross_entropy(logits, y)
            accuracy = (logits.argmax(1) == y).float().mean()
            if log:
                self.log("loss", loss)
                self.log("accuracy", accuracy)
            else:
                loss.item(), accuracy.item()
            return loss

        def on_train_batch_end(self, *_: Any) -> None:
            self.clock.tick()

        def on_train_end(self) -> None:
            self.result = self.clock.rate()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05, fused=True)

    module = Module()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    def run(steps: int) -> float:
        module.clock = FitClock()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options: dict[str, Any] = {"barebones": True}
            if log:
                options = {"logger": CSVLogger(folder), "log_every_n_steps": 1, "enable_checkpointing": False}
                options |= {"enable_progress_bar": False, "enable_model_summary": False}
            trainer = lightning.Trainer(max_steps=steps + SETTLING, accelerator="cpu", devices=1, **options)
            trainer.fit(module, loader)
        return module.result

    return run


def with_ignite(network: nn.Module, loader: Loader) -> Contender:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, fused=True)
    losses: list[tuple[float, float]] = []

    def note(_: Tensor, y: Tensor, logits: Tensor, loss: Tensor) -> None:
        losses.append((loss.item(), (logits.argmax(1) == y).sum().item() / len(y)))

    def run(steps: int) -> float:
        clock = FitClock()

        def output(x: Tensor, y: Tensor, logits: Tensor, loss: Tensor) -> None:
            clock.tick()
            note(x, y, logits, loss)

        losses.clear()
        engine = create_supervised_trainer(network, optimizer, functional.cross_entropy, output_transform=output)
        engine.run(loader, max_iters=steps + SETTLING)
        return clock.rate()

    return run
