"""A finished job's model version and alias, as part of the transaction that ends the job."""

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from core.identifiers import new_id
from core.queries import aliases, models


def publish(
    connection: Connection,
    job: Any,
    result: dict[str, Any],
    card: dict[str, Any] | None,
    artifacts: dict[str, Any],
) -> dict[str, Any]:
    """Inserts the next version of the model that the spec names and moves its alias.

    Answers `{model, version}` for the job's result; both null when the spec publishes nothing.
    """
    wanted = job.spec["publish"]
    if wanted is None or card is None:
        return {"model": None, "version": None}
    model_id = _model_id(connection, job.tenant_id, wanted["model"])
    connection.execute(models.lock(model_id))
    version = connection.execute(models.last_version(model_id)).scalar_one() + 1
    connection.execute(
        models.create_version(
            model_id=model_id,
            version=version,
            job_id=job.id,
            card=card,
            artifacts=artifacts,
            weights_sha256=result["weights_sha256"],
            statistics_sha256=result.get("statistics_sha256"),
        )
    )
    if wanted["alias"] is not None:
        _set_alias(connection, model_id, wanted["alias"], version)
    return {"model": wanted["model"], "version": version}


def _model_id(connection: Connection, tenant_id: str, name: str) -> str:
    found = connection.execute(models.by_name(tenant_id, name)).one_or_none()
    if found is not None:
        return str(found.id)
    model_id = new_id("mdl")
    try:
        with connection.begin_nested():
            connection.execute(models.create(model_id, tenant_id, name))
    except IntegrityError:  # another job has published its first version meanwhile
        return str(connection.execute(models.by_name(tenant_id, name)).one().id)
    return model_id


def _set_alias(connection: Connection, model_id: str, name: str, version: int) -> None:
    if connection.execute(aliases.move(model_id, name, version)).rowcount == 0:
        connection.execute(aliases.create(model_id, name, version))
    connection.execute(aliases.record(model_id, name, "published"))
