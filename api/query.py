"""Query parameters as a route declares them; any other is refused, for it would be answered as if it were not there."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from fastapi import Depends, Request

from api.pagination import bad_query

KEYED = "[key]"
"""A parameter that is declared as `metadata[key]` stands for every `metadata[…]`."""


async def known_query(request: Request) -> None:
    """Raises InputInvalid for the first parameter that the route does not declare."""
    known = list(_declared(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known and _general(name) not in known:
            close = get_close_matches(name, known, n=1)
            listed = f"known here are {', '.join(known)}" if known else "this route takes none"
            remedy = f"did you mean {close[0]}?" if close else f"leave it out; {listed}"
            raise bad_query(name, "unknown_parameter", f"{name!r} is no parameter of this route: {remedy}")


KNOWN_QUERY = Depends(known_query)


def _declared(dependant: Any) -> Iterator[str]:
    """Names of the parameters of a route and of all that it depends on."""
    yield from (field.alias for field in dependant.query_params)
    for part in dependant.dependencies:
        yield from _declared(part)


def _general(name: str) -> str:
    noun, bracket, rest = name.partition("[")
    return f"{noun}{KEYED}" if bracket and rest.endswith("]") else name
