"""The model of an ensemble: the mean of its members, exactly the member where there is nothing to combine."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import special
from small_runs import config
from torch import nn
from torch.nn import functional as F

from runner.assemble import settings_and_device
from runner.assemble.predictor import DataFacts, assemble_predictor
from runner.engine.combining import combine_log_p
from runner.engine.losses import Prediction
from runner.ensembles.model import combined_predictor, ensemble_model
from runner.ensembles.stacked import Stacked, largest_difference
from runner.ensembles.statistics import combine
from runner.errors import CheckpointError

CLASSES = ("cat", "dog", "owl")


def predictor(classes=CLASSES, shape=(1, 8, 8), seed=0, **choices):
    model = {} if "model" in choices else {"model": "mlp", "model.hidden": [8]}
    made = config({"device": "cpu", "seed": seed, **model, **choices})
    settings, device = settings_and_device(made)
    facts = DataFacts(shape=shape, classes=classes, counts=None, reading={}, batch_size=4)
    found = assemble_predictor(made, facts, settings, device, threads=False)
    torch.manual_seed(seed)
    for parameter in found.model.parameters():
        parameter.data.normal_(0, 0.2)
    return found


def images(count=6):
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def probabilities(each, pixels):
    found = each.predict(each.model, each.preprocess(pixels))
    return found.log_p.exp()


def log_p_of(members, size=50, classes=7):
    draw = torch.Generator().manual_seed(members)
    return torch.randn(members, size, classes, generator=draw).mul(4).log_softmax(2)


@pytest.mark.parametrize("weights", [[0.25, 0.25, 0.5], [1 / 3] * 3, [0.9, 0.1, 0.0001]])
def test_combined_probabilities_are_the_weighted_mean(weights):
    log_p = log_p_of(3)
    expected = (log_p.double().exp() * torch.tensor(weights).double()[:, None, None]).sum(0) / sum(weights)
    assert torch.allclose(combine_log_p(log_p, weights, "probabilities").double().exp(), expected, atol=1e-6, rtol=0)


def test_combined_logits_are_the_softmax_of_the_weighted_mean_logit():
    logits = torch.randn(3, 50, 7).mul(4)
    weights = [0.2, 0.5, 0.3]
    expected = special.log_softmax((logits.double() * torch.tensor(weights).double()[:, None, None]).sum(0), 1)
    found = combine_log_p(logits.log_softmax(2), weights, "logits").double()
    assert torch.allclose(found, torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["probabilities", "logits"])
@pytest.mark.parametrize("weights", [[1 / 3] * 3, [0.1, 0.2, 0.7]])
def test_equal_members_are_the_member_bit_for_bit(how, weights):
    log_p = log_p_of(1).expand(3, -1, -1)
    assert torch.equal(combine_log_p(log_p, weights, how), log_p[0])


@pytest.mark.parametrize("how", ["probabilities", "logits"])
def test_the_model_combines_as_the_statistics_do(how):
    log_p, weights = log_p_of(4), [0.4, 0.3, 0.2, 0.1]
    expected = combine(log_p.double().numpy(), torch.tensor(weights).double().numpy(), how)
    assert torch.allclose(combine_log_p(log_p, weights, how).double(), torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["probabilities", "logits"])
def test_impossible_classes_stay_numbers(how):
    log_p = torch.tensor([[[0.0, -math.inf]], [[-math.inf, 0.0]]])
    assert torch.allclose(combine_log_p(log_p, [0.5, 0.5], how).exp(), torch.tensor([[0.5, 0.5]]))
    same = torch.tensor([[[0.0, -math.inf]]]).expand(2, -1, -1)
    assert torch.equal(combine_log_p(same, [0.5, 0.5], how), same[0])


def test_one_member_is_its_own_predictor():
    own = predictor()
    assert combined_predictor([own], [1.0], "probabilities", 1.0, own.facts) is own


def test_members_have_their_own_preprocessing_architecture_and_method():
    pixels = images()
    members = [
        predictor(preprocess="scale01"),
        predictor(model="linear", seed=1),
        predictor(model="resnet", **{"model.width": 8}, predict="tta", seed=2),
    ]
    for each in members:
        if hasattr(each.preprocess, "mean"):
            each.preprocess.mean.fill_(0.3)
    found = combined_predictor(members, [0.2, 0.3, 0.5], "probabilities", 1.0, members[0].facts)
    mean = sum(w * probabilities(each, pixels) for w, each in zip([0.2, 0.3, 0.5], members, strict=True))
    assert torch.allclose(probabilities(found, pixels), mean, atol=1e-6)
    assert isinstance(found.predict(found.model, pixels), Prediction)


def test_classes_are_matched_by_name():
    pixels, one, other = images(), predictor(), predictor(("owl", "cat", "dog"), seed=1)
    found = combined_predictor([one, other], [0.5, 0.5], "probabilities", 1.0, one.facts)
    theirs = probabilities(other, pixels)[:, [1, 2, 0]]
    assert torch.allclose(probabilities(found, pixels), (probabilities(one, pixels) + theirs) / 2, atol=1e-6)


def test_a_temperature_divides_the_combined_logits():
    pixels, members = images(), [predictor(seed=0), predictor(seed=1)]
    plain, cooled = (
        combined_predictor(members, [0.5, 0.5], "probabilities", each, members[0].facts) for each in (1.0, 2.5)
    )
    expected = F.softmax(probabilities(plain, pixels).log() / 2.5, 1)
    assert torch.allclose(probabilities(cooled, pixels), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (lambda: predictor(shape=(1, 4, 4)), "its examples have shape 1x4x4; expected 1x8x8"),
        (lambda: predictor(("cat", "dog", "fox")), "has the classes cat, dog, fox"),
        (lambda: predictor(loss="hinge"), "its loss has no probabilities"),
    ],
)
def test_members_that_do_not_fit_are_refused(other, reason):
    with pytest.raises(CheckpointError, match=reason):
        combined_predictor([predictor(), other()], [0.5, 0.5], "probabilities", 1.0, predictor().facts)


def test_mixed_precision_is_a_members_own_and_off_in_float32():
    pixels = images()
    half, whole = predictor(precision="bf16"), predictor(seed=1)
    found = ensemble_model([half, whole], CLASSES, [0.5, 0.5], alike=False)
    with half.autocast():
        logits = half.model(half.preprocess(pixels))
    assert logits.dtype is torch.bfloat16
    expected = (F.softmax(logits.float(), 1) + probabilities(whole, pixels)) / 2
    assert torch.allclose(found(pixels).exp(), expected, atol=1e-6)
    exact = (probabilities(half, pixels) + probabilities(whole, pixels)) / 2
    assert torch.allclose(found.float()(pixels).exp(), exact, atol=1e-6)


def stacked(members, *, alike=True, devices=("cpu",)):
    return Stacked(ensemble_model(members, CLASSES, [1 / len(members)] * len(members), alike=False).members,
                   alike=alike, devices=devices)  # fmt: skip


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"model": "resnet", "model.width": 8},
        {"predict": "tta"},
        {"predict": "ten_crop"},
    ],
)
def test_one_pass_over_all_members_gives_the_same(choices):
    pixels, members = images(), [predictor(seed=seed, **choices) for seed in range(3)]
    found = stacked(members)
    expected = torch.stack([probabilities(each, pixels) for each in members])
    in_one_pass = found._in_one_pass()
    assert (in_one_pass(pixels).exp() - expected).abs().max() <= 1e-5
    assert (found(pixels).exp() - expected).abs().max() <= 1e-6
    assert (found(images(2)).exp() - expected[:, :2]).abs().max() <= 1e-5


def test_what_torch_maps_slowly_is_evaluated_one_by_one():
    members = [predictor(seed=s, model="vit", **{"model.dim": 16, "model.depth": 1, "model.heads": 2, "model.patch": 4})
               for s in range(2)]  # fmt: skip
    found = stacked(members)
    expected = torch.stack([probabilities(each, images()) for each in members])
    assert torch.equal(found(images()).exp(), expected)


class Branching(nn.Module):
    """A model whose control flow depends on its input."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) if x.mean() > -100 else self.inner(-x)


