"""The loss at the end of passes by hand, and its gradient by the network's outputs."""

from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import grad

from worker.trainer.evaluation import loss_of

_aten = torch.ops.aten
_MEAN, _NO_IGNORED_CLASS = 1, -100  # of nll_loss, as cross_entropy calls it


class Head(Protocol):
    """The loss of one batch."""

    loss: Tensor

    def backward(self) -> Tensor:
        """Its gradient by the network's outputs."""
        ...


class CrossEntropy:
    """Mean cross-entropy of logits, as torch composes it of log-softmax and negative log-likelihood."""

    def __init__(self, logits: Tensor, targets: Tensor) -> None:
        self._targets = targets
        self._logarithms = torch.log_softmax(logits, 1)
        self.loss, self._total = _aten.nll_loss_forward.default(
            self._logarithms, targets, None, _MEAN, _NO_IGNORED_CLASS
        )

    def backward(self) -> Tensor:
        gradient = _aten.nll_loss_backward.default(
            torch.ones_like(self.loss), self._logarithms, self._targets, None, _MEAN, _NO_IGNORED_CLASS, self._total
        )
        result: Tensor = _aten._log_softmax_backward_data.default(gradient, self._logarithms, 1, torch.float32)
        return result


class AnyLoss:
    """Every other loss by autograd, whose graph is two or three nodes here."""

    def __init__(self, outputs: Tensor, targets: Tensor, smoothing: float) -> None:
        with torch.enable_grad():
            self._outputs = outputs.detach().requires_grad_()
            self._loss = loss_of(self._outputs, targets, smoothing)
        self.loss = self._loss.detach()

    def backward(self) -> Tensor:
        (gradient,) = grad(self._loss, self._outputs)
        return gradient
