import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bn_models import networks
from bn_models.architecture import layers_of
from bn_models.networks import Network, build
from core.spec import BatchNormSpec, ConvNetSpec, DatasetSpec
from worker.trainer.data import Data, prepare
from worker.trainer.evaluation import evaluate, loss_of
from worker.trainer.files import DataFolder


def digits(folder: Path) -> Data:
    spec = DatasetSpec.model_validate({"source": "digits"})
    return prepare(spec, DataFolder(folder, None), torch.device("cpu"))


def convnet() -> Network:
    spec = ConvNetSpec(channels=(4, 8), hidden=())
    return build(layers_of(spec, BatchNormSpec(), (1, 8, 8), 10), (1, 8, 8), spec.initialization, 0)


def test_wide_feature_maps_are_evaluated_few_rows_at_once_and_score_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network, data = convnet(), digits(tmp_path)
    whole = evaluate(network, data, data.test)
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(networks, "CPU_CHUNK_ELEMENTS", 4 * 8 * 8 * 50)

    few = evaluate(network, data, data.test)

    assert sizes == [50] * 7 + [9]
    assert few["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert few["accuracy"] == whole["accuracy"]


def test_the_smoothed_loss_is_the_cross_entropy_with_the_smoothed_labels():
    logits = torch.tensor([[0.3, -1.2, 2.0], [1.0, 0.0, -1.0]], dtype=torch.float64)
    labels, smoothing = [2, 1], 0.3
    exponentials = np.exp(logits.numpy())
    log_probabilities = np.log(exponentials / exponentials.sum(1, keepdims=True))
    wanted = np.full((2, 3), smoothing / 3)
    wanted[range(2), labels] += 1.0 - smoothing

    loss = float(loss_of(logits, torch.tensor(labels), smoothing))

    assert math.isclose(loss, -(wanted * log_probabilities).sum(1).mean(), rel_tol=1e-12)
