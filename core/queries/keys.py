"""Statements on tenants and their API keys."""

from typing import Any

from sqlalchemy import Insert, Select, Update, insert, select, update

from core.clock import now_us
from core.tables import api_keys, tenants


def create_tenant(tenant_id: str, name: str) -> Insert:
    return insert(tenants).values(id=tenant_id, name=name, created_at=now_us())


def tenant_by_name(name: str) -> Select[Any]:
    return select(tenants).where(tenants.c.name == name)


def hold_tenant(tenant_id: str) -> Select[Any]:
    """Others who ask for the same wait until this transaction ends; SQLite's writers do so anyway."""
    return select(tenants.c.id).where(tenants.c.id == tenant_id).with_for_update()


def create(**columns: Any) -> Insert:
    return insert(api_keys).values(created_at=now_us(), **columns).returning(api_keys)


def active(key_id: str) -> Select[Any]:
    """The key, unless it is revoked or expired by the database's clock."""
    return select(api_keys).where(
        api_keys.c.id == key_id,
        api_keys.c.revoked_at.is_(None),
        (api_keys.c.expires_at.is_(None)) | (api_keys.c.expires_at > now_us()),
    )


def of_tenant(tenant_id: str) -> Select[Any]:
    return select(api_keys).where(api_keys.c.tenant_id == tenant_id).order_by(api_keys.c.id)


def one(tenant_id: str, key_id: str) -> Select[Any]:
    return select(api_keys).where(api_keys.c.tenant_id == tenant_id, api_keys.c.id == key_id)


def revoke(tenant_id: str, key_id: str) -> Update:
    return (
        update(api_keys)
        .where(api_keys.c.tenant_id == tenant_id, api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now_us())
        .returning(api_keys)
    )


def touch(key_id: str) -> Update:
    return update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=now_us())
