"""Network families, with the JSON schema of what each takes."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth import JobReader
from api.pagination import Page
from core.spec import FAMILIES

router = APIRouter(prefix="/v1", tags=["architectures"])


class Architecture(BaseModel):
    object: Literal["architecture"] = "architecture"
    family: str
    description: str
    json_schema: dict[str, Any]


@router.get("/architectures")
async def get_architectures(caller: JobReader) -> Page[Architecture]:
    data = [
        Architecture(family=name, description=(spec.__doc__ or "").strip(), json_schema=spec.model_json_schema())
        for name, spec in FAMILIES.items()
    ]
    return Page[Architecture].of(data, list(FAMILIES))
