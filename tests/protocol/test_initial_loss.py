"""task=check_init: expected losses against closed forms, the criteria against numbers by hand, and real models."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running import job
from torch import nn

from runner.door.options import find_conf
from runner.door.task_context import start
from runner.engine.contracts import Images
from runner.errors import GateFailed
from runner.protocol.expected_loss import entropy, expected_loss
from runner.protocol.initial_loss import Gate, InitialLoss, loss_criteria, reduction_criterion
from runner.protocol.leaks import leak_criterion
from runner.protocol.outcome import Level
from runner.protocol.preflight import independence_criterion, input_criteria
from runner.registry import build

K = 10
SHARES = np.array([0.3, 0.2, *[0.0625] * 8])
COUNTS = SHARES * 1600
FIXED = ("model=mlp", "model.hidden=[16]", "augment=[]", "probe=[]", "device=cpu", "name=c")
CLASS_WEIGHTS = [float(i + 1) for i in range(K)]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*words):
    given = {word.partition("=")[0]: word for word in ("task=check_init", *FIXED, *words)}
    if "model=resnet" in words:
        del given["model.hidden"]
    return start(replace(job(*given.values()), folders=find_conf().folders))


def record(folder="c"):
    return json.loads(Path("outputs", folder, "01_check_init", "result.json").read_text())


def level_of(found, name):
    return next(each["level"] for each in found["criteria"] if each["name"] == name)


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        ({"name": "cross_entropy", "class_weights": None}, math.log(K)),
        ({"name": "cross_entropy", "class_weights": CLASS_WEIGHTS}, math.log(K)),
        ({"name": "cross_entropy", "class_weights": "balanced"}, math.log(K)),
        ({"name": "poly", "epsilon": 2.0}, math.log(K) + 2 * 0.9),
        ({"name": "focal", "gamma": 2.0, "alpha": None}, 0.9**2 * math.log(K)),
        ({"name": "focal", "gamma": 0.0, "alpha": [2.0] * K}, 2 * math.log(K)),
        ({"name": "bce", "positive_weight": 1.0}, math.log(2)),
        ({"name": "bce", "positive_weight": 11.0}, 2 * math.log(2)),
        ({"name": "hinge", "margin": 1.0}, 9.0),
        ({"name": "hinge", "margin": 0.5}, 4.5),
        ({"name": "mse"}, 0.1),
    ],
)
def test_the_expected_loss_of_zero_logits_has_a_closed_form(loss, value):
    assert expected_loss(loss, SHARES, COUNTS, np.zeros(K)) == pytest.approx(value)


def test_with_the_log_shares_as_bias_cross_entropy_is_the_entropy():
    value = expected_loss({"name": "cross_entropy"}, SHARES, COUNTS, np.log(SHARES))
    by_hand = -sum(p * math.log(p) for p in SHARES)
    assert value == pytest.approx(by_hand) and entropy(SHARES) == pytest.approx(by_hand)
    assert value < math.log(K)


@pytest.mark.parametrize("name", ["cross_entropy", "poly", "focal", "bce", "hinge", "mse"])
@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_the_formulas_agree_with_the_losses_at_any_equal_logits(name, weights):
    knobs = {"poly": {"epsilon": 1.5}, "focal": {"gamma": 1.5, "alpha": None}, "hinge": {"margin": 1.2}}
    knobs |= {"bce": {"positive_weight": 3.0}}
    smoothing = {"label_smoothing": 0.0} if name in ("cross_entropy", "poly", "bce") else {}
    config = {"name": name, "class_weights": weights, **knobs.get(name, {}), **smoothing}
    loss = build("loss", config, num_classes=K, class_counts=torch.tensor(COUNTS).long())
    logits = np.random.default_rng(0).normal(size=K)
    labels = torch.arange(K).repeat_interleave(torch.tensor(COUNTS).long())
    measured = loss(torch.tensor(logits).expand(len(labels), K), labels)
    assert expected_loss(config, SHARES, COUNTS, logits) == pytest.approx(float(measured))


def found(loss, *, error=0.01, variance=0.0, single=None):
    return InitialLoss(
        loss=loss, error=error, single=loss if single is None else single, variance=variance, finite=True,
        probabilities=False, in_unit=False, shares=np.ones(K) / K, bias=np.zeros(K),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "level"),
    [(2.3, "pass"), (2.303 * 1.149, "pass"), (2.303 * 1.16, "warn"), (2.303 * 1.49, "warn"), (3.6, "fail"),
     (2.303 - 0.045, "pass"), (2.303 - 0.05, "fail")],
)  # fmt: skip
def test_the_thresholds_of_the_excess(loss, level):
    gate = Gate(pass_at=0.15, warn_at=0.5)
    assert loss_criteria([found(loss)] * 3, math.log(K), False, gate)[0].level == level
    hinted = loss_criteria([found(loss)], math.log(K), False, replace(gate, pretrained=True))[0].level
    assert hinted == ("hint" if level != "pass" else "pass")


def test_the_median_over_seeds_decides():
    gate = Gate(pass_at=0.15, warn_at=0.5)
    assert loss_criteria([found(2.3), found(2.3), found(9.0)], math.log(K), False, gate)[0].level is Level.PASS


@pytest.mark.parametrize(("variance", "level"), [(0.6, "pass"), (0.9, "warn"), (0.22, "pass"), (0.19, "warn")])
def test_half_the_variance_of_the_logits_explains_an_excess(variance, level):
    gate = Gate(pass_at=0.15, warn_at=0.5)
    # An excess of 0.2 with a tolerance of 0.1 nat
    criteria = loss_criteria([found(math.log(K) + 0.2, variance=variance)], math.log(K), True, gate)
    assert criteria[1].level == level


def test_gaussian_logits_have_an_excess_of_half_their_variance():
    z = np.random.default_rng(0).normal(0, 0.8, size=(200_000, 100))
    losses = np.log(np.exp(z).sum(1)) - z[:, 0]
    assert losses.mean() - math.log(100) == pytest.approx(0.32, abs=0.01)


@pytest.mark.parametrize(
    ("loss", "single", "expected", "word"),
    [(2.3 * 64, 2.3, 2.303, "the batch (64)"), (0.23, 0.23, 2.303, "1 / the classes (10)"),
     (3.322, 3.322, 2.303, "bits"), (2.3, 2.3, 2.303, None), (2.9, 2.9, 2.303, None), (23.0, 23.0, None, None)],
)  # fmt: skip
def test_a_wrong_reduction_has_a_name(loss, single, expected, word):
    factors = {
        "the batch (64)": 64.0,
        "1 / the classes (10)": 0.1,
        "the classes (10)": 10.0,
        "1 / ln 2 (bits)": 1 / math.log(2),
    }
    criterion = reduction_criterion(found(loss, single=single), expected, factors)
    assert criterion.level == ("pass" if word is None else "fail")
    assert word is None or word in criterion.why


def test_inputs_that_are_not_normalized_are_told_by_how_far():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 4, 4, generator=generator)
    assert input_criteria(images)[0].level is Level.PASS
    assert input_criteria(images + 1)[0].level is Level.HINT
    assert input_criteria(images * 70 + 120)[0].level is Level.WARN
    assert input_criteria(images[:1].expand(8, -1, -1, -1))[0].level is Level.FAIL
    assert input_criteria(images / 0)[0].level is Level.FAIL


class _Mixing(nn.Module):
    def __init__(self, mixes):
        super().__init__()
        self.mixes, self.norm, self.head = mixes, nn.BatchNorm1d(16), nn.Linear(16, 3)

    def forward(self, x):
        h = self.norm(x.flatten(1))
        return self.head(h - h.mean(0) if self.mixes else h)


@pytest.mark.parametrize("mixes", [True, False])
def test_a_model_that_mixes_examples_is_found_and_batchnorm_is_no_mix_in_evaluation(mixes):
    torch.manual_seed(0)
    model = _Mixing(mixes).train()
    assert independence_criterion(model, torch.randn(8, 1, 4, 4)).level == ("fail" if mixes else "pass")
    assert model.training


def split(pixels):
    return Images(
        torch.tensor(pixels, dtype=torch.uint8).reshape(-1, 1, 1, 2), torch.zeros(len(pixels), dtype=torch.long)
    )


def test_copies_across_splits_are_a_leak_unless_the_data_have_few_values():
    train = split([[i % 256, i // 256] for i in range(1000)])
    fresh = [[i % 256, 100 + i // 256] for i in range(200)]
    assert leak_criterion(train, split(fresh)).level is Level.PASS
    assert leak_criterion(train, split([*fresh, [0, 0]])).level is Level.WARN
    assert leak_criterion(train, split([*fresh, *([i, 0] for i in range(20))])).level is Level.FAIL
    assert (
        leak_criterion(split([[i % 3, 0] for i in range(90)]), split([[i % 3, 0] for i in range(30)])).level
        is Level.WARN
    )


def test_points_that_are_equal_by_chance_are_no_leak():
    """Drawn from 2,000 values, 1,500 examples have about half of 200 others; 60 copies are more."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(0, 2000, (1700,), generator=draw).tolist()
    train, val = ([[value % 256, value // 256] for value in part] for part in (values[:1500], values[1500:]))
    assert leak_criterion(split(train), split(val)).level is Level.WARN
    many = [[i % 256, 100 + i // 256] for i in range(200)]
    assert leak_criterion(split([*train, *many[:60]]), split(many)).level is Level.FAIL


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge", "bce", "focal", "poly", "mse"])
def test_a_sound_model_passes_with_each_loss(loss):
    assert run(f"loss={loss}") == 0
    assert record()["status"] == "pass" and record()["trainings"] == 0


def test_a_head_with_the_class_shares_is_held_against_the_entropy():
    assert run("init.head=prior", "data.classes=[0,1,2]", "norm=none") == 0
    assert record()["measurements"]["expected_words"].startswith("H(p)")
    assert level_of(record(), "excess over the expected loss") == "pass"


def test_a_residual_branch_that_begins_at_zero_is_listed_and_zero_weights_fail():
    assert run("model=resnet", "model.width=8", "init=residual") == 0
    reached = next(each for each in record()["criteria"] if each["name"] == "gradients reach each parameter")
    assert reached["level"] == "pass" and "begins at zero" in reached["why"]
    with pytest.raises(GateFailed, match="no gradient reaches"):
        run("init=zeros", "model=resnet", "model.width=8", "name=z")


def test_large_logits_fail_and_are_explained_by_their_variance():
    with pytest.raises(GateFailed, match="excess over the expected loss"):
        run("init.head=2.0", "norm=none")
    assert level_of(record(), "model outputs") == "pass"


def test_a_share_of_its_own_decides_what_is_a_warning():
    assert run("init.head=1.0", "norm=none", "task.warn_at=1000") == 0
    assert level_of(record(), "excess over the expected loss") == "warn"


def test_a_penalty_must_raise_the_loss():
    assert run("regularizer=[l2]") == 0
    raised = next(each for each in record()["criteria"] if each["name"] == "penalties raise the loss")
    assert raised["level"] == "pass" and float(raised["value"]) > 0
