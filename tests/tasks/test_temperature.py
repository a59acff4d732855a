"""Temperature scaling and the gain of several views in task=evaluate, against numbers from the saved predictions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from running import job, result
from scipy import optimize, special
from sklearn import metrics as reference
from test_predictions import SMALL, files, opened

from runner import tasks
from runner.ensembles.calibration import disjoint_halves
from runner.errors import ConfigError
from runner.tasks import predictions, views_gain

RUN = Path("outputs/a")
QUICK = (*SMALL, "test=never")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def start(*words):
    assert tasks.start(job(*words)) == 0


def evaluate(*words):
    start("task=evaluate", "run=outputs/a", "figures=never", *words)


def record(split):
    return json.loads((RUN / f"temperature_{split}.json").read_text())


def best_temperature(log_p, labels):
    """Return the temperature of the smallest log loss of scikit-learn, found by scipy."""
    classes = range(log_p.shape[1])
    found = optimize.minimize_scalar(
        lambda t: reference.log_loss(labels, special.softmax(log_p / t, axis=1), labels=classes),
        bounds=(0.05, 20),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return found.x


def predicted(split):
    arrays, _ = opened(RUN / "predictions" / f"{split}.safetensors")
    return arrays["log_p"].astype(float), arrays["labels"]


def test_the_temperature_of_test_is_fitted_on_validation(capsys):
    start(*QUICK)
    before = files(RUN)
    evaluate("task.temperature=true")
    found, shown = record("test"), capsys.readouterr().out
    temperature = best_temperature(*predicted("val"))
    assert found["temperature"] == pytest.approx(temperature, rel=1e-4)
    log_p, labels = predicted("test")
    for name, t in (("before", 1), ("after", temperature)):
        p = special.softmax(log_p / t, axis=1)
        assert found[name]["nll"] == pytest.approx(reference.log_loss(labels, p), rel=1e-4)
        assert found[name]["brier"] == pytest.approx(reference.brier_score_loss(labels, p), rel=1e-4)
    scores = result(RUN)
    assert scores["test_reads"] == 1
    line = f"temperature   {found['temperature']:.4g}, fitted on {len(predicted('val')[1])} validation examples; "
    assert f"{line}scored on {len(labels)} test examples" in shown
    assert f"NLL {found['before']['nll']:.4f} -> {found['after']['nll']:.4f}, ECE" in shown
    assert set(files(RUN)) - set(before) == {"temperature_test.json", "predictions/test.safetensors"}


def test_scored_validation_examples_never_fit_the_temperature():
    start(*QUICK)
    evaluate("task.temperature=true", "task.split=val", "predictions=never")
    found = record("val")
    log_p, labels = predicted("val")
    first, second = disjoint_halves(labels, 0)
    assert found["temperature"] == pytest.approx(best_temperature(log_p[first], labels[first]), rel=1e-4)
    p = special.softmax(log_p[second] / found["temperature"], axis=1)
    assert found["after"]["nll"] == pytest.approx(reference.log_loss(labels[second], p), rel=1e-4)
    assert found["scored_on"] == f"the other {len(second)}"


def write_arrays(name, seed):
    """Write images whose brightness says their class."""
    draw = np.random.default_rng(seed)
    labels = np.arange(300) % 3
    images = (60 * labels[:, None, None] + draw.integers(0, 90, (300, 4, 4))).astype(np.uint8)
    np.savez(name, x=images, y=labels)


def test_the_temperature_of_other_data_is_that_of_the_runs_validation(capsys):
    write_arrays("mine.npz", 0)
    write_arrays("other.npz", 1)
    start(*QUICK, "data=arrays", "data.root=mine.npz", "predictions=always")
    log_p, labels = predicted("val")
    words = ("data=arrays", "data.root=other.npz", "task.temperature=true", "task.split=val")
    evaluate(*words)
    (path,) = RUN.glob("temperature_val-data*.json")
    found = json.loads(path.read_text())
    assert found["temperature"] == pytest.approx(best_temperature(log_p, labels), rel=1e-4)
    assert (found["fitted_on"], found["scored_on"]) == (f"{len(labels)} validation examples", "30 val examples")
    with pytest.raises(ConfigError, match=r"no saved predictions for validation by these weights, with this predict"):
        evaluate(*words, "predict=tta")
    (RUN / "predictions" / "val.safetensors").unlink()
    with pytest.raises(
        ConfigError, match=r"no saved predictions .*; save them first: task=evaluate run=outputs/a task\.split"
    ):
        evaluate(*words)
    # What the line says to do
    evaluate("data=arrays", "data.root=mine.npz", "task.split=val")
    evaluate(*words)


def test_without_the_setting_nothing_is_fitted(capsys):
    start(*QUICK)
    evaluate("task.split=val")
    assert "temperature" not in capsys.readouterr().out
    assert not list(RUN.glob("temperature*"))


def test_a_loss_without_probabilities_is_refused_before_the_test_split_is_read():
    start(*QUICK, "loss=mse")
    with pytest.raises(ConfigError, match=r"^task\.temperature: got true, must be false here: its outputs are scores"):
        evaluate("task.temperature=true")
    assert result(RUN)["test_reads"] == 0


def test_passes_of_dropout_are_compared_with_the_plain_prediction(capsys):
    start(*QUICK, "regularizer=[dropout]")
    evaluate("task.split=val", "predict=plain")
    plain, labels = predicted("val")
    capsys.readouterr()
    evaluate("task.split=val", "predict=mc_dropout", "predict.passes=3")
    mean, _ = predicted("val")
    shown = capsys.readouterr().out
    accuracies = [float((each.argmax(1) == labels).mean()) for each in (plain, mean)]
    gain = 100 * (accuracies[1] - accuracies[0])
    assert re.search(rf"gain over the plain prediction: {re.escape(f'{gain:+.1f}')} points \[", shown)
    assert re.search(rf"plain prediction +{accuracies[0]:.4f}", shown)
    nll = reference.log_loss(labels, special.softmax(mean, axis=1))
    assert re.search(rf"ensemble +{accuracies[1]:.4f} +{nll:.4f}", shown)
    assert "lectures" not in shown and "cost: 3 times the forward passes" in shown
    assert shown.count("pass 3") == 1


def test_the_scores_are_those_without_the_comparison(monkeypatch, capsys):
    start(*QUICK, "regularizer=[dropout]")
    evaluate("task.split=val", "predict=mc_dropout")
    with_it, text = predicted("val")[0], capsys.readouterr()
    monkeypatch.setattr(views_gain, "_MOST_BYTES", 1000)
    evaluate("task.split=val", "predict=mc_dropout")
    found = capsys.readouterr()
    np.testing.assert_array_equal(predicted("val")[0], with_it)
    assert "gain over" in text.out and "gain over" not in found.out
    assert re.search(
        r"gain over the plain prediction: not measured, the predictions of all passes have 1[\d.]+ kB", found.err
    )


def test_one_view_has_no_gain(capsys):
    start(*QUICK)
    evaluate("task.split=val")
    assert "gain" not in capsys.readouterr().out
    start(*QUICK[:-2], "test=never", "loss=mse", "name=b")
    start("task=evaluate", "run=outputs/b", "figures=never", "task.split=val", "predict=tta")
    assert "gain" not in capsys.readouterr().out


@pytest.mark.rendered
def test_pages_and_figures_of_an_evaluation_are_saved():
    start(*QUICK)
    start("task=evaluate", "run=outputs/a", "predict=tta", "task.split=val", "task.temperature=true")
    made = {"tta_val.html", "tta_val.md", "tta_val.png", "calibration_val_temperature.png", "temperature_val.json"}
    assert made < set(files(RUN))
    page = (RUN / "tta_val.html").read_text()
    assert "gain over the plain prediction" in page and "data:image/png" in page
    assert "![" in (RUN / "tta_val.md").read_text() and "task=evaluate" in page


def test_predictions_that_only_the_temperature_needs_are_not_saved(monkeypatch, capsys):
    start(*QUICK, "predictions=never")
    monkeypatch.setattr(predictions, "_AUTO_LIMIT", 100)
    evaluate("task.temperature=true", "task.split=val", "predictions=auto")
    assert "predictions of val: not saved, they have" in capsys.readouterr().err
    assert record("val")["temperature"] > 0 and not (RUN / "predictions").exists()
