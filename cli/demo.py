"""`evenkeel demo`: the whole path on real data, with and without batch norm, in under a minute."""

import json
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from cli.hosting import service
from cli.output import complain, console, percent, show_table
from cli.processes import DEMO_ROWS, command
from cli.server import SERVER_PARTS, WORKER_PARTS, require
from cli.watching import watch_all
from core.settings import Settings, load_settings
from evenkeel import Client, Job, Predictions

GOAL = 0.90  # test accuracy that the comparison counts steps to
COLUMNS = 80
GAP_NOTE = """
[dim]train/eval gap: test accuracy by the frozen population statistics that answer requests, minus that by
the statistics of each mini-batch, which training normalizes by.[/]"""
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CHECKOUT = Path(__file__).parent.parent

# The network and the hyperparameters of the MNIST experiment in Ioffe & Szegedy (2015), section 4.1.
PAPER: dict[str, Any] = {
    "network": {
        "family": "mlp",
        "hidden": [100, 100, 100],
        "activation": "sigmoid",
        "initialization": {"kind": "normal", "scale": 0.1},
    },
    "optimizer": {"kind": "sgd", "learning_rate": 0.5},
}
TRAINING: dict[str, dict[str, Any]] = {
    "digits": {"steps": 2000, "batch_size": 60, "evaluate_every": 10},
    "mnist": {"steps": 2000, "batch_size": 60, "evaluate_every": 50},
}


@dataclass(frozen=True)
class Contest:
    """One data set, trained twice: only batch norm differs."""

    source: str
    without: Job
    with_: Job


def demo() -> None:
    """Train real networks with and without batch norm, compare them, ask them. Leaves nothing behind."""
    require(SERVER_PARTS + WORKER_PARTS)
    signal.signal(signal.SIGTERM, _as_interrupt)
    with tempfile.TemporaryDirectory(prefix="evenkeel-demo-") as folder:
        home = Path(folder)
        sources = ["digits"] + (["mnist"] if lend_mnist(load_settings(), home) else [])
        console().print(f"Starting the service in {home} …")
        with service(home), Client(home=home) as client:
            good = run(client, home, sources)
    raise typer.Exit(0 if good else 1)


def run(client: Client, home: Path, sources: Sequence[str]) -> bool:
    """The demo on a running service; whether all went well."""
    if "mnist" not in sources:
        console().print("No MNIST files found: set EVENKEEL_DATA_DIR to a folder with mnist/*.gz to see it too.")
    contests = [_submit(client, source) for source in sources]
    ended = watch_all(client, [pair for contest in contests for pair in _labelled(contest)])
    failed = [job for job in ended if not job.succeeded]
    for job in failed:
        complain(f"{job.name} {job.status}: {(job.error or {}).get('message', 'no reason was given')}")
    if failed:
        return False
    final = {job.id: job for job in ended}
    contests = [Contest(contest.source, final[contest.without.id], final[contest.with_.id]) for contest in contests]
    for contest in contests:
        _compare(client, contest)
    console().print(GAP_NOTE)
    answered = [_ask(client, home, contest.with_) for contest in contests]
    return all(answered)


def lend_mnist(settings: Settings, home: Path) -> bool:
    """Links the four IDX files, where this machine has them, into the demo's own home."""
    folders = (settings.resolved_data_dir, CHECKOUT / "shared" / "data", CHECKOUT.parent / "shared" / "data")
    for folder in (folder / "mnist" for folder in folders):
        files = [_either(folder, name) for name in IDX_FILES]
        if all(file is not None for file in files):
            target = home / "data" / "mnist"
            target.mkdir(parents=True)
            for file in files:
                if file is not None:
                    (target / file.name).symlink_to(file.absolute())
            return True
    return False


def _either(folder: Path, name: str) -> Path | None:
    """The file, packed or not."""
    return next((file for file in (folder / f"{name}.gz", folder / name) if file.is_file()), None)


