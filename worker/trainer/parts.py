"""Layers and losses with their derivatives written out: what `worker.trainer.direct` puts together."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn import functional

from bn_models.normalization import BatchNorm
from core.spec.layers import ActivationKind
from worker.trainer.evaluation import loss_of

_aten = torch.ops.aten
_MEAN, _NO_IGNORED_CLASS = 1, -100  # of nll_loss, as cross_entropy calls it


class Part(Protocol):
    """One layer. `backward` is of the last `forward`; it may write over `gradient`, and sets its parameters' own."""

    def forward(self, x: Tensor) -> Tensor: ...

    def backward(self, gradient: Tensor) -> Tensor: ...


class Head(Protocol):
    """The loss of one batch."""

    loss: Tensor

    def backward(self) -> Tensor:
        """Its gradient by the network's outputs."""
        ...


class LinearPart:
    """y = x Wᵀ + b."""

    def __init__(self, module: nn.Module, rows: int, learns_below: bool) -> None:
        weight, bias = module.weight, module.bias
        assert isinstance(weight, Tensor) and weight.grad is not None
        self._weight, self._transposed, self._weight_gradient = weight, weight.t(), weight.grad
        self._bias = bias if isinstance(bias, Tensor) else None
        outputs, inputs = weight.shape
        self._y = torch.empty(rows, outputs)
        self._x_gradient = torch.empty(rows, inputs) if learns_below else None

    def forward(self, x: Tensor) -> Tensor:
        self._x = x
        if self._bias is None:
            return torch.mm(x, self._transposed, out=self._y)
        return torch.addmm(self._bias, x, self._transposed, out=self._y)

    def backward(self, gradient: Tensor) -> Tensor:
        torch.mm(gradient.t(), self._x, out=self._weight_gradient)
        if self._bias is not None:
            torch.sum(gradient, 0, out=self._bias.grad)
        if self._x_gradient is None:
            return gradient
        return torch.mm(gradient, self._weight, out=self._x_gradient)


class BatchNormPart:
    """Moves the running average as its module does."""

    def __init__(self, module: BatchNorm, learns_below: bool) -> None:
        self._module, self._eps = module, module.eps
        self._factor = 0.0 if module.momentum is None else module.momentum
        self._gamma, self._beta = module.gamma, module.beta
        self._mask = [learns_below, module.gamma is not None, module.beta is not None]

    def forward(self, x: Tensor) -> Tensor:
        module = self._module
        module.updates += 1
        mean, variance = module.running_mean, module.running_var
        y, self._mean, self._deviation = torch.native_batch_norm(
            x, self._gamma, self._beta, mean, variance, True, self._factor, self._eps
        )
        self._x = x
        return y

    def backward(self, gradient: Tensor) -> Tensor:
        module, gamma, beta = self._module, self._gamma, self._beta
        x_gradient, gamma_gradient, beta_gradient = _aten.native_batch_norm_backward.default(
            gradient,
            self._x,
            gamma,
            module.running_mean,
            module.running_var,
            self._mean,
            self._deviation,
            True,
            self._eps,
            self._mask,
        )
        if gamma is not None:
            gamma.grad.copy_(gamma_gradient)
        if beta is not None:
            beta.grad.copy_(beta_gradient)
        return x_gradient if self._mask[0] else gradient


class ModulePart:
    """A layer by autograd, alone."""

    def __init__(self, module: nn.Module, learns_below: bool) -> None:
        self._module, self._learns_below = module, learns_below
        self._parameters = list(module.parameters())

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            self._x = x.detach().requires_grad_(self._learns_below)
            self._y: Tensor = self._module(self._x)
        return self._y.detach()

    def backward(self, gradient: Tensor) -> Tensor:
        sources = [*([self._x] if self._learns_below else []), *self._parameters]
        if not sources:
            return gradient
        found = list(grad(self._y, sources, gradient))
        x_gradient = found.pop(0) if self._learns_below else gradient
        for parameter, one in zip(self._parameters, found, strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(one)
        return x_gradient


class ActivationPart:
    def __init__(self, kind: ActivationKind) -> None:
        self._forward, self._derivative, self._of_result = _ACTIVATIONS[kind]

    def forward(self, x: Tensor) -> Tensor:
        y = self._forward(x)
        self._saved = y if self._of_result else x
        return y

    def backward(self, gradient: Tensor) -> Tensor:
        return self._derivative(gradient, self._saved)


class FlattenPart:
    def forward(self, x: Tensor) -> Tensor:
        self._shape = x.shape
        return x.flatten(1)

    def backward(self, gradient: Tensor) -> Tensor:
        return gradient.view(self._shape)


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


_Backward = Callable[[Tensor, Tensor], Tensor]


def _in_place(kernel: Callable[..., Tensor], *options: object) -> _Backward:
    """A derivative that writes its result over the gradient it is given."""
    return lambda gradient, saved: kernel(gradient, saved, *options, grad_input=gradient)


def _elu_backward(gradient: Tensor, x: Tensor) -> Tensor:
    result: Tensor = _aten.elu_backward.grad_input(gradient, 1.0, 1.0, 1.0, False, x, grad_input=gradient)
    return result


_ACTIVATIONS: dict[ActivationKind, tuple[Callable[[Tensor], Tensor], _Backward, bool]] = {
    "relu": (torch.relu, _in_place(_aten.threshold_backward.grad_input, 0.0), True),
    "sigmoid": (torch.sigmoid, _in_place(_aten.sigmoid_backward.grad_input), True),
    "tanh": (torch.tanh, _in_place(_aten.tanh_backward.grad_input), True),
    "gelu": (functional.gelu, _in_place(_aten.gelu_backward.grad_input), False),
    "silu": (functional.silu, _in_place(_aten.silu_backward.grad_input), False),
    "leaky_relu": (functional.leaky_relu, _in_place(_aten.leaky_relu_backward.grad_input, 0.01, False), False),
    "elu": (functional.elu, _elu_backward, False),
}
"""Forward kernel, derivative, and whether that is of the result (else of the input); constants are torch's defaults."""
