"""What the service promises, seen from outside."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from evenkeel import Client
from tests.acceptance.conftest import Settings
from tests.acceptance.service import Service, wait_until

pytestmark = pytest.mark.timeout(300)  # whole services on a machine that may be busy

PATIENCE_SECONDS = 600.0
TINY = {
    "dataset": {"source": "iris"},
    "network": {"family": "mlp", "hidden": [4]},
    "training": {"steps": 5, "batch_size": 16},
    "publish": None,
}
DIGITS = {
    "name": "digits",
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [64, 64]},
    "training": {"steps": 400, "evaluate_every": 100},
}


@pytest.fixture
def patient_service(stack: Settings, tmp_path: Path) -> Iterator[Service]:
    """One whose leases outlive the test, so that no reaper helps."""
    with stack() as settings:
        service = Service(tmp_path / "home", settings | {"EVENKEEL_LEASE_SECONDS": str(PATIENCE_SECONDS)})
        service.start()
        yield service
        service.stop()


def test_the_same_idempotency_key_sent_twenty_times_at_once_makes_one_job(service: Service) -> None:
    def submit(_: int) -> str:
        return service.client().submit(TINY | {"name": "once"}, idempotency_key="the-same").id

    with ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(submit, range(20)))

    assert len(ids) == 1
    assert len(service.client().jobs(name="once")) == 1


def test_a_model_answers_real_rows_the_same_alone_and_in_company(service: Service) -> None:
    client = service.client()
    job = client.wait(client.submit(DIGITS), 60)
    assert job.status == "succeeded"
    rows = [[float((i * 7 + j) % 17) for j in range(64)] for i in range(200)]

    together = client.predict("digits", rows)
    alone = [client.predict("digits", [row]) for row in rows[:5]]

    assert tuple(one.predictions[0] for one in alone) == together.predictions[:5]
    assert together.statistics_sha256 == job.result["statistics_sha256"]


def test_seeds_of_one_network_answer_together_with_the_mean_of_what_each_says(service: Service) -> None:
    client = service.client()
    seeds = [DIGITS | {"name": "seed", "training": DIGITS["training"] | {"seed": seed}} for seed in (1, 2)]
    jobs = [client.wait(job, 60) for job in [client.submit(spec) for spec in seeds]]
    rows = [[float((i * 7 + j) % 17) for j in range(64)] for i in range(50)]

    made = client.wait(client.ensemble("together", jobs), 60)

    assert made.succeeded, made.error
    alone = [client.predict("seed", rows, version=job.result["version"]).predictions for job in jobs]
    for both, *each in zip(client.predict("together", rows).predictions, *alone, strict=True):
        for label, share in both.probabilities.items():
            assert share == pytest.approx(sum(one.probabilities[label] for one in each) / 2, abs=1e-6)
    scores = [member["scores"]["accuracy"] for member in made.result["ensemble"]["members"]]
    assert scores == pytest.approx([job.result["accuracy"] for job in jobs])
    assert made.result["accuracy"] >= min(scores)
    assert client.verify("together").passed


def test_sigterm_puts_jobs_back_and_the_next_start_goes_on(own_service: Service) -> None:
    client = own_service.client()
    long = DIGITS | {"training": {"steps": 6000, "checkpoint_every": 5000}}
    undisturbed = client.wait(client.submit(long), 120)
    job = client.submit(long)
    wait_until(lambda: client.job(job.id).progress.step > 0)

    assert own_service.stop() == 0
    own_service.start()
    ended = own_service.client().wait(job.id, 120)

    assert ended.attempt == 2
    assert ended.result["weights_sha256"] == undisturbed.result["weights_sha256"]


def test_a_killed_api_comes_back_and_the_job_never_notices(own_service: Service) -> None:
    client = own_service.client()
    job = client.submit(DIGITS | {"training": {"steps": 3000}})
    wait_until(lambda: client.job(job.id).progress.step > 0)

    own_service.api().kill()
    ended = client.wait(job.id, 60)

    assert (ended.status, ended.attempt) == ("succeeded", 1)


def test_both_children_end_with_their_parent(own_service: Service) -> None:
    own_service.client().jobs()
    children = [own_service.api(), own_service.worker()]

    own_service.kill_up()

    for child in children:
        wait_until(lambda child=child: not child.is_running() or child.status() == "zombie", 10.0)
    own_service.start()


def test_a_restart_takes_up_its_jobs_long_before_their_lease_expires(patient_service: Service) -> None:
    client = patient_service.client()
    job = client.submit(DIGITS | {"training": {"steps": 200_000, "checkpoint_every": 500}})
    wait_until(lambda: client.job(job.id).progress.step > 500)

    patient_service.kill("up", job.id)
    wait_until(
        lambda: client.job(job.id).attempt == 2 and client.job(job.id).phase == "training", PATIENCE_SECONDS / 10
    )

    client.cancel(job.id, force=True)
    assert client.wait(job.id, 30).status == "cancelled"


def test_three_hundred_jobs_on_two_slots_run_exactly_once_each(patient_service: Service) -> None:
    client = patient_service.client()
    ids = [client.submit(TINY | {"training": {"steps": 5, "batch_size": 16, "seed": seed}}).id for seed in range(300)]

    wait_until(lambda: all_ended(client), 240)

    for job_id in ids:
        job = client.job(job_id)
        assert (job.status, job.attempt) == ("succeeded", 1)


def all_ended(client: Client) -> bool:
    threading.Event().wait(0.5)
    return client.jobs(status=["queued", "running"], limit=1) == []


@pytest.mark.slow
def test_an_api_that_is_killed_while_it_takes_jobs_makes_each_of_them_once(own_service: Service) -> None:
    client = own_service.client()
    killers: list[threading.Timer] = []

    def kill(process: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()

    def submit(i: int) -> str:
        if i % 15 == 7:
            killers.append(threading.Timer(i * 0.0002, kill, [own_service.api()]))
            killers[-1].start()
        return client.submit(TINY | {"name": "post"}, idempotency_key=f"k{i}").id

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(submit, range(60)))
    again = [client.submit(TINY | {"name": "post"}, idempotency_key=f"k{i}").id for i in range(60)]

    assert len(killers) == 4
    assert again == made
    assert len(set(made)) == len(client.jobs(name="post", limit=200)) == 60
    assert "killed by SIGKILL" in own_service.log.read_text()
