"""What stands at the places of batch norm, its options, and the estimators of its population statistics."""

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from core.spec.base import Flag, PositiveInt, Spec

Estimator = Literal["pooled", "pooled_sequential", "algorithm_2", "running_average"]
Placement = Literal["before_activation", "after_activation"]


def _true_or_false_or_one(value: Any) -> Any:
    if isinstance(value, bool) or value in ("gamma", "beta"):
        return value
    raise ValueError(f'must be true, false, "gamma" or "beta", not {value!r:.80}')


Affine = Annotated[bool | Literal["gamma", "beta"], BeforeValidator(_true_or_false_or_one)]
Eps = Annotated[float, Field(strict=True, ge=1e-12, le=1.0)]
Momentum = Annotated[float, Field(strict=True, gt=0.0, le=1.0)]
GhostSize = Annotated[int, Field(strict=True, ge=2)]
Multiplier = Annotated[float, Field(strict=True, ge=0.0, le=1e6)]
Decay = Annotated[float, Field(strict=True, ge=0.0, le=1e3)]
Positive = Annotated[float, Field(strict=True, gt=0.0, le=1e6)]
Start = Annotated[float, Field(strict=True, ge=-1e6, le=1e6)]
Neighbours = Annotated[int, Field(strict=True, ge=1, le=1024)]
LastSteps = Annotated[int, Field(strict=True, ge=0)]


class AffineOptions(Spec):
    """What every normalization with gamma and beta has."""

    placement: Placement = "before_activation"
    """Before the activation, as the paper has it, or after."""
    eps: Eps = 1e-5
    """Added to the variance (to the diagonal of the covariance) before the square root; in float32, much less
    than 1e-12 would divide a channel that does not vary by 0."""
    affine: Affine = True
    """Learn gamma and beta, one pair per activation (per feature map for convolutions): `true` both,
    `"gamma"` or `"beta"` one of them, `false` none."""
    initial_gamma: Start = 1.0
    """Where gamma starts: the target deviation of the layer. Needs a learned gamma."""
    initial_beta: Start = 0.0
    """Where beta starts: the target mean of the layer. Needs a learned beta."""
    zero_last_gamma: Flag = False
    """Start the last gamma of each residual body at 0, so that every block begins as its shortcut."""
    learning_rate_multiplier: Multiplier = 1.0
    """Factor on the learning rate of gamma and beta; 0 keeps them where they start."""
    weight_decay: Decay | None = None
    """Weight decay of gamma and beta; null: as `optimizer.decay_normalization` says."""


class BatchOptions(AffineOptions):
    """Batch normalization of a layer's input to its activation (Ioffe & Szegedy 2015, Algorithm 1)."""

    kind: Literal["batch"] = "batch"
    momentum: Momentum | None = 0.1
    """Weight of the newest batch in the running average: 0.1 here is 0.9 in Keras' convention; null:
    the cumulative average of all batches."""
    virtual_batch_size: GhostSize | None = None
    """Normalize by the moments of so many samples (ghost batches) instead of the whole batch; a
    remainder joins the last group. Null: the whole batch."""
    freeze_last_steps: LastSteps = 0
    """For this many last steps, normalize by the population statistics computed when they begin."""


class WhiteningOptions(AffineOptions):
    """Decorrelated batch normalization (Huang et al. 2018) by Newton's iteration (Huang et al. 2019)."""

    kind: Literal["whitening"] = "whitening"
    momentum: Momentum | None = 0.1
    virtual_batch_size: GhostSize | None = None
    freeze_last_steps: LastSteps = 0
    group_size: PositiveInt = 16
    """Channels that are whitened together; the last group takes what is left."""
    iterations: Annotated[int, Field(strict=True, ge=1, le=50)] = 5
    """Newton steps towards the inverse square root of the covariance."""


class LayerOptions(AffineOptions):
    """Layer normalization (Ba, Kiros & Hinton 2016): by the moments of each sample over all its channels."""

    kind: Literal["layer"] = "layer"


class GroupOptions(AffineOptions):
    """Group normalization (Wu & He 2018): by the moments of each sample over groups of channels."""

    kind: Literal["group"] = "group"
    groups: PositiveInt = 32
    """Number of groups; it must divide the channels of each layer."""


class InstanceOptions(AffineOptions):
    """Instance normalization (Ulyanov, Vedaldi & Lempitsky 2016): each feature map of each sample by itself."""

    kind: Literal["instance"] = "instance"


class LocalResponseOptions(Spec):
    """Local response normalization (Krizhevsky, Sutskever & Hinton 2012, section 3.3) across channels."""

    kind: Literal["local_response"] = "local_response"
    placement: Placement = "after_activation"
    size: Neighbours = 5
    """Channels, the middle one among them, whose squares are averaged."""
    alpha: Positive = 1e-4
    beta: Positive = 0.75
    k: Positive = 1.0


