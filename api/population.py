"""Population statistics of a version, channel by channel, out of its file of weights."""

from api.pagination import bad_query
from api.schemas.models import LayerChannels
from api.tensors import Tensors


def page_of_layers(
    content: bytes, names: list[str], only: str | None, after: str | None, limit: int
) -> tuple[list[LayerChannels], bool]:
    """(at most `limit` layers behind the layer `after`, whether there are more), in the order of `names`."""
    for parameter, name in (("layer", only), ("after", after)):
        if name is not None and name not in names:
            message = f"{name!r} is no layer with statistics of this version: take one of its population's layers"
            raise bad_query(parameter, "unknown_layer", message)
    start = names.index(after) + 1 if after is not None else 0
    wanted = [name for name in names[start:] if only in (None, name)]
    tensors = Tensors(content)
    return [_channels(tensors, name) for name in wanted[:limit]], len(wanted) > limit


def _channels(tensors: Tensors, name: str) -> LayerChannels:
    return LayerChannels(
        layer=name,
        mean=tensors[f"{name}.population_mean"].tolist(),
        variance=tensors[f"{name}.population_variance"].tolist(),
        covariance=tensors.listed(f"{name}.population_covariance"),
        running_mean=tensors.listed(f"{name}.running_mean"),
        running_variance=tensors.listed(f"{name}.running_var"),
        gamma=_learned(tensors, name, "gamma"),
        beta=_learned(tensors, name, "beta"),
    )


def _learned(tensors: Tensors, name: str, part: str) -> list[float] | None:
    """The layer's own, or what the time steps of an LSTM share."""
    owner, _, last = name.rpartition(".")
    shared = tensors.listed(f"{owner}.{part}") if last.startswith("step") else None
    return shared or tensors.listed(f"{name}.{part}")
