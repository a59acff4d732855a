"""The direction of each monitored score."""

import math

import pytest

from runner.engine.monitor import Monitor


@pytest.mark.parametrize(
    ("tag", "split", "metric", "direction"),
    [
        ("val/accuracy", "val", "accuracy", "maximize"),
        ("val/loss", "val", "loss", "minimize"),
        ("test/loss", "test", "loss", "minimize"),
    ],
)
def test_a_tag_names_split_metric_and_direction(tag, split, metric, direction):
    monitor = Monitor(tag)
    assert (monitor.split, monitor.metric, monitor.direction) == (split, metric, direction)
    assert monitor.larger_is_better == (direction == "maximize")


def test_the_best_has_the_highest_rank_and_nan_the_lowest():
    values = [0.3, math.nan, 0.1, 0.2]
    assert max(values, key=Monitor("val/accuracy").rank) == 0.3
    assert max(values, key=Monitor("val/loss").rank) == 0.1
    assert math.isnan(min(values, key=Monitor("val/loss").rank))


def test_nothing_equal_or_nan_is_better():
    loss = Monitor("val/loss")
    assert loss.better(0.1, 0.2)
    assert not loss.better(0.2, 0.1)
    assert not loss.better(0.1, 0.1)
    assert not loss.better(math.nan, 0.1)
    assert loss.better(0.1, math.nan)
