"""A small network of every family, for digits: what a spec says of it besides its family."""

from typing import Any

CLASSES = 10
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
    {"layer": "linear", "features": CLASSES},
]
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "convnet": {"channels": [8, 16], "hidden": [32]},
    "vgg": {"width": 8},
    "resnet": {"blocks": [1, 1], "width": 8},
    "inception": {"width": 0.1},
    "recurrent": {"units": [32]},
    "sequential": {"layers": WRITTEN},
}
