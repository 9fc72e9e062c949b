"""Where a network can be observed, and which wishes admission refuses."""

from typing import Any

import pytest

from bn_models.architecture import admit, layers_of, place
from bn_models.architecture.observation import sites, with_percentiles
from core.errors import FieldProblem, SpecInvalid
from core.spec import JobSpec
from core.spec.observation import ObserveSpec

ALL_TRAINING = {"source": "digits", "validation_fraction": 0.0}


def job(observe: Any = True, family: str = "mlp", **changes: Any) -> JobSpec:
    network = {"family": family} | changes.pop("network", {})
    return JobSpec.model_validate({"dataset": {"source": "digits"}, "network": network, "observe": observe} | changes)


def refused(spec: JobSpec) -> tuple[FieldProblem, ...]:
    with pytest.raises(SpecInvalid) as raised:
        admit(spec, 10_000_000, 100_000)
    return raised.value.problems


def placed_of(spec: JobSpec):
    facts = spec.dataset.facts
    return place(layers_of(spec.network, spec.batch_norm, facts.input_shape, facts.outputs), facts.input_shape)


def percentiles_of(spec: JobSpec) -> list[str]:
    return [site.name for site in with_percentiles(sites(placed_of(spec)), spec.observe or ObserveSpec())]


def test_weights_and_nonlinearities_are_sites_in_the_order_of_computation() -> None:
    found = sites(placed_of(job(network={"hidden": [7, 5], "activation": "tanh"})))

    assert [(site.name, site.width, site.activation, site.moves) for site in found] == [
        ("hidden1.linear", 64, None, False),  # of the data, which do not move
        ("hidden1.activation", 7, "tanh", True),
        ("hidden2.linear", 7, None, True),
        ("hidden2.activation", 5, "tanh", True),
        ("output.linear", 5, None, True),
    ]


def test_an_lstm_has_three_nonlinearities() -> None:
    found = sites(placed_of(job(family="recurrent", network={"units": [6]})))

    assert [(site.name, site.width, site.activation) for site in found][:4] == [
        ("recurrent1.lstm", 8, None),
        ("recurrent1.lstm.gates", 18, "sigmoid"),
        ("recurrent1.lstm.value", 6, "tanh"),
        ("recurrent1.lstm.cell", 6, "tanh"),
    ]


@pytest.mark.parametrize("family", ["mlp", "convnet", "vgg", "resnet", "inception", "recurrent"])
def test_every_family_can_be_observed_with_the_defaults(family: str) -> None:
    spec = job(family=family)

    admit(spec, 100_000_000, 100_000)
    assert percentiles_of(spec)


def test_without_a_choice_the_last_hidden_nonlinearity_is_read_out() -> None:
    assert percentiles_of(job()) == ["hidden3.activation"]
    assert percentiles_of(job(family="recurrent", network={"units": [6, 4]})) == [
        "recurrent2.lstm.gates",
        "recurrent2.lstm.value",
        "recurrent2.lstm.cell",
    ]


def test_names_choose_and_the_name_of_an_lstm_stands_for_all_it_has() -> None:
    assert percentiles_of(job({"layers": ["hidden2.activation"]})) == ["hidden2.activation"]
    recurrent = {"family": "recurrent", "network": {"units": [6, 4]}}
    assert len(percentiles_of(job({"layers": ["recurrent1.lstm"]}, **recurrent))) == 3
    assert percentiles_of(job({"layers": ["recurrent1.lstm.cell"]}, **recurrent)) == ["recurrent1.lstm.cell"]


def test_a_name_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    (problem,) = refused(job({"layers": ["hidden1.activation", "hidden4.activation"]}))

    assert problem.pointer == "/observe/layers/1"
    assert problem.message == (
        "is hidden4.activation, and the network has no such nonlinearity: "
        "use hidden1.activation, hidden2.activation, hidden3.activation"
    )


def test_of_many_names_the_nearest_are_told() -> None:
    (problem,) = refused(job({"layers": ["stage2.block1.activation1"]}, family="resnet"))

    assert "nearest are" in problem.message and "stage2.block1" in problem.message.partition("nearest")[2]


def test_a_network_without_nonlinearities_says_so() -> None:
    layers = [{"layer": "flatten"}, {"layer": "linear", "features": 10}]
    (problem,) = refused(job({"layers": ["linear1"]}, family="sequential", network={"layers": layers}))

    assert problem.message.endswith("it has none; leave this out")
    admit(job(True, family="sequential", network={"layers": layers}), 10_000, 1000)


@pytest.mark.parametrize(
    ("spec", "pointer", "words"),
    [
        (job({"unit": 100}), "/observe/unit", "has 100 units, counted from 0: set at most 99"),
        (
            job({"split": "validation"}, dataset=ALL_TRAINING),
            "/observe/split",
            "set dataset.validation_fraction, for instance to 0.1",
        ),
        (job({"unit": 3, "record": ["drift"]}), "/observe/unit", "add percentiles to record"),
        (job({"layers": ["hidden1.activation"], "record": ["drift"]}), "/observe/layers", "which record leaves out"),
    ],
)
def test_what_can_not_be_observed_is_refused_with_its_remedy(spec: JobSpec, pointer: str, words: str) -> None:
    (problem,) = refused(spec)

    assert problem.pointer == pointer
    assert words in problem.message


def test_a_layer_whose_series_would_have_too_long_names_is_refused() -> None:
    layers = [{"layer": "flatten"}, {"layer": "linear", "name": "x" * 97, "features": 10}]

    (problem,) = refused(job(True, family="sequential", network={"layers": layers}))

    assert problem.pointer == "/observe" and "1 characters longer than the 120" in problem.message
