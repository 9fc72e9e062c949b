"""A worker process with a broker: which messages it takes, and when."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import redis

from core.queue import BELL, PULSE, node_queue, queue_for, send
from core.settings import Settings
from tests.worker.bench import wait_until
from worker.vitals import problem

SLOW_TO_WARM_UP = """
import pathlib, sys, threading
from core.settings import load_settings
from worker import forkserver, local

def warm_up():
    while not pathlib.Path(sys.argv[1]).exists():
        threading.Event().wait(0.01)

forkserver.warm_up = warm_up
sys.exit(local.run(load_settings()))
"""


def test_a_worker_leaves_bells_to_others_until_it_can_start_a_trainer(
    sqlite_url: str, broker_url: Callable[[], str], tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, database_url=sqlite_url, broker_url=broker_url())
    names = {"EVENKEEL_HOME": "home", "EVENKEEL_DATABASE_URL": "database_url", "EVENKEEL_BROKER_URL": "broker_url"}
    environment = os.environ | {name: str(getattr(settings, field)) for name, field in names.items()}
    broker, warm = redis.Redis.from_url(settings.broker_url), tmp_path / "warm"
    worker = subprocess.Popen([sys.executable, "-c", SLOW_TO_WARM_UP, str(warm)], env=environment)
    wait_until(lambda: problem(settings) is None)
    own = node_queue((tmp_path / "node-id").read_text().strip())

    send(settings.broker_url, BELL, queue_for(needs_cuda=False))
    for _ in range(3):
        send(settings.broker_url, PULSE, own)
        wait_until(lambda: broker.llen(own) == 0)
    left_while_cold = broker.llen(queue_for(needs_cuda=False))
    warm.touch()
    wait_until(lambda: broker.llen(queue_for(needs_cuda=False)) == 0)

    worker.terminate()
    assert worker.wait(20) == 0
    assert left_while_cold == 1
    broker.close()
