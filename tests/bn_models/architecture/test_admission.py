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


def written(*layers, off=False, **sections):
    batch_norm = {"batch_norm": False} if off else {}
    return job(family="sequential", network={"layers": list(layers)}, **batch_norm, **sections)


OUTPUT = {"layer": "linear", "features": 10}
INSTANCE = {"kind": "instance"}

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
    "samples of a running average": (
        job(population={"estimator": "running_average", "samples": 2000}),
        "/population/samples",
        "is 2000, and the estimator running_average is what training kept, which no samples are measured for: leave",
    ),
    "vgg on a table": (job("wine", "vgg"), "/network/family", "family mlp"),
    "resnet on a table": (job("wine", "resnet"), "/network/family", "family mlp"),
    "inception on a table": (job("wine", "inception"), "/network/family", "family mlp"),
    "recurrent on a table": (job("wine", "recurrent"), "/network/family", "sequences or images"),
    "virtual batches larger than the batch": (
        job(batch_norm={"virtual_batch_size": 61}),
        "/batch_norm/virtual_batch_size",
        "at most 60",
    ),
    "virtual batches of one layer larger than the batch": (
        job(batch_norm={"layers": {"hidden2": {"virtual_batch_size": 61}}}),
        "/batch_norm/layers/hidden2/virtual_batch_size",
        "for hidden2.batch_norm",
    ),
    "freezing for longer than the training": (
        job(batch_norm={"freeze_last_steps": 1001}),
        "/batch_norm/freeze_last_steps",
        "at most 1000",
    ),
    "batch size 1 under the gates of an LSTM": (
        job(family="recurrent", training={"batch_size": 1}),
        "/training/batch_size",
        "recurrent1.lstm one value",
    ),
    "batch size 1 with whitening": (
        job(family="convnet", network={"hidden": []}, batch_norm={"kind": "whitening"}, training={"batch_size": 1}),
        "/training/batch_size",
        "other samples",
    ),
    "instance norm of a vector": (
        job(batch_norm={"kind": "instance"}),
        "/batch_norm/kind",
        "layer hidden1.instance_norm gets that is one value",
    ),
    "instance norm of 1×1 maps": (
        job(family="vgg", network={"width": 2, "hidden": []}, batch_norm={"layers": {"stage5.2": INSTANCE}}),
        "/batch_norm/layers/stage5.2/kind",
        "always 0",
    ),
    "layer norm of one unit": (
        job(network={"hidden": [1]}, batch_norm={"kind": "layer"}),
        "/batch_norm/kind",
        "all values of a sample together",
    ),
    "as many groups as units": (
        job(network={"hidden": [8]}, batch_norm={"kind": "group", "groups": 8}),
        "/batch_norm/kind",
        "each group of a sample",
    ),
    "groups that do not divide the channels": (
        job(family="convnet", network={"channels": [6], "hidden": []}, batch_norm={"kind": "group", "groups": 4}),
        "/batch_norm/groups",
        "layer stage1.group_norm has 4 groups, which do not divide its 6 channels: set groups to one of 1, 2, 3, 6",
    ),
    "a start of a gamma that is not learned": (
        job(batch_norm={"affine": "beta", "initial_gamma": 0.5}),
        "/batch_norm/initial_gamma",
        "set affine to true or gamma",
    ),
    "a start of a beta that is not learned": (
        job(batch_norm={"affine": False, "initial_beta": 1.0}),
        "/batch_norm/initial_beta",
        "hidden1.batch_norm learns no beta",
    ),
    "another rate for a gamma and beta that are not learned": (
        job(batch_norm={"affine": False, "learning_rate_multiplier": 2.0}),
        "/batch_norm/learning_rate_multiplier",
        "hidden1.batch_norm learns neither",
    ),
    "a decay of one layer's gamma and beta that are not learned": (
        job(batch_norm={"layers": {"hidden2": {"affine": False, "weight_decay": 0.1}}}),
        "/batch_norm/layers/hidden2/weight_decay",
        "set affine to true, gamma or beta",
    ),
    "covariances of more numbers than a network may have": (
        job(network={"hidden": [10_000]}, batch_norm={"kind": "whitening", "group_size": 10_000}),
        "/batch_norm/group_size",
        "makes 100010000 numbers of statistics",
    ),
    "a batch of maps that no memory holds": (
        written(
            {"layer": "conv2d", "channels": 200_000, "kernel_size": 1, "padding": 0},
            {"layer": "global_average_pool2d"},
            OUTPUT,
            training={"batch_size": 1000},
        ),
        "/network",
        "conv2d1 that gives (200000, 8, 8) for each of 1000 samples",
    ),
    "a last gamma without residual blocks": (
        job(batch_norm={"zero_last_gamma": True}),
        "/batch_norm/zero_last_gamma",
        "family resnet",
    ),
    "a last gamma that is not learned": (
        job(family="resnet", batch_norm={"zero_last_gamma": True, "affine": "beta"}),
        "/batch_norm/zero_last_gamma",
        "set affine to true",
    ),
    "layer norm in an LSTM": (job(family="recurrent", batch_norm={"kind": "layer"}), "/batch_norm/kind", "to batch"),
    "an LSTM normalized after its gates": (
        job(family="recurrent", batch_norm={"placement": "after_activation"}),
        "/batch_norm/placement",
        "to before_activation",
    ),
    "one LSTM normalized after its gates": (
        job(family="recurrent", batch_norm={"layers": {"recurrent1": {"placement": "after_activation"}}}),
        "/batch_norm/layers/recurrent1/placement",
        "to before_activation",
    ),
    "a written LSTM normalized after its gates": (
        written(
            {"layer": "image_rows"},
            {"layer": "lstm", "units": 4, "batch_norm": {"placement": "after_activation"}},
            OUTPUT,
        ),
        "/network/layers/1/batch_norm/placement",
        "to before_activation",
    ),
    "another kind for a written LSTM": (
        job(
            family="sequential",
            network={"layers": [{"layer": "image_rows"}, {"layer": "lstm", "units": 4, "batch_norm": True}, OUTPUT]},
            batch_norm={"layers": {"lstm1": {"kind": "layer"}}},
        ),
        "/batch_norm/layers/lstm1/kind",
        "takes batch norm only",
    ),
    "a last gamma of an LSTM, which scales gates and no sum": (
        written(
            {"layer": "image_rows"},
            {
                "layer": "residual",
                "body": [{"layer": "lstm", "units": 8, "outputs": "sequence", "batch_norm": {"zero_last_gamma": True}}],
            },
            {"layer": "flatten"},
            OUTPUT,
        ),
        "/network/layers/1/body/0/batch_norm/zero_last_gamma",
        "no body of this network has one",
    ),
    "groups of one layer that do not divide its channels": (
        job(
            family="convnet",
            batch_norm={"kind": "group", "groups": 8, "layers": {"stage2": {"groups": 7}}},
        ),
        "/batch_norm/layers/stage2/groups",
        "set groups to one of 1, 2, 4, 8",
    ),
    "a pattern that fits nothing": (
        job(batch_norm={"layers": {"stage1": False}}),
        "/batch_norm/layers/stage1",
        "nearest are hidden",
    ),
    "options of a written layer": (
        written({"layer": "flatten"}, {"layer": "batch_norm", "options": {"freeze_last_steps": 2000}}, OUTPUT),
        "/network/layers/1/options/freeze_last_steps",
        "at most 1000",
    ),
    "options of a written LSTM": (
        written(
            {"layer": "image_rows"}, {"layer": "lstm", "units": 4, "batch_norm": {"virtual_batch_size": 99}}, OUTPUT
        ),
        "/network/layers/1/batch_norm/virtual_batch_size",
        "for lstm1",
    ),
    "groups of a written layer": (
        written({"layer": "flatten"}, {"layer": "group_norm", "options": {"groups": 5}}, OUTPUT),
        "/network/layers/1",
        "one of 1, 2, 4, 8",
    ),
    "a residual body of nothing but normalization": (
        written({"layer": "flatten"}, {"layer": "residual", "body": [{"layer": "normalization"}]}, OUTPUT, off=True),
        "/network/layers/1/body",
        "a layer with weights",
    ),
    "a list of nothing but normalization": (
        written({"layer": "normalization"}, off=True),
        "/network/layers",
        "layers with weights",
    ),
    "a list without weights": (
        written({"layer": "parallel", "branches": [[]] * 10}, {"layer": "global_average_pool2d"}),
        "/network/layers",
        "nothing to train",
    ),
    "a list that ends with maps": (
        written({"layer": "max_pool2d", "kernel_size": 2, "stride": 2}),
        "/network/layers",
        "features 10",
    ),
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


