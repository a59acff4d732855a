"""The direction of each monitored score."""

import math

import pytest

from runner.engine.monitor import Monitor, with_new_tags


@pytest.mark.parametrize(
    ("tag", "split", "metric", "direction"),
    [
        ("val/accuracy", "val", "accuracy", "maximize"),
        ("val/loss", "val", "loss", "minimize"),
        ("test/loss", "test", "loss", "minimize"),
        ("val/nll", "val", "nll", "minimize"),
        ("train_eval/accuracy", "train_eval", "accuracy", "maximize"),
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


def test_only_rows_with_the_old_accuracy_have_old_names():
    old = {"train/loss": 0.5, "train/accuracy": 0.75, "val/loss": 1.0, "train/lr": 0.1}
    new = {"train_eval/loss": 0.5, "train_eval/accuracy": 0.75, "val/loss": 1.0, "train/lr": 0.1}
    assert with_new_tags(old) == new and with_new_tags(new) == new
    assert with_new_tags({"train/loss": 0.5, "step": 3}) == {"train/loss": 0.5, "step": 3}


def test_only_a_loss_changes_with_the_knobs_of_the_loss():
    assert Monitor("val/loss").changes_with("loss") and Monitor("val/loss").changes_with("loss.gamma")
    assert not Monitor("val/loss").changes_with("loss.label_smoothing")
    assert not any(Monitor(tag).changes_with("loss") for tag in ("val/nll", "val/accuracy"))
    assert not Monitor("val/loss").changes_with("optim.lr")
