"""The family `sequential`: the list that a user wrote, with the job's normalization at its places."""

from bn_models.architecture.blocks import LAYERS, Blocks, normalized, source
from core.errors import FieldProblem
from core.spec import sequential as written
from core.spec.layers import LSTM, Layer, Parallel, Residual
from core.spec.network import SequentialSpec
from core.spec.normalization import BatchOptions
from core.spec.sequential import (
    NormalizationPlace,
    Place,
    WrittenLayer,
    WrittenLSTM,
    WrittenParallel,
    WrittenResidual,
)

KINDS = {layer.model_fields["layer"].default: kind for kind, layer in LAYERS.items()}


def sequential_layers(network: SequentialSpec, blocks: Blocks) -> tuple[Layer, ...]:
    """The written layers. A normalization without options has those of the job, or is left out without any."""
    layers = _list(network.layers, blocks, "/network/layers")
    if not layers:
        message = "has nothing but normalization, which batch_norm leaves out: write layers with weights"
        blocks.problems.append(FieldProblem("/network/layers", "empty_list", message))
    return layers


def places(layers: tuple[WrittenLayer, ...], pointer: str = "/network/layers") -> dict[str, tuple[str, WrittenLayer]]:
    """Each written layer by name, with where it stands in the body."""
    found: dict[str, tuple[str, WrittenLayer]] = {}
    for index, layer in enumerate(layers):
        here = f"{pointer}/{index}"
        found[layer.name] = (here, layer)
        if isinstance(layer, WrittenResidual):
            found |= places(layer.body, f"{here}/body") | places(layer.shortcut, f"{here}/shortcut")
        elif isinstance(layer, WrittenParallel):
            for number, branch in enumerate(layer.branches):
                found |= places(branch, f"{here}/branches/{number}")
    return found


def takes_batch_norm(network: SequentialSpec) -> bool:
    """Whether any layer of the list stands for the job's normalization."""
    return any(_stands_for_the_job(layer) for _, layer in places(network.layers).values())


def _stands_for_the_job(layer: WrittenLayer) -> bool:
    if isinstance(layer, WrittenLSTM):
        return layer.batch_norm is True
    return isinstance(layer, Place) and (isinstance(layer, NormalizationPlace) or layer.options is None)


def _list(layers: tuple[WrittenLayer, ...], blocks: Blocks, pointer: str) -> tuple[Layer, ...]:
    return tuple(found for index, layer in enumerate(layers) for found in _layer(layer, blocks, f"{pointer}/{index}"))


def _layer(layer: WrittenLayer, blocks: Blocks, pointer: str) -> tuple[Layer, ...]:
    match layer:
        case WrittenLSTM():
            return (_lstm(layer, blocks),)
        case WrittenResidual():
            return _residual(layer, blocks, pointer)
        case WrittenParallel():
            branches = tuple(
                _list(branch, blocks, f"{pointer}/branches/{number}") for number, branch in enumerate(layer.branches)
            )
            return (Parallel(name=layer.name, branches=branches),)
        case (
            NormalizationPlace()
            | written.BatchNormPlace()
            | written.WhiteningPlace()
            | written.LayerNormPlace()
            | written.GroupNormPlace()
            | written.InstanceNormPlace()
            | written.LocalResponseNormPlace()
        ):
            return _normalization(layer, blocks)
    return (layer,)


def _residual(layer: WrittenResidual, blocks: Blocks, pointer: str) -> tuple[Layer, ...]:
    body = _list(layer.body, blocks, f"{pointer}/body")
    shortcut = _list(layer.shortcut, blocks, f"{pointer}/shortcut")
    if body:
        return (Residual(name=layer.name, body=body, shortcut=shortcut),)
    message = "has nothing but normalization, which batch_norm leaves out: write a layer with weights in it"
    blocks.problems.append(FieldProblem(f"{pointer}/body", "empty_body", message))
    return ()


def _lstm(layer: WrittenLSTM, blocks: Blocks) -> LSTM:
    """The job's placement has no say, as nowhere in a written list."""
    if layer.batch_norm is not True:
        return LSTM(name=layer.name, units=layer.units, outputs=layer.outputs, batch_norm=layer.batch_norm)
    options = blocks.options(layer.name, "batch")
    if options is not None and not isinstance(options, BatchOptions):
        message = f"is {options.kind} for {layer.name}, and an LSTM takes batch norm only: set it to batch, or to false"
        where = source(blocks.batch_norm, layer.name, "kind")
        blocks.problems.append(FieldProblem(where, "not_in_an_lstm", message))
        options = None
    if options is not None:
        options = options.model_copy(update={"placement": "before_activation"})
    return LSTM(name=layer.name, units=layer.units, outputs=layer.outputs, batch_norm=options)


def _normalization(layer: Place, blocks: Blocks) -> tuple[Layer, ...]:
    if isinstance(layer, NormalizationPlace):
        options = blocks.options(layer.name)
    elif layer.options is not None:
        options = layer.options
    else:
        options = blocks.options(layer.name, KINDS[layer.layer])
    return () if options is None else (normalized(layer.name, options),)
