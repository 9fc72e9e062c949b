"""Every family of networks, from a posted spec to answers of the frozen model, on real digits."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.acceptance.service import Service

pytestmark = pytest.mark.timeout(300)  # whole services on a machine that may be busy

SGD = {"learning_rate": 0.1, "momentum": 0.9}
ADAM = {"kind": "adam", "learning_rate": 0.005}
WRITTEN = [
    {"layer": "conv2d", "channels": 16, "kernel_size": 3, "padding": 1},
    {"layer": "batch_norm"},
    {"layer": "activation", "kind": "relu"},
    {
        "layer": "residual",
        "body": [
            {"layer": "conv2d", "channels": 16, "kernel_size": 3, "padding": 1},
            {"layer": "batch_norm"},
            {"layer": "activation", "kind": "relu"},
        ],
    },
    {"layer": "max_pool2d", "kernel_size": 2, "stride": 2},
    {"layer": "flatten"},
    {"layer": "linear", "features": 10},
]
FAMILIES: list[tuple[dict[str, Any], dict[str, Any], float]] = [
    ({"family": "mlp"}, SGD, 0.93),
    ({"family": "convnet", "channels": [8, 16], "hidden": [32]}, SGD, 0.95),
    ({"family": "vgg", "width": 8}, SGD | {"learning_rate": 0.02}, 0.93),
    ({"family": "resnet", "blocks": [1, 1], "width": 8}, SGD, 0.93),
    ({"family": "inception", "width": 0.1}, SGD, 0.93),
    ({"family": "recurrent", "units": [32]}, ADAM, 0.88),
    ({"family": "sequential", "layers": WRITTEN}, SGD, 0.95),
]


@pytest.mark.parametrize(
    "stack", ["one machine", pytest.param("cluster", marks=pytest.mark.slow)], indirect=True, scope="module"
)
@pytest.mark.parametrize(
    ("network", "optimizer", "accuracy"),
    FAMILIES,
    ids=lambda part: part.get("family", "") if isinstance(part, dict) else "",
)
def test_a_family_trains_exports_and_answers(
    service: Service, network: dict[str, Any], optimizer: dict[str, Any], accuracy: float
) -> None:
    client = service.client()
    name = network["family"]
    spec = {
        "name": name,
        "dataset": {"source": "digits"},
        "network": network,
        "optimizer": optimizer,
        "training": {"steps": 200, "batch_size": 64, "evaluate_every": 200},
    }

    job = client.wait(client.submit(spec), 240)

    assert job.status == "succeeded", job.error
    assert job.result["accuracy"] >= accuracy
    digits = load_digits()
    rows = [row.tolist() for row in digits.data[:40]]
    together = client.predict(name, rows).predictions
    assert client.predict(name, rows[:1]).predictions[0] == together[0]
    right = np.mean([one.label == str(target) for one, target in zip(together, digits.target, strict=False)])
    assert right >= accuracy - 0.1
