"""What goes through the pipe comes out as it was."""

import math
from array import array

import pytest

from worker.messages import (
    CheckpointReference,
    CheckpointWritten,
    Failed,
    Finished,
    LayersReported,
    LogLine,
    Message,
    PhaseBegan,
    Points,
    Started,
    Stopped,
    decode,
    encode,
)

REFERENCE = CheckpointReference("checkpoints/job_1/5-1.safetensors", "ab" * 32, 123, 5)


@pytest.mark.parametrize(
    "message",
    [
        Started("cpu; torch=2", 7),
        PhaseBegan("training"),
        LogLine("warning", "a line\nand another", 3, {"kind": "gap"}),
        LayersReported(40, True, [{"name": "hidden1.batch_norm", "gain": {"max": None, "min": -0.5}}]),
        CheckpointWritten(REFERENCE, complete=False, monitor="test/loss", score=0.5, best=True),
        Stopped("pause", 9),
        Finished({"accuracy": 0.5}, None, {"onnx": {"name": "a", "sha256": "b", "bytes": 1}}),
        Failed("internal", "what", 1, "Traceback …"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    assert decode(encode(message)) == message


def test_points_keep_every_bit() -> None:
    columns = {
        "train/loss": (array("q", [1, 2, 3]), array("d", [0.1, math.inf, -0.0])),
        "empty": (array("q"), array("d")),
    }

    assert decode(encode(Points(columns))) == Points(columns)


def test_a_value_that_is_no_number_stays_one() -> None:
    decoded = decode(encode(Points({"a": (array("q", [1]), array("d", [math.nan]))})))

    assert isinstance(decoded, Points)
    assert math.isnan(decoded.columns["a"][1][0])


def test_bytes_of_somebody_else_are_refused() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        decode(b"hello")
