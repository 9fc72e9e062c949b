import numpy as np
import pytest
import torch
from torch import nn

from bn_models.initialization import initialize
from bn_models.networks import build
from bn_models.normalization import batch_statistics, normalizations
from bn_models.population import measure
from bn_models.recurrent import LSTM
from core.spec import InitializationSpec, PopulationSpec
from core.spec import layers as spec
from core.spec.normalization import BatchOptions

STEPS, FEATURES, UNITS = 6, 5, 4


def lstm(**fields) -> LSTM:
    module = LSTM(STEPS, FEATURES, spec.LSTM(name="lstm", units=UNITS, **fields))
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(0.3, 0.6, generator=generator)
    return module


def sequences(rows, seed=0):
    return torch.randn(rows, STEPS, FEATURES, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalized(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def reference(state, x):
    """Cooijmans et al. (2016), equations 6 to 8, by the batch's moments: hidden states (N, T, U) in float64."""
    state = {name: value.detach().numpy().astype(np.float64) for name, value in state.items() if "step" not in name}
    x = x.numpy().astype(np.float64)
    hidden = cell = np.zeros((len(x), UNITS))
    hiddens = []
    for step in range(STEPS):
        by_input, by_hidden = x[:, step] @ state["input.weight"].T, hidden @ state["hidden.weight"].T
        gates = state["input_norm.gamma"] * normalized(by_input) + state["hidden_norm.gamma"] * normalized(by_hidden)
        i, f, g, o = np.split(gates + state["bias"], 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(state["cell_norm.gamma"] * normalized(cell) + state["cell_norm.beta"])
        hiddens.append(hidden)
    return np.stack(hiddens, axis=1)


@pytest.mark.parametrize("outputs", ["last", "sequence"])
def test_the_plain_lstm_is_torchs(outputs):
    ours, theirs = lstm(outputs=outputs), nn.LSTM(FEATURES, UNITS, batch_first=True)
    theirs.weight_ih_l0.data, theirs.weight_hh_l0.data = ours.input.weight.data, ours.hidden.weight.data
    theirs.bias_ih_l0.data, theirs.bias_hh_l0.data = ours.bias.data, torch.zeros_like(ours.bias)
    x = sequences(7)

    hiddens, _ = theirs(x)

    torch.testing.assert_close(ours(x), hiddens if outputs == "sequence" else hiddens[:, -1])
    one, other = ours(x).square().sum(), (hiddens if outputs == "sequence" else hiddens[:, -1]).square().sum()
    torch.testing.assert_close(
        torch.autograd.grad(one, [ours.hidden.weight, ours.input.weight]),
        torch.autograd.grad(other, [theirs.weight_hh_l0, theirs.weight_ih_l0]),
    )


@pytest.mark.parametrize("outputs", ["last", "sequence"])
def test_the_batch_normalized_lstm_is_the_papers(outputs):
    module, x = lstm(outputs=outputs, batch_norm=BatchOptions()), sequences(40)

    hiddens = reference(module.state_dict(), x)

    expected = hiddens if outputs == "sequence" else hiddens[:, -1]
    np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=2e-5)


def test_each_time_step_has_running_averages_of_its_own():
    module = lstm(batch_norm=BatchOptions(momentum=1.0))
    x = sequences(40)
    x[:, 3] += 100.0

    module(x)

    for step in range(STEPS):
        by_input = (x[:, step] @ module.input.weight.T).detach()
        layer = module.input_norm.at(step)
        torch.testing.assert_close(layer.running_mean, by_input.mean(0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layer.running_var, by_input.var(0), rtol=1e-4, atol=1e-4)
        assert layer.updates == 1
    assert torch.equal(module.hidden_norm.at(0).running_var, torch.zeros(4 * UNITS))  # h begins at 0


@pytest.mark.parametrize(
    ("affine", "learned"),
    [
        (True, {"input_norm.gamma", "hidden_norm.gamma", "cell_norm.gamma", "cell_norm.beta"}),
        ("gamma", {"input_norm.gamma", "hidden_norm.gamma", "cell_norm.gamma"}),
        ("beta", {"cell_norm.beta"}),
        (False, set()),
    ],
)
def test_gamma_and_beta_are_shared_over_time_and_learned_as_asked(affine, learned):
    module = lstm(batch_norm=BatchOptions(affine=affine))

    names = {name for name, _ in module.named_parameters() if "norm" in name}

    assert names == learned


def test_gammas_start_where_the_options_say_and_the_forget_gate_open():
    module = LSTM(STEPS, FEATURES, spec.LSTM(name="lstm", units=UNITS, batch_norm=BatchOptions(initial_gamma=0.1)))

    initialize(module, InitializationSpec(), seed=0)

    gammas = [module.input_norm.gamma, module.hidden_norm.gamma, module.cell_norm.gamma]
    assert all(torch.equal(gamma, torch.full_like(gamma, 0.1)) for gamma in gammas)
    assert module.bias.tolist() == [0.0] * UNITS + [1.0] * UNITS + [0.0] * 2 * UNITS


@pytest.mark.parametrize(("kind", "deviation"), [("he_normal", (2 / 50) ** 0.5), ("xavier_normal", (2 / 100) ** 0.5)])
def test_each_gate_is_drawn_as_a_layer_of_its_own(kind, deviation):
    module = LSTM(3, 50, spec.LSTM(name="lstm", units=50))

    initialize(module, InitializationSpec(kind=kind), seed=0)

    assert module.input.weight.std().item() == pytest.approx(deviation, rel=0.03)
    assert module.hidden.weight.std().item() == pytest.approx(deviation, rel=0.03)
    assert not torch.equal(module.input.weight, module.hidden.weight)


def test_population_statistics_have_every_place_at_every_step_in_the_order_of_computation():
    layers = (
        spec.LSTM(name="cells", units=UNITS, batch_norm=BatchOptions()),
        spec.Linear(name="output", features=2, bias=True),
    )
    network = build(layers, (STEPS, FEATURES), InitializationSpec(), seed=0)

    statistics = measure(network, sequences(30), PopulationSpec(), 10, seed=0)

    places = ("input_norm", "hidden_norm", "cell_norm")
    assert list(statistics.layers) == [f"cells.{place}.step{step}" for step in range(STEPS) for place in places]
    assert all(layer.n == 30 for layer in statistics.layers.values())
    assert list(statistics.layers) == list(normalizations(network))


def test_ghost_batches_are_those_of_every_place():
    ghosts = lstm(batch_norm=BatchOptions(virtual_batch_size=10))
    whole = lstm(batch_norm=BatchOptions())
    x = sequences(25)

    with torch.no_grad(), batch_statistics(ghosts), batch_statistics(whole):
        torch.testing.assert_close(ghosts(x), torch.cat([whole(x[:10]), whole(x[10:])]))
