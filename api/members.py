"""Comparisons as rows: written whole in one transaction, read, and cancelled with their members."""

from dataclasses import replace
from typing import Any

from fastapi import Response
from pydantic import ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from api.comparisons import Admitted, AdmittedVariant, admit_comparison
from api.datasets import pinned
from api.resources import Resources
from api.schemas.comparisons import Comparison, comparison_of
from api.submission import use_dataset
from core.bell import ring
from core.db import Database
from core.errors import Conflict, IdempotencyMismatch, NotFound, SpecInvalid
from core.identifiers import new_id
from core.queries import comparisons, events
from core.queries.events import EventDraft
from core.settings import Settings
from core.spec import JobSpec


def looked_up(database: Database, tenant_id: str, body: Any, key: str | None = None) -> Any:
    """The body of a comparison with version and facts of the uploaded data set that its base names.

    The comparison that an idempotency key has made keeps its version, whatever was uploaded since. Raises SpecInvalid.
    """
    base = body.get("base") if isinstance(body, dict) else None
    given = base.get("dataset") if isinstance(base, dict) else None
    if not isinstance(base, dict) or not isinstance(given, dict):
        return body
    earlier = None
    if key is not None:
        with database.read() as connection:
            earlier = connection.execute(comparisons.by_idempotency_key(tenant_id, key)).one_or_none()
    known = (earlier.spec["base"].get("dataset") or {}) if earlier is not None else {}
    same = given.get("name") is not None and known.get("name") == given["name"]
    if same and given.get("version") in (None, known["version"]):
        return body | {"base": base | {"dataset": given | {name: known[name] for name in ("version", "stored")}}}
    try:
        return body | {"base": pinned(database, tenant_id, base)}
    except SpecInvalid as error:
        raise SpecInvalid(
            tuple(replace(problem, pointer=f"/base{problem.pointer}") for problem in error.problems)
        ) from None


def submit_comparison(
    database: Database, tenant_id: str, found: Admitted, key: str | None, settings: Settings
) -> tuple[Any, bool]:
    """(the comparison's row, whether an earlier request with this idempotency key had made it). Committed.

    Raises IdempotencyMismatch when the key was used with another body.
    """
    replay = _replay(database, tenant_id, found, key, settings)
    if replay is not None:
        return replay, True
    try:
        with database.write() as connection:
            return _insert(connection, tenant_id, found, key), False
    except IntegrityError:
        replay = _replay(database, tenant_id, found, key, settings)  # lost the race for the key
        if replay is None:
            raise
        return replay, True


def answer_of(resources: Resources, response: Response, found: Admitted, row: Any, replayed: bool) -> Comparison:
    """Of whatever makes a comparison, or has made it for an earlier request of the same key; rings for its members."""
    for needs_cuda in {item.spec.resources.device.startswith("cuda") for item in found.variants}:
        ring(resources.settings, needs_cuda)
    response.headers["Location"] = f"/v1/comparisons/{row.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    with resources.database.read() as connection:
        return comparison_of(row, members_of(connection, [row.id])[row.id])


