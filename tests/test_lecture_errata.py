"""Known mistakes in course notes on neural networks, each checked against the component and by plain arithmetic.

The notes are five write-ups, by students, of Stanford's CS231n, Michigan's EECS 498 and courses like them. Every test
works out both the notes' form and the right one; our part, built from its YAML, must equal the right one and be far
from the other. Read it as a list; `python -m runner task=list` says how each part is called.

Not here: E24 and E25 (which layers fine-tuning draws anew, and at what share of the learning rate; there is no part for
transfer yet) and of E27 what no arithmetic can settle ("six times as fast", "hardly used since Adam").
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_runs import probe_values
from torch import nn

import runner.components  # noqa: F401  (registers)
from runner.engine.clock import Clock
from runner.engine.contracts import Outcome, Watched
from runner.engine.parts import Residual, Slot
from runner.registry import build

CONF = Path(__file__).parent.parent / "conf"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def part(kind, name, context=None, **knobs):
    """Build a part from its YAML, some knobs changed."""
    content = yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())
    values = content if "name" in content else {"name": name, **content[name]}
    return build(kind, {**values, **knobs}, **(context or {}))


def network(name, *, shape=(1, 1, 512), classes=10, activation="relu", norm="none", init="kaiming", **knobs):
    """Build and initialise a model."""
    makers = {"activation": partial(part, "activation", activation), "norm": part("norm", norm)}
    model = part("model", name, {"shape": shape, "num_classes": classes, **makers}, **knobs)
    part("init", init)(model)
    return model


def drawn(init, fan_in, fan_out, **knobs):
    """Return a weight (fan_out, fan_in) as an initialization draws it."""
    layer = nn.Linear(fan_in, fan_out)
    part("init", init, head=None, **knobs)(layer)
    return layer.weight.detach()


def optimizer(name, model, **knobs):
    return part("optim", name, {"model": model, "fused": None}, **knobs)


class Scalar(nn.Module):
    """A model of one weight, to follow an optimizer by hand."""

    def __init__(self, value=1.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([value], dtype=torch.float64))


def path(name, gradients, start=1.0, **knobs):
    """Return where an optimizer takes one weight, step by step, when it is given these gradients."""
    model = Scalar(start)
    stepper = optimizer(name, model, **knobs)
    found = []
    for g in gradients:
        model.w.grad = torch.tensor([g], dtype=torch.float64)
        stepper.step()
        found.append(model.w.item())
    return found


def through_relu(weights, x):
    """Return the root mean square of a signal after layers of weights and ReLU."""
    for weight in weights:
        x = torch.relu(x @ weight.T)
    return x.square().mean().sqrt().item()


def differ(ours, notes):
    """Assert that our values are not the notes' by more than a tenth of their size."""
    ours, notes = torch.as_tensor(ours, dtype=torch.float64), torch.as_tensor(notes, dtype=torch.float64)
    assert (ours - notes).norm() > 0.1 * ours.norm()


# Weights at the start


def test_e01_the_relu_correction_is_sqrt_of_2_over_fan_in_not_2_over_sqrt_of_fan_in():
    """The notes correct Xavier for ReLU by std = 2 / sqrt(fan_in). ReLU stops half of the signal's *variance*, so it
    is the variance that doubles: std = sqrt(2 / fan_in). Theirs is sqrt(2) larger, and a signal grows so much per
    layer."""
    weights = [drawn("xavier_relu", 512, 512, mode="fan_in") for _ in range(6)]
    assert torch.stack(weights).std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.01)
    differ(torch.stack(weights).std(), 2 / math.sqrt(512))
    x = torch.randn(256, 512)
    assert through_relu(weights, x) == pytest.approx(1, rel=0.15)
    assert through_relu([weight * (2 / math.sqrt(512)) / math.sqrt(2 / 512) for weight in weights], x) > 7