class Different(nn.Module):
    """A model with a number that is no tensor."""

    def __init__(self, inner, factor):
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x):
        return self.factor * self.inner(x)


@pytest.mark.parametrize("wrap", [lambda model, seed: Branching(model), Different])
def test_what_torch_cannot_map_over_weights_is_evaluated_one_by_one(wrap):
    members = [predictor(seed=seed) for seed in range(2)]
    members = [replace(each, model=wrap(each.model, seed + 1)) for seed, each in enumerate(members)]
    found = stacked(members)
    pixels = images()
    expected = torch.stack([probabilities(each, pixels) for each in members])
    assert torch.equal(found(pixels).exp(), expected)
    assert found._chosen == found._one_by_one


def test_random_predictions_are_evaluated_one_by_one():
    members = [predictor(seed=seed, predict="mc_dropout", regularizer=["dropout"]) for seed in range(2)]
    found = stacked(members)
    found(images())
    assert found._chosen == found._one_by_one


@pytest.mark.parametrize("changes", [{"alike": False}, {"devices": ("cuda",)}])
def test_members_are_evaluated_one_by_one_unless_it_can_be_faster(changes):
    members, pixels = [predictor(seed=seed) for seed in range(2)], images()
    found = stacked(members, **changes)
    found._in_one_pass = None
    assert torch.equal(found(pixels).exp(), torch.stack([probabilities(each, pixels) for each in members]))


def test_a_difference_that_is_no_number_is_none_that_is_small():
    assert math.isnan(largest_difference(torch.tensor([[math.nan]]), torch.zeros(1, 1)))
