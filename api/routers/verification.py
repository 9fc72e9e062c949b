"""Verification of a published model."""

from fastapi import APIRouter

from api.auth import ModelReader
from api.bodies import NO_BODY
from api.identified import ModelName
from api.models import find_model, find_version, resolve
from api.query import KNOWN_QUERY
from api.resources import Held
from api.routers.models import WantedAlias, WantedVersion
from api.schemas.verification import Verification
from api.verification import verify

router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[KNOWN_QUERY])


@router.post("/{name}/verify", dependencies=[NO_BODY])
def verify_model(
    caller: ModelReader, name: ModelName, resources: Held, version: WantedVersion = None, alias: WantedAlias = None
) -> Verification:
    """Runs the checks of publishing again, on this machine: digests of the files, parity with the unfolded network
    in float64 on the stored probe rows, and one row's bits alone and in company. `passed` is the answer."""
    with resources.database.read() as connection:
        found = resolve(connection, caller.tenant_id, name, version, alias)
        row = find_version(connection, find_model(connection, caller.tenant_id, name), found.version)
    return verify(resources.artifacts, name, row)
