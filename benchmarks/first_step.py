"""How long from POST to the first recorded step, and where does the time go?

    python benchmarks/first_step.py [--jobs 20] [--data FOLDER]

Starts the whole service on a fresh home, warms it with one job of each kind, and then submits jobs one
after another: `digits`, and the paper's MNIST network where the files are found. Stages:

  post       the request, until its 201
  claim      201 → a slot has the job (the bell, the guarded UPDATE)
  loading    network, optimizer, checkpoint
  preparing  data mapped, split and scaled
  rest       between claim and commit, without these two: fork, first step, report, transaction
  seen       committed → read by a client from its event stream

`after` is not part of the sum: population statistics, evaluation and export, once training has ended.
"""

import argparse
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from cli.hosting import service
from evenkeel import Client
from evenkeel.results import Event, Job

STAGES = ("post", "claim", "loading", "preparing", "rest", "seen")
AFTER = ("population_statistics", "evaluating", "exporting")
FOLDERS = (Path(__file__).parent.parent.parent / "shared" / "data", Path.home() / "data")
DIGITS: dict[str, Any] = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp"},
    "training": {"steps": 200},
}
MNIST: dict[str, Any] = {
    "dataset": {"source": "mnist"},
    "network": {"family": "mlp", "activation": "sigmoid", "initialization": {"kind": "normal", "scale": 0.1}},
    "optimizer": {"kind": "sgd", "learning_rate": 0.5},
    "training": {"steps": 200},
}


def measure(client: Client, spec: dict[str, Any]) -> dict[str, float]:
    """Seconds by stage of one job; also `total` and `after`."""
    began = time.time()
    job = client.submit(spec)
    answered = time.time()
    seen = first_metrics = claimed = 0.0
    for event in client.stream(job):
        if event.type == "status" and event.data.get("status") == "running":
            claimed = seconds(event)
        if event.type == "metrics":
            seen, first_metrics = time.time(), seconds(event)
            break
    phases = client.wait(job, 120).result["phases_seconds"]
    inside = phases["loading"] + phases["preparing_data"]
    return {
        "post": answered - began,
        "claim": max(0.0, claimed - answered),
        "loading": phases["loading"],
        "preparing": phases["preparing_data"],
        "rest": max(0.0, first_metrics - claimed - inside),
        "seen": seen - first_metrics,
        "total": seen - began,
        "after": sum(phases.get(name, 0.0) for name in AFTER),
    }


def seconds(event: Event) -> float:
    at = event.created_at
    return (at if isinstance(at, datetime) else datetime.fromisoformat(at)).timestamp()


def report(name: str, rows: list[dict[str, float]]) -> None:
    middle = {stage: statistics.median(row[stage] for row in rows) * 1000 for stage in rows[0]}
    parts = "  ".join(f"{stage} {middle[stage]:.0f}" for stage in STAGES)
    slowest = max(row["total"] for row in rows) * 1000
    print(f"{name}: POST to first recorded step {middle['total']:.0f} ms (median of {len(rows)}, max {slowest:.0f})")
    print(f"  medians, ms: {parts}")
    print(f"  phases after training: {middle['after']:.0f} ms")


def warm(client: Client, spec: dict[str, Any]) -> Job:
    return client.wait(client.submit(spec), 300)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--jobs", type=int, default=20)
    arguments.add_argument("--data", type=Path, help="folder that has mnist/*-ubyte.gz")
    given = arguments.parse_args()
    folders = (given.data,) if given.data else FOLDERS
    mnist = next((folder / "mnist" for folder in folders if (folder / "mnist").is_dir()), None)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        if mnist is not None:
            (home / "data").mkdir()
            (home / "data" / "mnist").symlink_to(mnist)
        with service(home), Client(home=home) as client:
            for name, spec in ({"digits": DIGITS} | ({"mnist": MNIST} if mnist else {})).items():
                warm(client, spec)
                report(name, [measure(client, spec) for _ in range(given.jobs)])
    if mnist is None:
        print("mnist: not measured, no files found; give --data")


if __name__ == "__main__":
    main()
