"""The answers on the test split that a job keeps, and scores of averaged ones against scikit-learn and closed forms."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load
from sklearn import metrics

from core.artifacts import ArtifactStore
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.trainer.answers import probabilities
from worker.trainer.ensemble import digest_of, scores_of
from worker.trainer.session import train


def kept(folder: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(the result, the tensors of the file)."""
    sink = ListSink()
    order = order_for(folder, digits_spec(**changes, evaluation={"keep_answers": True}))
    train(order, sink)
    result = sink.finished.result
    file = result["answers"]
    return result, load(ArtifactStore(order.artifact_url).get(file["name"], file["sha256"]))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_kept_probabilities_have_the_scores_of_the_job(tmp_path: Path, batch_norm: bool):
    result, file = kept(tmp_path, batch_norm=batch_norm)

    answers, targets = file["answers"], file["targets"]
    assert (answers.dtype, targets.dtype) == (np.float32, np.int64)
    assert np.allclose(answers.sum(1), 1.0, atol=1e-6)
    assert (answers.argmax(1) == targets).mean() == pytest.approx(result["accuracy"], abs=1e-12)
    loss = -np.log(answers[np.arange(len(targets)), targets].astype(float)).mean()
    assert loss == pytest.approx(result["loss"], rel=1e-4)


def test_kept_values_are_in_the_targets_units(tmp_path: Path):
    result, file = kept(tmp_path, dataset={"source": "diabetes"}, network={"family": "mlp", "hidden": [4]})

    errors = file["answers"][:, 0] - file["targets"]
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(result["rmse"], rel=1e-5)
    assert file["targets"].min() >= 25.0 and file["targets"].max() <= 346.0  # as in the file


def test_a_job_that_is_not_asked_keeps_none(tmp_path: Path):
    sink = ListSink()
    train(order_for(tmp_path, digits_spec()), sink)

    assert "answers" not in sink.finished.result


def test_scores_of_probabilities_are_those_of_scikit_learn():
    draw = np.random.default_rng(0)
    shares, targets = probabilities(draw.normal(size=(200, 4))), draw.integers(0, 4, 200)

    found = scores_of(shares, targets)

    assert found["loss"] == pytest.approx(metrics.log_loss(targets, shares), rel=1e-12)
    assert found["accuracy"] == metrics.accuracy_score(targets, shares.argmax(1))


def test_scores_of_values_are_those_of_scikit_learn_and_r2_of_constant_targets_is_no_number():
    draw = np.random.default_rng(1)
    values, targets = draw.normal(size=(200, 1)), draw.normal(size=200)

    found = scores_of(values, targets)

    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(targets, values[:, 0]), rel=1e-12)
    assert found["r2"] == pytest.approx(metrics.r2_score(targets, values[:, 0]), rel=1e-12)
    assert np.isnan(scores_of(values, np.ones(200))["r2"])


def test_probabilities_of_huge_logits_are_finite_and_a_certain_mistake_has_a_finite_loss():
    shares = probabilities(np.array([[2000.0, -2000.0]]))

    assert shares.tolist() == [[1.0, 0.0]]
    assert np.isfinite(scores_of(shares, np.array([1]))["loss"])


def test_a_digest_is_over_the_members_in_their_order_and_tells_one_without_statistics():
    assert len({digest_of(["a", "b"]), digest_of(["b", "a"]), digest_of(["a", None]), digest_of(["a"])}) == 4