def test_e02_he_multiplies_by_sqrt_of_2_over_fan_in_and_does_not_divide_by_it():
    """The notes' formula for He is right, their code is not: `randn / sqrt(2 / fan_in)` divides where it must
    multiply. With 512 inputs the weights are 256 times too large, and six layers turn a signal of size 1 into one
    of 1e14."""
    weights = [drawn("kaiming", 512, 512) for _ in range(6)]
    assert torch.stack(weights).std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.01)
    differ(torch.stack(weights).std(), 1 / math.sqrt(2 / 512))
    x = torch.randn(256, 512)
    assert through_relu(weights, x) == pytest.approx(1, rel=0.15)
    assert through_relu([weight / (2 / 512) for weight in weights], x) > 1e14


def test_e03_xavier_looks_at_both_sides_of_a_layer_and_1_over_fan_in_is_lecuns():
    """The notes call std = 1 / sqrt(fan_in) Xavier's. Glorot and Bengio take the mean of fan_in and fan_out, so that
    gradients, which go the other way, keep their size too. With fan_in alone it is LeCun's, or `init.mode=fan_in`."""
    assert drawn("xavier", 512, 2048).std().item() == pytest.approx(math.sqrt(2 / (512 + 2048)), rel=0.01)
    differ(drawn("xavier", 512, 2048).std(), 1 / math.sqrt(512))
    assert drawn("lecun", 512, 2048).std().item() == pytest.approx(1 / math.sqrt(512), rel=0.01)
    assert drawn("xavier", 512, 2048, mode="fan_in").std().item() == pytest.approx(1 / math.sqrt(512), rel=0.01)


def test_e19_weights_too_large_for_tanh_are_of_0_05_not_of_0_5():
    """One of the notes shows saturation with a constant of 0.5. The lecture's experiment (4096 units) has 0.05, which
    is enough: sums have a standard deviation of 3.2, and two in five tanh end above 0.99. With 0.5 it is all of
    them."""
    weight = drawn("large_normal", 4096, 256)
    assert weight.std().item() == pytest.approx(0.05, rel=0.01)
    differ(weight.std(), 0.5)
    sums = torch.randn(64, 4096) @ weight.T
    saturated = [(part("activation", "tanh")(sums * factor).abs() > 0.99).float().mean().item() for factor in (1, 10)]
    assert saturated == pytest.approx([math.erfc(math.atanh(0.99) / std / math.sqrt(2)) for std in (3.2, 32)], abs=0.03)


