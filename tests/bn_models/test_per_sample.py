import numpy as np
import pytest
import torch

from bn_models.per_sample import LocalResponseNorm, SampleNorm
from core.spec.normalization import GroupOptions, InstanceOptions, LayerOptions, LocalResponseOptions

CASES = {
    "layer": (1, LayerOptions(eps=1e-3)),
    "group": (3, GroupOptions(groups=3, eps=1e-3)),
    "instance": (6, InstanceOptions(eps=1e-3)),
}


def batch(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2 + 3


@pytest.mark.parametrize("shape", [(4, 6, 5, 3), (4, 6)])
@pytest.mark.parametrize(("groups", "options"), CASES.values(), ids=CASES.keys())
def test_each_sample_is_normalized_by_its_own_groups_of_channels(groups, options, shape):
    if len(shape) == 2 and groups == 6:
        return  # a single value a map has no variance; admission refuses it
    layer, x = SampleNorm(6, groups, options), batch(shape)
    layer.gamma.data.normal_()
    layer.beta.data.normal_()

    y = layer(x).detach().numpy()

    values = x.double().numpy().reshape(4, groups, -1)
    deviation = np.sqrt(values.var(2, keepdims=True) + 1e-3)
    normalized = ((values - values.mean(2, keepdims=True)) / deviation).reshape(shape)
    gamma, beta = (p.detach().double().numpy().reshape(-1, *[1] * (len(shape) - 2)) for p in (layer.gamma, layer.beta))
    np.testing.assert_allclose(y, gamma * normalized + beta, atol=2e-5)
    np.testing.assert_array_equal(layer.eval()(x).detach().numpy(), y)
    np.testing.assert_allclose(layer(x[2:3]).detach().numpy()[0], y[2], atol=1e-6)


@pytest.mark.parametrize(("affine", "learned"), [("gamma", ["gamma"]), ("beta", ["beta"]), (False, [])])
def test_gamma_and_beta_are_learned_as_asked(affine, learned):
    layer, x = SampleNorm(6, 1, LayerOptions(affine=affine, eps=1e-3)), batch((4, 6, 5, 3)).requires_grad_()
    whole = SampleNorm(6, 1, LayerOptions(eps=1e-3))
    for name in learned:
        getattr(layer, name).data.normal_()
        getattr(whole, name).data.copy_(getattr(layer, name))

    parameters = [getattr(layer, name) for name in learned]
    gradients = torch.autograd.grad(layer(x).square().sum(), [x, *parameters])

    assert [name for name, _ in layer.named_parameters()] == learned
    expected = torch.autograd.grad(whole(x).square().sum(), [x, *(getattr(whole, name) for name in learned)])
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_local_response_divides_by_the_neighbouring_channels():
    options = LocalResponseOptions(size=3, alpha=0.5, beta=0.75, k=2.0)
    x = batch((2, 6, 4, 4))

    y = LocalResponseNorm(options)(x).numpy()

    squares = np.pad(x.double().numpy() ** 2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    sums = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
    np.testing.assert_allclose(y, x.numpy() / (2.0 + 0.5 / 3 * sums) ** 0.75, rtol=1e-5)
