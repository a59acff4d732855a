"""Metrics against scikit-learn and numbers computed by hand; every metric keeps the contract of its kind."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from small_runs import config, small
from torch.nn import functional as F

import runner.components  # noqa: F401
from runner.assemble import assemble
from runner.engine import metrics
from runner.engine.evaluation import assess, evaluate
from runner.engine.losses import as_loss
from runner.engine.metrics import Metric, Metrics, class_counts, confusion
from runner.engine.world import ALONE
from runner.errors import ConfigError
from runner.registry import build, find, names

CPU = torch.device("cpu")
SOFTMAX = as_loss(F.cross_entropy)
ALL = names("metric")


def made(name, classes=10, loss=SOFTMAX):
    return build("metric", {"name": name}, num_classes=classes, loss=loss)


def score(name, outputs, labels, *, parts=1):
    """Return the score of a metric over outputs (N, K), given to it in some batches."""
    every = Metrics({name: made(name, outputs.shape[1])}, outputs.shape[1])
    tally = every.tally(CPU)
    for out, y in zip(outputs.tensor_split(parts), labels.tensor_split(parts), strict=True):
        tally.add(out, y)
    return every.scores(tally.in_shape(torch.cat(tally.flat).double())).get(name, math.nan)


def some(examples=200, classes=10, present=None, seed=0):
    """Return log-probabilities (N, K) of which some are right, and labels among the classes `present`."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.tensor(present or range(classes))[
        torch.randint(len(present or range(classes)), (examples,), generator=draw)
    ]
    logits = 2 * torch.randn(examples, classes, generator=draw) + 2 * F.one_hot(labels, classes)
    return logits.log_softmax(1), labels


def ece_by_loops(p, y):
    """Return equation 3 of Guo et al. 2017 with 15 bins (m-1)/15 < p <= m/15."""
    confidence, right = p.max(1), p.argmax(1) == y
    total = 0.0
    for m in range(1, 16):
        inside = [i for i, c in enumerate(confidence) if (m - 1) / 15 < c <= m / 15]
        if inside:
            total += len(inside) / len(y) * abs(right[inside].mean() - confidence[inside].mean())
    return total


def top5_of_sklearn(p, y):
    return reference.top_k_accuracy_score(y, p, k=5, labels=range(p.shape[1]))


def aurc_by_loops(p, y):
    """Return the mean error rate of the n most confident, n = 1 to N (Geifman and El-Yaniv 2017)."""
    order = np.argsort(-p.max(1), kind="stable")
    wrong = (p.argmax(1) != y)[order]
    return np.mean([wrong[:n].mean() for n in range(1, len(y) + 1)])


def aurc_by_sums(p, y):
    """Return the same in one pass."""
    wrong = (p.argmax(1) != y)[np.argsort(-p.max(1), kind="stable")]
    return (wrong.cumsum() / np.arange(1, len(y) + 1)).mean()


# Confidences that are almost equal count as equal, where the oracle has an order
TOLERANCE = {"aurc": 5e-4}
ORACLES = {
    "balanced_accuracy": lambda p, y: reference.balanced_accuracy_score(y, p.argmax(1)),
    "f1_macro": lambda p, y: reference.f1_score(y, p.argmax(1), average="macro", zero_division=0),
    "top5": top5_of_sklearn,
    "ece": ece_by_loops,
    "brier": lambda p, y: reference.brier_score_loss(y, p / p.sum(1, keepdims=True), labels=range(p.shape[1])),
    "aurc": aurc_by_loops,
}


def test_every_metric_has_an_oracle():
    assert set(ORACLES) == set(ALL)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "data",
    [
        {},
        {"classes": 100, "examples": 500},
        {"present": [0, 3, 4]},  # other classes are predicted, but have no examples
        {"present": [7]},  # one class only
        {"classes": 1000, "examples": 30},  # most classes are neither there nor predicted
        {"examples": 1},
    ],
    ids=str,
)
def test_a_metric_is_that_of_scikit_learn(name, data):
    log_p, labels = some(**data)
    found = score(name, log_p, labels, parts=3)
    assert found == pytest.approx(
        ORACLES[name](log_p.exp().double().numpy(), labels.numpy()), abs=TOLERANCE.get(name, 2e-6)
    )


