import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.downsampling import kept
from core.db import Database
from tests.api.application import TestClient
from tests.api.bench import Tenant, Worker


@pytest.fixture
def worker(tenant: Tenant, database: Database) -> Worker:
    tenant.job()
    return Worker(database)


def series(client: TestClient, tenant: Tenant, worker: Worker, **params: Any) -> Any:
    return client.get(f"/v1/jobs/{worker.job_id}/metrics", params=params, headers=tenant.headers).json()["series"]


@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=400), st.integers(min_value=2, max_value=60))
def test_downsampling_keeps_the_ends_and_the_extremes(values: list[float], maximum: int) -> None:
    array = np.array(values)

    chosen = kept(array, maximum)

    assert len(chosen) <= maximum or len(values) <= maximum
    assert list(chosen) == sorted(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, len(values) - 1)
    numbers = array[~np.isnan(array)]
    if maximum >= 5 and len(numbers):
        assert np.nanmin(array[chosen]) == numbers.min()
        assert np.nanmax(array[chosen]) == numbers.max()
    if maximum >= 5:
        assert np.isnan(array[chosen]).any() == np.isnan(array).any()


@given(st.integers(min_value=30, max_value=500), st.integers(min_value=6, max_value=29))
def test_each_bucket_shows_its_own_extremes(count: int, maximum: int) -> None:
    values = np.random.default_rng(count).normal(size=count)

    chosen = set(kept(values, maximum).tolist())

    bounds = np.linspace(0, count - 2, (maximum - 2) // 2 + 1).astype(int)
    for start, end in pairwise(bounds):
        bucket = values[1:-1][start:end]
        assert {1 + start + int(bucket.argmin()), 1 + start + int(bucket.argmax())} <= chosen


def test_series_are_whole_when_they_are_short(client: TestClient, tenant: Tenant, worker: Worker) -> None:
    worker.record("train/loss", [1, 2, 3], [3.0, 2.0, 1.0])
    worker.record("test/accuracy", [3], [0.5])

    assert series(client, tenant, worker) == {
        "test/accuracy": {"steps": [3], "values": [0.5], "total_points": 1},
        "train/loss": {"steps": [1, 2, 3], "values": [3.0, 2.0, 1.0], "total_points": 3},
    }
    assert series(client, tenant, worker, names="train/loss", since_step=2) == {
        "train/loss": {"steps": [2, 3], "values": [2.0, 1.0], "total_points": 2}
    }


def test_a_series_that_is_not_recorded_yet_is_empty(client: TestClient, tenant: Tenant, worker: Worker) -> None:
    assert series(client, tenant, worker, names="train/loss") == {
        "train/loss": {"steps": [], "values": [], "total_points": 0}
    }


def test_a_long_series_is_thinned_to_what_was_asked_for(client: TestClient, tenant: Tenant, worker: Worker) -> None:
    values = np.random.default_rng(0).normal(size=25_000)
    values[12_345], values[54] = 100.0, -100.0
    worker.record("train/loss", list(range(1, 25_001)), values.tolist())

    thinned = series(client, tenant, worker, max_points=50)["train/loss"]

    assert len(thinned["steps"]) <= 50
    assert thinned["total_points"] == 25_000
    assert (thinned["steps"][0], thinned["steps"][-1]) == (1, 25_000)
    assert (max(thinned["values"]), min(thinned["values"])) == (100.0, -100.0)
    assert 12_346 in thinned["steps"]


def test_values_that_are_no_numbers_stay_valid_json(client: TestClient, tenant: Tenant, worker: Worker) -> None:
    worker.record("train/loss", [1, 2, 3, 4], [1.0, math.nan, math.inf, -math.inf])

    answer = client.get(f"/v1/jobs/{worker.job_id}/metrics", headers=tenant.headers)

    found = json.loads(answer.content, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["series"]["train/loss"] == {
        "steps": [1, 2, 3, 4],
        "values": [1.0, None, None, None],
        "nonfinite": {"2": "nan", "3": "inf", "4": "-inf"},
        "total_points": 4,
    }


@pytest.mark.parametrize("how", [{"params": {"format": "csv"}}, {"headers": {"Accept": "text/csv"}}])
def test_csv_has_every_point_of_every_series(
    client: TestClient, tenant: Tenant, worker: Worker, how: dict[str, dict[str, str]]
) -> None:
    steps = [1, 2, 3, 7_000, 7_000_000]
    worker.record("train/loss", steps, [0.1, math.nan, 1e-30, -math.inf, 4.0])
    worker.record("test/accuracy", [3], [0.5])
    headers = tenant.headers | how.get("headers", {})

    answer = client.get(f"/v1/jobs/{worker.job_id}/metrics", params=how.get("params"), headers=headers)

    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.text.splitlines() == [
        "step,test/accuracy,train/loss",
        "1,,0.1",
        "2,,nan",
        "3,0.5,1e-30",
        "7000,,-inf",
        "7000000,,4.0",
    ]


def test_csv_without_points_is_its_header(client: TestClient, tenant: Tenant, worker: Worker) -> None:
    answer = client.get(f"/v1/jobs/{worker.job_id}/metrics?format=csv&names=a,b", headers=tenant.headers)

    assert answer.text == "step,a,b\n"
