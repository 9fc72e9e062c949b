from bn_models.architecture import layers_of
from core.spec import BatchNormSpec, ConvNetSpec, MLPSpec


def names(spec, batch_norm, input_shape):
    return [layer.name for layer in layers_of(spec, batch_norm, input_shape, 10)]


def test_an_mlp_flattens_images_and_normalizes_before_the_activation():
    assert names(MLPSpec(hidden=(5,), dropout=0.2), BatchNormSpec(), (1, 8, 8)) == [
        "flatten",
        "hidden1.linear",
        "hidden1.batch_norm",
        "hidden1.activation",
        "hidden1.dropout",
        "output.linear",
    ]


def test_after_activation_puts_batch_norm_between_activation_and_dropout():
    batch_norm = BatchNormSpec(placement="after_activation")

    assert names(MLPSpec(hidden=(5,), dropout=0.2), batch_norm, (4,)) == [
        "hidden1.linear",
        "hidden1.activation",
        "hidden1.batch_norm",
        "hidden1.dropout",
        "output.linear",
    ]


def test_a_convnet_pools_every_nth_stage():
    assert names(ConvNetSpec(channels=(4, 4), pool_every=2, hidden=()), None, (1, 8, 8)) == [
        "stage1.conv",
        "stage1.activation",
        "stage2.conv",
        "stage2.activation",
        "stage2.pool",
        "head.flatten",
        "output.linear",
    ]


def test_only_the_layer_right_before_batch_norm_loses_its_bias():
    def biases(batch_norm):
        layers = layers_of(ConvNetSpec(channels=(4,), hidden=(5,)), batch_norm, (1, 8, 8), 10)
        return [layer.bias for layer in layers if hasattr(layer, "bias")]

    assert biases(BatchNormSpec()) == [False, False, True]
    assert biases(BatchNormSpec(placement="after_activation")) == [True, True, True]
    assert biases(None) == [True, True, True]
