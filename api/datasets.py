"""Data sets that users bring: from a file to a version, and from a name in a spec to all that is known of it."""

import logging
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from api.resources import Resources
from api.uploads import archives, arrays, tables
from api.uploads.contents import Contents, Reading
from api.uploads.receiving import Received, writing_to
from api.uploads.writing import write_contents
from core.db import Database
from core.errors import Conflict, FieldProblem, InputInvalid, NotFound, SpecInvalid, StorageFailed
from core.identifiers import new_id
from core.queries import datasets, jobs
from core.spec import DatasetSpec
from core.spec.base import NAME

log = logging.getLogger("evenkeel.api")
ZIP = b"PK"
CSV = "text/csv"


def find_dataset(connection: Connection, tenant_id: str, name: str) -> tuple[Any, list[Any]]:
    """(the row, rows of its versions, the newest first). Raises NotFound, for another tenant's data set too."""
    row = connection.execute(datasets.by_name(tenant_id, name)).one_or_none()
    versions = [] if row is None else list(connection.execute(datasets.versions([row.id])))
    if not versions:
        raise NotFound(f"there is no data set {name}")
    return row, versions


def find_version(connection: Connection, tenant_id: str, name: str, number: int) -> Any:
    row = connection.execute(datasets.resolve(tenant_id, name, number)).one_or_none()
    if row is None:
        find_dataset(connection, tenant_id, name)
        raise NotFound(f"data set {name} has no version {number}")
    return row


def store(resources: Resources, tenant_id: str, name: str, media: str, upload: Received, reading: Reading) -> bool:
    """Makes the upload the newest version of a data set, unless it is that already; whether it did. Committed.

    Raises InputInvalid that says what in the file can not be used.
    """
    options = {"media": CSV if media == CSV else "npz", **asdict(reading), "categories": list(reading.categories)}
    with resources.database.read() as connection:
        if _is_newest(connection, tenant_id, name, upload.sha256, options):
            return False
    file = upload.file.with_name("contents.safetensors")
    with writing_to(file.parent):
        contents = _read(upload.file, media, reading, resources.settings.maximum_dataset_bytes)
        write_contents(contents, file)
    # Named for this upload alone, so that it can go when its version goes.
    stored_name = f"datasets/{upload.sha256[:2]}/{upload.sha256}-{secrets.token_hex(8)}.safetensors"
    artifact = resources.artifacts.put_file(stored_name, file)
    version = {
        "sha256": upload.sha256,
        "bytes": upload.bytes,
        "options": options,
        "facts": asdict(contents.facts) | {"input_shape": list(contents.facts.input_shape)},
        "contents": {
            "labels": list(contents.labels),
            "columns": list(contents.columns),
            "fields": contents.fields,
        },
        "artifact": asdict(artifact),
    }
    with resources.database.write() as connection:
        dataset_id = _dataset_id(connection, tenant_id, name)
        connection.execute(datasets.held(tenant_id, name))
        known = _is_newest(connection, tenant_id, name, upload.sha256, options)  # sent twice at the same time
        if not known:
            number = connection.execute(datasets.last_version(dataset_id)).scalar_one() + 1
            connection.execute(datasets.create_version(dataset_id=dataset_id, version=number, **version))
    if known:
        _forget(resources, [artifact.name])
    return not known


def delete(resources: Resources, tenant_id: str, name: str, number: int | None) -> tuple[Any, list[int]]:
    """(the row, the versions that are gone): one version, or all. Committed, and their files are removed.

    Raises NotFound, or Conflict while a job that has not ended needs one of them.
    """
    with resources.database.write() as connection:
        connection.execute(datasets.held(tenant_id, name))
        row, versions = find_dataset(connection, tenant_id, name)
        gone = [version for version in versions if number in (None, version.version)]
        if not gone:
            raise NotFound(f"data set {name} has no version {number}")
        numbers = [version.version for version in gone]
        needing = list(connection.execute(datasets.unfinished_jobs(tenant_id, name, numbers)).scalars())
        if needing:
            raise Conflict(f"data set {name} is needed by {', '.join(needing)}: wait for their end, or cancel")
        connection.execute(datasets.delete_versions(row.id, numbers))
    _forget(resources, [version.artifact["name"] for version in gone])
    return row, numbers