def find_comparison(connection: Connection, tenant_id: str, comparison_id: str) -> Any:
    """The row. Raises NotFound, for another tenant's comparison too."""
    row = connection.execute(comparisons.one(tenant_id, comparison_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no comparison {comparison_id}")
    return row


def members_of(connection: Connection, comparison_ids: list[str]) -> dict[str, list[Any]]:
    """By comparison, the state of the newest job of each member: a retry stands for what it repeats."""
    found: dict[str, dict[tuple[str, int], Any]] = {identifier: {} for identifier in comparison_ids}
    for row in connection.execute(comparisons.states(comparison_ids)):
        found[row.comparison_id][(row.variant, row.seed)] = row
    return {identifier: list(rows.values()) for identifier, rows in found.items()}


def cancel_comparison(database: Database, tenant_id: str, comparison_id: str) -> tuple[Any, bool]:
    """(the row, whether this request changed anything). Waiting members end at once, running ones are told.

    Raises Conflict when all members have ended already, NotFound when it is not the tenant's.
    """
    with database.write() as connection:
        before = find_comparison(connection, tenant_id, comparison_id)
        # Jobs first, their comparison last: claims lock in this order too.
        held = connection.execute(comparisons.hold_open_members(comparison_id)).all()
        if not held and before.cancel_requested_at is None and not before.searching:
            raise Conflict(f"comparison {comparison_id} has ended, and there is nothing left to stop")
        stopped = cancel_members(connection, comparison_id)
        asked = connection.execute(comparisons.request_cancel(tenant_id, comparison_id)).one_or_none() is not None
        return find_comparison(connection, tenant_id, comparison_id), stopped or (asked and before.searching)


def cancel_members(connection: Connection, comparison_id: str) -> bool:
    """Waiting members end, running ones are told; was there any?"""
    ended = connection.execute(comparisons.cancel_waiting_members(comparison_id)).all()
    told = connection.execute(comparisons.request_cancel_of_members(comparison_id)).all()
    for row in ended:
        data = {"status": "cancelled"}
        drafts = [EventDraft("status", "cancelled", data), EventDraft("end", "cancelled", data)]
        connection.execute(events.append(row.id, row.base, row.attempt, drafts))
    for row in told:
        draft = EventDraft("status", "cancelling", {"status": "cancelling"})
        connection.execute(events.append(row.id, row.base, row.attempt, [draft]))
    return bool(ended or told)


def _replay(database: Database, tenant_id: str, found: Admitted, key: str | None, settings: Settings) -> Any:
    if key is None:
        return None
    with database.read() as connection:
        row = connection.execute(comparisons.by_idempotency_key(tenant_id, key)).one_or_none()
    if row is None:
        return None
    if found.digest() not in (row.spec_sha256, _digest_today(row, settings)):
        raise IdempotencyMismatch(
            f"Idempotency-Key {key!r} made comparison {row.id} out of another body: use a new key"
        )
    return row


def _digest_today(row: Any, settings: Settings) -> str:
    """Of a spec that an older version stored: with the defaults of fields that are newer than it."""
    try:
        return admit_comparison(row.spec, settings).digest()
    except (SpecInvalid, ValidationError):  # refused today, so nobody can ask for the same again
        return str(row.spec_sha256)


def _insert(connection: Connection, tenant_id: str, found: Admitted, key: str | None) -> Any:
    spec = found.spec
    for dataset in {member.dataset.model_dump_json(): member.dataset for _, _, member in found.members()}.values():
        use_dataset(connection, tenant_id, dataset)
    row = connection.execute(
        comparisons.create(
            id=new_id("cmp"),
            tenant_id=tenant_id,
            idempotency_key=key,
            spec=spec.model_dump(mode="json"),
            spec_sha256=found.digest(),
            name=spec.name,
            metadata=spec.metadata,
            plan=found.plan(),
            maximum_running=spec.maximum_running,
            searching=found.searching,
        )
    ).one()
    rows = [member_row(row, variant, seed, member) for variant, seed, member in found.members()]
    connection.execute(comparisons.create_members(rows))
    connection.execute(comparisons.create_first_events([member["id"] for member in rows]))
    return row


def member_row(row: Any, variant: AdmittedVariant, seed: int, spec: JobSpec) -> dict[str, Any]:
    """The job of one member; `row` is the comparison's."""
    return {
        "id": new_id("job"),
        "tenant_id": row.tenant_id,
        "comparison_id": row.id,
        "variant": variant.variant.name,
        "seed": seed,
        "spec": spec.model_dump(mode="json"),
        "spec_sha256": spec.digest(),
        "name": spec.name,
        "family": spec.network.family,
        "metadata": spec.metadata,
        "priority": spec.priority,
        "needs_cuda": spec.resources.device.startswith("cuda"),
        "flops_per_step": variant.plan.flops_per_step,
        "steps": spec.training.steps,
    }