@pytest.mark.parametrize("name", sorted(set(ALL) - {"top5"}))
def test_two_classes(name):
    log_p, labels = some(classes=2)
    expected = ORACLES[name](log_p.exp().double().numpy(), labels.numpy())
    # Of two classes scikit-learn's Brier score is half of Brier's
    expected *= 2 if name == "brier" else 1
    assert score(name, log_p, labels) == pytest.approx(expected, abs=TOLERANCE.get(name, 2e-6))


def test_calibration_error_by_hand():
    # Bin of .9: confidence .9, accuracy 1/2, two of three examples. Bin of .55: confidence .55, accuracy 1.
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55]])
    assert score("ece", p.log(), torch.tensor([0, 1, 1])) == pytest.approx((2 * 0.4 + 0.45) / 3)
    counts = metrics.calibration(p.log(), torch.tensor([0, 1, 1]))
    assert counts.shape == (3, metrics.BINS) and counts[0].tolist() == [0.0] * 8 + [1, 0, 0, 0, 0, 2, 0]


def test_brier_score_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    assert score("brier", p.log(), torch.tensor([0, 1])) == pytest.approx((0.09 + 0.04 + 0.01) / 2)
    assert score("brier", p.log(), torch.tensor([1, 0])) == pytest.approx((0.49 + 0.64 + 0.01 + 2) / 2)


def test_risk_coverage_by_hand():
    # Of the most confident: right, wrong, right, wrong
    p = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    labels = torch.tensor([1, 0, 0, 0])
    assert score("aurc", p.log(), labels) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    curve = metrics.risk_coverage(metrics.errors_by_confidence(p.log(), labels))
    torch.testing.assert_close(curve, torch.tensor([0, 1 / 2, 1 / 3, 1 / 2]))


def test_equally_confident_predictions_count_in_no_order():
    p = torch.tensor([[0.7, 0.3]]).repeat(4, 1)
    for labels in ([0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]):
        assert score("aurc", p.log(), torch.tensor(labels)) == pytest.approx(1 / 4)


def test_confidences_close_to_one_have_an_order():
    doubt = torch.logspace(-7, -1, 40)
    log_p = torch.stack([torch.log1p(-doubt), doubt.log()], 1)
    labels = torch.isin(torch.arange(40), torch.tensor([0, 3, 4, 20])).long()
    assert score("aurc", log_p, labels) == pytest.approx(aurc_by_loops(-doubt[:, None].numpy(), labels.numpy()))
    assert score("aurc", log_p, labels) != pytest.approx(score("aurc", log_p.flip(0), labels))


def test_risk_coverage_of_many_examples_is_that_of_the_sorted_ones():
    log_p, labels = some(50_000)
    expected = aurc_by_sums(log_p.exp().double().numpy(), labels.numpy())
    assert score("aurc", log_p, labels, parts=7) == pytest.approx(expected, abs=1e-6)


def test_predictions_that_are_certain_are_calibrated_if_they_are_right():
    certain = torch.log(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert score("ece", certain, torch.tensor([0, 1])) == 0.0
    assert score("ece", certain, torch.tensor([1, 0])) == 1.0


def test_a_label_within_equal_outputs_is_not_counted_as_found():
    assert score("top5", torch.zeros(1000, 50), torch.arange(1000) % 50) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ALL)
def test_no_examples_have_no_score(name):
    assert math.isnan(score(name, torch.zeros(0, 10), torch.zeros(0, dtype=torch.int64)))


@pytest.mark.parametrize("name", ALL)
def test_the_sums_of_batches_add_up(name):
    log_p, labels = some()
    sums = made(name).sums
    torch.testing.assert_close(sums(log_p, labels), sums(log_p[:50], labels[:50]) + sums(log_p[50:], labels[50:]))


@pytest.mark.parametrize("name", ALL)
def test_values_that_are_not_finite_are_counted_without_an_error(name):
    """A model that diverges is scored before the run finds out."""
    log_p, labels = some()
    for value in (math.nan, math.inf, -math.inf):
        score(name, torch.full_like(log_p, value), labels)


