"""Every family of networks, from a posted spec to answers of the frozen model, on real digits."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.acceptance.service import Service
from tests.networks import NETWORKS

pytestmark = pytest.mark.timeout(300)  # whole services on a machine that may be busy

SGD = {"learning_rate": 0.1, "momentum": 0.9}
ADAM = {"kind": "adam", "learning_rate": 0.005}
FAMILIES: list[tuple[str, dict[str, Any], float]] = [
    ("mlp", SGD, 0.93),
    ("convnet", SGD, 0.95),
    ("vgg", SGD | {"learning_rate": 0.02}, 0.93),
    ("resnet", SGD, 0.93),
    ("inception", SGD, 0.93),
    ("recurrent", ADAM, 0.88),
    ("sequential", SGD, 0.95),
]


@pytest.mark.parametrize(
    "stack", ["one machine", pytest.param("cluster", marks=pytest.mark.slow)], indirect=True, scope="module"
)
@pytest.mark.parametrize(("family", "optimizer", "accuracy"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_a_family_trains_exports_and_answers(
    service: Service, family: str, optimizer: dict[str, Any], accuracy: float
) -> None:
    client = service.client()
    spec = {
        "name": family,
        "dataset": {"source": "digits"},
        "network": {"family": family} | NETWORKS[family],
        "optimizer": optimizer,
        "training": {"steps": 200, "batch_size": 64, "evaluate_every": 200},
    }

    job = client.wait(client.submit(spec), 240)

    assert job.status == "succeeded", job.error
    assert job.result["accuracy"] >= accuracy
    digits = load_digits()
    rows = [row.tolist() for row in digits.data[:40]]
    together = client.predict(family, rows).predictions
    assert client.predict(family, rows[:1]).predictions[0] == together[0]
    right = np.mean([one.label == str(target) for one, target in zip(together, digits.target, strict=False)])
    assert right >= accuracy - 0.1