def test_e20_a_positive_bias_and_a_leaky_slope_are_two_things():
    """The notes give "positive biases" as another word for the factor 0.01 of leaky ReLU. A bias is added, to keep a
    unit in the positive part at the start (`init.bias=0.01`); the slope multiplies what is below zero, at all
    times."""
    leaky = part("activation", "leaky_relu")
    x = torch.tensor([-2.0, -1.0, 0.0])
    assert leaky(x).tolist() == pytest.approx([-0.02, -0.01, 0.0])
    differ(leaky(x), torch.relu(x + 0.01))  # what a bias would do
    layer = nn.Linear(512, 8)
    part("init", "kaiming", bias=0.01, head=None)(layer)
    assert layer.bias.tolist() == pytest.approx([0.01] * 8)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.05)  # the weights are none the smaller


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_e26_a_residual_branch_starts_at_zero_by_its_norms_scale_where_it_ends_in_a_norm(norm):
    """The notes set the second convolution of a block to zero, so that the block starts as the identity. Right without
    norms. With batch norm behind it the map has variance 0, and the norm multiplies gradients by 1 / sqrt(eps), 316
    times: there the norm's scale must be the zero, and the convolution stays as He drew it."""
    model = network("resnet", shape=(1, 8, 8), norm=norm, init="residual")
    branches = [module.branch for module in model.modules() if isinstance(module, Residual)]
    x, labels = torch.randn(32, 1, 8, 8), torch.arange(32) % 10
    for branch in branches:
        assert not branch(torch.randn(4, branch.conv1.in_channels, 8, 8)).any()
        assert branch.conv2.weight.any() == (norm == "batch")
    if norm == "batch":
        assert not any(branch.norm2.weight.any() for branch in branches)

    def gradient(start):
        """Return the size of the gradient that reaches the last second convolution after a start."""
        part("init", "kaiming")(model)
        for branch in branches:
            nn.init.ones_(branch.norm2.weight)
        start(branches[-1])
        loss = part("loss", "cross_entropy", {"num_classes": 10})(model(x), labels)
        return torch.autograd.grad(loss, branches[-1].conv2.weight)[0].norm().item()

    if norm == "batch":
        usual = gradient(lambda branch: None)
        assert gradient(lambda branch: nn.init.zeros_(branch.conv2.weight)) > 50 * usual  # the notes' form
        assert gradient(lambda branch: nn.init.zeros_(branch.norm2.weight)) == 0  # ours: the scale learns first


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_e28_with_all_weights_zero_nothing_but_the_last_bias_learns(activation):
    """The notes say that all gradients are then the same, so that units stay copies of each other. That is what any
    *other* constant does. With zeros the signal is zero and so are all gradients, but for the last bias's."""
    x, labels = torch.rand(12, 1, 1, 8), torch.tensor([0] * 6 + [1] * 4 + [2] * 2)
    gradients = {}
    for init in ("zeros", "constant"):
        model = network("mlp", shape=(1, 1, 8), classes=3, hidden=[5, 5], activation=activation, init=init)
        part("loss", "cross_entropy", {"num_classes": 3})(model(x), labels).backward()
        gradients[init] = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in gradients["zeros"].items() if gradient.any()] == ["head.bias"]
    assert gradients["zeros"]["head.bias"].tolist() == pytest.approx(
        [1 / 3 - 6 / 12, 1 / 3 - 4 / 12, 1 / 3 - 2 / 12], abs=1e-7
    )
    same = gradients["constant"]["hidden.fc1.linear.weight"]
    assert same.any()
    assert torch.equal(same, same[:1].expand_as(same))


# Activations


def test_e07_relu_keeps_what_is_above_zero_and_stops_what_is_below():
    """The notes' formula max(0, x) is right; their table under it is upside down (x >= 0 gives 0, x < 0 gives x)."""
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
    assert part("activation", "relu")(x).tolist() == [0, 0, 0, 0.5, 2]
    differ(part("activation", "relu")(x), [-2, -0.5, 0, 0, 0])


def test_e08_tanh_is_2_sigmoid_of_2x_less_1_the_factor_inside_too():
    """The notes write sigmoid * 2 - 1. That has tanh's range, but half its slope: x must be doubled as well."""
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    sigmoid = part("activation", "sigmoid")
    torch.testing.assert_close(part("activation", "tanh")(x), 2 * sigmoid(2 * x) - 1)
    differ(part("activation", "tanh")(x), 2 * sigmoid(x) - 1)


def test_e09_prelu_is_ax_below_zero_and_not_max_of_ax_and_x():
    """max(a x, x) is the same only while a <= 1. PReLU *learns* its a, which may pass 1; then the maximum takes the
    wrong branch on both sides of zero."""
    prelu = part("activation", "prelu", start=2.0)
    x = torch.tensor([-3.0, -1.0, 1.0, 3.0])
    assert prelu(x).tolist() == [-6, -2, 1, 3]
    differ(prelu(x).detach(), torch.maximum(2 * x, x))
    prelu(x).sum().backward()
    assert prelu.weight.grad.item() == -4  # the sum of x below zero: a learns


