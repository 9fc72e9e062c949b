"""A server that the benchmark of serving starts, asks and ends."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress

import psutil

SERVER_CORE, LOAD_CORE = 0, 1


class Server:
    """A server in a process group of its own, on one core."""

    def __init__(self, program: list[str], port: int) -> None:
        self.port = port
        self.process = subprocess.Popen(
            program,
            process_group=0,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )

    def wait(self, request: bytes) -> None:
        """Until it answers one request of the benchmark."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                    connection.sendall(request)
                    if b" 200 " in connection.recv(65536)[:20]:
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError("it does not answer")

    def cpu_seconds(self) -> float:
        """Of all its processes: what a request costs, whoever else uses the machine meanwhile."""
        root = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
        return sum(spent.user + spent.system for spent in times)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
