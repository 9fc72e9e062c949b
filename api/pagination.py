"""Keyset pages: `{object: "list", data, first_id, last_id, has_more}`, walked both ways, never by offset."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel

from core.errors import FieldProblem, InputInvalid

T = TypeVar("T")
Order = Literal["asc", "desc"]
CURSOR = r"^[A-Za-z0-9_]{1,40}$"


class Page(BaseModel, Generic[T]):
    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool
    """More lies in the direction of travel: behind `last_id`, or before `first_id` when `before` was given."""

    @classmethod
    def of(cls, data: list[T], ids: list[str], has_more: bool = False) -> Self:
        return cls(data=data, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=has_more)


@dataclass(frozen=True)
class PageQuery:
    limit: int
    cursor: str | None
    backwards: bool
    order: Order

    @property
    def descending(self) -> bool:
        """How the database must walk; a page before a cursor is walked from its end."""
        return (self.order == "desc") != self.backwards

    @property
    def rows(self) -> int:
        """One more than the page holds tells whether more is there."""
        return self.limit + 1

    def cut(self, rows: Sequence[Any]) -> tuple[list[Any], bool]:
        """(the page's rows in the order asked for, whether more are there)."""
        kept = list(rows[: self.limit])
        return (kept[::-1] if self.backwards else kept), len(rows) > self.limit


async def page_query(
    limit: Annotated[int, Query(ge=1, le=100, description="Objects a page")] = 20,
    after: Annotated[str | None, Query(pattern=CURSOR, description="Start behind this id")] = None,
    before: Annotated[str | None, Query(pattern=CURSOR, description="End before this id")] = None,
    order: Annotated[Order, Query(description="By time of creation")] = "desc",
) -> PageQuery:
    if after is not None and before is not None:
        raise bad_query("before", "exclusive", "after and before exclude each other: give one of them")
    return PageQuery(limit, after or before, before is not None, order)


Paged = Annotated[PageQuery, Depends(page_query)]


def unknown_cursor(query: PageQuery) -> InputInvalid:
    name = "before" if query.backwards else "after"
    return bad_query(name, "unknown_cursor", f"{query.cursor} is not in this list: take first_id or last_id of a page")


def bad_query(name: str, code: str, message: str) -> InputInvalid:
    return InputInvalid(message, (FieldProblem(f"/query/{name}", code, message),))
