"""The gradient noise scale against closed forms: a linear model with known noise, and gradients of single examples."""

from __future__ import annotations

import json

import pytest
import torch
from small_runs import probe_values
from torch import nn

import runner
import runner.components
from runner.engine.contracts import Outcome, Watched
from runner.engine.logs.derived import NOISE, SQUARED_GRADIENT, Derived
from runner.errors import ConfigError
from runner.registry import build

BATCH = "gradient_noise/batch_size"


def measured(model, examples, accumulate, loss, dtype=None):
    """Return what the probe logs of one step with gradient accumulation."""
    probe = build("probe", {"name": "gradient_noise", "every": 1}, accumulate=accumulate)
    labels = torch.zeros(len(examples), dtype=torch.int64)
    watch = probe.watch(Watched(model, dict(model.named_parameters()), examples, labels, 0))
    next(watch)
    model.zero_grad()
    for part in examples.chunk(accumulate):
        (loss(model, part) * (len(part) / len(examples))).backward()
    with pytest.raises(StopIteration) as end:
        watch.send(Outcome(torch.zeros(()), None))
    assert not any(p._backward_hooks for p in model.parameters())
    return {tag: each.item() for tag, each in probe_values(end.value.value).items()}


def slope(model, part):
    """Return a loss whose gradient at an example x is x itself."""
    return model(part).mean()


@pytest.mark.parametrize(("size", "accumulate"), [(8, 2), (32, 4), (10, 4), (7, 7)])
def test_the_estimates_are_those_of_a_known_covariance(size, accumulate):
    """The gradient of mean(w x) is the mean of x: |G|^2 = 1 + 4 and tr(Sigma) = 0.25 + 9, whatever the parts' sizes."""
    draw = torch.Generator().manual_seed(0)
    model = nn.Linear(2, 1, bias=False).double()
    sums = torch.zeros(2, dtype=torch.float64)
    count = 3000
    for _ in range(count):
        noise = torch.randn(size, 2, generator=draw, dtype=torch.float64)
        logged = measured(model, torch.tensor([1.0, 2.0]) + noise * torch.tensor([0.5, 3.0]), accumulate, slope)
        sums += torch.tensor([logged[SQUARED_GRADIENT], logged[NOISE]], dtype=torch.float64)
    gradient, trace = (sums / count).tolist()
    assert gradient == pytest.approx(5.0, rel=0.06)
    assert trace == pytest.approx(9.25, rel=0.06)
    assert trace / gradient == pytest.approx(1.85, rel=0.1)


def test_equal_parts_give_the_formula_of_the_paper():
    """The formula of appendix A, from gradients computed by hand."""
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double(), torch.randn(12, 3).double()

    def square(part):
        grads = torch.autograd.grad(slope(model, part), list(model.parameters()))
        return sum(float(g.square().sum()) for g in grads)

    small_square, large_square = sum(square(x[i : i + 4]) for i in (0, 4, 8)) / 3, square(x)
    logged = measured(model, x, 3, slope)
    assert logged[SQUARED_GRADIENT] == pytest.approx((12 * large_square - 4 * small_square) / (12 - 4), rel=1e-6)
    assert logged[NOISE] == pytest.approx((small_square - large_square) / (1 / 4 - 1 / 12), rel=1e-6)


def test_equal_examples_have_no_noise():
    logged = measured(nn.Linear(2, 1).double(), torch.ones(6, 2).double(), 3, slope)
    assert logged[NOISE] == pytest.approx(0.0, abs=1e-12)
    assert logged[SQUARED_GRADIENT] == pytest.approx(3.0)  # of two weights and the bias


def test_half_precision_is_added_in_float32():
    """The squares of 300 do not fit into bfloat16's eight bits, and the sum of 64 of them not into float16."""
    logged = measured(nn.Linear(64, 1, bias=False).half(), torch.full((4, 64), 300.0).half(), 2, slope)
    assert logged[SQUARED_GRADIENT] == pytest.approx(64 * 300.0**2, rel=1e-3)


