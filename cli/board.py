"""Live progress of jobs: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from cli.output import console, duration, number, percent
from evenkeel import Event, Job

PLAIN_SECONDS = 1.0  # between two lines of metrics of one job
RATE = "throughput/examples_per_second"


@dataclass
class Tracked:
    """What is known of a job from its events."""

    label: str
    steps: int
    batch_size: int
    status: str
    phase: str | None
    step: int
    latest: dict[str, float | None] = field(default_factory=dict)
    error: str | None = None

    @classmethod
    def of(cls, job: Job, label: str | None = None) -> Self:
        """Before its first event: the stream tells the job's whole story from there."""
        training = job.spec["training"]
        return cls(
            label or job.name,
            job.progress.steps,  # 0 of a recalibration, which trains nothing
            training["batch_size"],
            "queued",
            None,
            job.progress.step if job.attempt == 0 else 0,  # the retry of an export begins trained
        )

    def take(self, event: Event) -> None:
        data = event.data
        if event.type in ("status", "end"):
            self.status = str(data.get("status", self.status))
            self.phase = self.phase if self.status == "running" else None
            error = data.get("error")
            self.error = str(error.get("message")) if isinstance(error, dict) else self.error
        elif event.type == "phase":
            self.status, self.phase = "running", str(data.get("phase"))
        elif event.type == "metrics":
            self.step = max(self.step, int(data["last_step"]))
            self.latest.update(data.get("latest") or {})
        elif event.type == "rewind":
            self.step = int(data.get("step", self.step))

    @property
    def stage(self) -> str:
        return (self.phase or self.status).replace("_", " ")

    @property
    def seconds_left(self) -> float | None:
        rate = self.latest.get(RATE)
        return None if not rate else max(0, self.steps - self.step) * self.batch_size / rate

    def figures(self) -> list[str]:
        """Loss, accuracies, speed and time left, as far as they are known."""
        latest = {name: value for name, value in self.latest.items() if value is not None}
        # Under population statistics once they are measured: so the model will answer.
        known = [
            ("loss", latest.get("train/loss"), number),
            ("train", latest.get("train/accuracy"), percent),
            ("test", latest.get("bn/population_accuracy", latest.get("test/accuracy")), percent),
            ("rmse", latest.get("bn/population_rmse", latest.get("test/rmse")), number),
        ]
        parts = [f"{word} {show(value)}" for word, value, show in known if value is not None]
        rate = latest.get(RATE)
        if rate is not None:
            parts.append(f"{rate:,.0f} examples/s")
        if self.phase == "training" and self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        return parts


class Board(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, job_id: str, event: Event) -> None:
        """Takes the event in and brings the display up to date."""
        ...


class BarBoard:
    def __init__(self, jobs: dict[str, Tracked], on: Console) -> None:
        self._jobs = jobs
        self._progress = Progress(
            TextColumn("[bold]{task.fields[label]}"),
            TextColumn("{task.fields[stage]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[figures]}"),
            console=on,
            refresh_per_second=8,
        )
        self._tasks: dict[str, TaskID] = {
            job_id: self._progress.add_task("", total=job.steps, completed=job.step, **_fields(job))
            for job_id, job in jobs.items()
        }

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, job_id: str, event: Event) -> None:
        job = self._jobs[job_id]
        job.take(event)
        self._progress.update(self._tasks[job_id], completed=job.step, **_fields(job))


class LineBoard:
    """A line when something changes, and at most one a second while metrics come in."""

    def __init__(self, jobs: dict[str, Tracked]) -> None:
        self._jobs = jobs
        self._width = max(len(job.label) for job in jobs.values())
        self._shown: dict[str, tuple[str, float]] = dict.fromkeys(jobs, ("", 0.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, job_id: str, event: Event) -> None:
        job = self._jobs[job_id]
        job.take(event)
        stage, at = self._shown[job_id]
        now = time.monotonic()
        if event.type in ("status", "phase", "end"):
            due = job.stage != stage
        elif event.type == "metrics":
            due = now - at >= PLAIN_SECONDS
        else:
            due = event.level != "info" or event.type == "rewind"
        if not due:
            return
        if event.type in ("log", "rewind"):
            print(f"{job.label:<{self._width}}  {event.message}", flush=True)
            return
        self._shown[job_id] = (job.stage, now if event.type == "metrics" else at)
        steps = [f"step {job.step}/{job.steps}"] if job.steps else []
        parts = [f"{job.label:<{self._width}}", f"{job.stage:<21}", *steps, *job.figures()]
        print("  ".join(parts), flush=True)


def board_for(jobs: Iterable[tuple[Job, str | None]]) -> Board:
    """The display that fits standard output. Jobs may come with a label of their own."""
    tracked = {job.id: Tracked.of(job, label) for job, label in jobs}
    on = console()
    return BarBoard(tracked, on) if on.is_terminal else LineBoard(tracked)


def _fields(job: Tracked) -> dict[str, Any]:
    return {"label": job.label, "stage": job.stage, "figures": "  ".join(job.figures())}
