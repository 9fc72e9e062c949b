"""Events of attempts that ended without a last word."""

from typing import Any

from core.queries.events import EventDraft
from core.states import TERMINAL


def loss_drafts(row: Any, reason: str) -> list[EventDraft]:
    """The two events (`leases.LOST_EVENTS`) of a row that `reap`, `lose` or `reclaim` answered."""
    lost = EventDraft("log", f"attempt {row.attempt} ended: {reason}", {"step": None}, "warning")
    if row.state in TERMINAL:
        return [lost, EventDraft("end", f"{row.state}", {"status": row.state, "error": row.error}, "error")]
    return [lost, EventDraft("status", f"back to {row.state}", {"status": row.state})]