def test_one_micro_batch_and_frozen_weights_log_nothing():
    model = nn.Linear(2, 1)
    assert measured(model, torch.ones(1, 2), 4, slope) == {}
    model.requires_grad_(False)
    x = torch.ones(4, 2, requires_grad=True)
    assert measured(model, x, 2, slope) == {}


def test_a_second_pass_at_other_weights_does_not_count():
    """As sharpness-aware minimization makes it: the gradients are those at the weights before the step."""
    model, x = nn.Linear(2, 1).double(), torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double()
    probe = build("probe", {"name": "gradient_noise", "every": 1}, accumulate=2)
    watch = probe.watch(Watched(model, dict(model.named_parameters()), x, torch.zeros(2).long(), 0))
    next(watch)
    for factor in (1.0, 100.0):
        for part in x.chunk(2):
            (model(part).mean() * factor / 2).backward()
    with pytest.raises(StopIteration) as end:
        watch.send(Outcome(torch.zeros(()), None))
    logged = {tag: each.item() for tag, each in probe_values(end.value.value).items()}
    assert logged == pytest.approx(measured(model, x, 2, slope))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["accumulate=1"], "probe.gradient_noise: needs micro-batches; set accumulate=2"),
        (["accumulate=2", "regularizer=[l2]"], "probe.gradient_noise: not supported with a penalty in the loss"),
        (["accumulate=2", "precision=fp16"], "probe.gradient_noise: not supported with precision=fp16"),
    ],
)
def test_steps_that_cannot_be_measured_are_refused(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        runner.train(["model=mlp", "probe=[gradient_noise]", "steps=2", f"outputs={tmp_path}", *words])


def test_the_scale_is_a_ratio_of_averages():
    """Means of 1, 3, 2 and of 10, 20, 60; a negative average leaves it out, and a resumed run goes on."""
    derived, found = Derived(), []
    for gradient, noise in ((1.0, 10.0), (3.0, 20.0), (-10.0, 30.0), (14.0, 60.0), (float("nan"), 1.0)):
        values = {SQUARED_GRADIENT: gradient, NOISE: noise}
        derived = Derived(derived.state_dict())
        derived.extend(values)
        found.append(values.get(BATCH))
    assert found == [10.0, pytest.approx(7.5), None, pytest.approx(15.0), None]
    assert Derived().state_dict() == {}


def test_a_run_is_the_same_with_the_probe(tmp_path):
    """Weights, losses and scores are equal bit by bit, with dropout, BatchNorm and a mix that draws."""
    words = ["model=mlp", "norm=batch", "accumulate=2", "data.batch_size=32", "steps=12", "regularizer=[dropout]"]
    curves, weights = [], []
    for name, probe in (("off", "probe=[]"), ("on", "probe=[gradient_noise]")):
        folder = tmp_path / name
        more = ["probe.gradient_noise.every=2"] if name == "on" else []
        runner.train([*words, "mix=mixup", probe, *more, f"outputs={tmp_path}", f"name={name}", "invariants=auto"])
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        curves.append([{k: v for k, v in row.items() if k.startswith(("train/loss", "val/"))} for row in rows])
        weights.append(runner.load(folder).model.state_dict())
        noisy = [row["step"] for row in rows if NOISE in row]
        assert noisy == ([1, 2, 4, 6, 8, 10, 12] if name == "on" else [])
    assert curves[0] == curves[1]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_usual_batch_of_a_real_run_is_not_too_small(tmp_path):
    """On digits the noise scale of an MLP is about 60 in its first steps; near the end it is above 1,000."""
    words = ["model=mlp", "norm=none", "optim=momentum", "optim.lr=0.002", "data.batch_size=64", "accumulate=2"]
    words += [
        "probe=[gradient_noise]",
        "probe.gradient_noise.every=2",
        "steps=1200",
        "scheduler=constant",
        "augment=[]",
        "validate_every=300steps",
    ]
    runner.train([*words, "figures=never", "test=never", f"outputs={tmp_path}", "name=run"])
    found = {each["id"]: each for each in json.loads((tmp_path / "run" / "diagnosis.json").read_text())["findings"]}
    assert "batch_too_small" not in found
