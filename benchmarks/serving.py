"""How many predictions a second, and how late, against what others serve with?

    python benchmarks/serving.py [--rounds 3] [--seconds 2] [--families mlp,convnet] [--concurrency 1,16,64]
                                 [--servers evenkeel,bare,floor,naive,litserve,…] [--peers FOLDER]

One row of 784 floats a request. Each server is pinned to one core and the load generator to another; servers take
turns within a round, and figures are medians over the rounds. Every answer is checked: JSON by its label, binary by its
bytes. `floor` answers the body it got, so it says what HTTP alone costs here; `bare` is an ASGI application over ONNX
Runtime that checks nothing. evenkeel runs as `evenkeel serve` does, with keys, validation, versions, counts and drift;
`undrifted` is the same without a look at the inputs, `drifting` with a look at every batch. FOLDER holds a virtual
environment for each peer, by its name, with onnxruntime beside it; those that are not there are left out, and said so.
"""

import argparse
import base64
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import onnxruntime
import orjson
from _serving_models import Frozen, frozen, publish, rows
from _serving_server import LOAD_CORE, Server

from cli.preparing import prepare
from cli.processes import API, command
from core.artifacts import ArtifactStore
from core.credentials import split
from core.db import Database
from core.settings import Settings

HERE = Path(__file__).parent
REQUESTS = 256
PEERS = ("litserve", "bentoml", "mlserver")
NAIVE = ("naive", "naive-async")
ONLY_JSON = (*NAIVE, *PEERS)
OURS = {"evenkeel": None, "undrifted": "0", "drifting": "1"}
"""What share of the batches is compared with the training data; None: the default."""


def http(path: str, key: str, body: bytes, headers: str = "Content-Type: application/json\r\n") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    head += f"{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def prepared(folder: Path, model: Frozen, name: str, key: str) -> dict[str, Path]:
    """Files for the load generator, by what is sent: requests, and what their right answers hold."""
    inputs = rows(REQUESTS)
    session = onnxruntime.InferenceSession(model.onnx)
    answers = session.run(["probabilities"], {"input": inputs.reshape(REQUESTS, *model.shape)})[0]
    forms: dict[str, tuple[list[bytes], list[bytes]]] = {}
    bodies = [orjson.dumps({"rows": [[round(float(value), 2) for value in row]]}) for row in inputs]
    labels = [f'"label":"{row.argmax()}"'.encode() for row in answers]
    forms["json"] = ([http(f"/v1/models/{name}/predict", key, body) for body in bodies], labels)
    forms["json floor"] = (forms["json"][0], [b""] * REQUESTS)
    forms["json peer"] = ([http("/predict", key, body) for body in bodies], labels)
    forms["json bentoml"] = (forms["json peer"][0], [mark.replace(b":", b": ") for mark in labels])
    forms["json mlserver"] = v2_forms(name, key, bodies, model, answers)
    header = orjson.dumps(
        {
            "inputs": [
                {
                    "name": "input",
                    "shape": [1, *model.shape],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": 3136},
                }
            ],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
        }
    )
    extra = f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(header)}\r\n"
    binary = [http(f"/v2/models/{name}/infer", key, header + row.tobytes(), extra) for row in inputs]
    forms["binary"] = (binary, [row.tobytes() for row in answers])
    forms["binary floor"] = (binary, [b""] * REQUESTS)
    files = {}
    for form, (requests, marks) in forms.items():
        files[form] = folder / f"{form.replace(' ', '-')}.json"
        text = {
            "requests": [base64.b64encode(x).decode() for x in requests],
            "marks": [base64.b64encode(x).decode() for x in marks],
        }
        files[form].write_text(json.dumps(text))
    return files


def v2_forms(name: str, key: str, bodies: list[bytes], model: Frozen, answers: Any) -> tuple[list[bytes], list[bytes]]:
    """The same numbers as the Open Inference Protocol has them in JSON; the label is a tensor of its own."""
    requests = []
    for body in bodies:
        data = orjson.loads(body)["rows"][0]
        tensor = {"name": "input", "shape": [1, *model.shape], "datatype": "FP32", "data": data}
        requests.append(http(f"/v2/models/{name}/infer", key, orjson.dumps({"inputs": [tensor]})))
    return requests, [f'"data":[{row.argmax()}]'.encode() for row in answers]


