"""Layers with their derivatives written out: what `worker.trainer.direct` puts together."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn import functional

from bn_models import exact
from bn_models.normalization import BatchNorm
from core.spec.layers import ActivationKind

_aten = torch.ops.aten
_NOTHING = torch.empty(0)  # in place of an activation whose backward pass is done, so that its memory is free


class Part(Protocol):
    """One layer. `backward` is of the last `forward`; it may write over `gradient`, and sets its parameters' own."""

    def forward(self, x: Tensor) -> Tensor: ...

    def backward(self, gradient: Tensor) -> Tensor: ...


def _parameter(module: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """A parameter and the tensor of its gradient, which must be there already."""
    parameter = module.get_parameter(name)
    if parameter.grad is None:
        raise ValueError(f"{name} has no room for a gradient yet")
    return parameter.detach(), parameter.grad


class LinearPart:
    """y = x Wᵀ + b."""

    def __init__(self, module: nn.Module, rows: int, learns_below: bool) -> None:
        self._weight, self._weight_gradient = _parameter(module, "weight")
        self._transposed = self._weight.t()
        self._bias = None if module.bias is None else _parameter(module, "bias")
        outputs, inputs = self._weight.shape
        self._x, self._y = _NOTHING, torch.empty(rows, outputs)
        self._x_gradient = torch.empty(rows, inputs) if learns_below else None

    def forward(self, x: Tensor) -> Tensor:
        self._x = x
        if self._bias is None:
            return torch.mm(x, self._transposed, out=self._y)
        return torch.addmm(self._bias[0], x, self._transposed, out=self._y)

    def backward(self, gradient: Tensor) -> Tensor:
        x, self._x = self._x, _NOTHING
        torch.mm(gradient.t(), x, out=self._weight_gradient)
        if self._bias is not None:
            torch.sum(gradient, 0, out=self._bias[1])
        if self._x_gradient is None:
            return gradient
        return torch.mm(gradient, self._weight, out=self._x_gradient)


class Conv2dPart:
    def __init__(self, module: nn.Conv2d, learns_below: bool) -> None:
        self._weight, self._weight_gradient = _parameter(module, "weight")
        self._bias = None if module.bias is None else _parameter(module, "bias")
        self._sizes = None if module.bias is None else list(module.bias.shape)
        self._stride, self._padding = list(module.stride), [int(size) for size in module.padding]
        self._mask = [learns_below, True, module.bias is not None]
        self._x = _NOTHING

    def forward(self, x: Tensor) -> Tensor:
        self._x = x
        return torch.conv2d(x, self._weight, None if self._bias is None else self._bias[0], self._stride, self._padding)

    def backward(self, gradient: Tensor) -> Tensor:
        x, self._x = self._x, _NOTHING
        by_x, by_weight, by_bias = _aten.convolution_backward.default(
            gradient,
            x,
            self._weight,
            self._sizes,
            self._stride,
            self._padding,
            [1, 1],
            False,
            [0, 0],
            1,
            self._mask,
        )
        self._weight_gradient.copy_(by_weight)
        if self._bias is not None:
            self._bias[1].copy_(by_bias)
        return by_x if self._mask[0] else gradient


class BatchNormPart:
    """Moves the running average as its module does. `keeps_gradient`: what it gets in `backward` stays as it is."""

    def __init__(self, module: BatchNorm, learns_below: bool) -> None:
        self._module, self._eps = module, module.eps
        self._factor = 0.0 if module.momentum is None else module.momentum
        self._gamma = None if module.gamma is None else _parameter(module, "gamma")
        self._beta = None if module.beta is None else _parameter(module, "beta")
        self._mask = [learns_below, self._gamma is not None, self._beta is not None]
        self.keeps_gradient = False
        self._x = _NOTHING
        self._long: exact.Moments | None = None
        self._short: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        module, gamma, beta = self._module, self._gamma, self._beta
        module.updates += 1
        mean, variance = module.running_mean, module.running_var
        weights = None if gamma is None else gamma[0], None if beta is None else beta[0]
        self._x, self._long = x, None
        if exact.has_long_sums(x):
            y, self._long = exact.normalized(x, *weights, self._eps)
            exact.move(mean, variance, self._long, self._factor)
        else:
            y, *self._short = torch.native_batch_norm(x, *weights, mean, variance, True, self._factor, self._eps)
        return y

    def backward(self, gradient: Tensor) -> Tensor:
        x, self._x = self._x, _NOTHING
        module, mask = self._module, self._mask
        gamma = None if self._gamma is None else self._gamma[0]
        if self._long is not None:
            found = exact.derivatives(gradient, x, gamma, self._long, mask[0], over=not self.keeps_gradient)
        else:
            mean, variance = module.running_mean, module.running_var
            found = _aten.native_batch_norm_backward.default(
                gradient, x, gamma, mean, variance, *self._short, True, self._eps, mask
            )
        if self._gamma is not None:
            self._gamma[1].copy_(found[1])
        if self._beta is not None:
            self._beta[1].copy_(found[2])
        return found[0] if mask[0] else gradient


class MaxPoolPart:
    def __init__(self, module: nn.MaxPool2d) -> None:
        self._window = ([module.kernel_size] * 2, [module.stride] * 2, [module.padding] * 2, [1, 1], False)
        self._x = self._indices = _NOTHING

    def forward(self, x: Tensor) -> Tensor:
        self._x = x
        y: Tensor
        y, self._indices = _aten.max_pool2d_with_indices.default(x, *self._window)
        return y

    def backward(self, gradient: Tensor) -> Tensor:
        x, self._x = self._x, _NOTHING
        indices, self._indices = self._indices, _NOTHING
        if not x.is_contiguous():  # channels-last: the kernel would convert the gradient too, ten times as slowly
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        result: Tensor = _aten.max_pool2d_with_indices_backward.default(gradient, x, *self._window, indices)
        return result


class GlobalAveragePart:
    """(N, C, H, W) → (N, C)."""

    def __init__(self) -> None:
        self._shape = torch.Size()

    def forward(self, x: Tensor) -> Tensor:
        self._shape = x.shape
        return x.mean((-1, -2))

    def backward(self, gradient: Tensor) -> Tensor:
        rows, channels, height, width = self._shape
        return gradient.view(rows, channels, 1, 1).expand(self._shape) / (height * width)


class ResidualPart:
    """body(x) + shortcut(x), under which something learns."""

    def __init__(self, body: tuple[Part, ...], shortcut: tuple[Part, ...]) -> None:
        self._body, self._shortcut = body, shortcut
        last = body[-1]
        self._keeps = isinstance(last, LinearPart | Conv2dPart | BatchNormPart)  # what it gives and gets
        if isinstance(last, BatchNormPart):
            last.keeps_gradient = True

    def forward(self, x: Tensor) -> Tensor:
        short = y = x
        for part in self._shortcut:
            short = part.forward(short)
        for part in self._body:
            y = part.forward(y)
        return y.add_(short) if self._keeps else y + short

    def backward(self, gradient: Tensor) -> Tensor:
        by_body = gradient if self._keeps else gradient.clone()
        for part in reversed(self._body):
            by_body = part.backward(by_body)
        for part in reversed(self._shortcut):
            gradient = part.backward(gradient)
        # Autograd adds the body's gradient to the shortcut's; where both lie alike, the order is all one.
        return by_body.add_(gradient) if by_body.stride() == gradient.stride() else gradient + by_body


class ModulePart:
    """A layer by autograd, alone."""

    def __init__(self, module: nn.Module, learns_below: bool) -> None:
        self._module, self._learns_below = module, learns_below
        self._parameters = list(module.parameters())
        self._x = self._y = _NOTHING

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            self._x = x.detach().requires_grad_(self._learns_below)
            self._y = self._module(self._x)
        return self._y.detach()

    def backward(self, gradient: Tensor) -> Tensor:
        sources = [*([self._x] if self._learns_below else []), *self._parameters]
        if not sources:
            return gradient
        found = list(grad(self._y, sources, gradient))
        self._x = self._y = _NOTHING
        x_gradient = found.pop(0) if self._learns_below else gradient
        for parameter, one in zip(self._parameters, found, strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(one)
        return x_gradient


class ActivationPart:
    def __init__(self, kind: ActivationKind, in_place: bool) -> None:
        """`in_place`: nobody needs what it is given; a ReLU writes over it."""
        self._forward, self._derivative, self._of_result = _ACTIVATIONS[kind]
        if in_place and kind == "relu":
            self._forward = torch.relu_
        self._saved = _NOTHING

    def forward(self, x: Tensor) -> Tensor:
        y = self._forward(x)
        self._saved = y if self._of_result else x
        return y

    def backward(self, gradient: Tensor) -> Tensor:
        saved, self._saved = self._saved, _NOTHING
        return self._derivative(gradient, saved)


class FlattenPart:
    def forward(self, x: Tensor) -> Tensor:
        self._shape = x.shape
        return x.flatten(1)

    def backward(self, gradient: Tensor) -> Tensor:
        return gradient.view(self._shape)


_Backward = Callable[[Tensor, Tensor], Tensor]


def _derivative(kernel: Any, *options: object) -> _Backward:
    """Written over the gradient it is given, where that leaves the layout, and with it later bits, as without."""
    anew, over = kernel.default, kernel.grad_input

    def derivative(gradient: Tensor, saved: Tensor) -> Tensor:
        result: Tensor = (
            over(gradient, saved, *options, grad_input=gradient)
            if gradient.stride() == saved.stride()
            else anew(gradient, saved, *options)
        )
        return result

    return derivative


def _relu_derivative(gradient: Tensor, y: Tensor) -> Tensor:
    """The result has the layout of y; a gradient of another is brought to it first, in a tenth of the kernel's time."""
    if gradient.stride() != y.stride() and y.dim() == 4 and y.is_contiguous(memory_format=torch.channels_last):
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    return _thresholded(gradient, y)


def _elu_derivative(gradient: Tensor, x: Tensor) -> Tensor:
    result: Tensor = _aten.elu_backward.default(gradient, 1.0, 1.0, 1.0, False, x)
    return result


_thresholded = _derivative(_aten.threshold_backward, 0.0)
_ACTIVATIONS: dict[ActivationKind, tuple[Callable[[Tensor], Tensor], _Backward, bool]] = {
    "relu": (torch.relu, _relu_derivative, True),
    "sigmoid": (torch.sigmoid, _derivative(_aten.sigmoid_backward), True),
    "tanh": (torch.tanh, _derivative(_aten.tanh_backward), True),
    "gelu": (functional.gelu, _derivative(_aten.gelu_backward), False),
    "silu": (functional.silu, _derivative(_aten.silu_backward), False),
    "leaky_relu": (functional.leaky_relu, _derivative(_aten.leaky_relu_backward, 0.01, False), False),
    "elu": (functional.elu, _elu_derivative, False),
}
"""Forward kernel, derivative, and whether that is of the result (else of the input); constants are torch's defaults."""
