"""An int8 version says what it lost, and answers a row alike alone and in company."""

from pathlib import Path

import numpy as np

from api.inference.engine import served_model
from core.artifacts import ArtifactStore
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.trainer import session


def test_an_int8_version_tells_its_loss_and_keeps_its_bits_in_any_company(tmp_path: Path) -> None:
    sink = ListSink()
    spec = digits_spec(publish={"model": "small", "serving": {"quantization": "int8"}}, training={"steps": 200})
    session.train(order_for(tmp_path, spec), sink)
    finished = sink.finished
    card, file = finished.card, finished.artifacts["onnx_int8"]
    assert card is not None

    measured = card["serving"]["measured"]
    model = served_model(ArtifactStore(str(tmp_path / "artifacts")).get(file["name"], file["sha256"]), card)
    rows = np.random.default_rng(0).uniform(0, 16, (64, *card["input"]["shape"])).astype(np.float32)
    together = model.run(rows)

    assert measured["float32"] > 0.8
    assert abs(measured["difference"]) < 0.05
    assert measured["bytes"] == file["bytes"]
    for index in (0, 17, 63):
        alone = model.run(rows[index : index + 1])
        assert all(one[0].tobytes() == all_[index].tobytes() for one, all_ in zip(alone, together, strict=True))
