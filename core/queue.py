"""The Celery app, and `ring()` over a broker. Nothing but bells goes through it: JSON only, no results,
direct queues only (a broker that is flushed forgets named exchanges without a word)."""

import logging
import time
from functools import cache

from celery import Celery
from kombu import Queue
from kombu.exceptions import KombuError, OperationalError

log = logging.getLogger("evenkeel.queue")

BELL = "evenkeel.bell"
PULSE = "evenkeel.pulse"
BELL_SECONDS = 30  # an older bell tells nothing that a poll has not found
RING_SECONDS = 1.0  # what a request may lose to a broker that hangs
SULK_SECONDS = 5.0  # after a failure: workers poll, so there is no hurry to try again
LISTEN_TIMEOUT_SECONDS = 30
ONCE_MORE = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
"""A connection that was kept tells that its broker has been away only when it is used: a new one may do."""
_failed_at: dict[str, float] = {}


def queue_for(needs_cuda: bool) -> str:
    """Workers without a GPU hear the first only; those with one hear both."""
    return "evenkeel.cuda" if needs_cuda else "evenkeel.cpu"


def node_queue(node_id: str) -> str:
    """A worker's own queue, for the pulse that proves that it consumes."""
    return f"evenkeel.{node_id}"


def ring(broker_url: str, needs_cuda: bool) -> None:
    """Best effort: a broker that is away costs a second at most, and nothing for a while after."""
    if time.monotonic() - _failed_at.get(broker_url, -SULK_SECONDS) < SULK_SECONDS:
        return
    if not send(broker_url, BELL, queue_for(needs_cuda)):
        _failed_at[broker_url] = time.monotonic()


def send(broker_url: str, task: str, queue: str) -> bool:
    """Whether the broker took the message."""
    try:
        _publisher(broker_url).send_task(
            task, queue=queue, expires=BELL_SECONDS, ignore_result=True, retry=True, retry_policy=ONCE_MORE
        )
    except (OSError, KombuError, OperationalError) as error:
        log.warning("the broker does not take %s: %s; workers find the job by themselves", task, error)
        return False
    return True


def consumer(broker_url: str, queues: list[str]) -> Celery:
    """The app of a worker that listens to `queues`."""
    app = _app(broker_url, LISTEN_TIMEOUT_SECONDS)
    app.conf.task_queues = [Queue(name, routing_key=name, auto_delete=False) for name in queues]
    return app


@cache
def _publisher(broker_url: str) -> Celery:
    return _app(broker_url, RING_SECONDS)


def _app(broker_url: str, timeout_seconds: float) -> Celery:
    app = Celery("evenkeel", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        task_default_exchange="",
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=RING_SECONDS if timeout_seconds <= RING_SECONDS else 4.0,
        broker_transport_options={
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": RING_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "max_retries": 0 if timeout_seconds <= RING_SECONDS else None,
        },
    )
    return app
