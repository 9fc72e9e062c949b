"""What the tests of the interface share: a job as a worker would move it, and a model as a trainer would publish it."""

from dataclasses import asdict
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from core.artifacts import ArtifactStore
from core.credentials import ALL_SCOPES, mint
from core.db import Database, insert_many
from core.identifiers import new_id
from core.queries import checkpoints, events, jobs, keys, leases, metrics, models
from core.queries.events import EventDraft
from core.tables import metric_points
from tests.api.application import TestClient

SPEC: dict[str, Any] = {"dataset": {"source": "digits"}, "network": {"family": "mlp"}, "training": {"steps": 100}}
COLUMNS = ("length", "width", "height", "weight")
LABELS = ("a", "b", "c")


class Tenant:
    """A tenant with a key of every scope."""

    def __init__(self, database: Database, name: str, scopes: tuple[str, ...] = ALL_SCOPES) -> None:
        self.id = new_id("ten")
        self.database = database
        with database.write() as connection:
            connection.execute(keys.create_tenant(self.id, name))
        self.key = self.new_key(scopes)
        self.headers = {"Authorization": f"Bearer {self.key}"}

    def new_key(self, scopes: tuple[str, ...], **columns: Any) -> str:
        minted = mint()
        with self.database.write() as connection:
            connection.execute(
                keys.create(
                    id=minted.id,
                    tenant_id=self.id,
                    name="test",
                    secret_sha256=minted.secret_sha256,
                    scopes=list(scopes),
                    **columns,
                )
            )
        return minted.text

    def job(self, **columns: Any) -> str:
        """The id of a queued job, written as the interface writes it."""
        job_id = new_id("job")
        values = {
            "idempotency_key": None,
            "spec": SPEC,
            "spec_sha256": "0" * 64,
            "name": "digits-mlp",
            "family": "mlp",
            "metadata": {},
            "priority": 0,
            "needs_cuda": False,
            "flops_per_step": 1000,
            "steps": 100,
        }
        with self.database.write() as connection:
            connection.execute(jobs.create(id=job_id, tenant_id=self.id, **(values | columns)))
            connection.execute(events.append(job_id, 1, 0, [EventDraft("status", "queued", {"status": "queued"})]))
        return job_id


class Worker:
    """Moves one job the way a supervisor does."""

    def __init__(self, database: Database, job_id: str | None = None) -> None:
        self.database = database
        with database.write() as connection:
            row = connection.execute(leases.claim_next("node_1:0", 60.0, True)).one()
            assert job_id in (None, row.id)
            self.job_id, self.fence = row.id, row.fence
            draft = EventDraft("status", "running", {"status": "running"})
            connection.execute(events.append(row.id, row.base, row.attempt, [draft]))

    def tick(self, *drafts: EventDraft, step: int = 0) -> None:
        with self.database.write() as connection:
            row = connection.execute(
                leases.renew(self.job_id, self.fence, 0, len(drafts), lease_seconds=60.0, step=step)
            ).one()
            if drafts:
                connection.execute(events.append(self.job_id, row.base, 1, list(drafts)))

    def log(self, count: int) -> None:
        for number in range(count):
            self.tick(EventDraft("log", f"line {number}", {"step": number}))

    def record(self, name: str, steps: list[int], values: list[float]) -> None:
        with self.database.write() as connection:
            series = connection.execute(metrics.create_series(self.job_id, name)).scalar_one()
            insert_many(connection, metric_points, metrics.point_rows(series, steps, values))
            flag = metrics.flag(values[-1])
            latest = {"series_id": series, "latest_step": steps[-1], "latest_nonfinite": flag}
            connection.execute(metrics.update_latest(), [latest | {"latest_value": None if flag else values[-1]}])

    def checkpoint(self, step: int, complete: bool) -> None:
        with self.database.write() as connection:
            connection.execute(
                checkpoints.create(
                    id=new_id("ckpt"),
                    job_id=self.job_id,
                    step=step,
                    attempt=1,
                    name=f"checkpoints/{self.job_id}/{step}",
                    sha256="1" * 64,
                    bytes=10,
                    complete=complete,
                    best=False,
                )
            )

    def end(self, state: str = "succeeded", **columns: Any) -> None:
        with self.database.write() as connection:
            row = connection.execute(leases.finish(self.job_id, self.fence, 0, 2, state=state, **columns)).one()
            ended = {"status": state}
            drafts = [EventDraft("status", state, ended), EventDraft("end", state, ended)]
            connection.execute(events.append(self.job_id, row.base, 1, drafts))

    def put_back(self, state: str) -> None:
        with self.database.write() as connection:
            row = connection.execute(leases.put_back(self.job_id, self.fence, 0, 1, state=state)).one()
            connection.execute(
                events.append(self.job_id, row.base, 1, [EventDraft("status", state, {"status": state})])
            )


