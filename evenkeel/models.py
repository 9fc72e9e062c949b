"""What a client asks of models: versions, aliases, statistics, files, answers."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from evenkeel.documents import listed
from evenkeel.reports import Verification
from evenkeel.results import Job, Model, ModelVersion, Predictions
from evenkeel.transport import PAGE, Transport

VERIFICATION_SECONDS = 300.0
"""A large model is run some hundred times."""
Member = Job | str | tuple[str, int] | Mapping[str, Any]


class ModelRequests:
    """The part of `Client` that is about models."""

    _transport: Transport

    def models(self, limit: int = 100) -> list[Model]:
        return [Model.read(raw) for raw in self._transport.pages("/v1/models", {}, limit)]

    def model(self, name: str) -> Model:
        return Model.read(self._transport.json("GET", _model(name)))

    def versions(self, model: str, limit: int = 100) -> list[ModelVersion]:
        return [ModelVersion.read(raw) for raw in self._transport.pages(f"{_model(model)}/versions", {}, limit)]

    def set_alias(self, model: str, alias: str, version: int) -> None:
        self._transport.json("PUT", f"{_model(model)}/aliases/{quote(alias, safe='')}", body={"version": version})

    def remove_alias(self, model: str, alias: str) -> None:
        self._transport.send("DELETE", f"{_model(model)}/aliases/{quote(alias, safe='')}")

    def population(
        self, model: str, version: int | None = None, channels: bool = False, *, alias: str | None = None
    ) -> dict[str, Any]:
        """Population statistics per layer, as measured after training; with `channels`, `layers` has every value."""
        path, params = f"{_model(model)}/population", {"version": version, "alias": alias}
        answer: dict[str, Any] = self._transport.json("GET", path, params=params)
        if channels:
            answer["layers"], page = [], {"has_more": True, "last_layer": None}
            while page["has_more"]:
                more = {"channels": "true", "limit": PAGE, "after": page["last_layer"]}
                page = self._transport.json("GET", path, params=params | more)
                answer["layers"] += page["layers"]
        return answer

    def recalibrate(
        self,
        model: str,
        dataset: Mapping[str, Any],
        *,
        version: int | None = None,
        alias: str | None = None,
        publish_alias: str | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """A job that measures population statistics on other data, for the same weights: a new version of the model.

        No alias moves unless `publish_alias` names one. `options`: population, resources, name, metadata, priority.
        """
        named = {"version": version, "alias": alias}
        body = {**options, "dataset": dict(dataset), "publish": {"alias": publish_alias}}
        body |= {name: value for name, value in named.items() if value is not None}
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return Job.read(self._transport.json("POST", f"{_model(model)}/recalibrate", body=body, headers=headers))

    def ensemble(
        self,
        model: str,
        members: Sequence[Member],
        *,
        alias: str | None = "latest",
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """A job that makes several published versions answer as one: a version of `model`, whose answers are the mean
        of theirs. A member is a job, a model's name (its `latest`), `(model, version)`, or an object as the service
        takes it. `alias` is moved to the new version. `options`: resources, name, metadata, priority."""
        body = {
            **options,
            "members": [_member(member) for member in members],
            "publish": {"model": model, "alias": alias},
        }
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return Job.read(self._transport.json("POST", "/v1/models", body=body, headers=headers))

    def verify(self, model: str, version: int | None = None, alias: str | None = None) -> Verification:
        """Runs the checks of publishing again, on the service's machine; `passed` is the answer."""
        path, params = f"{_model(model)}/verify", {"version": version, "alias": alias}
        answer = self._transport.json("POST", path, params=params, timeout_seconds=VERIFICATION_SECONDS)
        return Verification.read(answer)

    def download(self, model: str, format: str = "onnx", version: int | None = None, alias: str | None = None) -> bytes:
        """The artifact's bytes: `onnx`, `safetensors`, `probe` (rows and what they must give) or `card`."""
        params = {"format": format, "version": version, "alias": alias}
        return self._transport.send(
            "GET", f"{_model(model)}/download", params=params, headers={"Accept": "*/*"}
        ).content

    def predict(self, model: str, rows: Any, version: int | None = None, alias: str | None = None) -> Predictions:
        """Answers for rows in the data's own units: lists, objects by column name, or an array with `tolist`."""
        path, params = f"{_model(model)}/predict", {"version": version, "alias": alias}
        return Predictions.read(self._transport.json("POST", path, params=params, body={"rows": listed(rows)}))


def _member(member: Member) -> dict[str, Any]:
    if isinstance(member, Job):
        return {"job_id": member.id}
    if isinstance(member, str):
        return {"job_id": member} if member.startswith("job_") else {"model": member}
    if isinstance(member, tuple):
        return {"model": member[0], "version": member[1]}
    return dict(member)


def _model(name: str) -> str:
    return f"/v1/models/{quote(name, safe='')}"