def _submit(client: Client, source: str) -> Contest:
    def job(batch_norm: bool) -> Job:
        name = f"{source}-{'bn' if batch_norm else 'plain'}"
        return client.submit(
            PAPER
            | {
                "name": name,
                "dataset": {"source": source},
                "batch_norm": batch_norm,
                "training": TRAINING[source],
            }
        )

    return Contest(source, job(False), job(True))


def _labelled(contest: Contest) -> list[tuple[Job, str | None]]:
    return [(contest.without, f"{contest.source}, plain"), (contest.with_, f"{contest.source}, batch norm")]


def _compare(client: Client, contest: Contest) -> None:
    pair = (contest.without, contest.with_)
    accuracy = [client.metrics(job, ["test/accuracy"]).get("test/accuracy") for job in pair]
    results = [job.result or {} for job in pair]
    print()
    show_table(
        (contest.source, "without batch norm", "with batch norm"),
        (
            ("test accuracy", *(percent(result.get("accuracy")) for result in results)),
            (
                f"steps to {percent(GOAL)} of it",
                *(_steps_to_goal(series, job) for series, job in zip(accuracy, pair, strict=True)),
            ),
            ("train/eval gap", *(_gap(result.get("gap")) for result in results)),
            ("examples a second", *(f"{result.get('examples_per_second') or 0.0:,.0f}" for result in results)),
        ),
    )


def _steps_to_goal(series: Any, job: Job) -> str:
    step = series.first_step_reaching(GOAL) if series is not None else None
    return f"{step:,}" if step is not None else f"not in {job.progress.steps:,}"


def _gap(gap: Any) -> str:
    if not gap or "batch" not in gap:
        return "0, one function for both"
    return f"{100.0 * (gap['population']['accuracy'] - gap['batch']['accuracy']):+.2f} points"


def _ask(client: Client, home: Path, job: Job) -> bool:
    """Predictions for held-out rows next to the truth; whether most of them are right."""
    drawn_columns = {"digits": 8, "mnist": 14}[job.spec["dataset"]["source"]] + 2
    count = COLUMNS // drawn_columns
    asked = subprocess.run(
        command(DEMO_ROWS, {"home": str(home)}, json.dumps(job.spec["dataset"]), str(count)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if asked.returncode != 0:
        complain(f"no rows of {job.spec['dataset']['source']}: {asked.stderr.decode(errors='replace').strip()[-300:]}")
        return False
    held_out = json.loads(asked.stdout)
    answer = client.predict((job.result or {})["model"], held_out["rows"])
    _show_answers(answer, held_out)
    right: int = sum(label == truth for label, truth in zip(answer.labels, held_out["labels"], strict=True))
    return 2 * right > count


def _show_answers(answer: Predictions, held_out: dict[str, Any]) -> None:
    print(f"\nPOST /v1/models/{answer.model}/predict with images that no training has seen, answered by version")
    print(f"{answer.version}, frozen with population statistics {(answer.statistics_sha256 or '')[:12]}")
    drawings = [_draw(row) for row in held_out["rows"]]
    width = len(drawings[0][0])
    lines = [
        *zip(*drawings, strict=True),
        [f"true {truth}" for truth in held_out["labels"]],
        [f"said {prediction.label}" for prediction in answer.predictions],
        [percent((prediction.probabilities or {}).get(prediction.label or "")) for prediction in answer.predictions],
    ]
    for line in lines:
        print("  ".join(part.ljust(width) for part in line).rstrip())


def _draw(row: Sequence[float]) -> list[str]:
    """An image as text: two pixels a character, one above the other; a large image at half its size."""
    side = round(len(row) ** 0.5)
    step = 1 if side <= 14 else 2
    bright = max(row) / 2

    def ink(y: int, x: int) -> bool:
        return y < side and bool(row[y * side + x] > bright)

    return [
        "".join(" ▀▄█"[ink(y, x) + 2 * ink(y + step, x)] for x in range(0, side, step))
        for y in range(0, side, 2 * step)
    ]


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    """A SIGTERM ends the demo as Ctrl-C does: through every `finally`."""
    raise KeyboardInterrupt
