"""Statements on data sets that users brought; every one begins at the tenant."""

from typing import Any

from sqlalchemy import ColumnElement, Insert, Select, Update, func, insert, select, update

from core.clock import now_us
from core.states import TERMINAL, TRANSITIONS
from core.tables import dataset_versions, datasets, jobs

UNFINISHED = tuple(state for state in TRANSITIONS if state not in TERMINAL)
LISTED_JOBS = 5


def create(dataset_id: str, tenant_id: str, name: str) -> Insert:
    return insert(datasets).values(id=dataset_id, tenant_id=tenant_id, name=name, created_at=now_us())


def by_name(tenant_id: str, name: str) -> Select[Any]:
    """The row, also when no version of it is left."""
    return select(datasets).where(datasets.c.tenant_id == tenant_id, datasets.c.name == name)


def held(tenant_id: str, name: str) -> Select[Any]:
    """As `by_name`, and nobody else changes its versions before the transaction ends."""
    return by_name(tenant_id, name).with_for_update()


def used(tenant_id: str, name: str, version: int) -> Select[Any]:
    """One row while the version is there, which it stays until the transaction ends: a job that needs it is written."""
    return (
        _versions(tenant_id, name).where(dataset_versions.c.version == version).with_for_update(read=True, of=datasets)
    )


def one(tenant_id: str, dataset_id: str) -> Select[Any]:
    return select(datasets).where(datasets.c.tenant_id == tenant_id, datasets.c.id == dataset_id)


def page(tenant_id: str, limit: int, descending: bool, after: Any = None) -> Select[Any]:
    """Keyset page by id, which sorts by time of creation, of data sets that have a version."""
    statement = select(datasets).where(datasets.c.tenant_id == tenant_id, _has_versions())
    if after is not None:
        statement = statement.where(datasets.c.id < after.id if descending else datasets.c.id > after.id)
    return statement.order_by(datasets.c.id.desc() if descending else datasets.c.id).limit(limit)


def versions(dataset_ids: list[str]) -> Select[Any]:
    """All that are there, the newest first."""
    return (
        select(dataset_versions)
        .where(dataset_versions.c.dataset_id.in_(dataset_ids), dataset_versions.c.deleted_at.is_(None))
        .order_by(dataset_versions.c.version.desc())
    )


def resolve(tenant_id: str, name: str, version: int | None) -> Select[Any]:
    """One version by number, else the newest; with `dataset_id`."""
    statement = _versions(tenant_id, name)
    if version is not None:
        statement = statement.where(dataset_versions.c.version == version)
    return statement.order_by(dataset_versions.c.version.desc()).limit(1)


def last_version(dataset_id: str) -> Select[Any]:
    """The highest number that was ever given, 0 for none."""
    return select(func.coalesce(func.max(dataset_versions.c.version), 0)).where(
        dataset_versions.c.dataset_id == dataset_id
    )


def create_version(**columns: Any) -> Insert:
    return insert(dataset_versions).values(created_at=now_us(), **columns)


def delete_versions(dataset_id: str, numbers: list[int]) -> Update:
    return (
        update(dataset_versions)
        .where(dataset_versions.c.dataset_id == dataset_id, dataset_versions.c.version.in_(numbers))
        .values(deleted_at=now_us())
    )


def unfinished_jobs(tenant_id: str, name: str, numbers: list[int]) -> Select[Any]:
    """Some ids of jobs that will still read one of these versions."""
    dataset = jobs.c.spec["dataset"]
    return (
        select(jobs.c.id)
        .where(
            jobs.c.tenant_id == tenant_id,
            jobs.c.state.in_(UNFINISHED),
            dataset["source"].as_string() == "uploaded",
            dataset["name"].as_string() == name,
            dataset["version"].as_integer().in_(numbers),
        )
        .order_by(jobs.c.created_at)
        .limit(LISTED_JOBS)
    )


def _versions(tenant_id: str, name: str) -> Select[Any]:
    return (
        select(dataset_versions)
        .join(datasets, datasets.c.id == dataset_versions.c.dataset_id)
        .where(datasets.c.tenant_id == tenant_id, datasets.c.name == name, dataset_versions.c.deleted_at.is_(None))
    )


def _has_versions() -> ColumnElement[bool]:
    there = select(dataset_versions.c.version).where(
        dataset_versions.c.dataset_id == datasets.c.id, dataset_versions.c.deleted_at.is_(None)
    )
    return there.exists()