def publish(tenant: Tenant, store: ArtifactStore, name: str, content: bytes, card: dict[str, Any], number: int) -> str:
    """Version `number` of model `name`; the name of its ONNX file in the store."""
    file = store.put_content(content, ".onnx")
    with tenant.database.write() as connection:
        model = connection.execute(models.by_name(tenant.id, name)).one_or_none()
        model_id = model.id if model else new_id("mdl")
        if model is None:
            connection.execute(models.create(model_id, tenant.id, name))
    job_id = tenant.job()
    with tenant.database.write() as connection:
        connection.execute(
            models.create_version(
                model_id=model_id,
                version=number,
                job_id=job_id,
                card=card,
                artifacts={"onnx": asdict(file)},
                weights_sha256="2" * 64,
                statistics_sha256="3" * 64,
            )
        )
    return file.name


def classifier(shape: tuple[int, ...] = (4,), hidden: int = 32, seed: int = 0) -> tuple[bytes, dict[str, Any]]:
    """(ONNX bytes, card) of a network with one hidden layer."""
    draw = np.random.default_rng(seed)
    columns = int(np.prod(shape))
    first = draw.normal(size=(columns, hidden)).astype(np.float32)
    second = draw.normal(size=(hidden, len(LABELS))).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["sums"]),
        helper.make_node("Sigmoid", ["sums"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    content = _onnx(nodes, shape, {"first": first, "second": second}, {"probabilities": 3, "logits": 3})
    kind, names = ("table", list(COLUMNS)) if shape == (4,) else ("image", None)
    card = {
        "task": "classification",
        "input": {"kind": kind, "shape": list(shape), "columns": names},
        "labels": list(LABELS),
        "population": {"estimator": "pooled", "layers": {"hidden1.batch_norm": {"n": 10}}},
        "receipt": {"batch_invariant": True},
    }
    return content, card


def place_dependent() -> tuple[bytes, dict[str, Any]]:
    """A classifier by an operator that ONNX Runtime computes in eights of the whole batch, so that a row's
    last bits depend on its place."""
    weight = np.random.default_rng(0).normal(size=(5, len(LABELS))).astype(np.float32)
    nodes = [
        helper.make_node("Elu", ["input"], ["below"]),
        helper.make_node("MatMul", ["below", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    content = _onnx(nodes, (5,), {"weight": weight}, {"probabilities": 3, "logits": 3})
    return content, classifier((5,))[1]


def regressor() -> tuple[bytes, dict[str, Any]]:
    """Answers the sum of its columns."""
    ones = np.ones((4, 1), np.float32)
    content = _onnx([helper.make_node("MatMul", ["input", "ones"], ["value"])], (4,), {"ones": ones}, {"value": 1})
    card = {"task": "regression", "input": {"kind": "table", "shape": [4], "columns": list(COLUMNS)}, "labels": None}
    return content, card


def _onnx(nodes: list[Any], shape: tuple[int, ...], weights: dict[str, Any], outputs: dict[str, int]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "frozen",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def submit(client: TestClient, tenant: Tenant, spec: dict[str, Any] | None = None, **headers: str) -> Any:
    return client.post("/v1/jobs", json=spec or SPEC, headers=tenant.headers | headers)
