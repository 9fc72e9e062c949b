"""Processes that are started again whenever they die, until a signal comes."""

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from queue import SimpleQueue

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
HEALTHY_SECONDS = 10.0  # one that lived this long starts with the first pause again

STOP_SECONDS = 10.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    child: "Child"
    status: int  # exit code, or minus the signal's number


@dataclass(eq=False)
class Child:
    """`descriptors` are inherited; `events` hears of each end."""

    name: str
    command: list[str]
    descriptors: tuple[int, ...]
    events: SimpleQueue[Ended | int]
    process: subprocess.Popen[bytes] | None = None
    due: float | None = None
    _pause: float = field(default=0.0)
    _started: float = field(default=0.0)

    def start(self) -> None:
        self.due = None
        self._started = time.monotonic()
        try:
            # A group of its own: Ctrl-C reaches the parent alone, which ends its children in good order.
            self.process = subprocess.Popen(
                self.command,
                pass_fds=self.descriptors,
                process_group=0,
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:  # for instance no memory for a fork: later, perhaps
            self.events.put(Ended(self, error.errno or 1))
            return
        threading.Thread(target=self._report_end, args=(self.process,), daemon=True).start()

    def schedule(self) -> float:
        """Plans the next start, later each time the process died young; the pause in seconds."""
        self.process = None
        lived = time.monotonic() - self._started
        young = lived < HEALTHY_SECONDS and self._pause > 0.0
        self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2) if young else FIRST_PAUSE_SECONDS
        self.due = time.monotonic() + self._pause
        return self._pause

    def terminate(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """The whole group, because a killed process leaves its own children behind."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # `poll` knows nothing while the end is being reported
                os.killpg(self.process.pid, signal.SIGKILL)

    def _report_end(self, process: subprocess.Popen[bytes]) -> None:
        self.events.put(Ended(self, process.wait()))


def say_how(status: int) -> str:
    """For instance `killed by SIGKILL` or `ended with status 1`."""
    if status >= 0:
        return f"ended with status {status}"
    return f"killed by {signal.Signals(-status).name}"


Events = SimpleQueue[Ended | int]


def listen_for_signals(events: Events) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays in force
            signal.signal(number, lambda number, _frame: events.put(number))


def supervise(children: list[Child], events: Events) -> None:
    """Returns when a signal comes."""
    for child in children:
        child.start()
    while True:
        match _next(events, min((child.due for child in children if child.due is not None), default=None)):
            case Ended(child, status):
                pause = child.schedule()
                say(f"{child.name} {say_how(status)}; it starts again in {pause:.1f} s")
            case int():
                return
            case None:
                for child in children:
                    if child.due is not None and child.due <= time.monotonic():
                        child.start()


def stop(children: list[Child], events: Events) -> None:
    """SIGTERM to all, SIGKILL to what is left in the end, or at a second Ctrl-C."""
    living = {child for child in children if child.process is not None}
    for child in living:
        child.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while living:
        event = _next(events, deadline)
        if isinstance(event, Ended):
            living.discard(event.child)
        elif event is None or event == signal.SIGINT:
            for child in living:
                child.kill()
            deadline = time.monotonic() + STOP_SECONDS


def stop_with(parent_descriptor: int, events: Events) -> None:
    os.read(parent_descriptor, 1)
    events.put(signal.SIGTERM)


def _next(events: Events, until: float | None) -> Ended | int | None:
    """The next event, or None when the time (monotonic) has come."""
    try:
        return events.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
    except queue.Empty:
        return None


def say(line: str) -> None:
    print(f"evenkeel: {line}", flush=True)
