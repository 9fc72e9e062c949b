"""Watches jobs to their end."""

import threading
from collections.abc import Sequence
from queue import SimpleQueue

from cli.board import board_for
from cli.output import complain
from evenkeel import Client, Event, Job

EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 2}

Heard = tuple[str, Event | Exception | None]


def watch_all(client: Client, jobs: Sequence[tuple[Job, str | None]]) -> list[Job]:
    """Shows jobs side by side, with labels of the caller's, until all have ended; the jobs as they ended.

    Raises EvenkeelClientError when the service stays away.
    """
    heard: SimpleQueue[Heard] = SimpleQueue()
    for job, _ in jobs:
        threading.Thread(target=_listen, args=(client, job, heard), daemon=True).start()
    open_streams = len(jobs)
    with board_for(jobs) as board:
        while open_streams:
            job_id, what = heard.get()
            if isinstance(what, Exception):
                raise what
            if what is None:
                open_streams -= 1
            else:
                board.show(job_id, what)
    return [client.job(job) for job, _ in jobs]


def watch_one(client: Client, job: Job) -> int:
    """Shows a job until it has ended; the exit code that says how."""
    ended = watch_all(client, [(job, None)])[0]
    if ended.error is not None:
        complain(f"{ended.id} failed ({ended.error.get('code')}): {ended.error.get('message')}")
    return EXIT_CODES.get(ended.status, 1)


def _listen(client: Client, job: Job, heard: SimpleQueue[Heard]) -> None:
    try:
        for event in client.stream(job):
            heard.put((job.id, event))
    except Exception as error:  # whatever it is, the reader of `heard` tells it; after Ctrl-C nobody reads
        heard.put((job.id, error))
    else:
        heard.put((job.id, None))
