"""The ledger: gathers what a trainer reports, and writes it in transactions that the fence guards."""

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection, Update

from core.artifacts import ArtifactStore
from core.db import Database
from core.errors import StorageFailed
from core.queries import events, layers, leases
from core.queries.events import EventDraft, EventType, Level
from worker.claims import Claim
from worker.messages import CheckpointWritten, LayersReported, LogLine, PhaseBegan, Points, Started
from worker.publication import publish
from worker.records import write_checkpoints, write_layer_reports
from worker.series import FreshPoints, SeriesBook

Ending = tuple[Callable[..., Update], list[EventDraft]]
"""A guarded statement, short of (job id, fence, tick, number of events), and its own events."""


class Fenced(Exception):
    """The job is no longer ours: kill the trainer, write nothing."""


class Ledger:
    def __init__(self, database: Database, store: ArtifactStore, claim: Claim, lease_seconds: float) -> None:
        self._database = database
        self._store = store
        self._claim = claim
        self._lease_seconds = lease_seconds
        self._book = SeriesBook()
        self._drafts: list[EventDraft] = []
        self._checkpoints: list[CheckpointWritten] = []
        self._reports: list[LayersReported] = []
        self._phase: str | None = None
        self._step = int(claim.row.step)
        self._fresh_points = FreshPoints()
        self._progressed = False
        self._tick = 0
        self._uncertain = False  # the last commit failed, and may have landed all the same
        self._attempted = (0, 0, 0)  # drafts, checkpoints and reports that it held; more may have come since
        self._begun: int | None = None  # tick of the last try to begin

    @property
    def step(self) -> int:
        return self._step

    def begin(self, started: Started) -> None:
        """Keeps and compares recorded points when the trainer runs where the last one ran; elsewhere other
        bits are to be expected, so what lies behind the checkpoint is forgotten and recorded anew.

        Raises Fenced; Unavailable when the database is away, and may then be called again."""
        self._settle()
        with self._database.read() as connection:
            landed = connection.execute(leases.tick_of(self._claim.job_id)).one().tick == self._begun
            self._book.load(connection, self._claim.job_id)
            if self._claim.row.fingerprint in (None, started.fingerprint):
                self._book.load_recorded(connection, started.step)
                rewound = False
            else:
                rewound = self._claim.row.step > started.step
        drafts = [_rewind_draft(started.step)] if rewound and not landed else []
        self._tick += 1
        self._begun = self._tick
        with self._database.write() as connection:
            flags = connection.execute(
                leases.renew(
                    self._claim.job_id,
                    self._claim.fence,
                    self._tick,
                    len(drafts),
                    lease_seconds=self._lease_seconds,
                    fingerprint=started.fingerprint,
                    step=started.step if rewound else None,
                )
            ).one_or_none()
            if flags is None:
                raise Fenced
            if rewound:
                self._book.rewind(connection, started.step)
                connection.execute(layers.remove_after(self._claim.job_id, started.step))
            self._append(connection, flags.base, drafts)
        self._step = started.step if rewound else self._step

    def points(self, message: Points) -> None:
        for name, (steps, values) in message.columns.items():
            series = self._book.add(name, steps, values)
            if series.steps:
                self._fresh_points.add(series)
                self._progressed = self._progressed or series.last_step > self._step
                self._step = max(self._step, series.last_step)

    def phase(self, message: PhaseBegan) -> None:
        self._phase = message.phase
        self._draft_points()
        self.event("phase", f"phase {message.phase}", {"phase": message.phase})

    def log(self, message: LogLine) -> None:
        self.event("log", message.text, {"step": message.step} | message.data, message.level)

    def layers(self, message: LayersReported) -> None:
        self._reports.append(message)

    def checkpoint(self, message: CheckpointWritten) -> None:
        self._checkpoints.append(message)
        self._progressed = True
        self._draft_points()
        reference = message.checkpoint
        data = {"step": reference.step, "sha256": reference.sha256, "bytes": reference.bytes, "best": message.best}
        self.event("checkpoint", f"checkpoint of step {reference.step}", data)

    def event(self, type_: EventType, text: str, data: dict[str, Any], level: Level = "info") -> None:
        self._drafts.append(EventDraft(type_, text, data, level))

    @property
    def has_points(self) -> bool:
        return any(True for _ in self._book.pending())

    def commit(self) -> Any:
        """One tick: lease renewed, everything gathered written, flags read back.

        Raises Fenced; Unavailable when the database is away (all is kept for the next tick).
        """
        return self._transact(lambda _: (self._renew, []))

    def put_back(self, state: str, text: str, level: Level = "info") -> None:
        """The last write of an attempt that ends in good order: `queued` (drained) or `paused`. A cancel
        or a pause that came in meanwhile wins."""

        def choose(connection: Connection) -> Ending:
            row = connection.execute(leases.lock(self._claim.job_id)).one()
            if row.cancel_requested_at is not None:
                return self._finishing("cancelled", "cancelled", "info")
            if row.pause_requested_at is not None and state != "paused":
                return self._putting_back("paused", f"paused at step {self._step}")
            return self._putting_back(state, text, level)

        self._transact(choose)

    def finish(self, state: str, text: str, level: Level = "info", **columns: Any) -> None:
        """The last write of a job; `columns`: error."""
        self._transact(lambda _: self._finishing(state, text, level, **columns))

    def succeed(self, result: dict[str, Any], card: dict[str, Any] | None, artifacts: dict[str, Any]) -> None:
        """Model version, alias, `succeeded` and the last event in one transaction."""

        def choose(connection: Connection) -> Ending:
            whole = result | publish(connection, self._claim.row, result, card, artifacts)
            return self._finishing("succeeded", "succeeded", "info", result=whole)

        self._transact(choose)

    def _renew(self, job_id: str, fence: int, tick: int, events: int) -> Update:
        return leases.renew(
            job_id,
            fence,
            tick,
            events,
            lease_seconds=self._lease_seconds,
            step=self._step,
            phase=self._phase,
            progressed=self._progressed,
        )

    def _finishing(self, state: str, text: str, level: Level, **columns: Any) -> Ending:
        drafts = [
            EventDraft("status", text, {"status": state}, level),
            EventDraft("end", text, {"status": state} | columns, level),
        ]
        return partial(leases.finish, state=state, step=self._step, **columns), drafts

    def _putting_back(self, state: str, text: str, level: Level = "info") -> Ending:
        return partial(leases.put_back, state=state, step=self._step), [
            EventDraft("status", text, {"status": state}, level)
        ]

    def _transact(self, choose: Callable[[Connection], Ending]) -> Any:
        """Everything gathered and the chosen statement in one transaction; answers the statement's row."""
        self._settle()
        self._draft_points()
        self._tick += 1
        self._uncertain = True
        self._attempted = (len(self._drafts), len(self._checkpoints), len(self._reports))
        with self._database.write() as connection:
            statement, last = choose(connection)
            drafts = [*self._drafts, *last]
            row = connection.execute(
                statement(self._claim.job_id, self._claim.fence, self._tick, len(drafts))
            ).one_or_none()
            if row is None:
                raise Fenced
            self._append(connection, row.base, drafts)
            fresh = self._book.write(connection, self._claim.job_id)
            obsolete = write_checkpoints(connection, self._claim.job_id, self._claim.attempt, self._checkpoints)
            write_layer_reports(connection, self._claim.job_id, self._reports)
        self._committed(fresh, obsolete)
        return row

    def _settle(self) -> None:
        """After a commit of unknown fate: did it land? Blind repetition would write points twice."""
        if not self._uncertain:
            return
        with self._database.read() as connection:
            row = connection.execute(leases.tick_of(self._claim.job_id)).one()
            if row.fence != self._claim.fence or row.state != "running":
                raise Fenced
            if row.tick == self._tick:
                self._book.landed_unseen(connection, self._claim.job_id)
                self._clear()
        self._uncertain = False

    def _append(self, connection: Connection, base: int, drafts: list[EventDraft]) -> None:
        if drafts:
            connection.execute(events.append(self._claim.job_id, base, self._claim.attempt, drafts))

    def _draft_points(self) -> None:
        """Says which points came since the last event, so that the log reads in the order in which things happened."""
        self._drafts += self._fresh_points.take()

    def _committed(self, fresh: dict[str, int], obsolete: list[Any]) -> None:
        self._book.committed(fresh)
        self._clear()
        self._uncertain = False
        for row in obsolete:
            try:
                self._store.delete(row.name)
            except StorageFailed as error:
                self.event("log", f"an old checkpoint stays behind: {error.message}", {"step": row.step}, "warning")

    def _clear(self) -> None:
        drafts, written, reports = self._attempted
        self._drafts, self._checkpoints = self._drafts[drafts:], self._checkpoints[written:]
        self._reports = self._reports[reports:]
        self._progressed = False


def _rewind_draft(step: int) -> EventDraft:
    text = f"another machine or library than before: metrics behind step {step} are recorded anew"
    return EventDraft("rewind", text, {"step": step}, "warning")