LayerNormalization = (
    BatchOptions | WhiteningOptions | LayerOptions | GroupOptions | InstanceOptions | LocalResponseOptions
)
"""The options of one layer, all overrides applied."""


class Override(Spec):
    """Fields of the options that one layer, or all that a pattern fits, has otherwise.

    Absent: as the network has it. `false` stands for no normalization there, `true` for no difference.
    """

    on: Flag = True
    kind: Literal["batch", "whitening", "layer", "group", "instance", "local_response"] | None = None
    placement: Placement | None = None
    eps: Eps | None = None
    affine: Affine | None = None
    initial_gamma: Start | None = None
    initial_beta: Start | None = None
    zero_last_gamma: Flag | None = None
    learning_rate_multiplier: Multiplier | None = None
    weight_decay: Decay | None = None
    momentum: Momentum | None = None
    virtual_batch_size: GhostSize | None = None
    freeze_last_steps: LastSteps | None = None
    group_size: PositiveInt | None = None
    iterations: Annotated[int, Field(strict=True, ge=1, le=50)] | None = None
    groups: PositiveInt | None = None
    size: Neighbours | None = None
    alpha: Positive | None = None
    beta: Positive | None = None
    k: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return {"on": value}
        return value

    @model_validator(mode="after")
    def _off_has_no_options(self) -> "Override":
        useless = self.model_fields_set - {"on"}
        if not self.on and useless:
            raise ValueError(f"has on false and {', '.join(sorted(useless))}: leave these out, or on")
        return self

    @model_serializer(mode="wrap")
    def _what_was_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any] | bool:
        """Only the fields that were given: null is a value of some, and no default of any."""
        if not self.on:
            return False
        return {name: value for name, value in write(self).items() if name in self.model_fields_set - {"on"}}

    def fields(self) -> dict[str, Any]:
        """The fields of the options that were given, but for the kind."""
        given = self.model_fields_set - {"on", "kind"}
        return {name: getattr(self, name) for name in type(self).model_fields if name in given}


class Overridable(Spec):
    """What the options of a whole network have beyond those of one layer."""

    layers: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=120)], Override],
        Field(max_length=256),
    ] = Field(default_factory=dict)
    """Other options for some layers: a layer's name, the beginning of one (`stage1`), or a pattern with
    `*`, to the fields that differ; `false` leaves the normalization of that layer out. Of several
    that fit, the one with the most characters beside `*` counts, whatever their order."""


class BatchNormSpec(BatchOptions, Overridable):
    __doc__ = BatchOptions.__doc__


class WhiteningSpec(WhiteningOptions, Overridable):
    __doc__ = WhiteningOptions.__doc__


class LayerNormSpec(LayerOptions, Overridable):
    __doc__ = LayerOptions.__doc__


class GroupNormSpec(GroupOptions, Overridable):
    __doc__ = GroupOptions.__doc__


class InstanceNormSpec(InstanceOptions, Overridable):
    __doc__ = InstanceOptions.__doc__


class LocalResponseNormSpec(LocalResponseOptions, Overridable):
    __doc__ = LocalResponseOptions.__doc__


def _kind_of(value: Any) -> str:
    if isinstance(value, dict):
        kind = value.get("kind", "batch")
        return kind if isinstance(kind, str) else "batch"
    return str(getattr(value, "kind", "batch"))


NormalizationSpec = Annotated[
    Annotated[BatchNormSpec, Tag("batch")]
    | Annotated[WhiteningSpec, Tag("whitening")]
    | Annotated[LayerNormSpec, Tag("layer")]
    | Annotated[GroupNormSpec, Tag("group")]
    | Annotated[InstanceNormSpec, Tag("instance")]
    | Annotated[LocalResponseNormSpec, Tag("local_response")],
    Discriminator(_kind_of),
]


def _expand_shorthand(value: Any) -> Any:
    """`true` stands for the object with its defaults, `false` for no normalization."""
    if value is True:
        return {"kind": "batch"}
    if value is False:
        return None
    if isinstance(value, str | int | float | list):
        fields = ", ".join((*BatchOptions.model_fields, *Overridable.model_fields))
        raise ValueError(f"must be true, false, or an object with {fields}, not {value!r:.80}")
    return value


BatchNormOption = Annotated[
    NormalizationSpec | None,
    BeforeValidator(_expand_shorthand, json_schema_input_type=NormalizationSpec | bool | None),
]


class PopulationSpec(Spec):
    """How E[x] and Var[x] of the frozen network are measured after training."""

    estimator: Estimator = "pooled"
    """`pooled`: one pass, float64 Chan merge over all samples, lower layers under batch statistics;
    `pooled_sequential`: each layer measured with those below it frozen, as inference will see them;
    `algorithm_2`: mean over batches of the batch moments, variance times m/(m-1), as in the paper;
    `running_average`: what training kept."""
    samples: PositiveInt | None = None
    """How many training samples to use; null means all of them (`pooled_sequential`: all whose
    activations fit the memory it may take, else 4,096)."""