def test_e17_selu_is_elu_with_two_constants_that_make_mean_0_and_variance_1_a_fixed_point():
    """The notes print SELU with letters only. It normalizes itself because lambda = 1.0507 and alpha = 1.6733 solve
    two equations: N(0, 1) in, mean 0 and variance 1 out. With 1 and 1 (plain ELU) they do not hold, nor with
    dropout, which is why alpha dropout exists."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    z = torch.tensor(nodes)

    def moments(values):
        mean, square = (np.dot(weights, values.numpy() ** power) / weights.sum() for power in (1, 2))
        return [mean, square - mean**2]

    selu = part("activation", "selu")
    expected = 1.0507 * torch.where(z > 0, z, 1.6733 * torch.expm1(z))
    torch.testing.assert_close(selu(z), expected, rtol=1e-4, atol=1e-4)
    assert moments(selu(z)) == pytest.approx([0, 1], abs=2e-3)
    differ(moments(selu(z)), moments(torch.where(z > 0, z, torch.expm1(z))))
    signal = selu(torch.randn(200_000))
    after = {name: dropped(name, signal, 0.1).std().item() for name in ("alpha_dropout", "dropout")}
    assert after["alpha_dropout"] == pytest.approx(1, abs=0.02)
    assert after["dropout"] > 1.04


def dropped(name, x, p):
    """Return a signal behind a kind of dropout in training."""
    places = nn.Sequential(Slot("fc"))
    part("regularizer", name, p=p, where=["fc"]).rewire(places)
    return places.train()(x)


def test_e27_relu_is_not_linear_and_gradients_do_explode_through_it():
    """The notes praise ReLU as "a linear function" without exploding gradients. It is linear on each side of zero only
    (else layers would collapse into one), and its slope of 1 leaves growth to the weights: with large ones the
    gradient grows by the same factor in every layer."""
    relu, a, b = part("activation", "relu"), torch.tensor([2.0]), torch.tensor([-3.0])
    assert relu(a + b).item() == 0
    assert (relu(a) + relu(b)).item() == 2
    sizes = []
    for depth in (2, 6):
        model = network("mlp", shape=(1, 1, 64), hidden=[64] * depth, init="large_normal")
        for layer in model.hidden:
            layer.linear.weight.data *= 10  # std 0.5; He's would be 0.18
        x = torch.randn(256, 1, 1, 64, requires_grad=True)
        sizes.append(torch.autograd.grad(model(x).sum(), x)[0].norm().item())
    assert sizes[1] / sizes[0] == pytest.approx(math.sqrt(64 * 0.5**2 / 2) ** 4, rel=0.5)  # 2.83 per layer: 64 in four


# Normalization


def test_e04_batch_norm_divides_by_the_root_of_the_variance():
    """The notes divide by sigma^2 + eps. A variance has the unit of x squared: it is the root, sqrt(sigma^2 + eps),
    that makes the variance 1, whatever x was measured in."""
    x = 3 * torch.randn(64, 5, dtype=torch.float64) + 2
    norm = part("norm", "batch")(5, 0).double()
    centerd, variance = x - x.mean(0), x.var(0, correction=0)
    torch.testing.assert_close(norm(x), centerd / (variance + 1e-5).sqrt())
    differ(norm(x).detach(), centerd / (variance + 1e-5))
    torch.testing.assert_close(norm(x).var(0, correction=0), torch.ones(5, dtype=torch.float64), rtol=1e-4, atol=0)


def test_e05_batch_norm_in_evaluation_uses_running_statistics_of_training_not_of_test_data():
    """The notes say that test data are normalized by the test data before them. They are normalized by running
    averages from *training*: else the answer for an image would hang on what else was asked."""
    norm = part("norm", "batch")(4, 0).double()
    mean, variance = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    for _ in range(20):
        batch = 2 * torch.randn(32, 4, dtype=torch.float64) + 1
        norm(batch)
        mean, variance = 0.9 * mean + 0.1 * batch.mean(0), 0.9 * variance + 0.1 * batch.var(0)
    norm.eval()
    test = torch.randn(8, 4, dtype=torch.float64) - 5
    torch.testing.assert_close(norm(test), (test - mean) / (variance + 1e-5).sqrt())
    differ(norm(test).detach(), (test - test.mean(0)) / (test.var(0) + 1e-5).sqrt())
    torch.testing.assert_close(norm(test[:1]), norm(torch.cat([test, 100 + test]))[:1])  # neighbors do not matter


def test_e06_gamma_and_beta_are_learned_and_start_at_1_and_0():
    """The notes define gamma = sqrt(Var) and beta = E. Those are the values at which the layer would give back its
    input: it *could learn* them. It starts at 1 and 0, and the optimizer moves both like any weight."""
    x = 3 * torch.randn(64, 5, dtype=torch.float64) + 2
    norm = part("norm", "batch")(5, 0).double()
    scale, shift = (x.var(0, correction=0) + 1e-5).sqrt(), x.mean(0)
    differ(norm(x).detach(), x)  # with the notes' gamma and beta it would be x
    stepper = optimizer("sgd", norm, lr=0.1, weight_decay=0.0)
    normalized = norm(x).detach()
    (norm(x) * x).sum().backward()
    stepper.step()
    torch.testing.assert_close(norm.weight.detach(), 1 - 0.1 * (normalized * x).sum(0))
    torch.testing.assert_close(norm.bias.detach(), 0 - 0.1 * x.sum(0))
    norm.load_state_dict({"weight": scale, "bias": shift}, strict=False)
    torch.testing.assert_close(norm(x), x)


@pytest.mark.parametrize(
    ("name", "view", "axes"),
    [("layer", (6, 72), (1,)), ("instance", (6, 8, 9), (2,)), ("group", (6, 2, 36), (2,))],
)
def test_e22_layer_instance_and_group_norm_take_their_statistics_within_one_example(name, view, axes):
    """The notes have layer norm as "one norm per dimension". That is batch norm's axis. Layer norm takes one mean per
    *example* over channels and pixels, instance norm one per example and channel, group norm one per example and
    group of channels; none of them looks at other examples."""
    x = torch.randn(6, 8, 3, 3) * torch.arange(1.0, 9).view(1, 8, 1, 1) + torch.arange(6.0).view(6, 1, 1, 1)
    norm = part("norm", name, **({"groups": 2} if name == "group" else {}))(8, 2)
    parts = x.view(view)
    mean, variance = parts.mean(axes, keepdim=True), parts.var(axes, correction=0, keepdim=True)
    expected = ((parts - mean) / (variance + 1e-5).sqrt()).view(x.shape)
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)
    over_batch = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    differ(norm(x).detach(), over_batch)
    torch.testing.assert_close(norm(x[:1]), norm(x)[:1])


# Optimizers and the learning rate


def test_e10_gradient_descent_steps_against_the_gradient():
    """The notes' SGD adds alpha times the gradient, which climbs. (Their momentum line has the right sign.)"""
    assert path("sgd", [2.0, 2.0], lr=0.1, weight_decay=0.0) == pytest.approx([0.8, 0.6])
    differ(path("sgd", [2.0, 2.0], lr=0.1, weight_decay=0.0), [1.2, 1.4])
    w = 1.0
    for _ in range(50):
        w = path("sgd", [2 * w], start=w, lr=0.1, weight_decay=0.0)[0]  # downhill on w^2
    assert abs(w) < 1e-4


