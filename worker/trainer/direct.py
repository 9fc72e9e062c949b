"""The passes of a small dense network by hand: autograd's kernels in autograd's order, so with autograd's bits.

On a network like the paper's (784-100-100-100-10) autograd's own work, building a graph and walking it,
takes about as long as the matrix products. Here each layer calls the forward kernel that its module would
call, and the backward kernel of its derivative formula (torch's derivatives.yaml), the products into
tensors that are allocated once. tests/worker/trainer/test_direct.py holds both ways to the same bits.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn import functional

from bn_models.exact import LONG_SUM
from bn_models.networks import Network
from bn_models.normalization import BatchNorm
from core.spec import JobSpec
from core.spec import layers as spec
from core.spec.layers import ActivationKind, Layer
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


def is_direct(network: Network, job: JobSpec, device: torch.device) -> bool:
    """Can the passes of this network be written by hand? To be asked again when a layer was frozen."""
    simple = device.type == "cpu" and job.training.precision == "float32" and not job.training.compile
    dense = any(isinstance(layer, spec.Linear) for layer in network.layers)
    return simple and dense and all(_has_part(network, layer, job.training.batch_size) for layer in network.layers)


def _has_part(network: Network, layer: Layer, rows: int) -> bool:
    match layer:
        case spec.Linear() | spec.Flatten() | spec.Activation():
            return True
        case spec.BatchNorm(options=options):
            # A cumulative average has another factor each time; ghost batches are cut and joined.
            module = _batch_norm(network, layer.name)
            plain = options.momentum is not None and options.virtual_batch_size is None and not module.frozen
            # A longer batch, the one of a merged tail too, goes another way through its module.
            return plain and rows < LONG_SUM
        case _:
            return False


class DirectPasses:
    """What `AutogradPasses` is, with gradients that stay in the same tensors."""

    def __init__(self, network: Network, smoothing: float) -> None:
        self._network, self._smoothing = network, smoothing
        parameters = list(network.parameters())
        self._gradients = [torch.empty_like(parameter) for parameter in parameters]
        for parameter, gradient in zip(parameters, self._gradients, strict=True):
            parameter.grad = gradient
        self._parts_of: dict[int, tuple[Part, ...]] = {}  # by rows: products have the shape of the batch
        self._parts: tuple[Part, ...] = ()
        self._first = _first_that_learns(network)
        self._head: Head | None = None
        self.outputs = torch.empty(0)

    @torch.no_grad()
    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        rows = len(inputs)
        if rows not in self._parts_of:
            self._parts_of[rows] = _parts(self._network, rows)
        self._parts = self._parts_of[rows]
        x = inputs
        for part in self._parts:
            x = part.forward(x)
        self.outputs = x
        plain = self._smoothing == 0.0 and targets.dtype == torch.int64
        self._head = CrossEntropy(x, targets) if plain else AnyLoss(x, targets, self._smoothing)
        return self._head.loss

    @torch.no_grad()
    def backward(self) -> list[Tensor]:
        if self._head is not None:
            gradient = self._head.backward()
            for part in reversed(self._parts[self._first :]):
                gradient = part.backward(gradient)
        return self._gradients


def _first_that_learns(network: Network) -> int:
    """Below it nobody asks for a gradient."""
    learns = (any(True for _ in network.get_submodule(layer.name).parameters()) for layer in network.layers)
    return next(position for position, one in enumerate(learns) if one)


def _parts(network: Network, rows: int) -> tuple[Part, ...]:
    first = _first_that_learns(network)
    return tuple(_part(network, layer, rows, position > first) for position, layer in enumerate(network.layers))


def _part(network: Network, layer: Layer, rows: int, learns_below: bool) -> Part:
    match layer:
        case spec.Linear():
            return LinearPart(network.get_submodule(layer.name), rows, learns_below)
        case spec.BatchNorm():
            return BatchNormPart(_batch_norm(network, layer.name), learns_below)
        case spec.Activation(kind=kind):
            return ActivationPart(kind)
        case _:
            return FlattenPart()


def _batch_norm(network: Network, name: str) -> BatchNorm:
    module = network.get_submodule(name)
    if not isinstance(module, BatchNorm):
        raise TypeError(f"{name} is no batch norm")
    return module


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