def pinned(database: Database, tenant_id: str, body: Any, key: str | None = None) -> Any:
    """A body with version and facts of the uploaded data set that it names; any other body as it is.

    `key`: an idempotency key. A job that it has made keeps its version, whatever was uploaded or deleted since.
    Raises SpecInvalid when there is no such data set.
    """
    dataset = body.get("dataset") if isinstance(body, dict) else None
    if not isinstance(dataset, dict) or dataset.get("source") != "uploaded":
        return body
    name, version = dataset.get("name"), dataset.get("version")
    if "name" not in dataset:
        _refuse("/dataset/name", "missing", "is missing: give the name of a data set, see GET /v1/datasets")
    numbered = version is None or (isinstance(version, int) and not isinstance(version, bool) and 0 < version < 2**31)
    if not isinstance(name, str) or not NAME.fullmatch(name) or not numbered:
        return body  # which validation refuses, with the reason
    with database.read() as connection:
        known = _as_before(connection, tenant_id, dataset, key) or _looked_up(connection, tenant_id, name, version)
    if dataset.get("stored") not in (None, known["stored"]):
        _refuse("/dataset/stored", "not_for_users", "is written by the service: leave it out")
    return body | {"dataset": dataset | known}


def columns_of(connection: Connection, tenant_id: str, dataset: DatasetSpec) -> list[str] | None:
    """Names of the inputs of an uploaded data set; None where it is no upload, or is gone."""
    if dataset.name is None:
        return None
    row = connection.execute(datasets.resolve(tenant_id, dataset.name, dataset.version)).one_or_none()
    return None if row is None else list(row.contents["columns"])


def _as_before(connection: Connection, tenant_id: str, dataset: dict[str, Any], key: str | None) -> Any:
    """What the job of this idempotency key knows of the same data set; None where there is no such job."""
    row = None if key is None else connection.execute(jobs.by_idempotency_key(tenant_id, key)).one_or_none()
    if row is None or row.spec["dataset"].get("name") != dataset["name"]:
        return None
    known = {field: row.spec["dataset"][field] for field in ("version", "stored")}
    return known if dataset.get("version") in (None, known["version"]) else None


def _looked_up(connection: Connection, tenant_id: str, name: str, version: int | None) -> dict[str, Any]:
    row = connection.execute(datasets.resolve(tenant_id, name, version)).one_or_none()
    if row is None and version is not None:
        newest = connection.execute(datasets.resolve(tenant_id, name, None)).one_or_none()
        if newest is not None:
            _refuse(
                "/dataset/version", "unknown_version", f"is {version}, and the newest of {name} is {newest.version}"
            )
    if row is None:
        _refuse("/dataset/name", "unknown_dataset", f"is {name}, and there is no such data set: upload it first")
    return {"version": row.version, "stored": {"sha256": row.sha256, "file": row.artifact, **row.facts}}


def _is_newest(connection: Connection, tenant_id: str, name: str, sha256: str, options: dict[str, Any]) -> bool:
    newest = connection.execute(datasets.resolve(tenant_id, name, None)).one_or_none()
    return newest is not None and newest.sha256 == sha256 and newest.options == options


def _read(file: Path, media: str, reading: Reading, maximum_bytes: int) -> Contents:
    with file.open("rb") as content:
        zipped = content.read(len(ZIP)) == ZIP
    if media == CSV:
        return tables.contents_of(file, reading)
    if not zipped:
        raise InputInvalid("the body is no .npz file: send arrays as numpy.savez writes them, or CSV as text/csv")
    return arrays.contents_of(archives.read_arrays(file, file.parent, maximum_bytes), reading)


def _dataset_id(connection: Connection, tenant_id: str, name: str) -> str:
    """Of the data set of this name, made if need be."""
    found = connection.execute(datasets.by_name(tenant_id, name)).one_or_none()
    if found is not None:
        return str(found.id)
    dataset_id = new_id("ds")
    try:
        with connection.begin_nested():
            connection.execute(datasets.create(dataset_id, tenant_id, name))
    except IntegrityError:  # another upload has made it meanwhile
        return str(connection.execute(datasets.by_name(tenant_id, name)).one().id)
    return dataset_id


def _forget(resources: Resources, names: list[str]) -> None:
    """Nobody names these files any more; what can not be removed now only takes room."""
    for name in names:
        try:
            resources.artifacts.delete(name)
        except StorageFailed as error:
            log.warning("a file of a deleted data set stays behind: %s", error.message)


def _refuse(pointer: str, code: str, message: str) -> NoReturn:
    raise SpecInvalid((FieldProblem(pointer, code, message),))
