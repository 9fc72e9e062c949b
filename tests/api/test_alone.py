"""One row through memory of its own is answered as by any other run."""

import numpy as np

from api.inference.alone import Alone
from api.inference.engine import served_model
from tests.api.bench import classifier


def test_a_row_alone_has_the_bits_of_any_run_and_keeps_them() -> None:
    content, card = classifier((784,), hidden=64)
    model = served_model(content, card)
    alone = Alone(model)
    rows = np.random.default_rng(0).normal(size=(20, 784)).astype(np.float32)

    answers = [alone.run(rows[place : place + 1]) for place in range(20)]

    for place, found in enumerate(answers):
        right = model.run(rows[place : place + 1])
        assert [output.tobytes() for output in found] == [output.tobytes() for output in right]
    for output, right in zip(alone.run(rows), model.run(rows), strict=True):
        assert output.tobytes() == right.tobytes()
