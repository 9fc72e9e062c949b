"""Data that users bring, from arrays and a table of their own to answers of the frozen model."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load

from tests.acceptance.service import Service

pytestmark = pytest.mark.timeout(300)  # whole services on a machine that may be busy

STEPS, FEATURES, CLASSES = 16, 3, ("falling", "rising", "waving")
DRAW = np.random.default_rng(7)


def movements(rows: int) -> tuple[Any, Any]:
    """(N, T, F) sequences that move in one of three ways, each feature in units of its own, and which way."""
    time = np.linspace(0, 1, STEPS)
    shapes = np.stack([-time, time, np.sin(4 * np.pi * time)])
    ways = DRAW.integers(0, 3, rows)
    base = DRAW.normal(size=(rows, STEPS, FEATURES)) * 0.5 + DRAW.normal(size=(rows, 1, FEATURES)) * 0.3
    base[:, :, 0] += 2 * shapes[ways]
    return (base * [1.0, 1000.0, 0.01] + [0.0, 5000.0, 1.0]).astype(np.float32), ways


def test_uploaded_sequences_train_a_normalized_lstm_whose_folded_answers_are_its_own(service: Service) -> None:
    client = service.client()
    x, ways = movements(900)
    unseen, truth = movements(200)
    labels = np.array(CLASSES)
    dataset = client.datasets.upload("movements", {"x": x, "y": labels[ways]})
    assert dataset.newest.labels == CLASSES

    job = client.wait(
        client.submit(
            {
                "name": "movements",
                "dataset": dataset.spec(),
                "network": {"family": "recurrent", "units": [24]},
                "batch_norm": True,
                "optimizer": {"kind": "adam", "learning_rate": 0.01},
                "training": {"steps": 200, "batch_size": 64, "evaluate_every": 100},
            }
        ),
        240,
    )

    assert job.status == "succeeded", job.error
    assert job.result["accuracy"] >= 0.95
    answers = client.predict("movements", unseen).predictions
    right = np.mean([one.label == CLASSES[way] for one, way in zip(answers, truth, strict=True)])
    assert right >= 0.95
    assert client.predict("movements", unseen[:1]).predictions[0] == answers[0]
    probe = load(client.download("movements", "probe"))
    session = onnxruntime.InferenceSession(client.download("movements", "onnx"))
    folded = session.run(["logits"], {"input": probe["rows"]})[0]
    receipt = client.versions("movements")[0].card["receipt"]
    assert np.abs(folded - probe["outputs"]).max() <= receipt["tolerance"]
    assert client.verify("movements").passed
    job = client.wait(client.recalibrate("movements", dataset.spec(split_seed=1)), 120)
    assert job.result["weights_sha256"] == client.versions("movements")[-1].weights_sha256


def test_a_table_with_texts_is_trained_on_and_answers_by_its_texts(service: Service, tmp_path: Path) -> None:
    client = service.client()
    size, colour = DRAW.uniform(10, 50, 400), DRAW.choice(["red", "green", "blue"], 400)
    price = 3.0 * size + 40.0 * (colour == "red") - 20.0 * (colour == "blue")
    lines = [f'{a},"{b}",{c}\r\n' for a, b, c in zip(size, colour, price, strict=True)]
    (tmp_path / "prices.csv").write_bytes(("\ufeffsize,colour,price\r\n" + "".join(lines)).encode())
    dataset = client.datasets.upload("prices", tmp_path / "prices.csv")

    job = client.wait(
        client.submit(
            {
                "name": "prices",
                "dataset": dataset.spec(),
                "network": {"family": "mlp", "hidden": [32]},
                "optimizer": {"kind": "adam", "learning_rate": 0.01},
                "training": {"steps": 600, "batch_size": 32, "evaluate_every": 300},
            }
        ),
        240,
    )

    assert job.status == "succeeded", job.error
    assert job.result["r2"] >= 0.97
    rows = [{"size": 30, "colour": "red"}, {"size": 30, "colour": "green"}, {"size": 30, "colour": "blue"}]
    values = client.predict("prices", rows).values
    assert np.allclose(values, [130.0, 90.0, 70.0], atol=12.0)
    assert client.predict("prices", [[30, "red"]]).values == values[:1]