def test_e11_rmsprops_cache_is_replaced_by_a_running_mean_not_added_to():
    """The notes write `cache += d * cache + (1 - d) * g ** 2`. With `+=` the cache almost doubles in every step and
    the steps die out: the disease of Adagrad that RMSProp is to cure. With `=` it is a mean of g squared."""
    lr, d, eps = 0.003, 0.99, 1e-8
    right, wrong, cache, heap, w, v = [], [], 0.0, 0.0, 1.0, 1.0
    for _ in range(40):
        cache = d * cache + (1 - d) * 2.0**2
        heap += d * heap + (1 - d) * 2.0**2
        w -= lr * 2.0 / (math.sqrt(cache) + eps)
        v -= lr * 2.0 / (math.sqrt(heap) + eps)
        right.append(w)
        wrong.append(v)
    ours = path("rmsprop", [2.0] * 40, lr=lr, weight_decay=0.0)
    assert ours == pytest.approx(right)
    differ(ours, wrong)
    assert right[-2] - right[-1] > 1e5 * (wrong[-2] - wrong[-1])


def test_e12_adam_corrects_the_bias_of_its_means_so_that_the_first_step_is_lr():
    """The notes leave the division by 1 - beta^t out. Both means start at zero and are too small at first, the second
    one more so: without the correction the first step is (1 - 0.9) / sqrt(1 - 0.999) = 3.16 times the learning
    rate."""
    lr, a, b, eps = 0.01, 0.9, 0.999, 1e-8
    gradients = [0.5, -1.0, 2.0, 2.0]
    right, wrong, m, v, w, u = [], [], 0.0, 0.0, 1.0, 1.0
    for t, g in enumerate(gradients, 1):
        m, v = a * m + (1 - a) * g, b * v + (1 - b) * g**2
        w -= lr * (m / (1 - a**t)) / (math.sqrt(v / (1 - b**t)) + eps)
        u -= lr * m / (math.sqrt(v) + 1e-7)
        right.append(w)
        wrong.append(u)
    ours = path("adam", gradients, lr=lr)
    assert ours == pytest.approx(right, rel=1e-9)
    differ([1 - w for w in ours], [1 - u for u in wrong])
    assert 1 - ours[0] == pytest.approx(lr)
    assert 1 - wrong[0] == pytest.approx(3.16 * lr, rel=1e-2)


