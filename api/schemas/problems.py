"""The problem document of RFC 9457, for the interface's own description."""

from pydantic import BaseModel


class FieldError(BaseModel):
    pointer: str
    """RFC 6901 pointer into the body; `/query/…` and `/header/…` for parameters."""
    code: str
    message: str


class Problem(BaseModel):
    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError]
    request_id: str
    retryable: bool
