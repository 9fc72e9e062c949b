"""The interface and a worker of one slot on one database: what is submitted over HTTP is trained by a real trainer."""

from typing import Any

from core.artifacts import ArtifactStore
from core.db import Database
from core.settings import Settings
from tests.api.application import TestClient
from tests.api.bench import Tenant
from worker.node import Node
from worker.supervisor import run_next


class Service:
    def __init__(self, settings: Settings, database: Database, client: TestClient, tenant: Tenant) -> None:
        self.settings, self.database, self._client, self._tenant = settings, database, client, tenant
        self.store = ArtifactStore(settings.resolved_artifact_url)
        self.node = Node("node_1", settings, database, self.store, 0)

    def call(self, method: str, path: str, expected: int = 200, **request: Any) -> Any:
        headers = self._tenant.headers | request.pop("headers", {})
        answer = self._client.request(method, path, headers=headers, **request)
        assert answer.status_code == expected, answer.text
        return answer.json()

    def get(self, path: str, **params: Any) -> Any:
        return self.call("GET", path, params=params)

    def post(self, path: str, body: Any = None, expected: int = 200, **request: Any) -> Any:
        return self.call("POST", path, expected, json=body, **request)

    def run(self) -> None:
        """The next queued job, to its end."""
        assert run_next(self.node, 0)

    def trained(self, body: dict[str, Any]) -> Any:
        """The job of this spec, once it has succeeded."""
        job = self.post("/v1/jobs", body, 201)
        self.run()
        ended = self.get(f"/v1/jobs/{job['id']}")
        assert ended["status"] == "succeeded", ended["error"]
        return ended
