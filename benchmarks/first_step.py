"""How long from POST to the first recorded step, and where does the time go?

    python -m benchmarks.first_step [--jobs 30] [--data FOLDER] [--quick]

Starts the whole service twice, each on a fresh home: on one machine's stack (SQLite, local worker), and on the
cluster's (Postgres, Valkey, Celery). Both are warmed, and then get jobs in turn, one after another: `digits`, and
the paper's MNIST network where the files are found. Fails when the median on the cluster's stack is 500 ms or more.
Stages:

  post       the request, until its 201
  claim      201 → a slot has the job (the bell, the guarded UPDATE)
  loading    network, optimizer, checkpoint
  preparing  data mapped, split and scaled
  rest       between claim and commit, without these two: fork, first step, report, transaction
  seen       committed → read by a client from its event stream

`after` is not part of the sum: population statistics, evaluation and export, once training has ended.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks._stacks import cluster, end_in_good_order, environment, percentile
from cli.hosting import service
from evenkeel import Client
from evenkeel.results import Event

STAGES = ("post", "claim", "loading", "preparing", "rest", "seen")
AFTER = ("population_statistics", "evaluating", "exporting")
ONE_MACHINE, CLUSTER = "one machine", "cluster"
ALLOWED_MS = 500.0
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
    result = client.wait(job, 120).result or {}
    phases = result["phases_seconds"]
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


def report(name: str, stack: str, rows: list[dict[str, float]]) -> float:
    """Prints medians; the median of the whole, in milliseconds."""
    middle = {stage: statistics.median(row[stage] for row in rows) * 1000 for stage in rows[0]}
    parts = "  ".join(f"{stage} {middle[stage]:.0f}" for stage in STAGES)
    totals = [row["total"] * 1000 for row in rows]
    print(
        f"{name} on {stack}: POST to first recorded step {middle['total']:.0f} ms"
        f" (median of {len(rows)}, p95 {percentile(totals, 0.95):.0f}, max {max(totals):.0f})"
    )
    print(f"  medians, ms: {parts}; all phases after training: {middle['after']:.0f}")
    return middle["total"]


@contextlib.contextmanager
def clients(folder: Path, mnist: Path | None) -> Iterator[dict[str, Client]]:
    """One a stack, of services that run side by side."""
    with cluster() as (settings, _), contextlib.ExitStack() as stopping:
        found = {}
        for stack, variables in {ONE_MACHINE: {}, CLUSTER: settings}.items():
            home = folder / stack.replace(" ", "-")
            (home / "data").mkdir(parents=True)
            if mnist is not None:
                (home / "data" / "mnist").symlink_to(mnist)
            with environment(variables):
                stopping.enter_context(service(home))
            found[stack] = stopping.enter_context(Client(home=home))
        yield found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--jobs", type=int, default=30)
    arguments.add_argument("--data", type=Path, help="folder that has mnist/*-ubyte.gz")
    arguments.add_argument("--quick", action="store_true", help="two jobs of digits a stack: does it run at all?")
    given = arguments.parse_args()
    end_in_good_order()
    folders = (given.data,) if given.data else FOLDERS
    mnist = next((folder.absolute() / "mnist" for folder in folders if (folder / "mnist").is_dir()), None)
    specs = {"digits": DIGITS} | ({"mnist": MNIST} if mnist and not given.quick else {})
    slowest = 0.0
    with tempfile.TemporaryDirectory() as temporary, clients(Path(temporary), mnist) as stacks:
        for name, spec in specs.items():
            for client in stacks.values():
                client.wait(client.submit(spec), 300)
            rows: dict[str, list[dict[str, float]]] = {stack: [] for stack in stacks}
            for _ in range(2 if given.quick else given.jobs):
                for stack, client in stacks.items():
                    rows[stack].append(measure(client, spec))
            medians = {stack: report(name, stack, rows[stack]) for stack in stacks}
            print(f"  cluster by one machine: {medians[CLUSTER] / medians[ONE_MACHINE]:.2f}")
            slowest = max(slowest, medians[CLUSTER])
    if mnist is None:
        print("mnist: not measured, no files found; give --data")
    if slowest >= ALLOWED_MS:
        raise SystemExit(f"{slowest:.0f} ms are more than the {ALLOWED_MS:.0f} that are promised")


if __name__ == "__main__":
    main()
