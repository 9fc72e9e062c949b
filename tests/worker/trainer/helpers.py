"""A sink that is a list, and orders to give a trainer."""

from pathlib import Path
from typing import Any

from core.spec import JobSpec
from worker.messages import CheckpointReference, CheckpointWritten, Command, Failed, Finished, Message, Order, Points

ASKED_BEFORE_TRAINING = 2  # for commands, at the beginning of two phases


class ListSink:
    """Keeps every message; gives `command` once `after_steps` steps of this attempt are done."""

    def __init__(self, command: Command | None = None, after_steps: int = 0) -> None:
        self.messages: list[Message] = []
        self._command = command
        self._questions_left = ASKED_BEFORE_TRAINING + after_steps

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def command(self) -> Command | None:
        self._questions_left -= 1
        return self._command if self._questions_left < 0 else None

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def last(self) -> Message:
        return self.messages[-1]

    @property
    def finished(self) -> Finished:
        assert isinstance(self.last, Finished), self.last
        return self.last

    @property
    def failed(self) -> Failed:
        assert isinstance(self.last, Failed), self.last
        return self.last

    @property
    def checkpoints(self) -> list[CheckpointReference]:
        return [message.checkpoint for message in self.of(CheckpointWritten)]

    @property
    def points(self) -> dict[str, dict[int, float]]:
        """Series → step → value, without throughput, which depends on the clock."""
        series: dict[str, dict[int, float]] = {}
        for message in self.of(Points):
            for name, (steps, values) in message.columns.items():
                if not name.startswith("throughput/"):
                    series.setdefault(name, {}).update(zip(steps, values, strict=True))
        return series


def digits_spec(**changes: Any) -> dict[str, Any]:
    """A small network on the bundled digits; `changes` replace whole sections, `training` is merged."""
    training = {"steps": 40, "batch_size": 32, "evaluate_every": 20, "checkpoint_every": 20}
    spec: dict[str, Any] = {
        "dataset": {"source": "digits"},
        "network": {"family": "mlp", "hidden": [16, 16], "activation": "relu"},
        "optimizer": {"kind": "sgd", "learning_rate": 0.1},
        "resources": {"device": "cpu"},
        "publish": None,
    }
    training |= changes.pop("training", {})
    return spec | {"training": training} | changes


def order_for(
    folder: Path, spec: dict[str, Any], checkpoints: tuple[CheckpointReference, ...] = (), fence: int = 1
) -> Order:
    written_out = JobSpec.model_validate(spec).model_dump(mode="json")
    store, data = str(folder / "artifacts"), str(folder / "data")
    return Order("job_test", written_out, fence, fence, store, data, "http://127.0.0.1:9", checkpoints)
