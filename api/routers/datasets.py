"""Data sets that users bring: upload, list, look at, delete."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter

from api.auth import JobReader, JobWriter
from api.datasets import delete, find_dataset, find_version, store
from api.identified import DatasetName
from api.pagination import Page, Paged, bad_query, unknown_cursor
from api.query import KNOWN_QUERY
from api.resources import Held, Resources
from api.schemas.datasets import Dataset, DatasetVersion, DeletedDataset, dataset_of, version_of
from api.uploads.contents import Reading
from api.uploads.receiving import received
from core.errors import TooLarge
from core.queries import datasets
from core.spec.base import LARGEST_VERSION, NAME
from core.spec.data import Kind, Task

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], dependencies=[KNOWN_QUERY])
BINARY = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "requestBody": {
        "required": True,
        "description": "Arrays x and y, optional x_test, y_test and labels, as numpy.savez writes them; or a table",
        "content": {"application/octet-stream": BINARY, "text/csv": {"schema": {"type": "string"}}},
    }
}
VersionNumber = Annotated[int, PathParameter(ge=1, le=LARGEST_VERSION)]
NewName = Annotated[str, Query(description="Lower-case letters, digits, '.', '_' and '-'; at most 63 characters")]
WantedVersion = Annotated[int | None, Query(ge=1, le=LARGEST_VERSION, description="Default: all")]


@router.post("", status_code=201, openapi_extra=BODY)
async def upload_dataset(
    caller: JobWriter,
    request: Request,
    resources: Held,
    response: Response,
    name: NewName,
    task: Annotated[Task | None, Query(description="Default: regression for targets with fractions")] = None,
    kind: Annotated[Kind | None, Query(description="Of x with three axes: sequence unless image is said")] = None,
    target: Annotated[str | None, Query(description="Of CSV: the column to predict; default: the last")] = None,
    categories: Annotated[list[str] | None, Query(description="Of CSV: a column of codes; may be repeated")] = None,
) -> Dataset:
    """Makes a data set, or a version of one: 201. What its newest version holds already: 200, and nothing changes."""
    if not NAME.fullmatch(name):
        raise bad_query("name", "name", f"{name[:80]!r} is no name: use lower-case letters, digits, '.', '_', '-'")
    reading = Reading(task, kind, target, tuple(categories or ()))
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    folder = resources.settings.home.absolute() / "uploads"
    async with received(_bounded(request, resources.settings.maximum_dataset_bytes), folder) as upload:
        new = await run_sync(partial(store, resources, caller.tenant_id, name, media, upload, reading))
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/datasets/{name}"
    return await run_sync(_dataset, resources, caller.tenant_id, name)


@router.get("")
def get_datasets(caller: JobReader, query: Paged, resources: Held) -> Page[Dataset]:
    """Data sets of this key's tenant, with what their newest version holds."""
    with resources.database.read() as connection:
        cursor = None
        if query.cursor is not None:
            cursor = connection.execute(datasets.one(caller.tenant_id, query.cursor)).one_or_none()
            if cursor is None:
                raise unknown_cursor(query)
        rows = connection.execute(datasets.page(caller.tenant_id, query.rows, query.descending, cursor)).all()
        kept, has_more = query.cut(rows)
        versions: dict[str, list[Any]] = {row.id: [] for row in kept}
        for version in connection.execute(datasets.versions(list(versions))):
            versions[version.dataset_id].append(version)
    data = [dataset_of(row, versions[row.id]) for row in kept]
    return Page[Dataset].of(data, [item.id for item in data], has_more)


@router.get("/{name}")
def get_dataset(caller: JobReader, name: DatasetName, resources: Held) -> Dataset:
    return _dataset(resources, caller.tenant_id, name)


@router.get("/{name}/versions")
def get_versions(caller: JobReader, name: DatasetName, resources: Held) -> Page[DatasetVersion]:
    """All that are there, the newest first."""
    with resources.database.read() as connection:
        _, versions = find_dataset(connection, caller.tenant_id, name)
    return Page[DatasetVersion].of(
        [version_of(version) for version in versions], [str(version.version) for version in versions]
    )


@router.get("/{name}/versions/{version}")
def get_version(caller: JobReader, name: DatasetName, version: VersionNumber, resources: Held) -> DatasetVersion:
    with resources.database.read() as connection:
        return version_of(find_version(connection, caller.tenant_id, name, version))


@router.delete("/{name}")
def delete_dataset(
    caller: JobWriter, name: DatasetName, resources: Held, version: WantedVersion = None
) -> DeletedDataset:
    """Removes a data set, or one version of it, and its file. 409 while a job that has not ended needs it."""
    row, versions = delete(resources, caller.tenant_id, name, version)
    return DeletedDataset(id=row.id, name=name, versions=versions)


async def _bounded(request: Request, maximum_bytes: int) -> AsyncIterator[bytes]:
    arrived = 0
    async for part in request.stream():
        arrived += len(part)
        if arrived > maximum_bytes:
            raise TooLarge(
                f"the data set is larger than {maximum_bytes} bytes: send less, or raise EVENKEEL_MAXIMUM_DATASET_BYTES"
            )
        yield part


def _dataset(resources: Resources, tenant_id: str, name: str) -> Dataset:
    with resources.database.read() as connection:
        return dataset_of(*find_dataset(connection, tenant_id, name))
