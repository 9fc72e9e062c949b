"""Packed requests and packed replies: by hand, and by a client that asks for them."""

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from api.inference.bodies import unpacked
from api.packing import LEAST_BYTES, encoding_of
from core.artifacts import ArtifactStore
from core.errors import TooLarge
from core.settings import Settings
from tests.api.application import TestClient
from tests.api.bench import SPEC, Tenant, classifier, publish
from tests.api.live import Live
from tests.api.test_direct import Connection

ROWS = np.random.default_rng(1).normal(size=(400, 4)).astype(np.float32)
PREDICT, INFER = "/v1/models/flowers/predict", "/v2/models/flowers/infer"
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@pytest.fixture(autouse=True)
def flowers(tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)


def asked(rows: np.ndarray, binary: bool = False) -> bytes:
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.tolist()}
    return json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": binary}}).encode()


def raw(client: TestClient, tenant: Tenant, path: str, body: bytes, **headers: str) -> tuple[Any, bytes]:
    """The reply, and its body as it came."""
    with client.stream("POST", path, content=body, headers=tenant.headers | headers) as answer:
        return answer, b"".join(answer.iter_raw())


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_a_long_reply_is_packed_as_asked_and_says_so(
    client: TestClient, tenant: Tenant, encoding: str, binary: bool
) -> None:
    plain, wanted = raw(client, tenant, INFER, asked(ROWS, binary), **{"Accept-Encoding": "identity"})

    answer, body = raw(client, tenant, INFER, asked(ROWS, binary), **{"Accept-Encoding": encoding})

    assert (answer.headers["content-encoding"], answer.headers["vary"]) == (encoding, "accept-encoding")
    assert int(answer.headers["content-length"]) == len(body) < len(wanted)
    assert UNPACK[encoding](body) == wanted
    assert "content-encoding" not in plain.headers
    length = "inference-header-content-length"  # of the reply as it is once it is unpacked
    assert answer.headers.get(length) == plain.headers.get(length)
    assert (length in answer.headers) == binary


def test_a_prediction_is_packed_too_and_a_short_one_is_not(client: TestClient, tenant: Tenant) -> None:
    for count, encoding in ((400, "gzip"), (1, None)):
        body = json.dumps({"rows": ROWS[:count].tolist()}).encode()
        answer, content = raw(client, tenant, PREDICT, body, **{"Accept-Encoding": "gzip, deflate"})
        assert answer.headers.get("content-encoding") == encoding
        assert (len(content) < LEAST_BYTES) or encoding


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (b"gzip", b"gzip"),
        (b"deflate, gzip", b"deflate"),
        (b"br, deflate;q=0.2, gzip;q=0.9", b"gzip"),
        (b"GZIP ; q=1", b"gzip"),
        (b"*", b"gzip"),
        (b"gzip;q=0", None),
        (b"gzip;q=x", None),
        (b"br, zstd", None),
        (b"identity", None),
        (b"", None),
    ],
)
def test_the_encoding_is_one_that_both_sides_know(accepted: bytes, encoding: bytes | None) -> None:
    assert encoding_of(accepted) == encoding


def test_other_routes_are_packed_and_files_and_streams_are_not(client: TestClient, tenant: Tenant) -> None:
    headers = tenant.headers | {"Accept-Encoding": "gzip"}

    page = client.get("/openapi.json", headers=headers)
    short = client.get("/v2", headers=headers)
    file = client.get("/v1/models/flowers/download", headers=headers)

    assert page.headers["content-encoding"] == "gzip"
    assert page.json() == client.get("/openapi.json", headers={"Accept-Encoding": "identity"}).json()
    assert "content-encoding" not in short.headers
    assert "content-encoding" not in file.headers


def test_a_request_that_needs_no_task_is_packed_as_well(live: Live, tenant: Tenant) -> None:
    plain, packed = asked(ROWS[:200]), {"Accept_Encoding": "gzip"}
    with Connection(live, tenant) as connection:
        answers = [connection.ask(INFER, plain, **headers) for headers in ({}, packed, packed, {})]

    assert [answer[1].get("content-encoding") for answer in answers] == [None, "gzip", "gzip", None]
    assert gzip.decompress(answers[1][2]) == gzip.decompress(answers[2][2]) == answers[0][2] == answers[3][2]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_the_triton_client_packs_both_ways(live: Live, tenant: Tenant, encoding: str, binary: bool) -> None:
    given = triton.InferInput("input", [400, 4], "FP32")
    given.set_data_from_numpy(ROWS, binary_data=binary)
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
    with triton.InferenceServerClient(live.url.removeprefix("http://")) as server:
        plain, packed = (
            server.infer(
                "flowers",
                [given],
                outputs=wanted,
                headers=dict(tenant.headers),
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            ).as_numpy("probabilities")
            for algorithm in (None, encoding)
        )

    assert packed.tobytes() == plain.tobytes()


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("path", [INFER, "/v2/repository/index", "/invocations?model=flowers"])
def test_packed_bodies_are_unpacked_within_their_bound(
    client: TestClient, tenant: Tenant, settings: Settings, encoding: str, pack: Any, path: str
) -> None:
    body = {
        INFER: asked(ROWS[:2]),
        "/v2/repository/index": b"{}",
        "/invocations?model=flowers": json.dumps({"inputs": ROWS[:2].tolist()}).encode(),
    }[path]
    headers = tenant.headers | {"Content-Type": "application/json"}
    bomb = pack(b" " * (settings.maximum_body_bytes + 1))

    def status(content: bytes, encoding: str = encoding) -> int:
        return client.post(path, content=content, headers=headers | {"Content-Encoding": encoding}).status_code

    assert status(pack(body)) == 200
    assert status(pack(body)[:-9]) == 400
    assert status(bomb) == 413
    assert status(body, "br") == 415


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_bomb_is_refused_before_it_takes_more_than_its_bound(pack: Any) -> None:
    bomb = pack(b"\0" * 60_000_000)
    encoding = b"gzip" if pack is gzip.compress else b"deflate"
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            unpacked(bomb, encoding, 1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4_000_000


def test_a_spec_may_come_packed(client: TestClient, tenant: Tenant) -> None:
    headers = tenant.headers | {"Content-Type": "application/json"}
    body, bomb = (gzip.compress(content) for content in (json.dumps(SPEC).encode(), b" " * 1_100_000))

    def status(content: bytes, encoding: str) -> int:
        return client.post("/v1/jobs", content=content, headers=headers | {"Content-Encoding": encoding}).status_code

    assert [status(body, "gzip"), status(body[:-3], "gzip"), status(bomb, "gzip"), status(body, "br")] == [
        201,
        400,
        413,
        415,
    ]