def test_the_largest_layer_is_found_inside_of_others():
    (problem,) = refused(job(family="resnet"), maximum_parameters=1000).problems

    assert "stage3.block1.2.conv" in problem.message


def test_every_problem_is_reported_at_once():
    spec = job("diabetes", training={"batch_size": 1000, "label_smoothing": 0.1, "steps": 200_000})

    pointers = {problem.pointer for problem in refused(spec).problems}

    assert pointers == {"/training/batch_size", "/training/label_smoothing", "/training/steps"}


@pytest.mark.parametrize("batch_norm", [False, {"kind": "layer"}, {"layers": {"*": False}}])
def test_batch_size_1_is_fine_without_batch_statistics(batch_norm):
    assert admit(job(batch_norm=batch_norm, training={"batch_size": 1}), **LIMITS).steps_per_epoch == 1295


@pytest.mark.parametrize("source", ["digits", "mnist", "fashion_mnist", "wine", "diabetes"])
@pytest.mark.parametrize("family", ["mlp", "convnet", "vgg", "resnet", "inception", "recurrent"])
def test_every_family_is_planned_for_the_data_it_takes_and_refused_for_other(family, source):
    image = source not in ("wine", "diabetes")
    spec = job(source, family)

    if image or family == "mlp":
        assert admit(spec, **LIMITS).parameters > 0
    else:
        assert [problem.pointer for problem in refused(spec).problems] == ["/network/family"]


