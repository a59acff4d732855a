"""Losses against numbers worked by hand, with hard and with soft labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from running import job
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from runner import components  # noqa: F401  (registers all)
from runner.assemble import assemble
from runner.engine.losses import Loss
from runner.errors import ConfigError
from runner.registry import build, names
from runner.relations import NotWithOption
from runner.settings import SETTINGS

CONF = Path(__file__).parents[2] / "conf" / "loss"


def loss(name: str, classes: int = 4, **changes: Any) -> Loss:
    config = {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}
    return build("loss", config, num_classes=classes)


def some(batch: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(batch, classes, generator=generator, dtype=torch.float64),
        torch.randint(classes, (batch,), generator=generator),
    )


def initial_loss(compute: Loss, labels: Tensor, classes: int) -> Tensor:
    """Return the loss of zero logits, the starting point of a model with a small classifier."""
    return compute(torch.zeros(len(labels), classes), labels)


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_with_smoothed_hard_labels_by_hand(smoothing: float) -> None:
    logits, labels = some()
    target = (1 - smoothing) * np.eye(4)[labels.numpy()] + smoothing / 4
    expected = -(target * np.log(softmax(logits.numpy()))).sum(1).mean()
    assert loss("cross_entropy", label_smoothing=smoothing)(logits, labels).item() == pytest.approx(expected)


def test_cross_entropy_with_smoothed_soft_labels_by_hand() -> None:
    logits, labels = some()
    soft = 0.3 * F.one_hot(labels, 4).double() + 0.7 * F.one_hot(labels.flip(0), 4)
    target = 0.8 * soft.numpy() + 0.2 / 4
    expected = -(target * np.log(softmax(logits.numpy()))).sum(1).mean()
    assert loss("cross_entropy", label_smoothing=0.2)(logits, soft).item() == pytest.approx(expected)


def test_class_weights_on_hard_labels_are_those_of_torch() -> None:
    logits, labels = some()
    weights = [1.0, 2.0, 0.5, 4.0]
    expected = F.cross_entropy(logits, labels, weight=torch.tensor(weights, dtype=torch.float64))
    torch.testing.assert_close(loss("cross_entropy", class_weights=weights)(logits, labels), expected)


def test_class_weights_with_smoothed_soft_labels_by_hand() -> None:
    logits, labels = some()
    soft = 0.3 * F.one_hot(labels, 4).double() + 0.7 * F.one_hot(labels.flip(0), 4)
    target, weights = 0.9 * soft.numpy() + 0.1 / 4, np.array([1.0, 2.0, 0.5, 4.0])
    expected = -(target * weights * np.log(softmax(logits.numpy()))).sum() / (target * weights).sum()
    found = loss("cross_entropy", class_weights=weights.tolist(), label_smoothing=0.1)(logits, soft)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", names("loss"))
def test_class_weights_are_one_per_class(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^loss.class_weights: got 3 numbers, must be one for each of 4 classes$"):
        loss(name, class_weights=[1.0, 1.0, 1.0])


@pytest.mark.parametrize("name", names("loss"))
def test_a_weight_of_3_counts_an_example_three_times(name: str) -> None:
    logits, labels = some()
    often = torch.tensor([1, 3, 2, 5])
    repeats = often[labels]
    expected = loss(name)(logits.repeat_interleave(repeats, 0), labels.repeat_interleave(repeats))
    found = loss(name, class_weights=often.double().tolist())(logits, labels)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, loss(name)(logits, labels), rtol=1e-3)


# Of smoothed cross-entropy the share of each class has its weight
@pytest.mark.parametrize(("name", "smoothing"), [*((name, 0.0) for name in names("loss")), ("bce", 0.3)])
def test_class_weights_of_soft_labels_are_the_mean_over_their_classes(name: str, smoothing: float) -> None:
    knobs = {"label_smoothing": smoothing, "positive_weight": 3.0} if name == "bce" else {}
    logits, labels = some()
    soft = 0.3 * F.one_hot(labels, 4).double() + 0.7 * F.one_hot(labels.flip(0), 4)
    weights, compute = torch.tensor([1.0, 2.0, 0.5, 4.0], dtype=torch.float64), loss(name, **knobs)
    total = torch.zeros((), dtype=torch.float64)
    for z, target in zip(logits, soft, strict=True):
        if name == "mse":  # the distance to the soft label itself
            total += (weights * target).sum() * compute(z[None], target[None])
        else:
            total += sum(weights[c] * target[c] * compute(z[None], torch.tensor([c])) for c in range(4))
    found = loss(name, class_weights=weights.tolist(), **knobs)(logits, soft)
    torch.testing.assert_close(found, total / (weights * soft).sum())


@pytest.mark.parametrize("name", names("loss"))
def test_equal_class_weights_are_none(name: str) -> None:
    logits, labels = some()
    soft = 0.3 * F.one_hot(labels, 4).double() + 0.7 * F.one_hot(labels.flip(0), 4)
    for targets in (labels, soft):
        torch.testing.assert_close(loss(name, class_weights=[2.5] * 4)(logits, targets), loss(name)(logits, targets))


@pytest.mark.parametrize("counts", [(5, 5, 5, 5), (97, 1, 1, 1), (1000, 20, 3, 7)])
def test_balanced_class_weights_are_those_of_scikit_learn(counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(4), counts)
    weights = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    logits, targets = some()
    config = {**yaml.safe_load((CONF / "cross_entropy.yaml").read_text()), "class_weights": "balanced"}
    found = build("loss", config, num_classes=4, class_counts=torch.tensor(counts))(logits, targets)
    expected = F.cross_entropy(logits, targets, weight=torch.tensor(weights))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_balanced_class_weights_come_from_the_labels_of_the_training_split() -> None:
    recipe = assemble(job("loss.class_weights=balanced", "data=synthetic", "model=mlp", "augment=[]").config)
    labels = recipe.batches.split.labels  # 1000 examples of 3 classes: 334, 333, 333
    weights = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    logits, targets = some(6, 3)
    expected = F.cross_entropy(logits, targets, weight=torch.tensor(weights))
    torch.testing.assert_close(recipe.recipe.loss(logits, targets), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"class_counts": torch.tensor([3, 0, 2, 1])},
            "'balanced', must have training examples of every class; class 1 has none",
        ),
        ({}, "'balanced', must have training examples of every class; the training split is unknown"),
    ],
)
def test_balanced_class_weights_need_examples_of_every_class(given: dict[str, Any], says: str) -> None:
    config = {**yaml.safe_load((CONF / "cross_entropy.yaml").read_text()), "class_weights": "balanced"}
    with pytest.raises(ConfigError, match=rf"^loss.class_weights: got {says}$"):
        build("loss", config, num_classes=4, **given)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("balancd", r"loss.class_weights: got 'balancd', must be a list \[a,b,...\] or 'balanced'"),
        ([1.0, -1.0, 1.0, 1.0], r"loss.class_weights\[1\]: got -1.0, must be > 0"),
        (2.0, r"loss.class_weights: got 2.0, must be a list \[a,b,...\] or 'balanced'"),
    ],
)
def test_other_class_weights_are_refused(value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{says}$"):
        loss("cross_entropy", class_weights=value)


def test_bce_by_hand() -> None:
    logits, labels = some()
    p, target = 1 / (1 + np.exp(-logits.numpy())), np.eye(4)[labels.numpy()]
    expected = -(3 * target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    assert loss("bce", positive_weight=3.0)(logits, labels).item() == pytest.approx(expected)


def test_bce_smoothing_goes_to_one_half() -> None:
    logits, labels = some()
    target = 0.8 * F.one_hot(labels, 4).double() + 0.1
    expected = F.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(loss("bce", label_smoothing=0.2)(logits, labels), expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_by_hand(gamma: float) -> None:
    logits, labels = some()
    p = softmax(logits.numpy())[np.arange(6), labels.numpy()]
    assert loss("focal", gamma=gamma)(logits, labels).item() == pytest.approx((-((1 - p) ** gamma) * np.log(p)).mean())


def test_focal_without_gamma_is_cross_entropy() -> None:
    logits, labels = some()
    torch.testing.assert_close(loss("focal", gamma=0.0)(logits, labels), F.cross_entropy(logits, labels))


@pytest.mark.parametrize("alpha", [0.25, 0.9])
def test_alpha_of_two_classes_is_that_of_torchvisions_focal_loss(alpha: float) -> None:
    logits, _ = some(classes=2)
    labels = torch.tensor([0, 1, 1, 0, 1, 1])
    margin = logits[:, 1] - logits[:, 0]  # its softmax is the sigmoid of this
    expected = sigmoid_focal_loss(margin, labels.double(), alpha=alpha, gamma=1.5, reduction="mean")
    for given in (alpha, [1 - alpha, alpha]):
        found = loss("focal", 2, gamma=1.5, alpha=given)
        torch.testing.assert_close(found(logits, labels), expected)
        total, count = found.totals(logits, labels)
        torch.testing.assert_close(total / count, expected)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"alpha": 0.25}, "got 0.25, which is for two classes; must be a list of one number for each of 4 classes"),
        ({"alpha": [1.0, 2.0]}, r"got \[1.0, 2.0\], must be one for each of 4 classes"),
        ({"alpha": [0.0] * 4}, r"got \[0.0, 0.0, 0.0, 0.0\], must be above 0 for some class"),
        (
            {"alpha": [1.0] * 4, "class_weights": [1.0] * 4},
            r"got \[1.0, 1.0, 1.0, 1.0\], must be null with loss.class_weights, which weigh the classes too",
        ),
    ],
)
def test_other_alphas_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=f"^loss.alpha: {says}$"):
        loss("focal", **given)


@pytest.mark.parametrize("epsilon", [-1.0, 2.0])
def test_poly_loss_by_its_series(epsilon: float) -> None:
    """Cross-entropy is the sum of (1 - p)^j / j; poly-1 adds epsilon to the first coefficient."""
    logits, labels = some()
    miss = 1 - softmax(logits.numpy())[np.arange(6), labels.numpy()]
    series = sum(((1.0 / j) + (epsilon if j == 1 else 0)) * miss**j for j in range(1, 3000))
    assert loss("poly", epsilon=epsilon)(logits, labels).item() == pytest.approx(series.mean(), rel=1e-6)


def test_poly_loss_with_smoothed_labels_by_hand() -> None:
    logits, labels = some()
    target, p = 0.8 * np.eye(4)[labels.numpy()] + 0.2 / 4, softmax(logits.numpy())
    expected = (target * (-np.log(p) + 1.5 * (1 - p))).sum(1).mean()
    found = loss("poly", epsilon=1.5, label_smoothing=0.2)(logits, labels)
    assert found.item() == pytest.approx(expected)


def test_poly_loss_without_epsilon_is_cross_entropy() -> None:
    logits, labels = some()
    torch.testing.assert_close(loss("poly", epsilon=0.0)(logits, labels), F.cross_entropy(logits, labels))


def test_hinge_by_hand_and_by_torch() -> None:
    logits, labels = some()
    z = logits.numpy()
    by_hand = [
        sum(max(0.0, 0.7 + z[i, j] - z[i, y]) for j in range(4) if j != y) for i, y in enumerate(labels.tolist())
    ]
    found = loss("hinge", margin=0.7)(logits, labels)
    assert found.item() == pytest.approx(np.mean(by_hand))
    torch.testing.assert_close(found, 4 * F.multi_margin_loss(logits, labels, margin=0.7))


@pytest.mark.parametrize("name", ["hinge", "focal", "poly"])
def test_soft_labels_weigh_the_losses_of_their_classes(name: str) -> None:
    logits, labels = some()
    other = labels.flip(0)
    soft = 0.3 * F.one_hot(labels, 4).double() + 0.7 * F.one_hot(other, 4)
    compute = loss(name)
    torch.testing.assert_close(compute(logits, soft), 0.3 * compute(logits, labels) + 0.7 * compute(logits, other))


def test_mse_takes_one_hot_and_real_targets() -> None:
    logits, labels = some()
    expected = ((logits.numpy() - np.eye(4)[labels.numpy()]) ** 2).mean()
    assert loss("mse")(logits, labels).item() == pytest.approx(expected)
    real = torch.linspace(-2, 2, 24, dtype=torch.float64).view(6, 4)
    assert loss("mse")(logits, real).item() == pytest.approx(((logits.numpy() - real.numpy()) ** 2).mean())


INITIAL: list[tuple[str, dict[str, Any], Callable[[int], float]]] = [
    ("cross_entropy", {}, math.log),
    ("cross_entropy", {"label_smoothing": 0.2}, math.log),
    ("cross_entropy", {"label_smoothing": 0.2, "class_weights": [1.0, 2.0, 3.0, 4.0, 9.0]}, math.log),
    ("bce", {}, lambda k: math.log(2)),
    ("focal", {"gamma": 2.0}, lambda k: (1 - 1 / k) ** 2 * math.log(k)),
    ("poly", {"epsilon": 2.0}, lambda k: math.log(k) + 2 * (1 - 1 / k)),
    ("hinge", {"margin": 1.0}, lambda k: k - 1),
    ("mse", {}, lambda k: 1 / k),
]


@pytest.mark.parametrize(("name", "changes", "expected"), INITIAL)
def test_the_loss_before_training_is_known(
    name: str, changes: dict[str, Any], expected: Callable[[int], float]
) -> None:
    labels = torch.tensor([0, 0, 3, 4, 0, 2])
    found = initial_loss(loss(name, 5, **changes), labels, 5)
    assert found.item() == pytest.approx(expected(5), rel=1e-6)


def test_every_loss_has_a_known_start() -> None:
    assert {name for name, _, _ in INITIAL} == set(names("loss"))


@pytest.mark.parametrize("name", names("loss"))
def test_hard_labels_equal_one_hot_labels(name: str) -> None:
    logits, labels = some()
    compute = loss(name)
    torch.testing.assert_close(compute(logits, labels), compute(logits, F.one_hot(labels, 4).double()))


@pytest.mark.parametrize("name", names("loss"))
def test_the_loss_of_equal_parts_is_the_mean_of_their_losses(name: str) -> None:
    logits, labels = some()
    compute = loss(name)
    parts = (compute(logits[:3], labels[:3]) + compute(logits[3:], labels[3:])) / 2
    torch.testing.assert_close(compute(logits, labels), parts)


@pytest.mark.parametrize("name", names("loss"))
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    logits, labels = some()
    compute = loss(name)
    assert torch.autograd.gradcheck(lambda z: compute(z, labels), logits.requires_grad_())


@pytest.mark.parametrize("name", names("loss"))
def test_half_precision_logits_give_a_float32_loss_even_where_they_are_huge(name: str) -> None:
    logits = torch.tensor([[3e4, -3e4, 0.0]], dtype=torch.float16, requires_grad=True)
    value = loss(name, 3)(logits, torch.tensor([1]))
    value.backward()
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", names("loss"))
def test_the_totals_of_unequal_parts_give_the_loss_of_the_whole(name: str) -> None:
    """Also with class weights, of which each part has others."""
    logits, labels = some()
    compute = loss(name, class_weights=[1.0, 2.0, 0.5, 4.0])
    parts = [compute.totals(logits[rows], labels[rows]) for rows in (slice(0, 1), slice(1, 6))]
    total, weight = (sum(values) for values in zip(*parts, strict=True))
    torch.testing.assert_close(total / weight, compute(logits, labels))


SMOOTHED = {"cross_entropy": "label_smoothing", "bce": "label_smoothing", "poly": "label_smoothing"}


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 4.0]])
def test_totals_have_no_label_smoothing(name: str, weights: list[float] | None) -> None:
    logits, labels = some()
    given = {"positive_weight": 3.0} if name == "bce" else {}
    plain, smoothed = (loss(name, class_weights=weights, **given, **{SMOOTHED[name]: share}) for share in (0.0, 0.5))
    total, weight = smoothed.totals(logits, labels)
    torch.testing.assert_close(total / weight, plain(logits, labels))
    assert smoothed(logits, labels) != plain(logits, labels)


def test_every_knob_that_smooths_is_tested() -> None:
    knobs = {path.stem: yaml.safe_load(path.read_text()) for path in CONF.glob("*.yaml")}
    assert {name: "label_smoothing" for name, found in knobs.items() if "label_smoothing" in found} == SMOOTHED


@pytest.mark.parametrize("name", names("loss"))
def test_log_probabilities_sum_to_one_and_have_the_order_of_the_logits(name: str) -> None:
    log_probabilities = loss(name).log_probabilities
    if log_probabilities is None:
        assert name in ("hinge", "mse")
        return
    logits, _ = some()
    log_p = log_probabilities(logits)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(6, dtype=torch.float64))
    assert torch.equal(log_p.argsort(1), logits.argsort(1))


def test_the_door_knows_which_losses_have_no_probabilities() -> None:
    rule = next(rule for rule in SETTINGS["monitor"].__metadata__ if isinstance(rule, NotWithOption))
    assert set(rule.options) == {name for name in names("loss") if loss(name).log_probabilities is None}
