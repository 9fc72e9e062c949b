import math

import pytest

from core.spec import EarlyStoppingSpec
from worker.trainer.monitor import Monitor


def test_without_early_stopping_the_validation_loss_is_followed_where_there_is_one():
    assert Monitor.of(None, has_validation=True).series == "validation/loss"
    assert Monitor.of(None, has_validation=False).series == "test/loss"


def test_a_lower_loss_is_better_and_the_step_of_the_best_is_kept():
    monitor = Monitor("validation/loss")

    improved = [monitor.observe(step, loss) for step, loss in enumerate([2.0, 1.0, 1.5, 0.5], start=1)]

    assert improved == [True, True, False, True]
    assert (monitor.best, monitor.best_step, monitor.stale) == (0.5, 4, 0)


def test_a_higher_accuracy_is_better():
    monitor = Monitor("validation/accuracy")

    assert [monitor.observe(1, 0.5), monitor.observe(2, 0.4), monitor.observe(3, 0.6)] == [True, False, True]


def test_patience_counts_evaluations_since_the_best_by_more_than_min_delta():
    monitor = Monitor.of(EarlyStoppingSpec(patience=2, min_delta=0.1), has_validation=True)

    monitor.observe(1, 1.0)
    monitor.observe(2, 0.95)
    assert not monitor.exhausted
    monitor.observe(3, 0.91)

    assert monitor.exhausted
    assert monitor.best_step == 1


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_never_the_best(score: float):
    monitor = Monitor("test/loss")

    assert not monitor.observe(1, score)
    assert monitor.observe(2, 3.0)
    assert not monitor.observe(3, score)


def test_a_restored_monitor_goes_on_where_it_was():
    monitor = Monitor("validation/loss", patience=2)
    monitor.observe(1, 1.0)
    monitor.observe(2, 2.0)
    copy = Monitor("validation/loss", patience=2)

    copy.restore(monitor.as_json())
    copy.observe(3, 2.0)

    assert copy.exhausted and copy.best == 1.0
