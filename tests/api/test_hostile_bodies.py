"""Bodies that are cut, too long, nested, huge in words or no numbers: never an error of ours, and never memory for
what was only announced. Both ways in: through the application, and past it as the bytes arrive."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.inference.direct import DirectProtocol
from api.inference.engine import served_model
from api.inference.lanes import Lane
from api.inference.rows import parse_rows
from api.inference.wire import InferReader
from core.artifacts import ArtifactStore
from core.errors import EvenkeelError
from tests.api.application import TestClient
from tests.api.bench import Tenant, classifier, publish
from tests.api.live import Live
from tests.api.test_direct import Connection

INFER, PREDICT = "/v2/models/flowers/infer", "/v1/models/flowers/predict"
LENGTH = "Inference-Header-Content-Length"
Ask = Callable[[str, bytes, dict[str, str]], tuple[int, bytes]]
FEW = hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(autouse=True)
def flowers(tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)


@pytest.fixture
def through(client: TestClient, tenant: Tenant) -> Ask:
    def ask(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        answer = client.post(path, content=body, headers=tenant.headers | headers)
        return answer.status_code, answer.content

    return ask


@pytest.fixture
def past(live: Live, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Over one connection, on which whatever can be is answered without a task of its own."""
    passed = []
    before = DirectProtocol._answers

    def noted(self: DirectProtocol, cycle: Any) -> bool:
        passed.append(before(self, cycle))
        return passed[-1]

    monkeypatch.setattr(DirectProtocol, "_answers", noted)
    with Connection(live, tenant) as connection:

        def ask(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
            status, _, content = connection.ask(path, body, **headers)
            return status, content

        while True not in passed:
            assert ask(PREDICT, b'{"rows": [[0, 1, 2, 3]]}', {})[0] == 200
        yield ask
    assert len(passed) > 10  # bodies that came with their headers


NUMBERS = st.sampled_from([0, 1, 2, 4, -1, 3, 16, 2**31, 2**32, 2**63 - 1, 2**63, 10**18, 10**30, 1.5, True, None, "4"])
SHAPES = st.one_of(st.lists(NUMBERS, max_size=4), st.just([1, 4]), NUMBERS)
NESTED = st.integers(0, 200).map(lambda depth: "[" * depth + "]" * depth)
WORDS = st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "1e39", '"x"', "null", "{}", "[[[]]]", "[1,2,3,4]"])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """A request that is right but for one or two things, as JSON or binary, and then perhaps cut or lengthened."""
    name = draw(st.sampled_from(["input", "input", "length", "", "width"]))
    copies = draw(st.sampled_from([1, 1, 1, 2, 4]))
    datatype = draw(st.sampled_from(["FP32", "FP64", "INT8", "BOOL", "BF16", "BYTES", "FP99"]))
    shape = json.dumps(draw(SHAPES))
    content = draw(st.sampled_from([np.arange(4, dtype="<f4").tobytes(), np.full(4, np.nan, "<f4").tobytes(), b""]))
    content += draw(st.binary(max_size=20))
    if draw(st.booleans()):
        data, tail = draw(st.one_of(NESTED, WORDS, st.just("[0.5, 1, 2, 3]"))), b""
        tensor = f'{{"name": "{name}", "shape": {shape}, "datatype": "{datatype}", "data": {data}}}'
    else:
        size = draw(st.one_of(st.just(len(content)), NUMBERS.filter(lambda value: value is not None)))
        parameters = f'{{"binary_data_size": {json.dumps(size)}}}'
        tail = content
        tensor = f'{{"name": "{name}", "shape": {shape}, "datatype": "{datatype}", "parameters": {parameters}}}'
    head = f'{{"inputs": [{", ".join([tensor] * copies)}]}}'.encode()
    stated = draw(st.sampled_from([str(len(head)), None, "0", "-1", str(len(head) + 1), "9" * 30, "0x10", ""]))
    body = head + tail
    cut = draw(st.sampled_from([len(body), len(body) - 1, len(head), len(head) - 1, 1, 0]))
    return body[:cut] + draw(st.sampled_from([b"", b"\0", b"}" * 3])), {} if stated is None else {LENGTH: stated}


