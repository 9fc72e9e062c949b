import pytest
import torch
from torch import nn

from bn_models.normalization import BatchNorm, batch_statistics, evaluation, normalizations, recording
from core.spec import BatchNormSpec
from core.spec.normalization import BatchOptions

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


@pytest.mark.parametrize(("affine", "learned"), [("gamma", ["gamma"]), ("beta", ["beta"])])
@pytest.mark.parametrize("shape", [(16, 5), (200, 5), (6, 5, 4, 3)])
def test_one_of_gamma_and_beta_is_the_affine_layer_with_the_other_at_rest(affine, learned, shape):
    half, whole = BatchNorm(5, BatchOptions(affine=affine)), BatchNorm(5, BatchOptions())
    for name in learned:
        getattr(half, name).data.normal_()
        getattr(whole, name).data.copy_(getattr(half, name))
    results = []

    for layer in (half, whole):
        x = batch(shape).requires_grad_()
        y = layer(x)
        (y * batch(shape, seed=3)).sum().backward()
        results.append([y, x.grad, *(getattr(layer, name).grad for name in learned)])

    assert [name for name, _ in half.named_parameters()] == learned
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("affine", [True, "gamma", "beta"])
@pytest.mark.parametrize("shape", [(16, 5), (200, 5), (6, 5, 4, 3)])
def test_gamma_and_beta_learn_where_the_inputs_do_not(affine, shape):
    layer = BatchNorm(5, BatchOptions(affine=affine))

    (layer(batch(shape)) ** 2 + layer(batch(shape))).sum().backward()

    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_gamma_and_beta_start_where_the_options_say():
    layer = BatchNorm(3, BatchOptions(initial_gamma=0.5, initial_beta=-2.0))

    assert layer.gamma.tolist() == [0.5] * 3
    assert layer.beta.tolist() == [-2.0] * 3


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_without_momentum_the_running_average_is_that_of_all_batches(kind):
    shape = (16, 5) if kind is nn.BatchNorm1d else (6, 5, 4, 3)
    ours, theirs = BatchNorm(5, BatchOptions(momentum=None)), kind(5, momentum=None)
    batches = [batch(shape, seed) for seed in range(7)]

    for x in batches:
        ours(x)
        theirs(x)

    axes = [0, *range(2, len(shape))]
    means = torch.stack([x.mean(axes) for x in batches])
    variances = torch.stack([x.var(axes) for x in batches])
    torch.testing.assert_close(ours.running_mean, means.mean(0))
    torch.testing.assert_close(ours.running_var, variances.mean(0))
    assert torch.equal(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1d, (29, 5)), (nn.BatchNorm2d, (23, 5, 4, 3))])
def test_ghost_batches_are_normalized_group_by_group_and_the_remainder_joins_the_last(kind, shape, momentum):
    ours = BatchNorm(5, BatchOptions(virtual_batch_size=8, momentum=momentum))
    theirs = kind(5, momentum=momentum)
    x = batch(shape)
    groups = [x[:8], x[8:16], x[16:]] if len(x) == 29 else [x[:8], x[8:]]

    y = ours(x)

    assert [len(rows) for rows in ours.ghosts(x)] == [len(group) for group in groups]
    assert torch.equal(y, torch.cat([theirs(group) for group in groups]))
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.running_var, theirs.running_var)
    assert ours.updates == len(groups)


def test_a_batch_smaller_than_two_ghost_batches_is_one():
    ghosts, whole = BatchNorm(5, BatchOptions(virtual_batch_size=8)), BatchNorm(5, BatchOptions())

    assert torch.equal(ghosts(batch((15, 5))), whole(batch((15, 5))))
    assert ghosts.updates == 1


def test_batch_statistics_of_ghost_batches_are_those_of_training():
    layer = BatchNorm(5, BatchOptions(virtual_batch_size=8))

    assert torch.equal(layer.normalize_by_batch(batch((29, 5))), layer(batch((29, 5))))


@pytest.mark.parametrize("shape", [(16, 5), (300, 5), (6, 5, 4, 3)])
def test_a_frozen_layer_normalizes_by_what_it_holds_in_training_too_and_moves_nothing(shape):
    layer = BatchNorm(5, BatchOptions())
    layer(batch(shape))
    layer.freeze(7)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    x = batch(shape, seed=1).requires_grad_()

    y = layer(x)
    y.sum().backward()

    layer.eval()
    assert torch.equal(y, layer(x))
    assert torch.equal(y, layer.normalize_by_batch(x))
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
    assert torch.allclose(
        x.grad[0].flatten(1).mean(1) if x.dim() == 4 else x.grad[0], (layer.running_var + 1e-5).rsqrt()
    )


def test_freezing_comes_back_with_the_state_and_an_older_state_is_not_frozen():
    layer = BatchNorm(5, BatchOptions())
    layer(batch((16, 5)))
    layer.freeze(160)
    restored, older = BatchNorm(5, BatchOptions()), BatchNorm(5, BatchOptions())

    restored.load_state_dict(layer.state_dict())
    older.load_state_dict(layer.state_dict() | {"_extra_state": torch.tensor(4)})

    assert (restored.updates, restored.frozen, restored.frozen_n) == (1, True, 160)
    assert (older.updates, older.frozen, older.frozen_n) == (4, False, 0)


@pytest.mark.parametrize("shape", [(300, 4), (20, 4, 5, 5), (300, 4, 1, 1)])
def test_gradients_of_any_layout_go_through_long_sums(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    gradient = torch.linspace(1, 2, x.numel()).view(shape[::-1]).permute(*range(x.dim() - 1, -1, -1))
    layer, theirs = BatchNorm(4, BatchOptions()), nn.BatchNorm1d(4) if x.dim() == 2 else nn.BatchNorm2d(4)

    for given in (gradient, gradient[:1].expand(shape)):
        found, expected = (
            torch.autograd.grad(module(value), value, given)[0]
            for module, value in ((layer, x.clone().requires_grad_()), (theirs, x.clone().requires_grad_()))
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_long_sums_leave_the_running_average_that_short_ones_would():
    # Vectors of more than 128 rows and channels-last maps go another way than torch's kernel.
    maps = batch((20, 5, 7, 6)).contiguous(memory_format=torch.channels_last)
    for x, theirs in ((batch((300, 5)), nn.BatchNorm1d(5)), (maps, nn.BatchNorm2d(5))):
        ours = BatchNorm(5, BatchOptions())
        for _ in range(3):
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-5, atol=1e-6)
