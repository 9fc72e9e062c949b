"""Searches go on: when all members of a round have ended, the next round is queued. Whoever does it writes it once.

All that a search knows stands in its row and in its members, so that any process may take the next step, and a kill
at any moment loses nothing.
"""

import hashlib
import logging
import threading
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from api.comparisons import AdmittedVariant, admit_trial, plan_of
from api.forking import forked
from api.members import cancel_members, member_row, members_of
from api.rounds import Outcome, Round, next_round
from api.submission import go_on_from
from core.bell import ring
from core.db import Database
from core.errors import Conflict, EvenkeelError, SpecInvalid
from core.identifiers import new_id
from core.queries import checkpoints, comparisons
from core.queries.metrics import value_of
from core.settings import Settings
from core.spec import ComparisonSpec, JobSpec
from core.spec.base import canonical_json
from core.spec.comparison import member_body
from core.spec.fork import ForkSpec
from core.spec.search import STEPS, trial_name
from core.spec.variation import Variant
from core.states import TERMINAL

KEPT = ("tenant_id", "comparison_id", "variant", "seed", "name", "family", "metadata", "priority", "needs_cuda")
"""Columns that a member which goes on has of the job that it goes on from."""
log = logging.getLogger("evenkeel.api")


class Searcher:
    """A thread that looks for searches whose round is over."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="searches", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._settings.search_seconds):
            try:
                advance(self._database, self._settings)
            except EvenkeelError as error:
                log.warning("searches: %s", error.message)
            except Exception:  # without this thread all searches would stand still
                log.exception("searches: this look failed")


def advance(database: Database, settings: Settings) -> list[str]:
    """Queues the next round of every search whose last is over; the ids of the comparisons that went on."""
    with database.read() as connection:
        open_ids = list(connection.execute(comparisons.searching()).scalars())
    return [comparison_id for comparison_id in open_ids if _advanced(database, comparison_id, settings)]


def _advanced(database: Database, comparison_id: str, settings: Settings) -> bool:
    """One search that can not go on ends, and says why; it keeps no other from going on."""
    try:
        return _advance(database, comparison_id, settings)
    except (SpecInvalid, Conflict, ValidationError) as error:  # the last: of a spec that an older version admitted
        why = getattr(error, "message", None) or f"its spec is refused today: {error}"
        log.warning("the search of %s ends: %s", comparison_id, why)
        with database.write() as connection:
            plan = connection.execute(comparisons.held(comparison_id)).one().plan
            ended = plan | {"search": plan["search"] | {"ended": why}}
            connection.execute(comparisons.go_on(comparison_id, ended, searching=False))
        return True


def _advance(database: Database, comparison_id: str, settings: Settings) -> bool:
    """What is to be done is reckoned outside of the transaction that does it, which asks whether it still is."""
    with database.read() as connection:
        row = connection.execute(comparisons.by_id(comparison_id)).one()
        members = members_of(connection, [comparison_id])[comparison_id]
        if row.cancel_requested_at is None and any(member.state not in TERMINAL for member in members):
            return False
        outcomes = _outcomes(connection, row, members)
    if row.cancel_requested_at is not None:
        with database.write() as connection:
            cancel_members(connection, comparison_id)
            connection.execute(comparisons.end_search(comparison_id))
        return True
    spec = ComparisonSpec.model_validate(row.spec)
    if spec.search is None:
        return False
    step = _Step(row, spec, settings)
    found = next_round(spec.search, row.plan, outcomes, step.steps)
    variants = step.admitted(found)
    with database.write() as connection:
        held = connection.execute(comparisons.held(comparison_id)).one()
        if held.plan != row.plan or held.cancel_requested_at is not None or not held.searching:
            return False
        if found.survivors:
            _go_on(connection, step, found)
        _begin(connection, step, variants)
        connection.execute(comparisons.go_on(comparison_id, step.plan, searching=not found.last))
    ring(settings, any(item.spec.resources.device.startswith("cuda") for item in variants))
    return True


@dataclass
class _Step:
    """A search on its way to its next round; `plan` becomes that of the row."""

    row: Any
    spec: ComparisonSpec
    settings: Settings

    def __post_init__(self) -> None:
        self.plan: dict[str, Any] = {**self.row.plan, "variants": [dict(item) for item in self.row.plan["variants"]]}
        self.plan["search"] = {**self.row.plan["search"], "refused": list(self.row.plan["search"]["refused"])}
        body = member_body(self.spec, Variant("base", {}), 0)
        self.steps = JobSpec.model_validate(body).training.steps

    def admitted(self, found: Round) -> list[AdmittedVariant]:
        """The trials of a round as variants; what can not be run is noted, and counts as tried."""
        search, admitted = self.plan["search"], []
        for number, values in enumerate(
            found.trials, 1 + sum(bool(item.get("trial")) for item in self.plan["variants"])
        ):
            number += len(search["refused"])
            variant = Variant(trial_name(number, values), values, ("search", "ranges"))
            try:
                item = admit_trial(self.spec, variant, self.plan["seeds"][0], self.settings)
            except SpecInvalid as error:
                search["refused"].append({"trial": number, "changes": values, "why": error.message})
                continue
            admitted.append(item)
            self.plan["variants"].append(plan_of(item) | {"trial": number, "rung": 0})
        return admitted


def _outcomes(connection: Connection, row: Any, members: list[Any]) -> list[Outcome]:
    latest = {
        found.job_id: value_of(found.value, found.nonfinite)
        for found in connection.execute(comparisons.latest(row.id, [row.plan["metric"]]))
    }
    return [
        Outcome(member.variant, member.seed, member.state, member.error, latest.get(member.id)) for member in members
    ]


def _begin(connection: Connection, step: _Step, variants: list[AdmittedVariant]) -> None:
    rows = [
        member_row(step.row, item, seed, item.member(step.spec, seed))
        for seed in step.plan["seeds"]
        for item in variants
    ]
    _queue(connection, rows)


def _go_on(connection: Connection, step: _Step, found: Round) -> None:
    """The survivors' members from their last checkpoints, as forks."""
    step.plan["search"]["rung"] += 1
    newest = {(job.variant, job.seed): job for job in connection.execute(comparisons.members(step.row.id))}
    rows, origins = [], []
    for variant in step.plan["variants"]:
        if variant["name"] not in found.survivors:
            continue
        variant["rung"], variant["steps"] = step.plan["search"]["rung"], found.steps
        variant["changes"] = {**variant["changes"], STEPS: found.steps}
        for seed in step.plan["seeds"]:
            source = newest[(variant["name"], seed)]
            lineage = _lineage(connection, source)
            changes = {STEPS: found.steps, "name": source.name}
            spec, flops = forked(source.spec, changes, lineage, step.settings)
            row = dict(source._mapping)
            fresh = {name: row[name] for name in KEPT}
            fresh |= {"id": new_id("job"), "spec": spec.model_dump(mode="json"), "spec_sha256": spec.digest()}
            fresh |= {"steps": found.steps, "step": lineage.step, "flops_per_step": flops, "forked_from": source.id}
            rows.append(fresh)
            origins.append((source.id, fresh["id"], lineage))
    _queue(connection, rows)
    for source_id, job_id, lineage in origins:
        go_on_from(connection, source_id, job_id, lineage)


def _lineage(connection: Connection, source: Any) -> ForkSpec:
    newest = connection.execute(checkpoints.of_job(source.id)).first()
    if newest is None:
        raise Conflict(f"job {source.id} has succeeded, and keeps no checkpoint to go on from")
    asked = hashlib.sha256(canonical_json([source.id, newest.step, "halving"])).hexdigest()
    return ForkSpec(job_id=source.id, step=newest.step, checkpoint_sha256=newest.sha256, request_sha256=asked)


def _queue(connection: Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(comparisons.create_members(rows))
        connection.execute(comparisons.create_first_events([row["id"] for row in rows]))
