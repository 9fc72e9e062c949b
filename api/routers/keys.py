"""API keys: made, listed, revoked."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from api.auth import KeyWriter
from api.bodies import read_json, validated
from api.documentation import json_body
from api.identified import KeyId, missing
from api.pagination import Page
from api.query import KNOWN_QUERY
from api.resources import Held
from api.schemas.keys import Key, KeyRequest, NewKey, key_fields
from core.credentials import mint
from core.errors import Forbidden
from core.queries import keys

router = APIRouter(prefix="/v1", tags=["keys"], dependencies=[KNOWN_QUERY])
EXAMPLE = json_body(KeyRequest, {"for an application": {"name": "shop", "scopes": ["models:infer"]}})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@router.post("/keys", status_code=201, openapi_extra=EXAMPLE)
def create_key(caller: KeyWriter, body: Annotated[Any, Depends(read_json)], resources: Held) -> NewKey:
    """A key with some of this key's own scopes. Its text is shown once."""
    wanted = validated(KeyRequest, body)
    beyond = sorted(set(wanted.scopes) - caller.scopes)
    if beyond:
        raise Forbidden(f"this key lacks {', '.join(beyond)} and can not give it away: ask for fewer scopes")
    minted = mint()
    expires_at = None if wanted.expires_at is None else (wanted.expires_at - EPOCH) // timedelta(microseconds=1)
    with resources.database.write() as connection:
        row = connection.execute(
            keys.create(
                id=minted.id,
                tenant_id=caller.tenant_id,
                name=wanted.name,
                secret_sha256=minted.secret_sha256,
                scopes=sorted(set(wanted.scopes)),
                expires_at=expires_at,
            )
        ).one()
    return NewKey(key=minted.text, **key_fields(row))


@router.get("/keys")
def get_keys(caller: KeyWriter, resources: Held) -> Page[Key]:
    """All keys of this key's tenant, the revoked ones too, the oldest first."""
    with resources.database.read() as connection:
        data = [Key(**key_fields(row)) for row in connection.execute(keys.of_tenant(caller.tenant_id))]
    return Page[Key].of(data, [item.id for item in data])


@router.delete("/keys/{key_id}")
def revoke_key(caller: KeyWriter, key_id: KeyId, resources: Held) -> Key:
    """Ends a key: here at once, in other processes within 5 seconds. Again: the same answer."""
    with resources.database.write() as connection:
        connection.execute(keys.revoke(caller.tenant_id, key_id))
        row = connection.execute(keys.one(caller.tenant_id, key_id)).one_or_none()
    if row is None:
        raise missing("key", key_id)
    resources.keys.forget(key_id)
    resources.grants.withdraw()
    return Key(**key_fields(row))