def test_e15_inverse_sqrt_decay_is_finite_at_step_0():
    """The notes' alpha_0 / sqrt(t) divides by zero in the first step. 1 / sqrt(1 + t / timescale) is 1 there, and
    falls like 1 / sqrt(t) later on."""
    clock = Clock(total_steps=100_000, steps_per_epoch=100, batch=1)
    factor = part("scheduler", "inverse_sqrt", {"clock": clock}, timescale="50steps")
    assert [factor(t) for t in (0, 50, 150)] == pytest.approx([1, 1 / math.sqrt(2), 1 / 2])
    with pytest.raises(ZeroDivisionError):
        1 / math.sqrt(0)  # the notes' form
    differ([factor(t) for t in (1, 50, 150)], [1 / math.sqrt(t) for t in (1, 50, 150)])
    assert factor(40_000) / factor(10_000) == pytest.approx(1 / 2, rel=1e-2)


def test_e18_the_ratio_to_watch_is_of_the_update_not_of_the_gradient_to_the_weights():
    """The notes compare the absolute sums (L1) of weights and "gradient updates" and want 0.01 to 0.001. CS231n takes
    L2 norms of the *update*, what the step really changed, momentum and learning rate included, and wants about
    1e-3. The gradient alone says nothing: the learning rate is not in it."""
    model = network("linear", shape=(1, 1, 64))
    before = model.head.weight.detach().clone()
    stepper = optimizer("momentum", model, lr=0.001)
    x, labels = torch.randn(32, 1, 1, 64), torch.arange(32) % 10
    watch = part("probe", "update_ratio").watch(Watched(model, dict(model.named_parameters()), x, labels, 0))
    next(watch)
    loss = part("loss", "cross_entropy", {"num_classes": 10})(model(x), labels)
    loss.backward()
    stepper.step()
    with pytest.raises(StopIteration) as done:
        watch.send(Outcome(loss, None))
    ratio = probe_values(done.value.value)["ratio/l2/head.weight"].item()
    change = model.head.weight.detach() - before
    assert ratio == pytest.approx((change.square().sum().sqrt() / before.square().sum().sqrt()).item(), rel=1e-5)
    assert ratio < 0.01 * (model.head.weight.grad.abs().sum() / before.abs().sum())  # the notes' form


# Losses, penalties, dropout, data