@pytest.mark.parametrize("name", ALL)
def test_the_direction_is_that_of_better_predictions(name):
    right, labels = some()
    better, worse = F.one_hot(labels, 10).float().add(1e-9).log(), right.flip(1) * 3
    gain = score(name, better, labels) - score(name, worse, labels)
    assert (gain < 0) == getattr(find("metric", name), "lower_is_better", False) and gain != 0


def test_the_confusion_matrix_and_the_counts_are_those_of_scikit_learn():
    log_p, labels = some(present=[0, 1, 2, 5])
    predicted = log_p.argmax(1)
    found = confusion(log_p, labels).long().numpy()
    assert np.array_equal(found, reference.confusion_matrix(labels, predicted, labels=range(10)))
    counts = class_counts(log_p, labels).long().numpy()
    assert np.array_equal(counts, [found.sum(1), found.sum(0), found.diagonal()])
    recall = reference.recall_score(labels, predicted, average=None, labels=range(10), zero_division=0)
    assert counts[2] / counts[0].clip(1) == pytest.approx(recall)


def test_metrics_with_the_same_sums_compute_them_once():
    calls = []

    def counted(outputs, labels):
        calls.append(len(labels))
        return class_counts(outputs, labels)

    every = Metrics({"a": Metric(counted, lambda total: 1.0), "b": Metric(counted, lambda total: 2.0)}, 10)
    tally = every.tally(CPU)
    tally.add(*some(30))
    assert calls == [0, 30]
    assert every.scores(tally.in_shape(torch.cat(tally.flat))) == {"a": 1.0, "b": 2.0}


def test_sums_of_another_shape_are_refused_with_the_metric():
    tally = Metrics({"mine": Metric(lambda outputs, labels: outputs, lambda total: 0.0)}, 10).tally(CPU)
    with pytest.raises(ConfigError, match=r"^metric=mine: its sums have the shape \(30, 10\), must have \(0, 10\)"):
        tally.add(*some(30))


# In runs


def experiment(**choices):
    named = {key.replace("__", "."): value for key, value in choices.items()}
    return assemble(config(small({"model": "mlp", "average": "none", **named})))


def whole(run, split="val"):
    """Return probabilities (N, K) in float64 and labels (N,) of a split."""
    images, labels = (torch.cat(parts) for parts in zip(*run.validation[split], strict=True))
    with torch.no_grad():
        return run.learner.average.module.eval()(images).double().softmax(1).numpy(), labels.numpy()


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"loss__label_smoothing": 0.4, "mix": "mixup"},
        {"loss__class_weights": "balanced"},
        {"average": "ema"},
        {"data__batch_size": 7},
    ],
    ids=str,
)
def test_a_run_scores_what_it_lists(choices):
    run = experiment(metric=ALL, **choices)
    found = evaluate(run.recipe, run.learner, run.validation["val"])
    p, y = whole(run)
    area = found.pop("aurc")
    assert found == pytest.approx(
        {
            "accuracy": (p.argmax(1) == y).mean(),
            "loss": found["loss"],
            "nll": reference.log_loss(y, p, labels=range(10)),
            **{name: oracle(p, y) for name, oracle in ORACLES.items() if name != "aurc"},
        },
        abs=1e-5,
    )
    assert area == pytest.approx(aurc_by_loops(p, y), abs=TOLERANCE["aurc"])


def test_half_precision_is_scored_in_float32():
    run = experiment(metric=ALL, precision="bf16")
    kept = assess(run.recipe, run.learner.average.module, run.validation["val"], run.recipe.metrics, keep=True)
    assert kept.outputs.dtype == torch.float32
    p, y = kept.outputs.double().exp().numpy(), kept.labels.numpy()
    assert p.sum(1) == pytest.approx(np.ones(len(p)), abs=1e-6)
    for name, oracle in ORACLES.items():
        assert kept.scores[name] == pytest.approx(oracle(p, y), abs=TOLERANCE.get(name, 1e-5))


