"""What is read of a network against numpy in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from bn_models.architecture import layers_of
from bn_models.architecture.observation import Site, sites
from bn_models.networks import Network, build
from bn_models.normalization import Moments, batch_statistics, evaluation
from bn_models.observation import Reading, Take, read, shifts, walk
from core.spec import JobSpec
from core.spec.layers import Linear
from tests.bn_models.random_lists import Case, cases

FAMILIES = ("mlp", "convnet", "vgg", "resnet", "inception", "recurrent")


def network_of(family: str = "mlp", batch_norm: Any = True, seed: int = 3, **fields: Any) -> Network:
    """On digits, with gammas, betas and running averages that are not at rest."""
    spec = JobSpec.model_validate(
        {"dataset": {"source": "digits"}, "network": {"family": family, **fields}, "batch_norm": batch_norm}
    )
    layers = layers_of(spec.network, spec.batch_norm, (1, 8, 8), 10)
    network = build(layers, (1, 8, 8), spec.network.initialization, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict(keep_vars=True).items():
            if name.endswith(("gamma", "beta", "bias", "running_mean", "running_var")):
                value.add_(torch.rand(value.shape, generator=generator) * 0.3)
    return network


def images(rows: int = 40) -> torch.Tensor:
    return torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def everything(network: Network, **changes: Any) -> list[Take]:
    options = {"moments": True, "saturation": 0.05, "percentiles": (15.0, 50.0, 85.0)} | changes
    return [Take(site, **options) for site in sites(network.placed)]


def normalized(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray | float) -> np.ndarray:
    return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) + beta


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def assert_reads(reading: Reading, x: np.ndarray, activation: str | None) -> None:
    """`x`: (values, channels), float64."""
    moments = reading.moments
    assert moments is not None and moments.n == len(x)
    np.testing.assert_allclose(moments.mean.numpy(), x.mean(0), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(moments.variance.numpy(), x.var(0), rtol=1e-4, atol=1e-9)
    expected = np.percentile(x, [15.0, 50.0, 85.0])
    np.testing.assert_allclose(list(reading.percentiles.values()), expected, rtol=1e-5, atol=2e-6)
    if activation == "sigmoid":
        assert reading.saturated == pytest.approx(np.mean((sigmoid(x) < 0.05) | (sigmoid(x) > 0.95)), abs=1e-9)
    if activation == "tanh":
        assert reading.saturated == pytest.approx(np.mean(np.abs(np.tanh(x)) > 0.9), abs=1e-9)
    if activation == "relu":
        assert reading.dead == pytest.approx(np.mean((x <= 0.0).all(0)), abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_walk_computes_what_the_network_does(family: str, batch_norm: bool) -> None:
    network, x = network_of(family, batch_norm), images()
    seen: list[str] = []

    with torch.no_grad(), batch_statistics(network):
        expected = network(x)
        found = walk(network, x, lambda name, _: seen.append(name))

    assert torch.equal(found, expected)
    assert set(seen) >= {site.name for site in sites(network.placed)}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases())
def test_any_list_is_walked_as_it_is_computed_and_every_site_has_the_width_it_says(case: Case) -> None:
    network = Network(case.layers, case.input_shape)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
    x, shown = torch.from_numpy(case.inputs).float(), {}

    with torch.no_grad(), evaluation(network):
        expected, found = network(x), walk(network, x, shown.__setitem__)
    readings = read(network, [x], everything(network), by_running_average=True)

    assert torch.equal(found, expected)
    for site in sites(network.placed):
        assert readings[site.name].moments.mean.shape == (site.width,)
        assert shown[site.name].numel() == readings[site.name].moments.n * site.width


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("by_running_average", [True, False])
def test_reading_leaves_modes_buffers_and_random_numbers_as_they_were(family: str, by_running_average: bool) -> None:
    dropout = {} if family == "recurrent" else {"dropout": 0.5}
    network = network_of(family, **dropout).train()
    next(network.modules()).get_submodule("output.linear").eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    modes, random = [module.training for module in network.modules()], torch.get_rng_state()

    read(network, [images()], everything(network), by_running_average)

    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_a_network_of_vectors_is_read_as_numpy_reads_it(activation: str) -> None:
    network, x = network_of(hidden=[12, 7], activation=activation, seed=5), images()
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    with torch.no_grad():
        network.get_parameter("hidden1.batch_norm.beta")[:3] -= 6.0  # dead, or saturated, for all rows
    state["hidden1.batch_norm.beta"] = network.get_parameter("hidden1.batch_norm.beta").detach().double().numpy()

    found = read(network, [x], everything(network))

    act = {"sigmoid": sigmoid, "tanh": np.tanh, "relu": lambda values: np.maximum(values, 0.0)}[activation]
    h = x.flatten(1).double().numpy()
    for block in ("hidden1", "hidden2"):
        assert_reads(found[f"{block}.linear"], h, None)
        h = normalized(
            h @ state[f"{block}.linear.weight"].T,
            state[f"{block}.batch_norm.gamma"],
            state[f"{block}.batch_norm.beta"],
        )
        assert_reads(found[f"{block}.activation"], h, activation)
        h = act(h)
    assert_reads(found["output.linear"], h, None)
    assert (found["hidden1.activation"].dead or found["hidden1.activation"].saturated or 0.0) >= 0.2


def test_by_the_running_average_batch_norm_is_what_it_is_in_evaluation() -> None:
    network, x = network_of(hidden=[12]), images()
    with torch.no_grad(), evaluation(network):
        seen: dict[str, torch.Tensor] = {}
        walk(network, x, seen.__setitem__)

    found = read(network, [x], everything(network), by_running_average=True)

    assert_reads(found["hidden1.activation"], seen["hidden1.activation"].double().numpy(), "relu")


def test_maps_are_read_over_pixels_in_any_memory_format() -> None:
    network, x = network_of("convnet", channels=[5, 6], hidden=[]), images(50)
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad(), batch_statistics(network):
        walk(network, x, seen.__setitem__)
    expected = seen["stage1.activation"].double().permute(0, 2, 3, 1).reshape(-1, 5).numpy()

    for form in (torch.contiguous_format, torch.channels_last):
        found = read(network.to(memory_format=form), [x], everything(network))
        assert_reads(found["stage1.activation"], expected, "relu")


@pytest.mark.parametrize("batch_norm", [True, False])
def test_an_lstm_is_read_over_all_time_steps(batch_norm: bool) -> None:
    network, x = network_of("recurrent", batch_norm, units=[4], seed=7), images(30)
    state = {
        name.removeprefix("recurrent1.lstm."): value.double().numpy() for name, value in network.state_dict().items()
    }

    found = read(network, [x], everything(network, saturation=0.3))

    rows = x.double().numpy()[:, 0]
    hidden, cell = np.zeros((30, 4)), np.zeros((30, 4))
    gates, cells = [], []
    for step in range(8):
        by_input, by_hidden = rows[:, step] @ state["input.weight"].T, hidden @ state["hidden.weight"].T
        if batch_norm:
            by_input = normalized(by_input, state["input_norm.gamma"], 0.0)
            by_hidden = normalized(by_hidden, state["hidden_norm.gamma"], 0.0)
        gates.append(by_input + by_hidden + state["bias"])
        opened, kept, value, output = np.split(gates[-1], 4, axis=1)
        cell = sigmoid(kept) * cell + sigmoid(opened) * np.tanh(value)
        shown = normalized(cell, state["cell_norm.gamma"], state["cell_norm.beta"]) if batch_norm else cell
        cells.append(shown)
        hidden = sigmoid(output) * np.tanh(shown)
    together = np.concatenate(gates)
    opened, kept, value, output = np.split(together, 4, axis=1)
    for name, expected in (
        ("recurrent1.lstm", rows.reshape(-1, 8)),
        ("recurrent1.lstm.gates", np.concatenate([opened, kept, output], axis=1)),
        ("recurrent1.lstm.value", value),
        ("recurrent1.lstm.cell", np.concatenate(cells)),
    ):
        assert_reads(found[name], expected, None)
    beyond = math.log(0.7 / 0.3) / 2.0
    assert found["recurrent1.lstm.value"].saturated == pytest.approx(np.mean(np.abs(value) > beyond), abs=1e-9)


def test_several_batches_are_read_as_their_rows_together() -> None:
    network, x = network_of(batch_norm=False, hidden=[12], activation="sigmoid"), images()

    whole = read(network, [x], everything(network))
    parts = read(network, [x[:7], x[7:30], x[30:]], everything(network))

    for name, reading in whole.items():
        assert parts[name].percentiles == pytest.approx(reading.percentiles, rel=1e-6)
        assert parts[name].saturated == reading.saturated
        assert reading.moments is not None and parts[name].moments is not None
        torch.testing.assert_close(parts[name].moments.mean, reading.moments.mean, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(parts[name].moments.variance, reading.moments.variance, rtol=1e-6, atol=1e-9)


def test_the_percentiles_may_be_of_one_unit() -> None:
    network, x = network_of("convnet", channels=[5], hidden=[]), images()
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad(), batch_statistics(network):
        walk(network, x, seen.__setitem__)

    takes = [take for take in everything(network, unit=3) if take.site.name == "stage1.activation"]
    found = read(network, [x], takes)["stage1.activation"].percentiles

    expected = np.percentile(seen["stage1.activation"][:, 3].double().numpy(), [15.0, 50.0, 85.0])
    assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 1.0, 2.0, 4.0], [1.0, 1.45, 2.5, 4.0]),
        ([5.0], [5.0] * 4),
        ([1.0, math.nan], [math.nan] * 4),
        ([-math.inf, -math.inf, math.inf, math.inf], [-math.inf, -math.inf, math.nan, math.inf]),
    ],
)
def test_percentiles_interpolate_and_say_what_is_no_number(values: list[float], expected: list[float]) -> None:
    network = Network((Linear(name="linear", features=2),), (1,))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    take = Take(Site("linear", "linear", 1, None, True), percentiles=(0.0, 15.0, 50.0, 100.0))

    found = read(network, [torch.tensor(values)[:, None]], [take])["linear"].percentiles

    assert list(found.values()) == pytest.approx(expected, nan_ok=True)


def moments(mean: list[float], deviation: list[float]) -> Moments:
    return Moments(torch.tensor(mean).double(), torch.tensor(deviation).double().square(), 10)


def test_drift_is_in_deviations_of_the_whole_layer_at_the_observation_before() -> None:
    before, now = moments([1.0, 2.0], [3.0, 4.0]), moments([1.5, 3.0], [3.0, 2.0])

    by_mean, by_deviation = shifts(before, now)

    scale = math.sqrt((9.0 + 16.0) / 2.0)
    assert by_mean == pytest.approx(math.sqrt((0.25 + 1.0) / 2.0) / scale, rel=1e-12)
    assert by_deviation == pytest.approx(math.sqrt(4.0 / 2.0) / scale, rel=1e-12)


def test_a_channel_that_does_not_vary_does_not_make_the_drift_of_its_layer_infinite() -> None:
    by_mean, by_deviation = shifts(moments([0.0, 0.0], [0.0, 1.0]), moments([1e-6, 0.0], [1e-6, 1.0]))

    assert 0.0 < by_mean < 1e-5 and 0.0 < by_deviation < 1e-5


def test_moments_that_are_not_finite_have_a_drift_that_is_no_number() -> None:
    endless = moments([1.0], [math.inf])

    assert all(map(math.isnan, shifts(endless, moments([2.0], [1.0]))[1:]))
    assert all(map(math.isnan, shifts(endless, endless)[1:]))


def test_nothing_that_moves_is_no_drift_even_of_a_layer_that_does_not_vary() -> None:
    constant = moments([2.0], [0.0])

    assert shifts(constant, constant) == (0.0, 0.0)
    assert shifts(constant, moments([2.5], [0.0])) == (math.inf, 0.0)
