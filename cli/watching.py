"""Watches jobs to their end."""

import threading
from collections.abc import Sequence
from queue import SimpleQueue

from cli.board import board_for
from cli.output import coloured, complain, console, show_json
from evenkeel import Client, Event, Job

EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 2}
INTERRUPTED = 130
"""As a shell says of a command that Ctrl-C has ended."""

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


def show_made(client: Client, job: Job, as_json: bool, watch: bool) -> int:
    """Shows a job that was just made, and with `watch` how it goes on to its end; the exit code. As JSON it is one
    document: the job as it is now, or with `watch` as it ended."""
    if not as_json:
        console().print(job.id, coloured(job.status), job.name, sep="  ")
        return watch_one(client, job) if watch else 0
    try:
        shown = client.wait(job) if watch else job
    except KeyboardInterrupt:
        return _interrupted(job)
    show_json(shown.raw)
    return EXIT_CODES.get(shown.status, 1) if watch else 0


def watch_one(client: Client, job: Job) -> int:
    """Shows a job until it has ended; the exit code that says how."""
    try:
        ended = watch_all(client, [(job, None)])[0]
    except KeyboardInterrupt:
        return _interrupted(job)
    if ended.error is not None:
        complain(f"{ended.id} failed ({ended.error.get('code')}): {ended.error.get('message')}")
    return EXIT_CODES.get(ended.status, 1)


def _interrupted(job: Job) -> int:
    complain(f"{job.id} goes on: `evenkeel watch {job.id}` shows it again, `evenkeel cancel {job.id}` stops it")
    return INTERRUPTED


def _listen(client: Client, job: Job, heard: SimpleQueue[Heard]) -> None:
    try:
        for event in client.stream(job):
            heard.put((job.id, event))
    except Exception as error:  # whatever it is, the reader of `heard` tells it; after Ctrl-C nobody reads
        heard.put((job.id, error))
    else:
        heard.put((job.id, None))
