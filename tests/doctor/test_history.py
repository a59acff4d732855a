"""What the doctor reads: the curves of `metrics.jsonl`, and the facts of a run."""

import math

import numpy as np
import pytest
from hand_made import COUNTS, facts, write_folder
from torch import nn, tensor, zeros

from runner.comparing.runs import find_runs
from runner.doctor import read_history
from runner.doctor.history import curves_of
from runner.errors import CheckpointError
from runner.registry import build
from runner.status import Status

ROWS = [
    {"step": 1, "train/loss": 2.3, "val/loss": 2.2},
    {"step": 2, "train/loss": "NaN"},
    {"step": 3, "train/loss": "Infinity", "grad_norm/_global": 1.5},
    {"step": 4, "train/loss": 2.0},
]


def read(folder):
    (run,) = find_runs([str(folder)]).runs
    return read_history(run)


def test_each_tag_is_a_curve_with_its_own_steps(tmp_path):
    found = read(write_folder(tmp_path / "run", ROWS))
    loss = found.series("train/loss")
    assert loss.steps.tolist() == [1, 2, 3, 4]
    assert loss.steps.dtype == np.int64
    assert loss.values.dtype == np.float64
    assert np.isnan(loss.values[1]) and loss.values[2] == math.inf
    assert found.series("grad_norm/_global").steps.tolist() == [3]
    assert loss.finite().steps.tolist() == [1, 4]
    assert found.tags("val/") == ("val/loss",)
    assert found.tags() == ("grad_norm/_global", "train/loss", "val/loss")


def test_what_was_not_logged_is_an_empty_curve(tmp_path):
    found = read(write_folder(tmp_path / "run", ROWS)).series("ratio/l2/_global")
    assert len(found) == 0 and len(found.finite()) == 0


def test_the_later_of_two_rows_of_a_step_counts():
    rows = [(2, {"train/loss": 1.0}), (1, {"train/loss": 3.0}), (2, {"train/loss": 2.0})]
    found = curves_of(rows)["train/loss"]
    assert found.steps.tolist() == [1, 2]
    assert found.values.tolist() == [3.0, 2.0]


def test_a_line_that_a_crash_cut_is_left_out(tmp_path):
    text = '{"step": 1, "train/loss": 2.5}\n{"step": 2, "train/lo'
    found = read(write_folder(tmp_path / "run", [], text=text))
    assert found.series("train/loss").steps.tolist() == [1]


def test_an_empty_file_has_no_curves(tmp_path):
    assert read(write_folder(tmp_path / "run", [])).tags() == ()


def test_a_missing_or_damaged_file_is_one_line(tmp_path):
    folder = write_folder(tmp_path / "run", [], text='{"step": 1, "train/loss": [}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: malformed"):
        read(folder)
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: there is none"):
        read(folder)


def test_the_facts_come_from_the_files_of_the_folder(tmp_path):
    found = read(write_folder(tmp_path / "run", ROWS, epochs=30, optim__lr=0.5)).facts
    assert (found.classes, found.train_examples, found.val_examples) == (10, 1200, 297)
    assert (found.steps, found.steps_per_epoch) == (570, 19)
    assert found.class_shares == tuple(count / 1200 for count in COUNTS)
    assert found.status is Status.DONE and found.diverged_at is None
    assert found.overrides == ("epochs=30", "optim.lr=0.5")
    assert found.config["optim"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("reason", "steps", "expected"),
    [
        ("diverged at step 12: train/loss is nan", 11, 12),
        ("diverged at step 38: val/loss is inf", 38, 38),
        (None, 4, 5),
    ],
)
def test_the_step_that_diverged_is_known(tmp_path, reason, steps, expected):
    found = read(write_folder(tmp_path / "run", ROWS, status="diverged", reason=reason, done_steps=steps)).facts
    assert found.diverged_at == expected


def test_without_a_step_the_epoch_is_counted_from_the_sizes(tmp_path):
    found = read(write_folder(tmp_path / "run", [], status="diverged", done_steps=0)).facts
    # 1200 images in batches of 64
    assert found.steps_per_epoch == 19


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("cross_entropy", {"label_smoothing": 0.2, "class_weights": None}),
        (
            "cross_entropy",
            {"label_smoothing": 0.0, "class_weights": [1.0] * 5 + [3.0] * 5},
        ),
        ("poly", {"epsilon": 2.0, "label_smoothing": 0.1, "class_weights": None}),
        ("focal", {"gamma": 2.0, "alpha": None, "class_weights": None}),
        ("bce", {"label_smoothing": 0.3, "positive_weight": 4.0, "class_weights": None}),
        ("hinge", {"margin": 1.5, "class_weights": None}),
        ("mse", {"class_weights": None}),
    ],
)
def test_the_loss_of_chance_is_that_of_zero_logits(name, knobs):
    import runner.components  # noqa: F401

    loss = build("loss", {"name": name, **knobs}, num_classes=10, class_counts=tensor(COUNTS))
    labels = tensor([0, 3, 9, 9, 5])
    found = facts(loss={"name": name, **knobs}).chance_loss()
    assert found == pytest.approx(loss.train(zeros(5, 10), labels).item(), rel=1e-6)


def test_the_loss_of_chance_is_unknown_for_other_losses():
    assert facts(loss={"name": "of_a_user"}).chance_loss() is None
    assert facts(loss={"name": "focal", "gamma": 2.0, "alpha": 0.25}).chance_loss() is None
    assert facts(distillation={"name": "logits"}).chance_loss() is None
    assert facts(classes=0).chance_loss() is None


def test_the_entropy_of_the_classes_is_the_least_loss_of_a_constant_output():
    shares = (0.5, 0.25, 0.25)
    found = facts(class_shares=shares, classes=3)
    labels = tensor([0, 0, 1, 2])
    constant = tensor([shares]).log().expand(4, 3)
    assert found.prior_entropy() == pytest.approx(nn.functional.cross_entropy(constant, labels).item(), rel=1e-6)
    assert found.majority() == 0.5
    assert facts(class_shares=()).prior_entropy() is None
    assert facts(class_shares=()).majority() is None
