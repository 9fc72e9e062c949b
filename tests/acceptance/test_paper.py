"""The paper's MNIST network (Ioffe & Szegedy 2015, section 4.1) through the service, on the real files."""

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest

from tests.acceptance.service import Service
from tests.conftest import MNIST_FOLDER

EXPECTED = {True: {1000: (0.929, 0.02), 5000: (0.970, 0.005)}, False: {1000: (0.897, 0.025), 5000: (0.962, 0.007)}}
"""Test accuracy and its margin by step, with and without batch norm; means of three seeds."""
SEEDS = (0, 1, 2)
PAPER = {
    "dataset": {"source": "mnist"},
    "network": {
        "family": "mlp",
        "hidden": [100, 100, 100],
        "activation": "sigmoid",
        "initialization": {"kind": "normal", "scale": 0.1},
    },
    "optimizer": {"kind": "sgd", "learning_rate": 0.5},
    "publish": None,
}
TRAINING = {"steps": 5000, "batch_size": 60, "evaluate_every": 1000, "checkpoint_every": 5000}


@pytest.fixture(scope="module")
def mnist_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = Path(os.environ.get("EVENKEEL_TEST_DATA_DIR", MNIST_FOLDER))
    if not (folder / "mnist").is_dir():
        pytest.skip(f"no MNIST files in {folder.name}/mnist: set EVENKEEL_TEST_DATA_DIR")
    home = tmp_path_factory.mktemp("paper") / "home"
    (home / "data").mkdir(parents=True)
    (home / "data" / "mnist").symlink_to(folder / "mnist")
    service = Service(home)
    service.start()
    yield service
    service.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_test_accuracy_is_that_of_the_reference_run_with_and_without_batch_norm(mnist_service: Service) -> None:
    client = mnist_service.client()
    jobs = {
        (batch_norm, seed): client.submit(
            PAPER | {"batch_norm": batch_norm, "name": f"paper-{seed}", "training": TRAINING | {"seed": seed}}
        )
        for batch_norm in EXPECTED
        for seed in SEEDS
    }

    curves = {}
    for key, job in jobs.items():
        ended = client.wait(job, 300)
        assert ended.status == "succeeded", ended.error
        series = client.metrics(job, ["test/accuracy"])["test/accuracy"]
        curves[key] = dict(zip(series.steps, series.values, strict=True))

    for batch_norm, steps in EXPECTED.items():
        for step, (accuracy, margin) in steps.items():
            seen = mean(curves[batch_norm, seed][step] for seed in SEEDS)
            print(f"batch norm {batch_norm}, step {step}: {seen:.4f} (expected {accuracy} ± {margin})")
            assert abs(seen - accuracy) <= margin
