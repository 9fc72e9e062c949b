"""Runs as a program of its own: starts trainers from a preloaded forkserver, as a supervisor does.

Reads lines: `report`, `start ORDER` (as JSON), or a command for the trainer that was started last.
Prints the report, or the trainer's pid, one line for each of its messages, and its exit code.
"""

import json
import multiprocessing
import sys
import threading
from multiprocessing.connection import Connection

from worker.messages import decode

CONTEXT = multiprocessing.get_context("forkserver")
NOT_FOR_TRAINERS = {"fastapi", "sqlalchemy", "celery", "typer", "httpx", "starlette"}
PRELOADED = {"torch._dynamo", "torch.optim", "sklearn.datasets", "onnx", "onnxruntime", "worker.trainer.session"}


def run_trainer(connection: Connection, order: bytes) -> None:
    sys.modules["worker.trainer.main"].run(connection, order)


def report(connection: Connection) -> None:
    torch = sys.modules["torch"]
    facts = {
        "unwanted": sorted({name.partition(".")[0] for name in sys.modules} & NOT_FOR_TRAINERS),
        "missing": sorted(PRELOADED - set(sys.modules)),
        "cuda": torch.cuda.is_initialized(),
        "threads": torch.get_num_threads(),
    }
    connection.send_bytes(json.dumps(facts).encode())


def main() -> None:
    CONTEXT.set_forkserver_preload(["worker.trainer.preload"])
    ours = None
    for line in sys.stdin:
        word, _, argument = line.strip().partition(" ")
        if word == "report":
            ours, theirs = CONTEXT.Pipe()
            CONTEXT.Process(target=report, args=(theirs,)).start()
            print(ours.recv_bytes().decode(), flush=True)
        elif word == "start":
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=run_trainer, args=(theirs, argument.encode()))
            process.start()
            theirs.close()
            print(process.pid, flush=True)
            threading.Thread(target=print_messages, args=(ours, process), daemon=True).start()
        elif ours is not None:
            ours.send_bytes(word.encode())


def print_messages(connection: Connection, process: multiprocessing.context.ForkServerProcess) -> None:
    try:
        while True:
            message = decode(connection.recv_bytes())
            print(type(message).__name__, getattr(message, "step", ""), flush=True)
    except EOFError:
        process.join()
        print("exit", process.exitcode, flush=True)


if __name__ == "__main__":
    main()
