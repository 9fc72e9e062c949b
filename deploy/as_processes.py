"""Runs the services of docker-compose.yml that are built here as plain processes of this machine: the same
commands, environment, order and health checks, without containers. Postgres, Valkey and the proxy are not
started; their addresses are given.

    python deploy/as_processes.py --database-url URL --broker-url URL --folder DIR [--profile cpu]

Prints `ready` and the address of each api, and stops all of them in good order at SIGTERM or SIGINT. What a
container sees as `/run/secrets`, a shared volume or its home is a folder in DIR; the admin key is
DIR/secrets/admin_key. Exit code 1 when a service does not start, or ends by itself.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from core.credentials import mint

COMPOSE_FILE = Path(__file__).parent.parent / "docker-compose.yml"
SECRETS = "/run/secrets"
HOME = "EVENKEEL_HOME"
READY_SECONDS = 60.0
POLL_SECONDS = 0.1


@dataclass
class Service:
    """One container to be, as a process: `name` is that of `service`, with a number when it has replicas."""

    name: str
    service: str
    command: list[str]
    environment: dict[str, str]
    healthcheck: list[str] | None
    waits_for: dict[str, str]
    stop_seconds: float
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str | None:
        port = self.environment.get("EVENKEEL_PORT")
        return port and f"http://127.0.0.1:{port}"

    def start(self) -> None:
        evenkeel = str(Path(sys.executable).with_name("evenkeel"))
        self.process = subprocess.Popen([evenkeel, *self.command], env=self.environment, process_group=0)

    def ended(self) -> int | None:
        return self.process.poll() if self.process else None

    def healthy(self) -> bool:
        """What the container's own health check says."""
        if self.healthcheck is None:
            return self.ended() is None
        checked = subprocess.run(self.healthcheck, env=self.environment, stderr=subprocess.DEVNULL, check=False)
        return checked.returncode == 0

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        try:
            self.process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def services(compose: dict[str, Any], folder: Path, profile: str) -> Iterator[Service]:
    """Those that are built here and belong to the profile, one for each replica."""
    for name, service in compose["services"].items():
        if "build" not in service or profile not in service.get("profiles", [profile]):
            continue
        replicas = service.get("deploy", {}).get("replicas", 1)
        for number in range(1, replicas + 1):
            instance = f"{name}-{number}" if replicas > 1 else name
            environment = _environment(service, compose, folder, instance)
            yield Service(
                instance,
                name,
                service["command"],
                environment,
                _healthcheck(service),
                {other: wait["condition"] for other, wait in service.get("depends_on", {}).items()},
                float(service.get("stop_grace_period", "10s").removesuffix("s")),
            )


def _environment(service: dict[str, Any], compose: dict[str, Any], folder: Path, instance: str) -> dict[str, str]:
    """As in the container, but for paths, which lie in `folder`, and for the address to listen on."""
    given = {name: str(value) for name, value in service["environment"].items()}
    home = given[HOME]
    places = {SECRETS: folder / "secrets", home: folder / instance}
    for volume in service["volumes"]:
        source, target = volume.split(":")[:2]
        if source not in compose["volumes"]:
            raise SystemExit(f"{instance}: {source} is no volume that is named in the file")
        places[target] = folder / source
    given = {name: _moved(value, places) for name, value in given.items()}
    if "EVENKEEL_PORT" in given:
        given |= {"EVENKEEL_HOST": "127.0.0.1", "EVENKEEL_PORT": str(_free_port())}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVENKEEL_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return kept | given | {"PATH": path}


def _moved(value: str, places: dict[str, Path]) -> str:
    for inside, outside in places.items():
        if value == inside or value.startswith(f"{inside}/"):
            return f"{outside}{value.removeprefix(inside)}"
    return value


def _healthcheck(service: dict[str, Any]) -> list[str] | None:
    if "healthcheck" not in service:
        return None
    how, *words = (word.replace("$$", "$") for word in service["healthcheck"]["test"])
    return words if how == "CMD" else ["/bin/sh", "-c", *words]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_secrets(folder: Path, database_url: str, broker_url: str) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "database_url").write_text(f"{database_url}\n")
    (folder / "broker_url").write_text(f"{broker_url}\n")
    if not (folder / "admin_key").exists():
        (folder / "admin_key").write_text(f"{mint().text}\n")


def start_all(fleet: list[Service], stopping: threading.Event) -> None:
    """Starts them in the order that the file asks for, and says when all are ready.

    Raises SystemExit when one does not get ready.
    """
    waiting = list(fleet)
    deadline = time.monotonic() + READY_SECONDS
    while waiting or not all(service.ended() == 0 or service.healthy() for service in fleet):
        for service in [service for service in waiting if _may_start(service, fleet)]:
            service.start()
            waiting.remove(service)
        _fail_on_ends(fleet)
        if time.monotonic() > deadline:
            raise SystemExit(f"not ready: {', '.join(service.name for service in fleet if not service.healthy())}")
        if stopping.wait(POLL_SECONDS):
            return
    print("ready", *(service.address for service in fleet if service.address), flush=True)


def _may_start(service: Service, fleet: list[Service]) -> bool:
    """A service that is not built here, for instance the database, is there already."""
    for other in fleet:
        condition = service.waits_for.get(other.service)
        if condition == "service_completed_successfully" and other.ended() != 0:
            return False
        if condition == "service_healthy" and not (other.process and other.healthy()):
            return False
    return True


def _fail_on_ends(fleet: list[Service]) -> None:
    """A one-shot service, which others wait for, may end with 0; nothing else may end."""
    one_shot = {name for service in fleet for name, how in service.waits_for.items() if how.endswith("successfully")}
    for service in fleet:
        status = service.ended()
        if status is not None and (status != 0 or service.service not in one_shot):
            raise SystemExit(f"{service.name} ended with status {status}")


def stop_all(fleet: list[Service]) -> None:
    for service in fleet:
        if service.process is not None and service.process.poll() is None:
            service.process.terminate()
    for service in fleet:
        service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--broker-url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--profile", default="cpu")
    options = parser.parse_args()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    folder = options.folder.absolute()
    _write_secrets(folder / "secrets", options.database_url, options.broker_url)
    fleet = list(services(yaml.safe_load(COMPOSE_FILE.read_text()), folder, options.profile))
    try:
        start_all(fleet, stopping)
        while not stopping.wait(POLL_SECONDS):
            _fail_on_ends(fleet)
    finally:
        stop_all(fleet)


if __name__ == "__main__":
    main()
