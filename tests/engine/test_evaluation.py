"""Scores of a split against scikit-learn and PyTorch, computed in one pass over the whole split."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics
from small_runs import config, small
from test_train import learner, recipe
from torch import nn
from torch.nn import functional as F

from runner.assemble import assemble
from runner.components.predict import plain
from runner.engine.batches import EvalBatches
from runner.engine.contracts import Images
from runner.engine.evaluation import evaluate
from runner.engine.losses import Loss, Prediction, as_loss
from runner.engine.world import ALONE
from runner.errors import ConfigError
from runner.registry import build, names

CPU = torch.device("cpu")
WEIGHTS = [0.5, 1.0, 2.0, 1.0, 3.0, 1.0, 0.25, 1.0, 4.0, 1.0]


def experiment(**choices):
    """Return an experiment whose weights are not trained: scores of all classes differ."""
    named = {key.replace("__", "."): value for key, value in choices.items()}
    return assemble(config(small({"model": "mlp", "average": "none", **named})))


def whole(made, split="val"):
    """Return all logits (N, K) in float64 and labels (N,) of a split."""
    images, labels = (torch.cat(parts) for parts in zip(*made.validation[split], strict=True))
    with torch.no_grad():
        return made.learner.model.eval()(images).double(), labels


def softmax(z):
    return np.exp(z - z.max(1, keepdims=True)) / np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def by_weights(z, y):
    return F.cross_entropy(torch.tensor(z), torch.tensor(y), torch.tensor(WEIGHTS, dtype=torch.double)).item()


def by_bce(z, y):
    weight = torch.full((10,), 3.0, dtype=torch.double)
    hot = F.one_hot(torch.tensor(y), 10).double()
    return F.binary_cross_entropy_with_logits(torch.tensor(z), hot, pos_weight=weight).item()


def by_focal(z, y):
    p = softmax(z)[np.arange(len(y)), y]
    return (-((1 - p) ** 1.5) * np.log(p)).mean()


def by_weighted_focal(z, y):
    p, weights = softmax(z)[np.arange(len(y)), y], np.array(WEIGHTS)[y]
    return (-weights * (1 - p) ** 1.5 * np.log(p)).sum() / weights.sum()


def by_poly(z, y):
    p = softmax(z)[np.arange(len(y)), y]
    return (-np.log(p) + 2 * (1 - p)).mean()


def by_hinge(z, y):
    return 10 * F.multi_margin_loss(torch.tensor(z), torch.tensor(y), margin=0.5).item()


def by_mse(z, y):
    return metrics.mean_squared_error(np.eye(10)[y], z)


def nll(p, y):
    return metrics.log_loss(y, p, labels=range(10))


LOSSES = {
    "cross_entropy": ({}, lambda z, y: nll(softmax(z), y), softmax),
    "smoothed": ({"loss__label_smoothing": 0.4}, lambda z, y: nll(softmax(z), y), softmax),
    "class weights": ({"loss__class_weights": WEIGHTS, "loss__label_smoothing": 0.4}, by_weights, softmax),
    "bce": (
        {"loss": "bce", "loss__positive_weight": 3.0, "loss__label_smoothing": 0.4},
        by_bce,
        lambda z: sigmoid(z) / sigmoid(z).sum(1, keepdims=True),
    ),
    "focal": ({"loss": "focal", "loss__gamma": 1.5}, by_focal, softmax),
    "weighted focal": (
        {"loss": "focal", "loss__gamma": 1.5, "loss__class_weights": WEIGHTS},
        by_weighted_focal,
        softmax,
    ),
    "poly": ({"loss": "poly", "loss__epsilon": 2.0, "loss__label_smoothing": 0.4}, by_poly, softmax),
    "hinge": ({"loss": "hinge", "loss__margin": 0.5}, by_hinge, None),
    "mse": ({"loss": "mse"}, by_mse, None),
}


def test_every_loss_is_compared():
    assert {choices.get("loss", "cross_entropy") for choices, *_ in LOSSES.values()} == set(names("loss"))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("split", ["val", "train_eval"])
def test_scores_are_those_of_the_whole_split(name, split):
    choices, loss, probabilities = LOSSES[name]
    made = experiment(**choices)
    z, y = (each.numpy() for each in whole(made, split))
    batches = made.validation[split]
    assert 250 < len(y) == len(batches) and len(y) % batches.batch, "the last batch is smaller"
    found = evaluate(made.recipe, made.learner, batches)
    expected = {"accuracy": (z.argmax(1) == y).mean(), "loss": loss(z, y)}
    if probabilities:
        expected["nll"] = nll(probabilities(z), y)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1, 7, 296, 10_000])
def test_the_size_of_batches_changes_no_score(name, size):
    made = experiment(**LOSSES[name][0])
    expected = evaluate(made.recipe, made.learner, made.validation["val"])
    made.validation["val"].batch = size
    assert evaluate(made.recipe, made.learner, made.validation["val"]) == pytest.approx(expected, rel=1e-5)


class Share:
    """One of several processes; `sum` adds what the processes before it had."""

    def __init__(self, rank, size, before):
        self.rank, self.size, self._before = rank, size, before

    def slice(self, index):
        return index.tensor_split(self.size)[self.rank]

    def sum(self, tensor):
        self._before.append(tensor)
        return torch.stack(self._before).sum(0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [2, 3, 300])
def test_processes_that_share_a_split_have_its_scores(name, size):
    """With more processes than examples some have none."""
    made = experiment(**LOSSES[name][0])
    batches, before = made.validation["val"], []
    assert batches.world is ALONE
    expected = evaluate(made.recipe, made.learner, batches)
    for rank in range(size):
        batches.world = Share(rank, size, before)
        found = evaluate(made.recipe, made.learner, batches)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "mse"])
def test_the_loss_of_two_views_is_that_of_their_mean_logits_and_the_nll_that_of_their_mean_probability(name):
    choices, loss, probabilities = LOSSES[name]
    made = experiment(**choices, predict="tta", predict__views=["flip"])
    images, labels = (torch.cat(parts) for parts in zip(*made.validation["val"], strict=True))
    with torch.no_grad():
        model = made.learner.model.eval()
        views = [model(images).double().numpy(), model(images.flip(3)).double().numpy()]
    mean, y = (views[0] + views[1]) / 2, labels.numpy()
    found = evaluate(made.recipe, made.learner, made.validation["val"])
    assert found["loss"] == pytest.approx(loss(mean, y), rel=1e-5)
    if probabilities is None:
        assert found.keys() == {"accuracy", "loss"} and found["accuracy"] == (mean.argmax(1) == y).mean()
    else:
        p = (probabilities(views[0]) + probabilities(views[1])) / 2
        assert found["nll"] == pytest.approx(nll(p, y), rel=1e-5)
        assert found["accuracy"] == (p.argmax(1) == y).mean()


def test_mixup_smoothing_and_penalties_enter_no_score():
    made = experiment()
    expected = evaluate(made.recipe, made.learner, made.validation["val"])
    words = {"mix": "mixup", "loss__label_smoothing": 0.7, "regularizer": ["l2"], "augment": ["crop"]}
    other = experiment(**words)
    assert other.recipe.penalties
    assert evaluate(other.recipe, other.learner, other.validation["val"]) == expected


def labelled(labels, classes):
    """Return examples whose pixels are their one-hot labels, (N, K, 1, 1)."""
    y = torch.tensor(labels)
    return EvalBatches(
        Images(F.one_hot(y, classes).to(torch.uint8)[:, :, None, None], y),
        batch=2,
        preprocess=lambda x: x.float(),
        device=CPU,
    )


def scores(loss, model, labels=(0, 2, 1, 1, 0), predict=None):
    given = as_loss(
        loss if callable(loss) else build("loss", {"name": loss, "class_weights": None, **KNOBS[loss]}, num_classes=3)
    )
    chosen = plain(given) if predict is None else predict
    return evaluate(recipe(loss=loss if callable(loss) else given, predict=chosen), learner(model), labelled(labels, 3))


KNOBS = {
    "mse": {},
    "hinge": {"margin": 1.0},
    "bce": {"label_smoothing": 0.0, "positive_weight": 1.0},
    "focal": {"gamma": 2.0, "alpha": None},
}


def fixed(scale, shift=0.0):
    """Return a model whose logits are the pixels, scaled and shifted."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    model[1].weight.data, model[1].bias.data = scale * torch.eye(3), torch.full((3,), shift)
    return model


