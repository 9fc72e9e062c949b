"""Network families, with the JSON schema of what each takes."""

from functools import cache

from fastapi import APIRouter

from api.auth import JobReader
from api.pagination import Page
from api.query import KNOWN_QUERY
from api.schemas.network import Architecture, ExampleNetwork
from bn_models.architecture.catalogue import EXAMPLE_INPUT, EXAMPLE_OUTPUTS, catalogue
from core.spec import FAMILIES

router = APIRouter(prefix="/v1", tags=["architectures"], dependencies=[KNOWN_QUERY])


@router.get("/architectures")
async def get_architectures(caller: JobReader) -> Page[Architecture]:
    """The families: what each is, what it takes, and the size of its default network with batch norm."""
    return _page()


@cache
def _page() -> Page[Architecture]:
    data = [
        Architecture(
            family=entry.family,
            description=entry.description,
            source=entry.paper,
            inputs=list(entry.inputs),
            parameters=entry.parameters,
            flops=entry.flops,
            example=ExampleNetwork(network=entry.example, input_shape=list(EXAMPLE_INPUT), outputs=EXAMPLE_OUTPUTS),
            json_schema=FAMILIES[entry.family].model_json_schema(),
        )
        for entry in catalogue()
    ]
    return Page[Architecture].of(data, list(FAMILIES))