def test_a_regression_has_one_output_in_every_head():
    assert admit(job("diabetes"), **LIMITS).placed[-1].output_shape == (1,)
    with pytest.raises(SpecInvalid, match="one value to predict"):
        admit(job("diabetes", "sequential", {"layers": [OUTPUT]}), **LIMITS)


def test_the_gamma_that_a_network_starts_with_goes_with_it_when_a_layer_learns_none():
    spec = job(batch_norm={"initial_gamma": 0.5, "layers": {"hidden1": {"affine": False}}})

    assert admit(spec, **LIMITS).warnings == ()


def test_a_rate_and_a_decay_of_gamma_and_beta_need_one_layer_that_learns_either():
    options = {"learning_rate_multiplier": 2.0, "weight_decay": 0.1, "affine": "beta"}
    spec = job(batch_norm={**options, "layers": {"hidden1": {"affine": False}}})

    assert admit(spec, **LIMITS).warnings == ()


def test_zero_last_gamma_needs_a_gamma_at_the_end_of_bodies_only():
    spec = job(family="resnet", batch_norm={"zero_last_gamma": True, "layers": {"stem": {"affine": False}}})

    assert admit(spec, **LIMITS).warnings == ()


def test_an_estimator_without_batches_needs_no_whole_batch_of_samples():
    spec = job(population={"estimator": "pooled_sequential", "samples": 2})

    assert admit(spec, **LIMITS).warnings == ()


def test_running_average_needs_no_samples():
    spec = job(population={"estimator": "running_average"})

    assert admit(spec, **LIMITS).warnings == ()


def test_a_warm_up_may_take_all_of_the_training():
    spec = job(schedule={"warmup_steps": 1000}, training={"steps": 1000})

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
    ("size", "groups"),
    [
        (16, "3 groups of 16 in a batch, the last of 28 with the remainder"),
        (20, "3 groups of 20 in a batch"),
        (60, "1 group of 60 in a batch"),
        (40, "1 group of 40 in a batch, the last of 60 with the remainder"),
    ],
)
def test_the_plan_says_how_virtual_batches_divide_a_batch(size, groups):
    plan = admit(job(batch_norm={"virtual_batch_size": size}), **LIMITS)

    assert plan.batches == f"21 batches of 60 and a last one of 35; batch statistics of {groups}"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (job(family="recurrent", network={"units": [4, 4], "dropout": 0.2}), "recurrent1.dropout comes before"),
        (
            written(
                {"layer": "residual", "body": [{"layer": "dropout", "probability": 0.1}]},
                {"layer": "normalization"},
                {"layer": "flatten"},
                OUTPUT,
            ),
            "dropout1 comes before",
        ),
        (job(batch_norm={"kind": "whitening", "group_size": 64}), "hidden1.whitening whitens 64 channels"),
        (
            written({"layer": "image_rows"}, {"layer": "lstm", "units": 4, "batch_norm": True}, OUTPUT),
            "gammas of lstm1 start at 1",
        ),
        (job(batch_norm={"momentum": None}, training={"steps": 60}), "averages all of only 60 steps"),
        (job(batch_norm={"layers": {"hidden1": {"momentum": 0.001}}}), "momentum 0.001 leave"),
        (written({"layer": "flatten"}, OUTPUT), "no layer of the list takes it"),
        (job(network={"dropout": 0.2}), "dropout shifts the variance"),
        (job(training={"steps": 40}), "leave the running average"),
        (job(training={"batch_size": 7}), "batch statistics of fewer than 8"),
        (job(population={"samples": 2000}), "all are used"),
        (
            job(schedule={"warmup_steps": 4000}, training={"steps": 1000}),
            "ends at 0.25 of optimizer.learning_rate; set it below 1000",
        ),
    ],
)
def test_doubtful_choices_are_admitted_with_a_warning(spec, words):
    (warning,) = admit(spec, **LIMITS).warnings

    assert words in warning


def test_dropout_in_one_branch_is_not_before_the_batch_norm_of_another():
    branches = [[{"layer": "dropout", "probability": 0.1}], [{"layer": "normalization"}]]
    spec = written({"layer": "parallel", "branches": branches}, {"layer": "flatten"}, OUTPUT)

    assert admit(spec, **LIMITS).warnings == ()
