"""The LSTM (Hochreiter & Schmidhuber 1997), plain and batch-normalized (Cooijmans et al. 2016)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bn_models.blocks import Linear
from bn_models.normalization import BatchNorm, register_affine
from core.spec.layers import LSTM as LSTMLayer
from core.spec.normalization import BatchOptions


class StepNorm(nn.Module):
    """Batch norm of one place of the cell: statistics of its own for each time step, gamma and beta for all."""

    gamma: nn.Parameter | None
    beta: nn.Parameter | None

    def __init__(self, channels: int, steps: int, options: BatchOptions) -> None:
        super().__init__()
        self.options = options
        register_affine(self, channels, options)
        without = options.model_copy(update={"affine": False})
        for step in range(steps):
            self.add_module(f"step{step}", BatchNorm(channels, without))

    def at(self, step: int) -> BatchNorm:
        module = self._modules[f"step{step}"]
        if not isinstance(module, BatchNorm):
            raise TypeError(f"step {step} is a {type(module).__name__}, not a BatchNorm")
        return module

    def forward(self, x: Tensor, step: int) -> Tensor:
        return self.affine(self.at(step)(x))

    def affine(self, x: Tensor) -> Tensor:
        """gamma · x + beta, of a value that is normalized."""
        if self.gamma is not None:
            x = x * self.gamma
        return x if self.beta is None else x + self.beta


class LSTM(nn.Module):
    """x (N, T, F) → the last hidden state (N, U), or all (N, T, U).

    Gates in torch's order i, f, g, o: gates = W_x x + W_h h + b; c ← σ(f)·c + σ(i)·tanh(g);
    h = σ(o)·tanh(c); h and c begin at 0. With batch norm (Cooijmans et al. 2016, equations 6 to 8):
    gates = γ_x·BN(W_x x) + γ_h·BN(W_h h) + b; h = σ(o)·tanh(γ_c·BN(c) + β_c).
    """

    def __init__(self, steps: int, features: int, layer: LSTMLayer) -> None:
        super().__init__()
        units, options = layer.units, layer.batch_norm
        self.steps, self.units, self.outputs = steps, units, layer.outputs
        self.input, self.hidden = Linear(features, 4 * units, bias=False), Linear(units, 4 * units, bias=False)
        self.input.gates = self.hidden.gates = 4
        self.bias = nn.Parameter(torch.empty(4 * units))
        self.input_norm = self.hidden_norm = self.cell_norm = None
        if options is not None:
            without_beta = options.model_copy(update={"affine": options.affine in (True, "gamma") and "gamma"})
            self.input_norm = StepNorm(4 * units, steps, without_beta)
            self.hidden_norm = StepNorm(4 * units, steps, without_beta)
            self.cell_norm = StepNorm(units, steps, options)

    def forward(self, x: Tensor) -> Tensor:
        # One product for all steps, and time first, so that each step is a contiguous slice.
        projected = self.input(x.transpose(0, 1))
        hidden = projected.new_zeros(len(x), self.units)
        cell = torch.zeros_like(hidden)
        states: list[Tensor] = []
        for step in range(self.steps):
            cell, output = self.advance(self.gates(step, projected[step], self.hidden(hidden)), cell)
            hidden = self.emit(step, cell, output)
            states.append(hidden)
        return hidden if self.outputs == "last" else torch.stack(states, dim=1)

    def gates(self, step: int, by_input: Tensor, by_hidden: Tensor) -> Tensor:
        """(N, 4U) out of W_x x and W_h h of one step."""
        if self.input_norm is None or self.hidden_norm is None:
            return by_input + by_hidden + self.bias
        normalized: Tensor = self.input_norm(by_input, step) + self.hidden_norm(by_hidden, step) + self.bias
        return normalized

    def advance(self, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The new cell, and how far the output gate is open."""
        opened, kept, value, output = gates.chunk(4, dim=1)
        return torch.sigmoid(kept) * cell + torch.sigmoid(opened) * torch.tanh(value), torch.sigmoid(output)

    def emit(self, step: int, cell: Tensor, output: Tensor) -> Tensor:
        """The new hidden state."""
        return output * torch.tanh(cell if self.cell_norm is None else self.cell_norm(cell, step))

    def statistical(self) -> Iterator[BatchNorm]:
        """Its batch norms in the order of computation."""
        norms = [norm for norm in (self.input_norm, self.hidden_norm, self.cell_norm) if norm is not None]
        for step in range(self.steps):
            for norm in norms:
                yield norm.at(step)
