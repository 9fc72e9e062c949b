"""Worker nodes: what is there to run jobs."""

from fastapi import APIRouter

from api.auth import JobReader
from api.pagination import Page
from api.query import KNOWN_QUERY
from api.resources import Held
from api.schemas.nodes import Node, node_of
from core.queries import nodes

router = APIRouter(prefix="/v1", tags=["nodes"], dependencies=[KNOWN_QUERY])


@router.get("/nodes")
def get_nodes(caller: JobReader, resources: Held) -> Page[Node]:
    """Workers with their slots, GPUs and versions, and when each was last heard of."""
    with resources.database.read() as connection:
        data = [node_of(row) for row in connection.execute(nodes.everyone())]
    return Page[Node].of(data, [item.id for item in data])
