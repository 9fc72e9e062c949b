"""Inputs against those of the training: shifts, z-scores, events."""

from typing import Any

import numpy as np
import pytest

from api.inference.drift import Drift, drift_of
from api.inference.moments import LEAST_ROWS, WINDOW_ROWS
from core.artifacts import ArtifactStore
from core.settings import Settings
from tests.api.application import TestClient
from tests.api.bench import COLUMNS, Tenant, classifier, publish

MEAN, VARIANCE = [1.0, -2.0, 300.0, 0.0], [4.0, 1.0, 100.0, 0.25]


class Model:
    columns = COLUMNS
    card: dict[str, Any] = {"input": {"kind": "table", "moments": {"mean": MEAN, "variance": VARIANCE}}}  # noqa: RUF012


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"drift_share": 1.0})


def draw(count: int, moved: float = 0.0) -> np.ndarray:
    rows = np.random.default_rng(0).normal(MEAN, np.sqrt(VARIANCE), (count, 4))
    rows[:, 2] += moved
    return rows.astype(np.float32)


def test_moments_agree_with_an_independent_float64_computation() -> None:
    drift = Drift(Model, "m", 1, 1.0, 0.5)
    rows = draw(1000, moved=3.0)
    for start in range(0, 1000, 64):
        drift.see(rows[start : start + 64])

    report = drift.report()

    exact = rows.astype(np.float64)
    for index, found in enumerate(report["inputs"]):
        assert found["mean"] == pytest.approx(exact[:, index].mean(), abs=1e-4)
        assert found["deviation"] == pytest.approx(exact[:, index].std(), rel=1e-4)
        shift = (exact[:, index].mean() - MEAN[index]) / VARIANCE[index] ** 0.5
        assert found["shift"] == pytest.approx(shift, abs=1e-5)
        assert found["z"] == pytest.approx(shift * 1000**0.5, abs=1e-3)
    assert (report["rows"], report["exceeded"]) == (1000, [])


def test_an_input_that_drifts_and_returns_is_told_once_each() -> None:
    drift = Drift(Model, "m", 1, 1.0, 0.5)
    for _ in range(10):
        drift.see(draw(LEAST_ROWS, moved=20.0))
    assert drift.alarm.exceeded == {"height"}
    while drift.alarm.exceeded:
        drift.see(draw(LEAST_ROWS))

    assert [(event["type"], event["input"]) for event in drift.alarm.events] == [
        ("drifted", "height"),
        ("returned", "height"),
    ]


def test_the_window_forgets() -> None:
    drift = Drift(Model, "m", 1, 1.0, 0.5)
    for _ in range(100):
        drift.see(draw(1000, moved=20.0))
        assert drift.window.rows < WINDOW_ROWS


def test_a_row_that_is_far_beyond_numbers_does_not_end_the_watch() -> None:
    drift = Drift(Model, "m", 1, 1.0, 0.5)
    drift.see(np.full((1, 4), 3e38, np.float32))
    drift.see(draw(500, moved=20.0))

    assert np.isfinite(drift.shifts()).all()
    assert drift.alarm.exceeded == {"height"}


def test_only_a_share_of_the_batches_is_looked_at() -> None:
    drift = Drift(Model, "m", 1, 0.25, 0.5)
    for _ in range(100):
        drift.see(draw(8))

    assert drift.window.rows == 25 * 8


def test_a_card_of_standardized_columns_needs_no_moments() -> None:
    class Older:
        columns = COLUMNS
        card: dict[str, Any] = {  # noqa: RUF012
            "input": {"kind": "table"},
            "scaling": {"kind": "standardize", "offset": MEAN, "scale": [1 / value**0.5 for value in VARIANCE]},
        }

    drift = drift_of(Older, "m", 1, 1.0, 0.5)

    assert drift is not None
    assert drift.deviation.tolist() == pytest.approx([value**0.5 for value in VARIANCE])
    assert drift_of(Older, "m", 1, 0.0, 0.5) is None


def test_an_image_is_looked_at_by_channel() -> None:
    class Picture:
        columns = ()
        card: dict[str, Any] = {  # noqa: RUF012
            "input": {"kind": "image", "moments": {"mean": [10.0, 20.0], "variance": [4.0, 9.0]}}
        }

    drift = Drift(Picture, "m", 1, 1.0, 0.5)
    drift.see(np.full((4, 2, 3, 3), 16.0, np.float32))

    assert drift.shifts().tolist() == pytest.approx([3.0, -4.0 / 3.0])


def test_predictions_are_watched_and_told_of(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    content, card = classifier()
    card["input"]["moments"] = {"mean": MEAN, "variance": VARIANCE}
    publish(tenant, store, "flowers", content, card, number=1)
    rows = draw(LEAST_ROWS * 2, moved=20.0).tolist()

    client.post("/v1/models/flowers/predict", json={"rows": rows}, headers=tenant.headers)

    found = client.get("/v1/models/flowers/drift", headers=tenant.headers).json()
    assert (found["rows"], found["exceeded"]) == (LEAST_ROWS * 2, ["height"])
    assert found["events"][0]["type"] == "drifted"
    assert 'evenkeel_drift_inputs{model="flowers",version="1"} 1.0' in client.get("/metrics").text


def test_a_model_without_moments_says_so(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)

    assert client.get("/v1/models/flowers/drift", headers=tenant.headers).status_code == 409
