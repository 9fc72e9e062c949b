"""Every family trains through all phases; a written list of the convnet is the convnet, bit for bit."""

from pathlib import Path
from typing import Any

import pytest

from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.trainer.session import train

CONVNET = {"family": "convnet", "channels": [4, 8], "hidden": [16]}
WRITTEN = [
    {"name": "stage1.conv", "layer": "conv2d", "channels": 4, "kernel_size": 3, "padding": 1},
    {"name": "stage1.batch_norm", "layer": "normalization"},
    {"name": "stage1.activation", "layer": "activation", "kind": "relu"},
    {"name": "stage1.pool", "layer": "max_pool2d", "kernel_size": 2, "stride": 2},
    {"name": "stage2.conv", "layer": "conv2d", "channels": 8, "kernel_size": 3, "padding": 1},
    {"name": "stage2.batch_norm", "layer": "normalization"},
    {"name": "stage2.activation", "layer": "activation", "kind": "relu"},
    {"name": "stage2.pool", "layer": "max_pool2d", "kernel_size": 2, "stride": 2},
    {"name": "head.flatten", "layer": "flatten"},
    {"name": "hidden1.linear", "layer": "linear", "features": 16},
    {"name": "hidden1.batch_norm", "layer": "batch_norm"},
    {"name": "hidden1.activation", "layer": "activation", "kind": "relu"},
    {"name": "output.linear", "layer": "linear", "features": 10},
]
SMALL = [
    {"family": "vgg", "width": 2, "hidden": [8]},
    {"family": "resnet", "blocks": [1, 1], "width": 4},
    {"family": "inception", "width": 0.05},
    {"family": "recurrent", "units": [8]},
    {"family": "sequential", "layers": WRITTEN},
]


def run(folder: Path, **changes: Any) -> ListSink:
    sink = ListSink()
    train(order_for(folder, digits_spec(**changes)), sink)
    return sink


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_written_list_of_the_convnet_trains_to_the_same_bits(tmp_path: Path, batch_norm: bool) -> None:
    published = {"batch_norm": batch_norm, "publish": {"model": "small"}}
    family = run(tmp_path / "family", network=CONVNET, **published)
    written = run(tmp_path / "written", network={"family": "sequential", "layers": WRITTEN}, **published)

    for digest in ("weights_sha256", "statistics_sha256"):
        assert written.finished.result[digest] == family.finished.result[digest]
    assert written.points == family.points


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network["family"])
def test_every_family_trains_and_is_published(tmp_path: Path, network: dict[str, Any]) -> None:
    sink = run(tmp_path, network=network, publish={"model": "small"}, training={"steps": 20})

    assert sink.finished.result["accuracy"] >= 0.0