def test_a_prediction_method_may_give_log_probabilities_only():
    run = experiment(metric=ALL)
    expected = evaluate(run.recipe, run.learner, run.validation["val"])
    alone = replace(run.recipe, predict=lambda model, images: model(images).log_softmax(1))
    assert evaluate(alone, run.learner, run.validation["val"]) == pytest.approx(expected, abs=1e-6)


class Share:
    """One of several processes; `sum` adds what the processes before it had."""

    def __init__(self, rank, size, before):
        self.rank, self.size, self._before, self._calls = rank, size, before, 0

    def slice(self, index):
        return index.tensor_split(self.size)[self.rank]

    def sum(self, tensor):
        self._before[self._calls] = tensor + self._before.get(self._calls, 0)
        self._calls += 1
        return self._before[self._calls - 1]


@pytest.mark.parametrize("size", [2, 300])
def test_processes_that_share_a_split_have_its_metrics_and_predictions(size):
    """With more processes than examples some have none."""
    run = experiment(metric=ALL)
    batches, before = run.validation["val"], {}
    assert batches.world is ALONE
    expected = assess(run.recipe, run.learner.average.module, batches, run.recipe.metrics, keep=True)
    for rank in range(size):
        batches.world = Share(rank, size, before)
        found = assess(run.recipe, run.learner.average.module, batches, run.recipe.metrics, keep=True)
    assert found.scores == pytest.approx(expected.scores, rel=1e-5)
    torch.testing.assert_close(found.outputs, expected.outputs)
    assert torch.equal(found.labels, expected.labels) and torch.equal(found.ids, expected.ids)


@pytest.mark.parametrize("loss", ["mse", "hinge"])
def test_a_loss_without_probabilities_leaves_out_what_needs_them(loss):
    run = experiment(metric=ALL, loss=loss)
    found = evaluate(run.recipe, run.learner, run.validation["val"])
    assert found.keys() == {"accuracy", "loss", *ALL} - {"ece", "brier", "aurc"}
    p, y = whole(run)  # the softmax keeps the order of the logits
    assert {name: found[name] for name in ("f1_macro", "top5")} == pytest.approx(
        {name: ORACLES[name](p, y) for name in ("f1_macro", "top5")}, abs=1e-6
    )
    assert "metric=ece: left out, its outputs are scores without probabilities" in run.summary
    assert run.final_metrics().by_name.keys() == set(ALL) - {"ece", "brier", "aurc"}


def test_five_classes_have_no_top5():
    few = {"data": "synthetic", "data__kind": "shapes", "data__size": 16, "data__train": 64, "data__classes": 5}
    run = experiment(metric=ALL, **few)
    assert evaluate(run.recipe, run.learner, run.validation["val"]).keys() >= {"ece", "f1_macro"}
    assert "metric=top5: left out, the data have 5 classes, and it needs more than 5" in run.summary
    assert "top5" not in run.recipe.metrics.by_name
    with pytest.raises(ConfigError, match=r"^monitor: got 'val/top5', must be another one here: the data have 5"):
        experiment(metric=["top5"], monitor="val/top5", **few)


def test_a_run_computes_only_what_it_is_asked_for_and_all_at_its_end():
    run = experiment()
    assert evaluate(run.recipe, run.learner, run.validation["val"]).keys() == {"accuracy", "loss", "nll"}
    assert run.final_metrics().by_name.keys() == set(ALL)


def test_metrics_wait_for_the_device_no_more_often(monkeypatch):
    run = experiment(metric=ALL, data__batch_size=16)
    seen = []

    def counted(name):
        method = getattr(torch.Tensor, name)

        def call(self, *args, **kwargs):
            seen.append(name)
            return method(self, *args, **kwargs)

        return call

    for name in ("item", "cpu", "tolist", "__float__", "__bool__", "nonzero", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, counted(name))
    found = [0, 0]
    for number, each in enumerate((run.recipe, replace(run.recipe, metrics=Metrics()))):
        seen.clear()
        evaluate(each, run.learner, run.validation["val"])
        found[number] = seen.count("cpu")
    assert found[0] == found[1] and seen.count("item") == 0
