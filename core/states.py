"""States of a job, and what may follow what.

queued → running → succeeded | failed | cancelled
queued → cancelled
running → queued               lost lease, drained worker
running → paused → queued | cancelled
"""

from typing import Literal

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
Status = Literal["queued", "running", "cancelling", "pausing", "paused", "succeeded", "failed", "cancelled"]
Phase = Literal[
    "loading", "preparing_data", "compiling", "training", "population_statistics", "evaluating", "exporting"
]

TERMINAL: tuple[State, ...] = ("succeeded", "failed", "cancelled")
TRANSITIONS: dict[State, tuple[State, ...]] = {
    "queued": ("running", "cancelled"),
    "running": ("queued", "paused", "succeeded", "failed", "cancelled"),
    "paused": ("queued", "cancelled"),
    "succeeded": (),
    "failed": (),
    "cancelled": (),
}


def status_of(state: State, cancel_requested: bool, pause_requested: bool) -> Status:
    """What a client is shown: the stored state, or the flag that is pending on a running job."""
    if state == "running" and cancel_requested:
        return "cancelling"
    if state == "running" and pause_requested:
        return "pausing"
    return state
