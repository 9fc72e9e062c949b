"""What a trainer tells its supervisor, and what it is told: metric points in columns, sent a few times a second."""

import time
from array import array
from typing import Any, Literal, Protocol

from core.states import Phase
from worker.messages import Command, LogLine, Message, PhaseBegan, Points

FLUSH_SECONDS = 0.25


class SinkClosed(Exception):
    """Nobody takes messages any more."""


class Interrupted(Exception):
    """A command was obeyed; nothing more is to be done."""

    def __init__(self, command: Command) -> None:
        super().__init__(command)
        self.command: Command = command


class Sink(Protocol):
    """The other end: a pipe to the supervisor, or a list in a test."""

    def send(self, message: Message) -> None:
        """Raises SinkClosed."""
        ...

    def command(self) -> Command | None:
        """The last command received; must cost next to nothing, because every step asks."""
        ...


class Reporter:
    """Buffers metric points and sends them at most every FLUSH_SECONDS, those of the first step at once."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.step = 0
        """The last finished step."""
        self._columns: dict[str, tuple[array[int], array[float]]] = {}
        self._flush_at = 0.0
        self.phase_seconds: dict[Phase, float] = {}
        self._phase: tuple[Phase, float] | None = None

    def record(self, series: str, step: int, value: float) -> None:
        column = self._columns.get(series)
        if column is None:
            column = self._columns[series] = (array("q"), array("d"))
        column[0].append(step)
        column[1].append(value)

    def due(self, now: float) -> bool:
        """Is it time to flush, at `now` on the monotonic clock?"""
        return now >= self._flush_at

    def flush(self) -> None:
        self._flush_at = time.monotonic() + FLUSH_SECONDS
        if self._columns:
            columns, self._columns = self._columns, {}
            self.sink.send(Points(columns))

    def log(self, level: Literal["info", "warning", "error"], text: str, data: dict[str, Any] | None = None) -> None:
        self.sink.send(LogLine(level, text, self.step, data or {}))

    def begin(self, phase: Phase) -> None:
        """Ends the phase before, if any, and tells of the new one."""
        self.end_phase()
        self._phase = (phase, time.monotonic())
        self.sink.send(PhaseBegan(phase))

    def end_phase(self) -> None:
        if self._phase is not None:
            phase, began = self._phase
            self.phase_seconds[phase] = self.phase_seconds.get(phase, 0.0) + time.monotonic() - began
            self._phase = None
