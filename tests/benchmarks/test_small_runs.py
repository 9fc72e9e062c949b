"""Each benchmark of the cluster at its smallest: it runs, and its own checks hold."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks._stacks import migrated
from benchmarks.claim_rate import check, measure
from benchmarks.rehearsal import rehearse
from core.db import Database

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_claimers_drain_a_queue_and_take_each_job_once(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("postgres_server") if kind == "postgres" else None

    with migrated(kind, server) as url:
        rate = measure(url, jobs=12, claimers=2, tenants=2)
        database = Database(url)
        with database.read() as connection, pytest.raises(RuntimeError, match="of 13 jobs 12 ran exactly once"):
            check(connection, 13)
        database.close()

    assert rate.jobs == 12


@pytest.mark.parametrize("shared_pool", [None, 2])
def test_a_rehearsal_of_two_workers_keeps_their_ticks(postgres_server: str, shared_pool: int | None) -> None:
    options = {"tick": 0.2, "node": 1.0, "reaper": 0.5, "points": 6, "job_ticks": 5, "at_once": 4}
    given = Namespace(**options, shared_pool=shared_pool, settle=0.5, seconds=1.5)

    row, errors = rehearse(postgres_server, 2, given)

    assert errors == []
    assert row.deadlocks == 0
    assert 0 < row.in_time <= 1
    assert row.points > 0
    assert row.connections >= 2


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name",
    ["claims", "first_step", "claim_rate", "rehearsal", "herd", "at_rest", "service_speed", "members", "batched_seeds"],
)
def test_a_quick_run_ends_well(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=280
    )

    assert result.returncode == 0, result.stderr
