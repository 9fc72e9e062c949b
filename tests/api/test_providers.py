"""What a version asks of ONNX Runtime: threads, and CUDA where there is one. None was here: a session stands in for
it, which runs on the CPU and says that it does not."""

import logging
from typing import Any

import numpy as np
import pytest

from api.inference import engine
from api.inference.engine import served_model
from bn_models import receipt
from core.artifacts import ArtifactStore
from tests.api.application import TestClient
from tests.api.bench import Tenant, classifier, publish, submit

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
ROWS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


class OnCuda:
    """A session that says it runs on CUDA; notes how many rows each run had."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.sizes: list[int] = []

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def run(self, outputs: Any, given: dict[str, np.ndarray]) -> Any:
        self.sizes.append(len(given["input"]))
        return self._session.run(outputs, given)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """An ONNX Runtime with CUDA; the providers that sessions were opened with."""
    asked: list[tuple[str, ...]] = []

    def opened(content: bytes, threads: int, providers: tuple[str, ...]) -> Any:
        asked.append(tuple(providers))
        session = receipt.open_session(content, threads)
        return OnCuda(session) if CUDA in providers else session

    monkeypatch.setattr(engine, "available_providers", lambda: (CUDA, CPU))
    monkeypatch.setattr(engine, "open_session", opened)
    return asked


def on_cuda() -> tuple[bytes, dict[str, Any]]:
    content, card = classifier()
    return content, card | {"serving": {"provider": "cuda", "quantization": None, "threads": 1}}


def test_a_version_that_asks_for_cuda_gets_it_where_it_is(cuda: list[tuple[str, ...]]) -> None:
    model = served_model(*on_cuda())

    assert (cuda, model.provider, model.remark) == ([(CUDA, CPU)], "cuda", None)


def test_a_version_that_does_not_ask_stays_on_the_cpu(cuda: list[tuple[str, ...]]) -> None:
    model = served_model(*classifier())

    assert (cuda, model.provider, model.padded) == ([(CPU,)], "cpu", False)


def test_every_run_on_cuda_has_one_size_and_its_answers_say_so(
    client: TestClient, tenant: Tenant, store: ArtifactStore, cuda: list[tuple[str, ...]]
) -> None:
    publish(tenant, store, "flowers", *on_cuda(), number=1)

    answer = client.post("/v1/models/flowers/predict", json={"rows": ROWS.tolist()}, headers=tenant.headers)

    assert answer.headers["evenkeel-batch-invariance"] == "padded"
    assert len(answer.json()["predictions"]) == 5
    properties = client.get("/v2/models/flowers", headers=tenant.headers).json()["properties"]
    assert (properties["execution_provider"], properties["batch_invariance"]) == ("cuda", "padded")
    (lane,) = client.app_state["resources"].engine.lanes()
    assert set(lane.model.session.sizes) == {engine.ROWS_A_RUN}


def test_without_cuda_the_cpu_answers_and_it_is_said_with_the_remedy(
    client: TestClient, tenant: Tenant, store: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tenant, store, "flowers", *on_cuda(), number=1)

    with caplog.at_level(logging.WARNING):
        answer = client.post("/v1/models/flowers/predict", json={"rows": ROWS.tolist()}, headers=tenant.headers)

    assert answer.headers["evenkeel-batch-invariance"] == "exact"
    properties = client.get("/v2/models/flowers", headers=tenant.headers).json()["properties"]
    assert properties["execution_provider"] == "cpu"
    for said in (properties["remark"], caplog.text):
        assert "install onnxruntime-gpu in place of onnxruntime" in said


def test_a_cuda_that_is_listed_and_does_not_work_is_told_of_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime then makes a session on the CPU, without an error."""
    monkeypatch.setattr(engine, "available_providers", lambda: (CUDA, CPU))
    monkeypatch.setattr(engine, "open_session", lambda content, threads, _: receipt.open_session(content, threads))

    model = served_model(*on_cuda())

    assert (model.provider, model.padded, model.remark) == ("cpu", False, engine.NO_CUDA)


def test_who_asks_for_cuda_is_warned_before_the_training(client: TestClient, tenant: Tenant) -> None:
    spec = {
        "dataset": {"source": "digits"},
        "network": {"family": "mlp"},
        "publish": {"serving": {"provider": "cuda"}},
    }

    answer = client.post("/v1/jobs:validate", json=spec, headers=tenant.headers)

    assert any("provider cuda" in warning for warning in answer.json()["warnings"])
    assert submit(client, tenant, spec).status_code == 201


@pytest.mark.parametrize("threads", [1, 3])
def test_a_session_has_the_threads_that_its_bits_were_proved_with(threads: int) -> None:
    content, card = classifier()

    model = served_model(content, card | {"receipt": {"batch_invariant": True, "threads": threads}})

    assert model.session.get_session_options().intra_op_num_threads == threads
