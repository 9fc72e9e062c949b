"""Optimizers, learning-rate schedules and the training loop's own settings."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.spec.base import Flag, Fraction, PositiveInt, Spec

Rate = Annotated[float, Field(strict=True, gt=0.0, le=1e6)]
Beta = Annotated[float, Field(strict=True, ge=0.0, lt=1.0)]


class OptimizerBase(Spec):
    learning_rate: Rate
    weight_decay: Annotated[float, Field(strict=True, ge=0.0, le=1e3)] = 0.0
    """L2 penalty (sgd, adam) or decoupled decay (adamw) of the weights."""
    decay_normalization: Flag = False
    """Apply weight_decay to gamma and beta too."""
    decay_biases: Flag = False
    """Apply weight_decay to biases too."""
    clip_norm: Annotated[float, Field(strict=True, gt=0.0)] | None = None
    """Scale the gradient down to this global L2 norm when it is longer; null: never."""


class SGDSpec(OptimizerBase):
    kind: Literal["sgd"] = "sgd"
    learning_rate: Rate = 0.1
    momentum: Beta = 0.0
    nesterov: Flag = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGDSpec":
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov needs a momentum above 0: set momentum, for instance 0.9")
        return self


class AdamSpec(OptimizerBase):
    kind: Literal["adam"] = "adam"
    learning_rate: Rate = 1e-3
    beta1: Beta = 0.9
    beta2: Beta = 0.999
    eps: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] = 1e-8


class AdamWSpec(AdamSpec):
    kind: Literal["adamw"] = "adamw"  # type: ignore[assignment]
    weight_decay: Annotated[float, Field(strict=True, ge=0.0, le=1e3)] = 1e-2


OptimizerSpec = Annotated[SGDSpec | AdamSpec | AdamWSpec, Field(discriminator="kind")]


class ScheduleBase(Spec):
    warmup_steps: Annotated[int, Field(strict=True, ge=0)] = 0
    """The rate rises linearly over this many first steps."""


class ConstantSchedule(ScheduleBase):
    kind: Literal["constant"] = "constant"


class StepSchedule(ScheduleBase):
    kind: Literal["step"] = "step"
    every: PositiveInt
    """The rate is multiplied by `factor` each time this many steps have passed."""
    factor: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] = 0.1


class CosineSchedule(ScheduleBase):
    kind: Literal["cosine"] = "cosine"
    final_fraction: Annotated[float, Field(strict=True, ge=0.0, le=1.0)] = 0.0
    """The rate falls along half a cosine to this share of itself at the last step."""


class ExponentialSchedule(ScheduleBase):
    kind: Literal["exponential"] = "exponential"
    final_fraction: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] = 0.01
    """The rate falls exponentially to this share of itself at the last step."""


ScheduleSpec = Annotated[
    ConstantSchedule | StepSchedule | CosineSchedule | ExponentialSchedule,
    Field(discriminator="kind"),
]


class EarlyStoppingSpec(Spec):
    """Stop when a metric of the validation split has not improved for `patience` evaluations."""

    metric: Literal["validation/loss", "validation/accuracy"] = "validation/loss"
    patience: PositiveInt = 5
    min_delta: Annotated[float, Field(strict=True, ge=0.0)] = 0.0
    restore_best: Flag = True
    """Freeze the best weights seen, not the last ones."""


class TrainingSpec(Spec):
    steps: Annotated[int, Field(strict=True, ge=1)] = 1000
    """Optimizer updates."""
    batch_size: PositiveInt = 60
    tail: Literal["drop", "merge"] = "merge"
    """The incomplete last batch of an epoch is dropped, or merged into the batch before it when it
    is too small for batch statistics (a single sample); otherwise it is a batch of its own."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    evaluate_every: PositiveInt = 500
    """Steps between evaluations on the validation and test splits; the last step is always evaluated."""
    checkpoint_every: PositiveInt = 1000
    """Steps between checkpoints; one is always written after the last step."""
    label_smoothing: Fraction = 0.0
    precision: Literal["float32", "bf16"] = "float32"
    """`bf16`: autocast to bfloat16; weights and statistics stay float32."""
    compile: Flag = False
    """Compile the network's forward and backward pass (torch.compile) before the first step, which takes
    seconds to a minute. Other bits than without. Where no C++ compiler is found, the job trains
    uncompiled, and a warning in its log says so."""
    early_stopping: EarlyStoppingSpec | None = None
    record_gradient_norm: Flag = False
    """Record `optimizer/gradient_norm` at every step."""
    time_limit_seconds: Annotated[float, Field(strict=True, gt=0.0, le=1e8)] | None = None
    """Running time, all attempts together, after which the job fails with `deadline_exceeded`."""


class ResourcesSpec(Spec):
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:[0-9]{1,3})$")] = "auto"
    threads: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    """CPU threads of the trainer. Part of the spec because another count gives other bits."""
    deterministic: Flag = True
    """Use deterministic algorithms on CUDA, so that a resumed run is bit-identical."""