@pytest.mark.parametrize("loss", ["mse", "hinge"])
def test_a_model_that_fits_exactly_has_no_loss(loss):
    assert scores(loss, fixed(1.0)) == {"accuracy": 1.0, "loss": 0.0}


def test_nll_of_bce_by_hand():
    # Logits 1 of the label and -1 of both others: sigmoids .7311, .2689, .2689; .7311 / 1.2689 = .5761
    found = scores("bce", fixed(2.0, -1.0))
    assert found["nll"] == pytest.approx(-math.log(0.576120), abs=1e-5)
    assert found["loss"] == pytest.approx(-math.log(0.731059), abs=1e-5)


def test_a_loss_of_ones_own_that_is_a_plain_function_counts_by_the_size_of_batches():
    def own(logits, labels):
        return labels.float().mean()

    found = scores(own, fixed(1.0), labels=(0, 2, 1, 1, 0))
    assert found["loss"] == pytest.approx(4 / 5)
    assert found["nll"] == pytest.approx(-math.log(math.e / (math.e + 2)), rel=1e-6)


def log_probabilities(model, images):
    return model(images).log_softmax(1)


@pytest.mark.parametrize("loss", ["focal", F.cross_entropy])
def test_a_prediction_of_ones_own_may_give_log_probabilities_only(loss):
    expected = scores(loss, fixed(2.0))
    assert scores(loss, fixed(2.0), predict=log_probabilities) == pytest.approx(expected, rel=1e-6)


def test_a_prediction_of_ones_own_may_give_logits_only():
    def logits(model, images):
        return Prediction(model(images), None)

    assert scores("bce", fixed(2.0), predict=logits) == scores("bce", fixed(2.0))


@pytest.mark.parametrize("loss", ["mse", "hinge", "bce"])
def test_log_probabilities_are_no_logits_of_other_losses(loss):
    with pytest.raises(ConfigError, match=r"^predict: returns no logits, .* return Prediction\(logits, log_p\)$"):
        scores(loss, fixed(1.0), predict=log_probabilities)


def test_half_precision_logits_are_scored_in_float32():
    found = scores("mse", fixed(1.0), predict=lambda model, x: Prediction((model(x) + 1000).half(), None))
    assert found["loss"] == pytest.approx(1e6)


def test_a_loss_that_is_complete_stays_so():
    made = replace(as_loss(F.cross_entropy), log_probabilities=None)
    assert isinstance(made, Loss) and as_loss(made) is made
    assert scores(made, fixed(1.0)).keys() == {"accuracy", "loss"}
