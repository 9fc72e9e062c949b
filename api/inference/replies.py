"""The answers to predict and infer requests: JSON, or a JSON header with the tensors' bytes behind it."""

from typing import Any

import numpy as np
import orjson

from api.inference.lanes import Array, Lane
from api.inference.tensors import to_bytes_elements
from api.inference.wire import InferRequest, Output

JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")
HEADS = 256
Reply = tuple[bytes, tuple[bytes, bytes], int | None]
"""(body, content type as a header, bytes of the header where tensors follow it)."""


def predict_reply(outputs: list[Array], lane: Lane) -> Reply:
    content = orjson.dumps(
        {
            "predictions": lane.model.told(outputs),
            "model": lane.name,
            "version": lane.version,
            "statistics_sha256": lane.statistics_sha256,
        }
    )
    return content, JSON, None


def infer_reply(request: InferRequest, outputs: list[Array], lane: Lane) -> Reply:
    if request.id is None and request.outputs[0].binary:
        known = lane.heads.get((request.outputs, len(request.rows)))
        if known is not None:
            return (
                b"".join((known, *[outputs[wanted.place].tobytes() for wanted in request.outputs])),
                BINARY,
                len(known),
            )
    told: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for wanted in request.outputs:
        told.append(_tensor(wanted, outputs[wanted.place], lane, behind))
    reply: dict[str, Any] = {
        "model_name": lane.name,
        "model_version": str(lane.version),
        "parameters": lane.provenance,
        "outputs": told,
    }
    if request.id is not None:
        reply["id"] = request.id
    header = orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
    if not behind:
        return header, JSON, None
    if request.id is None and all(wanted.binary and not wanted.classes for wanted in request.outputs):
        if len(lane.heads) >= HEADS:
            lane.heads.clear()
        lane.heads[request.outputs, len(request.rows)] = header  # it says nothing of the numbers behind it
    return b"".join((header, *behind)), BINARY, len(header)


def _tensor(wanted: Output, array: Array, lane: Lane, behind: list[bytes]) -> dict[str, Any]:
    if wanted.classes:
        texts = _classified(array, wanted.classes, lane)
        shape, datatype = [len(array), wanted.classes], "BYTES"
        content: Any = texts
    else:
        shape, datatype = list(array.shape), "FP32"
        content = array.reshape(-1)
    if not wanted.binary:
        return {"name": wanted.name, "datatype": datatype, "shape": shape, "data": content}
    data = to_bytes_elements(content) if wanted.classes else content.tobytes()
    behind.append(data)
    return {
        "name": wanted.name,
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": len(data)},
    }


def _classified(array: Array, classes: int, lane: Lane) -> list[str]:
    """`<value>:<index>[:<label>]`, the highest first, row by row."""
    order = np.argsort(-array, axis=1, kind="stable")[:, :classes]
    labels = lane.model.labels
    return [
        f"{float(row[index]):f}:{index}" + (f":{labels[index]}" if labels else "")
        for row, best in zip(array, order.tolist(), strict=True)
        for index in best
    ]