def check(status: int, content: bytes) -> None:
    assert status < 500, content
    assert status == 200 or isinstance(json.loads(content)["error"], str)


@FEW
@given(request=bodies())
def test_no_infer_body_is_an_error_of_ours_through_the_application(
    through: Ask, request: tuple[bytes, dict[str, str]]
) -> None:
    check(*through(INFER, *request))


@FEW
@given(request=bodies())
def test_no_infer_body_is_an_error_of_ours_past_the_application(
    past: Ask, request: tuple[bytes, dict[str, str]]
) -> None:
    check(*past(INFER, *request))


ROWS = st.one_of(
    WORDS.map(lambda word: f'{{"rows": [[0, 1, {word}, 3]]}}'),
    NESTED.map(lambda nested: f'{{"rows": {nested}}}'),
    st.sampled_from(['{"rows": [[0, 1, 2, 3]]}', "[]", "{", '{"rows": null}', '{"rows": [[0, 1, 2, 3], [0]]}', ""]),
    st.text(max_size=20),
)


@FEW
@given(body=ROWS, cut=st.integers(0, 30))
def test_no_predict_body_is_an_error_of_ours_either_way(through: Ask, past: Ask, body: str, cut: int) -> None:
    content = body.encode("utf-8", "surrogatepass")
    content = content[: len(content) - cut] if cut < 10 else content

    answers = [ask(PREDICT, content, {}) for ask in (through, past)]

    assert answers[0][0] == answers[1][0] < 500, answers


def tensor(shape: list[int], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "input", "shape": shape, "datatype": "FP32"} | more]}


HUGE: dict[str, tuple[Any, bytes]] = {
    "rows": (tensor([10**9, 4], data=[0.0] * 4), b""),
    "a dimension": (tensor([1, 10**12], data=[0.0] * 4), b""),
    "many dimensions": (tensor([10**6] * 1000, data=[0.0] * 4), b""),
    "rows of nothing": (tensor([10**5, 4], data=[]), b""),
    "binary rows": (tensor([10**9, 4], parameters={"binary_data_size": 16 * 10**9}), b"\0" * 16),
    "binary size": (tensor([1, 4], parameters={"binary_data_size": 2**62}), b"\0" * 16),
    "rows within the bound": (tensor([10**5, 4], parameters={"binary_data_size": 16}), b"\0" * 16),
    "an element": (
        {"inputs": [{"name": "input", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 8}}]},
        b"\xff\xff\xff\xff1234",
    ),
    "elements": (
        {"inputs": [{"name": "input", "shape": [10**5], "datatype": "BYTES", "parameters": {"binary_data_size": 4}}]},
        b"\0\0\0\0",
    ),
    "classes": (
        tensor([1, 4], data=[0.0] * 4) | {"outputs": [{"name": "logits", "parameters": {"classification": 2**31}}]},
        b"",
    ),
}


@pytest.mark.parametrize("what", HUGE)
def test_what_is_only_announced_takes_no_memory(what: str) -> None:
    lane = Lane(served_model(*classifier()), ("mdl_1", 1), "flowers", None, "2" * 64, 0.0, 0.0)
    header, tail = HUGE[what]
    head = json.dumps(header).encode()
    body, length = head + tail, str(len(head)).encode() if tail else None
    reader = InferReader(100_000)
    tracemalloc.start()
    try:
        with pytest.raises(EvenkeelError):
            reader.read(body, length, lane)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 200_000


def test_rows_that_are_nested_without_end_take_no_stack_and_memory_as_any_body_does() -> None:
    body = b'{"rows": ' + b"[" * 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(EvenkeelError):
            parse_rows(body, 10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 16 * len(body)
