"""An int8 version says what it lost, and is served row by row."""

from pathlib import Path

from api.inference.engine import served_model
from core.artifacts import ArtifactStore
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.trainer import session


def test_an_int8_version_tells_its_loss_and_is_served_row_by_row(tmp_path: Path) -> None:
    sink = ListSink()
    spec = digits_spec(publish={"model": "small", "serving": {"quantization": "int8"}}, training={"steps": 200})
    session.train(order_for(tmp_path, spec), sink)
    finished = sink.finished
    card, file = finished.card, finished.artifacts["onnx_int8"]
    assert card is not None

    measured = card["serving"]["measured"]
    model = served_model(ArtifactStore(str(tmp_path / "artifacts")).get(file["name"], file["sha256"]), card)

    assert measured["float32"] > 0.8
    assert abs(measured["difference"]) < 0.05
    assert measured["bytes"] == file["bytes"]
    assert model.rows_a_run == 1  # its scales are those of a whole run
