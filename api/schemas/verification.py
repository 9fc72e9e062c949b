"""The checks of a frozen model as clients see them."""

from typing import Any, Literal

from pydantic import BaseModel


class FileCheck(BaseModel):
    sha256: str
    intact: bool
    message: str | None = None


class Parity(BaseModel):
    """The graph on this machine's ONNX Runtime against the unfolded network in float64, as stored at publishing."""

    passed: bool
    maximum_difference: float | None
    """Null: an answer of the graph is not finite."""
    tolerance: float
    rows: int


class Invariance(BaseModel):
    """A row alone and in random company of these sizes: the same bits?"""

    passed: bool
    batch_invariant: bool
    served_row_by_row: bool
    """Published as not invariant, and therefore always run one row at a time, which gives the same bits."""
    sizes: list[int]
    all_sizes: bool
    """Every power of two up to 64 and 32 random sizes, and not fewer for the sake of time and memory."""


class Verification(BaseModel):
    object: Literal["verification"] = "verification"
    model: str
    version: int
    passed: bool
    """All that could be checked is as it must be."""
    files: dict[str, FileCheck]
    parity: Parity | None
    parity_reason: str | None
    """Why parity could not be checked."""
    batch_invariance: Invariance | None
    error: str | None
    """What kept the graph from running."""
    receipt: dict[str, Any] | None
    """That of publishing, to compare with."""
    weights_sha256: str
    statistics_sha256: str | None
    onnxruntime: str
    seconds: float
    verified_at: str
