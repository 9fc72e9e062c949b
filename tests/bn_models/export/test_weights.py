import json

import numpy as np
import safetensors.numpy
import torch

from bn_models.export import weights_digest, write_safetensors
from core.spec import BatchNormSpec


def test_weights_and_population_statistics_are_read_back_bit_for_bit(freeze):
    frozen = freeze("convnet", BatchNormSpec())

    tensors = safetensors.numpy.load(write_safetensors(frozen.network, frozen.statistics))

    for name, parameter in frozen.network.named_parameters():
        assert np.array_equal(tensors[name], parameter.detach().numpy())
    for name, layer in frozen.statistics.layers.items():
        assert np.array_equal(tensors[f"{name}.population_mean"], layer.mean)
        assert np.array_equal(tensors[f"{name}.population_variance"], layer.variance)


def test_the_file_names_its_digests_and_estimator(freeze):
    frozen = freeze("mlp", BatchNormSpec())

    written = write_safetensors(frozen.network, frozen.statistics, {"job": "job_1"})

    header = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])["__metadata__"]
    assert header["weights_sha256"] == weights_digest(frozen.network.state_dict())
    assert header["statistics_sha256"] == frozen.statistics.digest()
    assert (header["estimator"], header["job"]) == ("pooled", "job_1")


def test_the_digest_is_of_the_parameters_alone(freeze):
    network = freeze("mlp", BatchNormSpec()).network
    before = weights_digest(network.state_dict())

    network(torch.randn(8, 7))

    assert weights_digest(network.state_dict()) == before
    assert weights_digest(dict(network.named_parameters())) == before


def test_the_digest_changes_with_one_bit_of_any_parameter(freeze):
    network = freeze("mlp", BatchNormSpec()).network
    digests = {weights_digest(network.state_dict())}

    for parameter in network.parameters():
        parameter.data.view(-1)[0] = torch.nextafter(parameter.data.view(-1)[0], torch.tensor(9.0))
        digests.add(weights_digest(network.state_dict()))

    assert len(digests) == 1 + len(list(network.parameters()))
