"""One update equals its formula, and evaluation counts every example once."""

import contextlib
import math

import pytest
import torch
from small_runs import build, small
from torch import nn
from torch.nn import functional as F

from runner.engine.batches import EvalBatches
from runner.engine.division import MicroBatches
from runner.engine.evaluation import evaluate
from runner.engine.fast_step import fast_stepper
from runner.engine.finite import Gate
from runner.engine.interruption import Stop
from runner.engine.learner import Learner
from runner.engine.logs.log import Log
from runner.engine.loss_scaler import LossScaler
from runner.engine.patience import Patience
from runner.engine.randomness import reseeder
from runner.engine.recipe import Recipe
from runner.engine.saving.cadence import Every
from runner.engine.schedules import Pure
from runner.engine.train import train, update

CPU = torch.device("cpu")


class Plain:
    def __init__(self, module):
        self.module = module

    def update(self, model, step): ...

    def state_dict(self):
        return {}

    def load_state_dict(self, state): ...


def recipe(**changes):
    values = {
        "seed": 0,
        "total_steps": 10,
        "steps_per_epoch": 5,
        "validate_every": 5,
        "cadence": Every(5, 10),
        "log_every": 5,
        "division": MicroBatches(1),
        "loss": F.cross_entropy,
        "mix": lambda images, labels, step: (images, labels),
        "predict": lambda model, images: model(images).log_softmax(1),
        "penalties": [],
        "constraints": [],
        "probes": [],
        "clip": lambda model: None,
        "autocast": contextlib.nullcontext,
        "reseed": reseeder(0, CPU),
    }
    return Recipe(**(values | changes))


def learner(model, lr=0.1, schedule=lambda step: 1.0):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    scaler = LossScaler("cpu", enabled=False)
    return Learner(
        model=model,
        preprocess=nn.Identity(),
        optimizer=optimizer,
        schedule=Pure(schedule),
        scaler=scaler,
        average=Plain(model),
        patience=Patience("val/accuracy", limit=None),
        stepper=fast_stepper(optimizer),
        gate=Gate(optimizer),
    )


def net(dropout=0.0):
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3)).double()


def examples(n=64):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(n, 1, 4, 4, generator=generator, dtype=torch.double),
        torch.randint(3, (n,), generator=generator),
    )


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("n", [64, 61, 50])
def test_accumulation_equals_the_large_batch(n):
    x, y = examples(n)
    one, four = learner(net()), learner(net())
    for _ in range(3):
        whole = update(recipe(), one, x, y)
        parts = update(recipe(division=MicroBatches(4)), four, x, y)
        assert whole.loss.item() == pytest.approx(parts.loss.item(), rel=1e-12)
    assert torch.allclose(flat(one.model), flat(four.model), rtol=1e-12, atol=1e-14)
    assert one.step == four.step == 3


def test_penalties_enter_the_gradient_once_but_not_the_reported_loss():
    def penalty(model):
        return 0.5 * sum((p**2).sum() for p in model.parameters())

    x, y = examples()
    for accumulate in (1, 4):
        made = learner(net(), lr=0.1)
        before = flat(made.model)
        grads = torch.autograd.grad(F.cross_entropy(made.model(x), y), list(made.model.parameters()))
        expected = before - 0.1 * (torch.cat([g.flatten() for g in grads]) + before)
        out = update(recipe(penalties=[penalty], division=MicroBatches(accumulate)), made, x, y)
        assert torch.allclose(flat(made.model), expected, rtol=1e-10)
        assert out.loss.item() == pytest.approx(F.cross_entropy(net()(x), y).item())


def test_constraints_act_after_the_step():
    def clamp(model):
        with torch.no_grad():
            for p in model.parameters():
                p.clamp_(-0.01, 0.01)

    made = learner(net(), lr=10.0)
    update(recipe(constraints=[clamp]), made, *examples())
    assert flat(made.model).abs().max() == 0.01


def test_clipping_reports_the_norm_before_and_bounds_the_step():
    made = learner(net(), lr=1.0)
    before = flat(made.model)
    grads = torch.autograd.grad(
        F.cross_entropy(made.model(examples()[0]), examples()[1]), list(made.model.parameters())
    )
    norm = torch.cat([g.flatten() for g in grads]).norm()
    clip = recipe(clip=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.01))
    out = update(clip, made, *examples())
    assert out.grad_norm.item() == pytest.approx(norm.item())
    assert (flat(made.model) - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_dropout_depends_on_seed_step_and_micro_batch_alone():
    def after(steps, disturb, accumulate=2):
        made = learner(net(dropout=0.5))
        for _ in range(steps):
            torch.rand(disturb)
            update(recipe(division=MicroBatches(accumulate)), made, *examples())
        return flat(made.model)

    assert torch.equal(after(3, disturb=0), after(3, disturb=7))
    assert not torch.equal(after(3, disturb=0), after(3, disturb=0, accumulate=4))


def test_the_learning_rate_is_the_schedule_at_the_step():
    made = learner(net(), lr=2.0, schedule=lambda step: 1 / (step + 1))
    rates = []
    for _ in range(3):
        made.set_lr()
        rates.append(made.optimizer.param_groups[0]["lr"])
        update(recipe(), made, *examples())
    assert rates == [2.0, 1.0, pytest.approx(2 / 3)]


class Stored:
    def __init__(self, x, y):
        self.x, self.labels = x, y

    def fetch(self, index):
        return self.x[index]


def test_evaluation_counts_every_example_once_and_leaves_the_mode():
    x, y = examples(61)
    made = learner(net(dropout=0.9))
    batches = EvalBatches(Stored(x, y), batch=16, preprocess=nn.Identity(), device=CPU)
    scores = evaluate(recipe(), made, batches)
    model = net().eval()
    assert scores["accuracy"] == pytest.approx((model(x).argmax(1) == y).double().mean().item(), abs=1e-9)
    assert scores["loss"] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-6)
    assert made.model.training


def test_patience_keeps_the_best_and_stops_after_its_limit():
    patience = Patience("val/accuracy", limit=2)
    seen = [patience.observe({"val/accuracy": s}, i) for i, s in enumerate([0.5, math.nan, 0.7, 0.7, 0.6], 1)]
    assert seen == [True, False, True, False, False]
    assert patience.best_step == 3
    assert patience.should_stop
    copy = Patience("val/accuracy", limit=2)
    copy.load_state_dict(patience.state_dict())
    assert copy.state_dict() == patience.state_dict()


def test_patience_minimises_a_loss_and_survives_a_nan_first():
    patience = Patience("val/loss", limit=None)
    assert patience.observe({"val/loss": math.nan}, 1)
    assert patience.observe({"val/loss": 2.0}, 2)
    assert not patience.observe({"val/loss": 3.0}, 3)
    assert patience.best == {"val/loss": 2.0, "step": 2}
    assert not patience.should_stop


def test_a_signal_that_comes_while_the_loop_waits_for_a_batch_ends_it_after_that_step_saved():
    made = build(small({"steps": 9, "validate_every": "9steps", "checkpoint_every": "9steps"}))
    stop, saved, stream = Stop(), [], made.batches.stream

    def signalled(start, end):
        for step, batch in enumerate(stream(start, end)):
            stop.signal = 15 if step == 3 else 0
            yield batch

    made.batches.stream = signalled
    commit = lambda: saved.append(made.learner.step)  # noqa: E731
    assert train(made.recipe, made.learner, made.batches, {}, Log(), commit, stop) == "stopped"
    assert (made.learner.step, saved) == (4, [4])
