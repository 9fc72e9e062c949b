"""A version lives as long as somebody waits for it, whatever its name stands for by then."""

import json

import httpx
import numpy as np
import pytest

from core.artifacts import ArtifactStore
from tests.api.bench import Tenant, classifier, publish
from tests.api.live import Live, eventually
from tests.api.test_direct import Blocked, Connection

ROW = np.array([[0.5, -1.0, 2.0, 3.0]], np.float32)
PREDICT = json.dumps({"rows": ROW.tolist()}).encode()
ACTION = "/v1/models/flowers/predict?alias=production"


@pytest.fixture(autouse=True)
def flowers(tenant: Tenant, store: ArtifactStore) -> None:
    for number in (1, 2):
        publish(tenant, store, "flowers", *classifier(seed=number), number=number)


def label_of(body: bytes) -> tuple[int, dict[str, float]]:
    answer = json.loads(body)
    return answer["version"], answer["predictions"][0]["probabilities"]


@pytest.mark.parametrize("leaves", ["alias moves", "version is unloaded"])
def test_who_waits_is_answered_by_the_version_that_was_asked(live: Live, tenant: Tenant, leaves: str) -> None:
    with httpx.Client(base_url=live.url, headers=tenant.headers) as client, Connection(live, tenant) as waiting:
        alias = "/v1/models/flowers/aliases/production"
        client.put(alias, json={"version": 1}).raise_for_status()
        before = label_of(client.post(ACTION, content=PREDICT).content)
        (lane,) = [lane for lane in live.resources.engine.lanes() if lane.version == 1]
        session = Blocked(lane.model.session)
        object.__setattr__(lane.model, "session", session)
        lane._alone = 1.0  # so that its batches run beside the loop

        waiting.socket.sendall(waiting.head(ACTION, PREDICT) + PREDICT)
        assert session.asked.wait(20)
        if leaves == "alias moves":
            client.put(alias, json={"version": 2}).raise_for_status()
            eventually(lambda: label_of(client.post(ACTION, content=PREDICT).content)[0] == 2, "it moves")
        else:
            client.post("/v2/repository/models/flowers/unload").raise_for_status()
            assert not live.resources.engine.holds(lane.key)
        session.go.set()
        status, headers, body = waiting.answer()

    assert status == 200
    assert label_of(body) == before
    assert headers["evenkeel-model-version"] == "1"
