"""Lists as anybody may write them: admitted means that torch can build and run them, all else is said."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bn_models.architecture import admit, flat, layers_of
from bn_models.networks import build
from core.errors import SpecInvalid
from core.spec import JobSpec
from core.spec.initialization import InitializationSpec

small = st.integers(1, 4)
OPTIONS = st.sampled_from([None, {}, {"affine": "gamma"}, {"affine": False, "eps": 1e-3}])
SIMPLE = st.one_of(
    st.fixed_dictionaries({"layer": st.just("linear"), "features": st.sampled_from([4, 10])}),
    st.fixed_dictionaries(
        {
            "layer": st.just("conv2d"),
            "channels": small,
            "kernel_size": small,
            "stride": st.integers(1, 2),
            "padding": st.integers(0, 2),
        }
    ),
    st.fixed_dictionaries(
        {
            "layer": st.sampled_from(["max_pool2d", "average_pool2d"]),
            "kernel_size": small,
            "stride": st.integers(1, 2),
            "padding": st.integers(0, 1),
        }
    ),
    st.fixed_dictionaries(
        {"layer": st.sampled_from(["global_average_pool2d", "flatten", "image_rows", "normalization"])}
    ),
    st.fixed_dictionaries({"layer": st.sampled_from(["batch_norm", "whitening", "layer_norm"]), "options": OPTIONS}),
    st.fixed_dictionaries(
        {"layer": st.just("group_norm"), "options": st.fixed_dictionaries({"groups": st.integers(1, 3)})}
    ),
    st.fixed_dictionaries({"layer": st.just("instance_norm"), "options": OPTIONS}),
    st.fixed_dictionaries({"layer": st.just("activation"), "kind": st.sampled_from(["relu", "tanh"])}),
    st.fixed_dictionaries(
        {
            "layer": st.just("lstm"),
            "units": small,
            "outputs": st.sampled_from(["last", "sequence"]),
            "batch_norm": st.sampled_from([None, True, {}, {"affine": "beta"}]),
        }
    ),
)


def _nested(inner):
    lists = st.lists(inner, max_size=3)
    return st.one_of(
        st.fixed_dictionaries(
            {"layer": st.just("residual"), "body": st.lists(inner, min_size=1, max_size=3), "shortcut": lists}
        ),
        st.fixed_dictionaries({"layer": st.just("parallel"), "branches": st.lists(lists, min_size=1, max_size=3)}),
    )


LAYERS = st.lists(st.one_of(SIMPLE, st.recursive(SIMPLE, _nested, max_leaves=6)), min_size=1, max_size=5)
BATCH_NORM = st.sampled_from([True, False, {"kind": "whitening"}, {"kind": "layer"}, {"kind": "instance"}])
ENDS = st.sampled_from(
    [
        [],
        [{"layer": "flatten"}, {"layer": "linear", "features": 10}],
        [{"layer": "global_average_pool2d"}, {"layer": "linear", "features": 10}],
        [{"layer": "linear", "features": 10}],
    ]
)


@settings(max_examples=40, deadline=None)
@given(layers=LAYERS, end=ENDS, batch_norm=BATCH_NORM)
def test_a_list_that_is_admitted_runs_with_the_shapes_and_counts_of_its_plan(layers, end, batch_norm):
    body = {"dataset": {"source": "digits"}, "network": {"family": "sequential", "layers": layers + end}}
    spec = JobSpec.model_validate(body | {"batch_norm": batch_norm})

    try:
        plan = admit(spec, maximum_parameters=10**6, maximum_steps=10**4)
    except SpecInvalid as error:
        assert all(problem.pointer.startswith(("/network", "/batch_norm")) for problem in error.problems)
        return

    network = build(plan.layers, (1, 8, 8), InitializationSpec(), seed=0)
    with FlopCounterMode(display=False) as counter:
        output = network(torch.randn(3, 1, 8, 8))
    output.sum().backward()
    whitened = any(item.layer.layer == "whitening" for item in flat(plan.placed))
    assert output.shape == (3, 10)
    assert plan.parameters == sum(value.numel() for value in network.parameters())
    assert whitened or 3 * sum(item.flops for item in plan.placed) == counter.get_total_flops()
    assert layers_of(spec.network, spec.batch_norm, (1, 8, 8), 10) == plan.layers
