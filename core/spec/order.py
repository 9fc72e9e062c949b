"""In which order training sees its rows: what an epoch's batches are made of."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from core.spec.base import Spec


class ShuffledOrder(Spec):
    """Every epoch a new permutation of all rows."""

    kind: Literal["shuffled"] = "shuffled"


class FixedBatches(Spec):
    """One permutation for all epochs: a row meets the same rows each time."""

    kind: Literal["fixed_batches"] = "fixed_batches"


class ClassSorted(Spec):
    """An epoch goes from class to class, each shuffled anew."""

    kind: Literal["class_sorted"] = "class_sorted"


class ClassPerBatch(Spec):
    """Every batch is of one class; rows within a class, and the batches, are shuffled anew each epoch.

    What a class leaves over makes a smaller batch, or is left out (`training.tail`); a class that is smaller than
    a batch is a batch of its own, so that an epoch may have a few batches more or less than rows over batch size.
    """

    kind: Literal["class_per_batch"] = "class_per_batch"


class ByShard(Spec):
    """Rows lie in shards, as in files: an epoch takes shard after shard in a new order, and shuffles within each."""

    kind: Literal["by_shard"] = "by_shard"
    shards: Annotated[int, Field(strict=True, ge=2, le=1_000_000)] = 10
    """Equal runs of the training rows as they are stored."""


CLASS_ORDERS = ("class_sorted", "class_per_batch")


def _expand_shorthand(value: Any) -> Any:
    """A kind alone stands for the object with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


Order = Annotated[
    ShuffledOrder | FixedBatches | ClassSorted | ClassPerBatch | ByShard,
    Field(discriminator="kind"),
]
OrderSpec = Annotated[Order, BeforeValidator(_expand_shorthand, json_schema_input_type=Order | str)]
