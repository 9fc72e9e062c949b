"""The family `recurrent`: LSTM layers as a list."""

from bn_models.architecture.blocks import Blocks, source
from bn_models.architecture.mlp import dropped
from core.errors import FieldProblem
from core.spec.layers import LSTM, ImageRows, Layer, Linear
from core.spec.network import RecurrentSpec
from core.spec.normalization import BatchOptions


def recurrent_layers(
    network: RecurrentSpec, blocks: Blocks, input_shape: tuple[int, ...], outputs: int
) -> tuple[Layer, ...]:
    """Image rows (images only), the LSTM layers, and a linear output layer on the last hidden state."""
    layers: list[Layer] = [ImageRows(name="rows")] if len(input_shape) == 3 else []
    for number, units in enumerate(network.units, start=1):
        block = f"recurrent{number}"
        last = number == len(network.units)
        layers.append(
            LSTM(
                name=f"{block}.lstm",
                units=units,
                batch_norm=_options(f"{block}.lstm", blocks),
                outputs="last" if last else "sequence",
            )
        )
        layers += dropped(block, network.dropout)
    return (*layers, Linear(name="output.linear", features=outputs))


def _options(name: str, blocks: Blocks) -> BatchOptions | None:
    """The normalization is inside of the layer, at its gates: it is batch norm, and before their activations."""
    options = blocks.options(name)
    if options is None or (isinstance(options, BatchOptions) and options.placement == "before_activation"):
        return options
    field, wanted = ("placement", "before_activation") if isinstance(options, BatchOptions) else ("kind", "batch")
    message = (
        f"is {getattr(options, field)} for {name}, and the LSTM normalizes its gates by batch statistics before "
        f"their activations: set it to {wanted}, or batch_norm to false"
    )
    blocks.problems.append(FieldProblem(source(blocks.batch_norm, name, field), "not_in_an_lstm", message))
    return None
