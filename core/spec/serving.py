"""How a published version is served."""

from typing import Annotated, Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.layers import LayerName


class ServingSpec(Spec):
    quantization: Literal["int8"] | None = None
    """`int8`: weights as 8-bit integers; smaller, and its loss is measured and stands in the card. Such a version
    runs one row at a time, because dynamic scales depend on the batch."""
    provider: Literal["cpu", "cuda"] = "cpu"
    """`cuda` where the API's ONNX Runtime has it, else the CPU; bits are proven on the CPU only."""
    threads: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    """Of one session; its bits are proved with this number."""
    watch: Annotated[tuple[LayerName, ...], Field(max_length=1024)] | None = None
    """Batch-normalized layers whose values in use are compared with the population statistics; null: all that the
    frozen graph still shows; empty: none."""