def load(port: int, connections: int, seconds: float, file: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HERE / "_serving_load.py"), str(port), str(connections), str(seconds), str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds * 2 + 30,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _value(metrics: str, begins: str) -> float:
    """The sum over the samples whose name and labels begin so."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith(begins))


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Field:
    """All servers of one family, started once; measured in turn."""

    def __init__(self, family: str, home: Path, given: argparse.Namespace) -> None:
        self.family = family
        self.folder = home / family
        self.folder.mkdir()
        self.given = given
        model = frozen(family)
        (self.folder / "model.onnx").write_bytes(model.onnx)
        settings = Settings(home=self.folder / "home")
        prepare(settings)
        self.key = settings.resolved_admin_key_file.read_text().strip()
        parts = split(self.key)
        assert parts is not None
        database = Database(settings.resolved_database_url)
        publish(database, ArtifactStore(settings.resolved_artifact_url), parts[0], family, model)
        database.close()
        self.files = prepared(self.folder, model, family, self.key)
        self.servers: dict[str, Server] = {}

    def start(self) -> None:
        for name in self.given.servers:
            port = unused_port()
            program = self._program(name, port)
            if not Path(program[0]).exists():
                print(f"{name}: left out: there is no {program[0]}")
                continue
            server = Server(program, port)
            file = self.files[self._form(name, "json")]
            try:
                server.wait(base64.b64decode(json.loads(file.read_text())["requests"][0]))
            except RuntimeError as error:
                server.stop()
                print(f"{name}: left out: {error}")
                continue
            self.servers[name] = server
            self._pause(name, True)

    def _pause(self, name: str, wanted: bool) -> None:
        """Those whose turn it is not, hold still: some poll."""
        os.killpg(self.servers[name].process.pid, signal.SIGSTOP if wanted else signal.SIGCONT)

    def measure(self, name: str, form: str, concurrency: int) -> dict[str, Any]:
        self._pause(name, False)
        server, file = self.servers[name], self.files[self._form(name, form)]
        before = server.cpu_seconds()
        try:
            found = load(server.port, concurrency, self.given.seconds, file)
            found["cpu"] = (server.cpu_seconds() - before) / max(1, found.pop("all")) * 1e6
            return found
        finally:
            self._pause(name, True)

    def shares(self) -> str:
        """Where evenkeel's time went, in all that was asked of it; looking at inputs is part of `input`."""
        self._pause("evenkeel", False)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.servers['evenkeel'].port}/metrics") as answer:
            text = answer.read().decode()
        parts: dict[str, float] = dict.fromkeys(("parse", "queue", "input", "compute", "output", "reply"), 0.0)
        for part in parts:
            parts[part] = _value(text, f'evenkeel_inference_seconds_total{{model="{self.family}",part="{part}"')
        requests = _value(text, "evenkeel_inference_request_seconds_count{")
        whole = _value(text, "evenkeel_inference_request_seconds_sum{")
        told = ", ".join(
            f"{part} {seconds / requests * 1e6:.1f} µs ({seconds / whole:.0%})" for part, seconds in parts.items()
        )
        drift = _value(text, f'evenkeel_drift_seconds_total{{model="{self.family}"') / requests
        return f"{told}, all {whole / requests * 1e6:.1f} µs; of these a look at the inputs {drift * 1e6:.2f} µs"

    def stop(self) -> None:
        for name, server in self.servers.items():
            self._pause(name, False)
            server.stop()

    def _form(self, name: str, form: str) -> str:
        if name == "floor":
            return f"{form} floor"
        if name in PEERS:
            return f"{form} peer" if name == "litserve" else f"{form} {name}"
        return form

    def _program(self, name: str, port: int) -> list[str]:
        if name in OURS:
            share = {} if OURS[name] is None else {"drift_share": OURS[name]}
            return command(API, {"home": str(self.folder / "home"), "port": port, "log_level": "warning", **share})
        if name in PEERS:
            python = str(self.given.peers / name / "bin" / "python")
            return [python, str(HERE / "_serving_peers.py"), name, str(port), str(self.folder)]
        return [sys.executable, str(HERE / "_serving_apps.py"), name, str(port), str(self.folder)]


def run(family: str, given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        field = Field(family, Path(temporary), given)
        found: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
        try:
            field.start()
            for _ in range(given.rounds):
                for form in given.forms:
                    for concurrency in given.concurrency:
                        for name in field.servers:
                            if form == "binary" and name in ONLY_JSON:
                                continue
                            found[form, concurrency, name].append(field.measure(name, form, concurrency))
            report(family, found)
            if "evenkeel" in field.servers:
                print(f"evenkeel, a request on average: {field.shares()}")
        finally:
            field.stop()


def report(family: str, found: dict[tuple[str, int, str], list[dict[str, Any]]]) -> None:
    columns = ("", "form", "clients", "server", "req/s", "of floor", "p50 ms", "p99 ms", "CPU µs", "errors")
    line = "{:8} {:7} {:>7} {:11} {:>8} {:>8} {:>8} {:>8} {:>8} {}"
    print(f"\n{line.format(*columns)}")
    rates = {place: statistics.median(part["rate"] for part in parts) for place, parts in found.items()}
    for (form, concurrency, name), parts in found.items():
        rate = rates[form, concurrency, name]
        base = rates.get((form, concurrency, "floor"))
        share = f"{rate / base:.0%}" if base else ""
        p50, p99, cpu = (statistics.median(part[which] for part in parts) for which in ("p50", "p99", "cpu"))
        errors = sum(part["errors"] for part in parts)
        sample = next((part["sample"] for part in parts if part["errors"]), "")[:100]
        figures = (f"{rate:.0f}", share, f"{p50:.2f}", f"{p99:.2f}", f"{cpu:.0f}", f"{errors} {sample}")
        print(line.format(family, form, concurrency, name, *figures))


def main() -> None:
    def listed(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--families", type=listed, default=["mlp", "convnet"])
    parser.add_argument("--forms", type=listed, default=["json", "binary"])
    parser.add_argument("--concurrency", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16, 64])
    parser.add_argument("--servers", type=listed, default=[*OURS, "bare", "floor", *NAIVE, *PEERS])
    parser.add_argument("--peers", type=Path, default=Path(sys.prefix).parent / "peers")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    if len(os.sched_getaffinity(0)) < 2:
        print("not measured: this needs two cores, one for the server and one for the load")
        return
    for family in given.families:
        run(family, given)


if __name__ == "__main__":
    main()
