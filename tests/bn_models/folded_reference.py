"""What folded layers compute, in float64 torch, written apart from the ONNX graph."""

import torch
from torch.nn import functional

from bn_models.frozen import (
    Affine,
    FoldedConv2d,
    FoldedLinear,
    FoldedLSTM,
    FoldedParallel,
    FoldedResidual,
    SampleNorm,
)
from core.spec import layers as spec


def folded(layers, x):
    for layer in layers:
        match layer:
            case FoldedResidual():
                x = folded(layer.body, x) + folded(layer.shortcut, x)
            case FoldedParallel():
                x = torch.cat([folded(branch, x) for branch in layer.branches], 1)
            case _:
                x = _simple(layer, x)
    return x


def affine_layers(layers):
    """The names of the affine maps that no layer beside them took in."""
    names = []
    for layer in layers:
        match layer:
            case FoldedResidual():
                names += affine_layers(layer.body) + affine_layers(layer.shortcut)
            case FoldedParallel():
                names += [name for branch in layer.branches for name in affine_layers(branch)]
            case Affine():
                names.append(layer.name)
    return names


def _tensor(values):
    return None if values is None else torch.from_numpy(values)


def _simple(layer, x):
    match layer:
        case FoldedLinear():
            return functional.linear(x, _tensor(layer.weight), _tensor(layer.bias))
        case FoldedConv2d():
            return functional.conv2d(x, _tensor(layer.weight), _tensor(layer.bias), layer.stride, layer.padding)
        case Affine():
            matrix = torch.diag(_tensor(layer.matrix)) if layer.matrix.ndim == 1 else _tensor(layer.matrix)
            shift = _tensor(layer.shift).view(-1, *[1] * (x.dim() - 2))
            return torch.einsum("cd,nd...->nc...", matrix, x) + shift
        case SampleNorm():
            kind = layer.layer.layer
            groups = {"layer_norm": 1, "instance_norm": x.shape[1]}.get(kind) or layer.layer.options.groups
            gamma, beta = _tensor(layer.gamma), _tensor(layer.beta)
            return functional.group_norm(x, groups, gamma, beta, layer.layer.options.eps)
        case FoldedLSTM():
            return _lstm(layer, x)
        case spec.LocalResponseNorm():
            options = layer.options
            channels = x if x.dim() > 2 else x[:, :, None]  # torch takes no vectors
            normalized = functional.local_response_norm(channels, options.size, options.alpha, options.beta, options.k)
            return normalized.view_as(x)
        case spec.Activation():
            return getattr(functional, layer.kind)(x)
        case spec.MaxPool2d():
            return functional.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding)
        case spec.AveragePool2d():
            return functional.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, count_include_pad=False)
        case spec.GlobalAveragePool2d():
            return x.mean((2, 3))
        case spec.ImageRows():
            return x.transpose(1, 2).flatten(2)
        case spec.Flatten():
            return x.flatten(1)
    raise TypeError(layer)


def _lstm(layer, x):
    steps = layer.steps
    h = c = torch.zeros(len(x), layer.hidden_weight.shape[1], dtype=torch.float64)
    states = []
    for t in range(x.shape[1]):
        gates = x[:, t] @ _tensor(layer.input_weight).T
        by_hidden = h @ _tensor(layer.hidden_weight).T
        if steps is None:
            gates = gates + by_hidden + _tensor(layer.bias)
        else:
            scaled = gates * _tensor(steps.input_scale[t]) + by_hidden * _tensor(steps.hidden_scale[t])
            gates = scaled + _tensor(steps.shift[t])
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        seen = c if steps is None else c * _tensor(steps.cell_scale[t]) + _tensor(steps.cell_shift[t])
        h = o.sigmoid() * seen.tanh()
        states.append(h)
    return torch.stack(states, 1) if layer.whole_sequence else h