def test_e21_softmax_is_for_one_label_of_many_and_sigmoids_for_many_labels():
    """The notes call softmax the multi-*label* form of the sigmoid. It is the multi-*class* form: probabilities of
    classes that exclude each other, with the sum 1. Labels that go together need a sigmoid each: `loss=bce`."""
    softmax, sigmoids = part("loss", "cross_entropy", {"num_classes": 3}), part("loss", "bce", {"num_classes": 3})
    z, label = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64), torch.tensor([0])
    e = z.exp()
    assert softmax(z, label).item() == pytest.approx(-math.log(e[0, 0] / e.sum()))
    p = 1 / (1 + (-z).exp())
    assert sigmoids(z, label).item() == pytest.approx(-(p[0, 0].log() + (1 - p[0, 1:]).log().sum()).item() / 3)
    differ(softmax(z, label), -p[0, 0].log())
    torch.testing.assert_close(
        softmax(z + 7, label), softmax(z, label)
    )  # only differences count: they exclude each other
    both, sure = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[20.0, 20.0, -20.0]])
    assert sigmoids(sure, both).item() < 1e-6
    assert softmax(sure, both).item() > 1.3  # two labels at once are beyond a softmax: 2 ln 2 at best


def test_e23_weight_decay_is_l2_at_most_never_l1_and_not_even_l2_for_adam():
    """The notes have weight decay as L2 *or* L1. Decay means that weights shrink by a share of themselves. An L2
    penalty does that under plain SGD; L1 takes the same amount from all. Under Adam L2 is rescaled with the
    gradient and every weight moves by lr; only decoupled decay (`optim=adamw`) shrinks by a share there."""
    lr, strength, start = 0.1, 0.5, torch.tensor([[4.0, -2.0, 0.5]], dtype=torch.float64)

    def shrunk(name, penalty=None, **knobs):
        """Return the weights after a step with no gradient but the regularization's."""
        model = nn.Sequential(nn.Linear(3, 1, bias=False)).double()
        model[0].weight.data.copy_(start)
        stepper = optimizer(name, model, lr=lr, **knobs)
        loss = 0 * model[0].weight.sum()
        (loss + part("regularizer", penalty, strength=strength).penalty(model) if penalty else loss).backward()
        stepper.step()
        return model[0].weight.detach()

    share = (1 - lr * strength) * start
    torch.testing.assert_close(shrunk("sgd", weight_decay=strength), share)
    torch.testing.assert_close(shrunk("sgd", "l2", weight_decay=0.0), share)
    torch.testing.assert_close(shrunk("sgd", "l1", weight_decay=0.0), start - lr * strength * start.sign())
    differ(start - shrunk("sgd", "l1", weight_decay=0.0), start - share)
    torch.testing.assert_close(shrunk("adamw", weight_decay=strength), share)
    for rescaled in (shrunk("adam", weight_decay=strength), shrunk("adam", "l2")):
        torch.testing.assert_close(rescaled, start - lr * start.sign())
        differ(start - rescaled, start - share)


@pytest.mark.parametrize("how", ["penalty", "decay"])
def test_ridge_regression_is_a_linear_model_with_mse_and_l2_trained_to_the_end(how):
    """The notes' ridge formula, (X'X + lambda I)^-1 X'y, is right for a *sum* of squares. Our loss is a mean over N
    examples and K outputs and our penalty is strength / 2 * sum of w^2, so that lambda = strength * N * K / 2.
    Gradient descent ends there, by `regularizer=l2` and by `optim.weight_decay`; lambda = strength is another
    solution."""
    n, features, outputs, strength = 60, 6, 3, 0.05
    x, truth = torch.randn(n, features, dtype=torch.float64), torch.randn(features, outputs, dtype=torch.float64)
    y = x @ truth + 0.5 * torch.randn(n, outputs, dtype=torch.float64)
    x, y = x - x.mean(0), y - y.mean(0) + 3  # about the mean, so that the bias is the mean of y
    model = network("linear", shape=(1, 1, features), classes=outputs, init="xavier").double()
    stepper = optimizer("momentum", model, lr=0.5, momentum=0.8, weight_decay=strength if how == "decay" else 0.0)
    loss, penalty = part("loss", "mse", {"num_classes": outputs}), part("regularizer", "l2", strength=strength).penalty
    for _ in range(300):
        stepper.zero_grad()
        total = loss(model(x.view(n, 1, 1, features)), y)
        (total + penalty(model) if how == "penalty" else total).backward()
        stepper.step()

    def ridge(penalty):
        return torch.linalg.solve(x.T @ x + penalty * torch.eye(features, dtype=torch.float64), x.T @ (y - y.mean(0))).T

    torch.testing.assert_close(model.head.weight.detach(), ridge(strength * n * outputs / 2), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.head.bias.detach(), y.mean(0), rtol=1e-9, atol=1e-9)
    assert (model.head.weight - ridge(strength)).abs().max() > 0.02


