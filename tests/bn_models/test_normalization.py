import pytest
import torch
from torch import nn

from bn_models.normalization import BatchNorm, batch_statistics, evaluation, normalizations, recording
from core.spec import BatchNormSpec

CASES = {"vectors": (nn.BatchNorm1d, (16, 5)), "maps": (nn.BatchNorm2d, (6, 5, 4, 3))}
BUFFERS = ("running_mean", "running_var")


def pair(kind, affine=True):
    """Our layer and torch's, with equal parameters far from their start."""
    ours = BatchNorm(5, BatchNormSpec(momentum=0.3, eps=1e-3, affine=affine))
    theirs = kind(5, momentum=0.3, eps=1e-3, affine=affine)
    if affine:
        for mine, other in ((ours.gamma, theirs.weight), (ours.beta, theirs.bias)):
            mine.data.normal_(generator=torch.Generator().manual_seed(2))
            other.data.copy_(mine.data)
    return ours, theirs


def batch(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 2


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("kind", "shape"), CASES.values(), ids=CASES.keys())
def test_forward_backward_and_running_average_equal_torchs(kind, shape, affine):
    ours, theirs = pair(kind, affine)
    results = []

    for layer in (ours, theirs):
        x = batch(shape).requires_grad_()
        outputs = [layer(x), layer(batch(shape, seed=1))]
        (outputs[0] * batch(shape, seed=3)).sum().backward()
        layer.eval()
        outputs.append(layer(batch(shape, seed=4)))
        gradients = [parameter.grad for parameter in layer.parameters()]
        results.append([*outputs, x.grad, *gradients, *(getattr(layer, name) for name in BUFFERS)])

    assert all(torch.equal(mine, other) for mine, other in zip(*results, strict=True))


def test_updates_are_counted_in_training_only_and_come_back_with_the_state():
    layer = BatchNorm(5, BatchNormSpec())
    layer(batch((16, 5)))
    layer(batch((16, 5)))
    layer.eval()
    layer(batch((16, 5)))
    restored = BatchNorm(5, BatchNormSpec())

    restored.load_state_dict(layer.state_dict())

    assert layer.updates == restored.updates == 2


def test_scaling_the_weights_before_it_changes_neither_output_nor_input_gradient():
    # Section 3.3: BN((aW)u) = BN(Wu), and the gradient by aW is 1/a of that by W; exact as eps → 0.
    layer = BatchNorm(5, BatchNormSpec(eps=1e-12)).double()
    u = batch((16, 7)).double().requires_grad_()
    weight = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    results = []

    for factor in (1.0, 40.0):
        scaled = (factor * weight).requires_grad_()
        output = layer(u @ scaled.T)
        gradients = torch.autograd.grad((output**3).sum(), [u, scaled])
        results.append((output, gradients[0], factor * gradients[1]))

    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_batch_statistics_equal_those_of_training_and_touch_no_running_average(make_network, rows):
    network = make_network("convnet", dropout=0.5)
    x = rows(network, 9)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    reference = make_network("convnet", dropout=0.0)

    with batch_statistics(network), torch.no_grad():
        output = network(x)

    assert torch.equal(output, reference(x))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_every_module_gets_back_the_mode_it_had_when_the_data_raises(make_network):
    network = make_network("mlp", dropout=0.5)
    network.get_submodule("hidden2.batch_norm").eval()
    modes = [module.training for module in network.modules()]

    with pytest.raises(RuntimeError), batch_statistics(network), evaluation(network):
        network(torch.zeros(2, 999))

    assert [module.training for module in network.modules()] == modes
    assert all(layer.substitute is None for layer in normalizations(network).values())


def test_recording_gives_the_moments_of_what_each_layer_gets_and_changes_no_output(make_network, rows):
    network = make_network("convnet")
    x = rows(network, 9)

    with batch_statistics(network), torch.no_grad():
        plain = network(x)
        with recording(network) as moments:
            output = network(x)

    expected = network.get_submodule("stage1.conv")(x).double()
    assert torch.equal(output, plain)
    assert list(moments) == ["stage1.batch_norm", "stage2.batch_norm", "hidden1.batch_norm"]
    assert moments["stage1.batch_norm"].n == 9 * 8 * 8
    torch.testing.assert_close(moments["stage1.batch_norm"].mean, expected.mean((0, 2, 3)))
    torch.testing.assert_close(moments["stage1.batch_norm"].variance, expected.var((0, 2, 3), correction=0))
