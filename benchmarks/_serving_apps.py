"""What evenkeel is compared with, where nothing has to be installed: the floor, a bare application, a naive one.

    python _serving_apps.py NAME PORT FOLDER

`floor` answers the body that came; `bare` is ASGI over ONNX Runtime with the same batching of what waits, and no
keys, checks, versions or counts; `naive` is what a tutorial on FastAPI and torch says, with a handler that blocks in a
thread, and `naive-async` the same on the event loop, which holds all others up and spares the thread.
"""

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvicorn

JSON = [(b"content-type", b"application/json")]


async def body_of(receive: Any) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    return body


async def reply(send: Any, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def floor(_folder: Path) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await reply(send, JSON, await body_of(receive))

    return app


def bare(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession((folder / "model.onnx").read_bytes(), options)
    shape = tuple(session.get_inputs()[0].shape[1:])
    labels = [str(number) for number in range(10)]
    waiting: list[tuple[Any, asyncio.Future[Any]]] = []

    def run() -> None:
        batch = waiting[:64]
        del waiting[:64]
        (answers,) = session.run(["probabilities"], {"input": np.concatenate([rows for rows, _ in batch])})
        for index, (_, future) in enumerate(batch):
            if not future.done():
                future.set_result(answers[index])
        if waiting:
            asyncio.get_running_loop().call_soon(run)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = await body_of(receive)
        binary = scope["path"].startswith("/v2")
        if binary:
            length = int(dict(scope["headers"])[b"inference-header-content-length"])
            rows = np.frombuffer(body, np.float32, offset=length).reshape(1, *shape)
        else:
            rows = np.array(orjson.loads(body)["rows"], np.float32).reshape(1, *shape)
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not waiting:
            loop.call_soon(run)
        waiting.append((rows, future))
        answer = await future
        if binary:
            output = {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": [1, 10],
                "parameters": {"binary_data_size": 40},
            }
            head = orjson.dumps({"model_name": "mlp", "outputs": [output]})
            headers = [(b"inference-header-content-length", str(len(head)).encode())]
            await reply(send, headers, head + answer.tobytes())
        else:
            values = answer.tolist()
            told = {"label": labels[values.index(max(values))], "probabilities": dict(zip(labels, values, strict=True))}
            await reply(send, JSON, orjson.dumps({"predictions": [told]}))

    return app


def naive(folder: Path, beside: bool = True) -> Any:
    import torch
    from _serving_models import SCALING, frozen
    from fastapi import FastAPI
    from pydantic import BaseModel

    from bn_models.population import using

    model = frozen(folder.name)
    network, shape, scale = model.network, model.shape, float(SCALING.scale)
    frozen_for_good = using(network, model.statistics)
    frozen_for_good.__enter__()

    class Rows(BaseModel):
        rows: list[list[float]]

    app = FastAPI()

    def predict(rows: Rows) -> dict[str, Any]:
        with torch.no_grad():
            inputs = torch.tensor(rows.rows).reshape(-1, *shape) * scale
            answers = torch.softmax(network(inputs), 1).tolist()
        return {
            "predictions": [
                {"label": str(row.index(max(row))), "probabilities": {str(i): value for i, value in enumerate(row)}}
                for row in answers
            ]
        }

    async def predict_here(rows: Rows) -> dict[str, Any]:
        return predict(rows)

    app.post("/{path:path}")(predict if beside else predict_here)
    app.state.frozen = frozen_for_good  # whose end would give the batch statistics back
    return app


def main() -> None:
    name, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    apps = {"floor": floor, "bare": bare, "naive": naive, "naive-async": partial(naive, beside=False)}
    app = apps[name](folder)
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", log_level="warning", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