def test_e13_plain_dropout_multiplies_by_the_probability_to_keep_at_test_time():
    """The notes divide the outputs by the dropout probability at test time. Training lets a share of 1 - p through, so
    the mean of a unit is (1 - p) x, and that is what evaluation must give: multiply by 1 - p. (Inverted dropout
    divides by 1 - p, in *training*.)"""
    p, x = 0.2, torch.full((200_000,), 3.0)
    places = nn.Sequential(Slot("fc"))
    part("regularizer", "dropout_vanilla", p=p, where=["fc"]).rewire(places)
    at_test = places.eval()(x)
    torch.testing.assert_close(at_test, (1 - p) * x)
    differ(at_test, x / p)
    assert places.train()(x).mean().item() == pytest.approx(at_test.mean().item(), rel=0.01)
    inverted = dropped("dropout", x, p)
    assert inverted.unique().tolist() == pytest.approx([0, 3 / (1 - p)])
    assert inverted.mean().item() == pytest.approx(3, rel=0.01)


def test_e14_p_is_the_probability_to_drop_and_every_hidden_layer_has_a_mask_of_its_own():
    """The notes' code keeps a unit where a random number is below p, while their text calls p the probability to
    *drop* (and sets `P`, but reads `p`). At the usual 0.5 nobody notices. Ours drops with p, in every place, each
    by itself."""
    model = network("mlp", shape=(1, 1, 64), hidden=[400, 400], activation="identity")
    part("regularizer", "dropout", p=0.2, where=["fc"]).rewire(model)
    masks = []
    for layer in model.hidden:
        layer.slot.register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    model.train()(torch.randn(100, 1, 1, 64))
    shares = [mask.float().mean().item() for mask in masks]
    assert shares == pytest.approx([0.2, 0.2], abs=0.01)
    differ(shares, [0.8, 0.8])  # what the notes' code drops at p = 0.2
    assert (masks[0] & masks[1]).float().mean().item() == pytest.approx(0.2**2, abs=0.01)


def test_e16_whitening_divides_the_rotated_data_by_the_root_of_the_eigenvalues():
    """The notes divide "the variance by the eigenvalue". What is divided is the rotated *data*, and by the root: an
    eigenvalue is the variance, and data divided by a variance have the variance 1 / eigenvalue, not 1."""
    data = part("data", "synthetic")
    whitened = part("preprocess", "pca_whiten", {"shape": data.shape})
    whitened.fit(data.train)
    images = data.train.fetch(torch.arange(len(data.train.labels)))
    x = images.flatten(1).double() / 255
    x -= x.mean(0)
    eigenvalues, axes = np.linalg.eigh(np.cov(x.numpy().T))
    rotated = x @ torch.tensor(axes[:, ::-1].copy())
    largest_first = torch.tensor(eigenvalues[::-1].copy())
    ours = whitened(images).flatten(1).double()
    torch.testing.assert_close(ours.abs(), (rotated / (largest_first + 1e-5).sqrt()).abs(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.T.cov(), torch.eye(2, dtype=torch.float64), rtol=1e-3, atol=1e-3)
    differ(ours.abs(), (rotated / largest_first).abs())
