"""API keys as clients see them."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from core.clock import rfc3339
from core.credentials import Scope


class KeyRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=63)]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    expires_at: AwareDatetime | None = None
    """RFC 3339 with an offset; null: never."""

    @field_validator("expires_at")
    @classmethod
    def _is_to_come(cls, value: datetime | None) -> datetime | None:
        if value is not None and value <= datetime.now(UTC):
            raise ValueError(f"is over ({value.isoformat()}): give a time to come, or leave it out")
        return value


class Key(BaseModel):
    object: Literal["key"] = "key"
    id: str
    name: str
    scopes: list[Scope]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class NewKey(Key):
    key: str
    """The key itself: shown now, and never again."""


def key_fields(row: Any) -> dict[str, Any]:
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    return {"id": row.id, "name": row.name, "scopes": row.scopes} | {
        name: rfc3339(getattr(row, name)) for name in times
    }
