"""KServe's own client against a running service: `python kserve_client.py URL KEY MODEL COLUMNS` prints what it got.

Runs in an environment of its own (`pip install kserve`), whose pins exclude ours; imports nothing of ours.
"""

import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def asked(url: str, key: str, model: str, columns: int) -> dict[str, Any]:
    client, headers = InferenceRESTClient(RESTConfig(protocol="v2")), {"Authorization": f"Bearer {key}"}
    rows = np.random.default_rng(0).normal(size=(3, columns)).astype(np.float32)
    found: dict[str, Any] = {
        "kserve": version("kserve"),
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, model, headers=headers),
    }
    for datatype, binary in (("FP32", False), ("FP32", True), ("FP16", True)):
        tensor = InferInput("input", [3, columns], datatype)
        tensor.set_data_from_numpy(rows.astype(np.float16 if datatype == "FP16" else np.float32), binary_data=binary)
        request = InferRequest(
            model_name=model,
            infer_inputs=[tensor],
            request_id="7",
            request_outputs=[RequestedOutput("probabilities", parameters={"binary_data": binary})],
        )
        told: dict[str, str] = {}
        answer = await client.infer(url, request, model, headers=dict(headers), response_headers=told)
        found[f"{datatype} {'binary' if binary else 'json'}"] = {
            "id": answer.id,
            "version": told["evenkeel-model-version"],
            "probabilities": answer.outputs[0].as_numpy().tolist(),
        }
    first = InferenceRESTClient(RESTConfig(protocol="v1"))
    answer = await first.infer(url, {"instances": rows.tolist()}, model, headers=dict(headers))
    found["v1"] = answer["predictions"]
    try:
        await client.infer(url, request, "none", headers=dict(headers))
    except Exception as error:
        found["error"] = str(error)
    return found


if __name__ == "__main__":
    url, key, model, columns = sys.argv[1:]
    print(json.dumps(asyncio.run(asked(url, key, model, int(columns)))))
