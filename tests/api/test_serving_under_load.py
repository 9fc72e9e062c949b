"""What must hold under load: the same bits in any company, versions that change under it, bounds that bound."""

import asyncio
import json
import time
from typing import Any

import httpx
import numpy as np
import pytest

from core.artifacts import ArtifactStore
from core.settings import Settings
from tests.api.bench import Tenant, classifier, publish
from tests.api.live import Live, live_server

INFER = "/v2/models/flowers/infer"


@pytest.fixture(autouse=True)
def flowers(tenant: Tenant, store: ArtifactStore) -> None:
    for number in (1, 2):
        publish(tenant, store, "flowers", *classifier((784,), hidden=64, seed=number), number=number)


def body_of(rows: np.ndarray) -> bytes:
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.reshape(-1).tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


async def ask(client: httpx.AsyncClient, rows: np.ndarray, path: str = INFER) -> tuple[int, np.ndarray]:
    """(version, probabilities), of a request that must be answered."""
    answer = await client.post(path, content=body_of(rows))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    (output,) = [item for item in found["outputs"] if item["name"] == "probabilities"]
    return int(found["model_version"]), np.array(output["data"], np.float32).reshape(output["shape"])


def connected(live: Live, tenant: Tenant, connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(base_url=live.url, headers=tenant.headers, limits=limits, timeout=60)


async def in_random_company(live: Live, tenant: Tenant, requests: int) -> None:
    random = np.random.default_rng(0)
    row = random.normal(size=(1, 784)).astype(np.float32)
    async with connected(live, tenant, 32) as client:
        _, alone = await ask(client, row)

        async def one() -> None:
            size, place = int(random.integers(1, 9)), int(random.integers(0, 9))
            rows = random.normal(size=(size, 784)).astype(np.float32)
            rows[place % size] = row[0]
            _, answers = await ask(client, rows)
            assert answers[place % size].tobytes() == alone[0].tobytes()

        for start in range(0, requests, 500):
            crowd = [one() for _ in range(min(500, requests - start))]
            await asyncio.gather(*crowd)


def test_a_row_has_the_same_bits_in_300_random_companies(live: Live, tenant: Tenant) -> None:
    asyncio.run(in_random_company(live, tenant, 300))


async def while_versions_change(live: Live, tenant: Tenant, swaps: int, pause: float) -> list[int]:
    """The versions that answered, in order, while the alias moves to and fro and no request fails."""
    row = np.random.default_rng(0).normal(size=(1, 784)).astype(np.float32)
    over = asyncio.Event()
    versions: list[int] = []
    async with connected(live, tenant, 16) as client:
        right = {
            number: (await ask(client, row, f"/v2/models/flowers/versions/{number}/infer"))[1] for number in (1, 2)
        }

        async def load() -> None:
            while not over.is_set():
                version, answers = await ask(client, row)
                assert answers.tobytes() == right[version].tobytes()
                versions.append(version)

        async def swap() -> None:
            for number in range(swaps):
                wanted = 1 + number % 2
                moved = await client.put("/v1/models/flowers/aliases/latest", json={"version": wanted})
                assert moved.status_code == 200
                assert (await ask(client, row))[0] == wanted
                await asyncio.sleep(pause)
            over.set()

        await asyncio.gather(swap(), *(load() for _ in range(8)))
    return versions


def test_versions_change_under_load_and_nobody_notices(live: Live, tenant: Tenant) -> None:
    versions = asyncio.run(while_versions_change(live, tenant, 10, 0.05))

    assert set(versions) == {1, 2}


async def crowd(live: Live, tenant: Tenant, clients: int, seconds: float) -> dict[int, list[float]]:
    """Seconds that answers took, by status."""
    rows = np.random.default_rng(0).normal(size=(64, 784)).astype(np.float32)
    body = body_of(rows)
    times: dict[int, list[float]] = {}
    end = time.monotonic() + seconds
    async with connected(live, tenant, clients) as client:

        async def one() -> None:
            while time.monotonic() < end:
                began = time.perf_counter()
                answer = await client.post(INFER, content=body)
                times.setdefault(answer.status_code, []).append(time.perf_counter() - began)
                if answer.status_code == 429:
                    assert int(answer.headers["Retry-After"]) >= 1
                    assert "error" in answer.json()
                    await asyncio.sleep(0.2)

        await asyncio.gather(*(one() for _ in range(clients)))
    return times


class Slow:
    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, *given: Any) -> Any:
        time.sleep(0.02)
        return self._session.run(*given)


def slow_down(live: Live) -> None:
    """Every batch takes 20 ms more, so that a queue forms on any machine."""
    for lane in live.resources.engine.lanes():
        object.__setattr__(lane.model, "session", Slow(lane.model.session))
        lane._alone, lane._more = 0.02, 0.0


@pytest.fixture
def bounded(settings: Settings, flowers: None) -> Any:
    with live_server(settings.model_copy(update={"predict_queue_rows": 256, "predict_seconds": 5.0})) as running:
        yield running


async def warm(live: Live, tenant: Tenant) -> None:
    async with connected(live, tenant, 1) as client:
        await ask(client, np.zeros((1, 784), np.float32))


def test_a_crowd_is_bounded_and_told_so(bounded: Live, tenant: Tenant) -> None:
    asyncio.run(warm(bounded, tenant))
    slow_down(bounded)

    times = asyncio.run(crowd(bounded, tenant, 30, 2.0))

    assert set(times) == {200, 429}
    assert max(times[200]) < 5.0
