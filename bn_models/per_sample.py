"""Normalizations of each sample by itself, for comparison with batch norm: the same in training and in evaluation."""

from torch import Tensor, nn
from torch.nn import functional

from bn_models.normalization import register_affine
from core.spec.normalization import GroupOptions, InstanceOptions, LayerOptions, LocalResponseOptions


class SampleNorm(nn.Module):
    """By the moments of `groups` groups of channels of each sample, over all their positions; biased variance.

    One group is layer norm, a group for each channel is instance norm. x: (N, C) or (N, C, H, W);
    gamma and beta have one value a channel.
    """

    gamma: nn.Parameter | None
    beta: nn.Parameter | None

    def __init__(self, channels: int, groups: int, options: LayerOptions | GroupOptions | InstanceOptions) -> None:
        super().__init__()
        self.options, self.groups, self.eps = options, groups, options.eps
        register_affine(self, channels, options)

    def forward(self, x: Tensor) -> Tensor:
        if self.gamma is not None or self.beta is None:
            return functional.group_norm(x, self.groups, self.gamma, self.beta, self.eps)
        # torch's backward pass fails on a shift without a scale.
        beta = self.beta.view(-1, *[1] * (x.dim() - 2))
        return functional.group_norm(x, self.groups, eps=self.eps) + beta


class LocalResponseNorm(nn.Module):
    """x / (k + alpha/size · Σ x²)^beta, the sum over `size` neighbouring channels (Krizhevsky et al. 2012)."""

    def __init__(self, options: LocalResponseOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        options = self.options
        channels = x.unsqueeze(2) if x.dim() == 2 else x  # torch takes no vectors
        y = functional.local_response_norm(channels, options.size, options.alpha, options.beta, options.k)
        return y.view_as(x)
