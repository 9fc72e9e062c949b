"""What serving promises under load, of a process of its own: the same bits in any company, versions that change while
it is busy, bounds that bound."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from bn_models.receipt import open_session
from core.artifacts import ArtifactStore
from core.settings import Settings
from tests.acceptance.serving import Connection, Serving, percentile, serving
from tests.api.bench import Tenant, classifier, publish
from tests.api.families import frozen, pixels
from tests.networks import NETWORKS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

REQUESTS = 10_000
MOST_AT_ONCE = 64
SWAPS = 60
CROWD = 200
CROWD_SECONDS = 60.0
DEADLINE_SECONDS = 5.0


@pytest.fixture
def settings(tmp_path, sqlite_url: str) -> Settings:
    return Settings(home=tmp_path, database_url=sqlite_url)


@pytest.fixture
def store(settings: Settings) -> ArtifactStore:
    return ArtifactStore(settings.resolved_artifact_url)


@pytest.fixture
def tenant(database) -> Tenant:
    return Tenant(database, "first")


async def in_random_company(server: Serving, key: str, requests: int) -> None:
    """One row, at a random place among 0 to 8 others, in requests of which 1 to 64 are asked at a time."""
    random = np.random.default_rng(0)
    row, path = pixels(1), "/v2/models/flowers/infer"
    connections = [await Connection(server, key).__aenter__() for _ in range(MOST_AT_ONCE)]
    alone = (await connections[0].infer(path, row)).tensor()

    async def one(connection: Connection) -> None:
        rows = pixels(int(random.integers(1, 10)), int(random.integers(2**31)))
        place = int(random.integers(len(rows)))
        rows[place] = row[0]
        found = (await connection.infer(path, rows)).tensor()
        assert found[place * len(alone) : (place + 1) * len(alone)] == alone

    while requests > 0:
        crowd = min(int(random.integers(1, MOST_AT_ONCE + 1)), requests)
        await asyncio.gather(*map(one, connections[:crowd]))
        requests -= crowd
    for connection in connections:
        await connection.__aexit__()


@pytest.mark.parametrize("family", NETWORKS)
def test_a_row_has_the_same_bits_in_10_000_random_companies(
    settings: Settings, store: ArtifactStore, tenant: Tenant, family: str
) -> None:
    publish(tenant, store, "flowers", *frozen(family), number=1)

    with serving(settings) as server:
        asyncio.run(in_random_company(server, tenant.key, REQUESTS))


class Load:
    """Clients that ask for one row again and again, each answer compared with that of the version that it names."""

    def __init__(self, server: Serving, key: str, right: dict[int, bytes], row: np.ndarray) -> None:
        self._server, self._key, self._right, self._row = server, key, right, row
        self._over = False
        self.seconds: list[float] = []
        self.versions: set[int] = set()

    async def run(self, meanwhile) -> None:
        clients = [asyncio.create_task(self._client()) for _ in range(16)]
        await meanwhile
        self._over = True
        await asyncio.gather(*clients)

    async def _client(self) -> None:
        async with Connection(self._server, self._key) as connection:
            while not self._over:
                began = time.perf_counter()
                answer = await connection.infer("/v2/models/flowers/infer", self._row)
                self.seconds.append(time.perf_counter() - began)
                version = int(answer.headers["evenkeel-model-version"])
                assert answer.tensor() == self._right[version]
                self.versions.add(version)


async def swap(server: Serving, key: str) -> None:
    """`latest` moves to the next version each second: one that was never loaded before."""
    async with Connection(server, key) as connection:
        for number in range(2, SWAPS + 2):
            moved = await connection.ask(
                "PUT", "/v1/models/flowers/aliases/latest", json.dumps({"version": number}).encode()
            )
            assert moved.status == 200, moved.body
            await asyncio.sleep(1.0)


def test_a_version_a_second_for_a_minute_under_full_load(
    settings: Settings, store: ArtifactStore, tenant: Tenant
) -> None:
    row = np.random.default_rng(0).normal(size=(1, 784)).astype(np.float32)
    right = {}
    for number in range(1, SWAPS + 2):
        content, card = classifier((784,), hidden=100, seed=number)
        publish(tenant, store, "flowers", content, card, number=number)
        right[number] = open_session(content).run(["probabilities"], {"input": row})[0].tobytes()

    async def both(server: Serving) -> tuple[Load, Load]:
        async with Connection(server, tenant.key) as connection:
            body = json.dumps({"version": 1}).encode()
            assert (await connection.ask("PUT", "/v1/models/flowers/aliases/latest", body)).status == 200
        calm, busy = (Load(server, tenant.key, right, row) for _ in range(2))
        await calm.run(asyncio.sleep(20.0))
        await busy.run(swap(server, tenant.key))
        return calm, busy

    with serving(settings, role="all") as server:
        calm, busy = asyncio.run(both(server))

    undisturbed, disturbed = percentile(calm.seconds, 0.99), percentile(busy.seconds, 0.99)
    print(f"{len(busy.seconds)} requests, p99 {disturbed * 1e3:.2f} ms, undisturbed {undisturbed * 1e3:.2f} ms")
    assert busy.versions == set(range(1, SWAPS + 2))
    assert disturbed <= 2 * undisturbed


async def crowd(server: Serving, key: str, seconds: float) -> dict[int, list[float]]:
    """Seconds that answers took, by status."""
    rows = np.random.default_rng(0).normal(size=(16, 784)).astype(np.float32)
    random = np.random.default_rng(1)
    times: dict[int, list[float]] = {}
    end = time.monotonic() + seconds

    async def one() -> None:
        await asyncio.sleep(float(random.uniform(0.0, 1.0)))
        async with Connection(server, key) as connection:
            while time.monotonic() < end:
                began = time.perf_counter()
                answer = await connection.infer("/v2/models/flowers/infer", rows)
                times.setdefault(answer.status, []).append(time.perf_counter() - began)
                if answer.status == 429:
                    assert int(answer.headers["retry-after"]) >= 1
                    assert "rows already wait" in json.loads(answer.body)["error"]
                    await asyncio.sleep(float(random.uniform(1.0, 2.0)))  # as they were told, and not all at once

    await asyncio.gather(*(one() for _ in range(CROWD)))
    return times


@pytest.fixture
def bounded(settings: Settings, store: ArtifactStore, tenant: Tenant) -> Iterator[Serving]:
    """A model that is slow enough for a crowd to fill its queue."""
    publish(tenant, store, "flowers", *classifier((784,), hidden=8192), number=1)
    with serving(settings, predict_queue_rows=256, predict_seconds=str(DEADLINE_SECONDS)) as server:
        yield server


class Memory:
    """The most that the process has had at a time, while this is open."""

    def __init__(self, server: Serving) -> None:
        self._process = server.process
        self.before = self.most = server.process.memory_info().rss
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> "Memory":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.most = max(self.most, self._process.memory_info().rss)


def test_200_clients_for_a_minute_are_bounded_and_leave_memory_flat(bounded: Serving, tenant: Tenant) -> None:
    asyncio.run(crowd(bounded, tenant.key, 5.0))

    with Memory(bounded) as memory:
        times = asyncio.run(crowd(bounded, tenant.key, CROWD_SECONDS))

    refused = percentile(times[429], 0.99)
    grown = (memory.most - memory.before) / 2**20
    print(
        f"{len(times[200])} answered, the last after {max(times[200]):.2f} s; {len(times[429])} refused, p99 "
        f"{refused * 1e3:.1f} ms; memory {memory.before / 2**20:.0f} MiB and {grown:.1f} more"
    )
    assert set(times) == {200, 429}
    assert max(times[200]) <= DEADLINE_SECONDS
    assert refused < 0.05
    assert grown < 32
