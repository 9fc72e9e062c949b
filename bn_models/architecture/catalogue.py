"""What there is to choose from: each family with its paper, the data it takes, and a network to start from."""

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from bn_models.architecture.families import layers_of
from bn_models.architecture.shapes import Shape, place
from core.spec.network import FAMILIES, NetworkSpec
from core.spec.normalization import BatchNormSpec

EXAMPLE_INPUT: Shape = (1, 28, 28)
EXAMPLE_OUTPUTS = 10

# A residual network in a dozen lines: all that a written list can do.
SEQUENTIAL_EXAMPLE: dict[str, Any] = {
    "family": "sequential",
    "layers": [
        {"layer": "conv2d", "channels": 16, "kernel_size": 3, "padding": 1},
        {"layer": "normalization"},
        {"layer": "activation", "kind": "relu"},
        {"layer": "max_pool2d", "kernel_size": 2, "stride": 2},
        {
            "layer": "residual",
            "body": [
                {"layer": "conv2d", "channels": 32, "kernel_size": 3, "stride": 2, "padding": 1},
                {"layer": "normalization"},
                {"layer": "activation", "kind": "relu"},
                {"layer": "conv2d", "channels": 32, "kernel_size": 3, "padding": 1},
                {"layer": "normalization"},
            ],
            "shortcut": [{"layer": "conv2d", "channels": 32, "kernel_size": 1, "stride": 2}],
        },
        {"layer": "activation", "kind": "relu"},
        {"layer": "global_average_pool2d"},
        {"layer": "linear", "features": EXAMPLE_OUTPUTS},
    ],
}

PAPERS = {
    "vgg": "Simonyan & Zisserman 2014, arXiv 1409.1556",
    "resnet": "He, Zhang, Ren & Sun 2015, arXiv 1512.03385",
    "inception": "Ioffe & Szegedy 2015, arXiv 1502.03167, appendix",
    "recurrent": "Hochreiter & Schmidhuber 1997; with batch norm Cooijmans et al. 2016, arXiv 1603.09025",
}
INPUTS = {
    "mlp": ("table", "image", "sequence"),
    "recurrent": ("image", "sequence"),
    "sequential": ("table", "image", "sequence"),
}


@dataclass(frozen=True)
class Entry:
    """A family; its example is for samples of `EXAMPLE_INPUT` and `EXAMPLE_OUTPUTS` classes, with batch norm."""

    family: str
    description: str
    paper: str | None
    inputs: tuple[str, ...]
    example: dict[str, Any]
    parameters: int
    flops: int


def catalogue() -> tuple[Entry, ...]:
    return tuple(_entry(family) for family in FAMILIES)


def _entry(family: str) -> Entry:
    example = SEQUENTIAL_EXAMPLE if family == "sequential" else {"family": family}
    network: NetworkSpec = TypeAdapter[NetworkSpec](NetworkSpec).validate_python(example)
    placed = place(layers_of(network, BatchNormSpec(), EXAMPLE_INPUT, EXAMPLE_OUTPUTS), EXAMPLE_INPUT)
    return Entry(
        family=family,
        description=(FAMILIES[family].__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " "),
        paper=PAPERS.get(family),
        inputs=INPUTS.get(family, ("image",)),
        example=example,
        parameters=sum(item.parameters for item in placed),
        flops=sum(item.flops for item in placed),
    )
