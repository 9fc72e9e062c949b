import pytest

from bn_models.architecture import admit
from core.errors import SpecInvalid
from core.spec import JobSpec

LIMITS = {"maximum_parameters": 10_000_000, "maximum_steps": 100_000}


def job(source="digits", family="mlp", network=(), **sections):
    return JobSpec.model_validate(
        {"dataset": {"source": source}, "network": {"family": family, **dict(network)}, **sections}
    )


def refused(spec, **limits):
    with pytest.raises(SpecInvalid) as raised:
        admit(spec, **{**LIMITS, **limits})
    return raised.value


REFUSALS = {
    "batch size 1 with batch norm": (job(training={"batch_size": 1}), "/training/batch_size", "at least 2"),
    "batch size 1 with batch norm, though every map has several values": (
        job(family="convnet", network={"channels": [4], "hidden": []}, training={"batch_size": 1}),
        "/training/batch_size",
        "other samples",
    ),
    "1×1 maps with batch 1": (
        job(
            family="convnet",
            network={"channels": [4] * 7, "hidden": [], "pool_every": 2},
            training={"batch_size": 1},
        ),
        "/training/batch_size",
        "1×1 maps",
    ),
    "batch larger than the training split": (
        job("iris", training={"batch_size": 109}),
        "/training/batch_size",
        "at most 108",
    ),
    "even kernel": (job(family="convnet", network={"kernel_size": 4}), "/network/kernel_size", "3 or 5"),
    "maps that shrink to nothing": (
        job(family="convnet", network={"channels": [4] * 4}),
        "/network/pool_every",
        "fewer stages",
    ),
    "convnet on a table": (job("wine", "convnet"), "/network/family", "family mlp"),
    "early stopping without a validation split": (
        job("mnist", training={"early_stopping": {}}),
        "/training/early_stopping",
        "dataset.validation_fraction",
    ),
    "accuracy of a regression": (
        job("diabetes", training={"early_stopping": {"metric": "validation/accuracy"}}),
        "/training/early_stopping/metric",
        "validation/loss",
    ),
    "label smoothing of a regression": (
        job("diabetes", training={"label_smoothing": 0.1}),
        "/training/label_smoothing",
        "set it to 0",
    ),
    "a single sample for population statistics": (
        job(population={"samples": 1}, training={"batch_size": 2}),
        "/population/samples",
        "at least 2",
    ),
    "fewer population samples than a batch": (job(population={"samples": 59}), "/population/samples", "at least 60"),
}


@pytest.mark.parametrize(("spec", "pointer", "remedy"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_spec_that_must_fail_is_refused_with_pointer_and_remedy(spec, pointer, remedy):
    error = refused(spec)

    (problem,) = error.problems
    assert error.status == 422
    assert problem.pointer == pointer
    assert remedy in problem.message


def test_too_many_parameters_name_the_count_the_limit_and_the_largest_layer():
    (problem,) = refused(job(), maximum_parameters=1000).problems

    assert problem.pointer == "/network"
    assert "28010" in problem.message
    assert "1000" in problem.message
    assert "hidden2.linear" in problem.message


def test_too_many_steps_name_the_limit():
    (problem,) = refused(job(training={"steps": 101}), maximum_steps=100).problems

    assert problem.pointer == "/training/steps"
    assert "at most" in problem.message


def test_every_problem_is_reported_at_once():
    spec = job("diabetes", training={"batch_size": 1000, "label_smoothing": 0.1, "steps": 200_000})

    pointers = {problem.pointer for problem in refused(spec).problems}

    assert pointers == {"/training/batch_size", "/training/label_smoothing", "/training/steps"}


def test_batch_size_1_is_fine_without_batch_norm():
    assert admit(job(batch_norm=False, training={"batch_size": 1}), **LIMITS).steps_per_epoch == 1295


def test_running_average_needs_no_samples():
    spec = job(population={"estimator": "running_average", "samples": 2})

    assert admit(spec, **LIMITS).warnings == ()


def test_the_plan_of_the_paper_counts_parameters_flops_and_batches():
    plan = admit(job("mnist"), **LIMITS)

    assert plan.parameters == 784 * 100 + 2 * 100 * 100 + 100 * 10 + 10 + 3 * 200
    assert plan.flops_per_step == 3 * 60 * 2 * (784 * 100 + 2 * 100 * 100 + 100 * 10)
    assert (plan.steps_per_epoch, plan.batches) == (1000, "1000 batches of 60")
    assert plan.warnings == ()


@pytest.mark.parametrize(
    ("training", "batches"),
    [
        ({"batch_size": 60}, "21 batches of 60 and a last one of 35"),
        ({"batch_size": 60, "tail": "drop"}, "21 batches of 60; 35 of 1295 samples are left out of each epoch"),
        ({"batch_size": 647}, "1 batch of 647 and a last one of 648"),
    ],
)
def test_the_plan_says_what_becomes_of_the_tail(training, batches):
    assert admit(job(training=training), **LIMITS).batches == batches


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (job(network={"dropout": 0.2}), "dropout shifts the variance"),
        (job(training={"steps": 40}), "leave the running average"),
        (job(training={"batch_size": 7}), "batch statistics of fewer than 8"),
        (job(population={"samples": 2000}), "all are used"),
    ],
)
def test_doubtful_choices_are_admitted_with_a_warning(spec, words):
    (warning,) = admit(spec, **LIMITS).warnings

    assert words in warning
