"""An update may ask for gradients several times, and the gradients may come from the recipe or from outside."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_runs import RecordedRows, build, results_of, small
from test_train import examples, flat, learner, net, recipe
from torch import nn
from torch.nn import functional as F

from runner.engine.division import MicroBatches
from runner.engine.logs.log import Log
from runner.engine.nonfinite_trace import explain_divergence
from runner.engine.recipe import Gradients, apply_gradients, drive
from runner.engine.train import steps, train, update
from runner.errors import Diverged


def sharpness_aware(rho):
    """Return SAM's update (Foret et al. 2021, arXiv 2010.01412, eq. 2 and 3): a step by the gradients at w + e(w)."""

    def sam(recipe, learner, images, labels):
        mean_loss = yield images, labels
        weights = [p for p in learner.parameters.values() if p.grad is not None]
        before = [p.detach().clone() for p in weights]
        norm = torch.stack([p.grad.norm() for p in weights]).norm()
        with torch.no_grad():
            for p in weights:
                p.add_(rho * p.grad / norm)
        try:
            yield images, labels
        finally:
            with torch.no_grad():
                for p, was in zip(weights, before, strict=True):
                    p.copy_(was)
        return apply_gradients(recipe, learner, mean_loss)

    return sam


def once(recipe, learner, images, labels):
    return apply_gradients(recipe, learner, (yield images, labels))


def plane(weights):
    """Return a learner of two weights, whose logits are these, and its examples; lr 0.5, no momentum."""
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data = torch.tensor([weights], dtype=torch.double)
    made = learner(model, lr=0.5)
    made.optimizer.param_groups[0]["momentum"] = 0.0
    return made, torch.eye(2, dtype=torch.double), torch.zeros(2, dtype=torch.long)


def bowl(logits, labels):
    """Return half the squared length of the weights: its gradient is the weights."""
    return 0.5 * logits.square().sum()


def test_two_passes_of_sam_equal_steps_by_hand():
    # w = (3, 4): g = w, |g| = 5, e = (.6, .8); the gradient at w + e is (3.6, 4.8); w - .5 of it = (1.2, 1.6).
    # Then |g| = 2, e = (.6, .8) again, the gradient is (1.8, 2.4), and w = (.3, .4).
    made, images, labels = plane([3.0, 4.0])
    given = recipe(loss=bowl, update=sharpness_aware(1.0))
    for loss, weights in ((12.5, [1.2, 1.6]), (2.0, [0.3, 0.4])):
        assert update(given, made, images, labels).loss.item() == pytest.approx(loss, rel=1e-14)
        assert made.model.weight.tolist()[0] == pytest.approx(weights, rel=1e-14)
    assert made.step == 2


@pytest.mark.parametrize("accumulate", [1, 4])
def test_an_update_of_ones_own_that_asks_once_is_the_default(accumulate):
    default, own = learner(net(dropout=0.5)), learner(net(dropout=0.5))
    for _ in range(3):
        a = update(recipe(division=MicroBatches(accumulate)), default, *examples(61))
        b = update(recipe(division=MicroBatches(accumulate), update=once), own, *examples(61))
        assert torch.equal(a.loss, b.loss)
    assert torch.equal(flat(default.model), flat(own.model))


def test_both_passes_of_a_step_drop_the_same_units():
    seen = []
    made = learner(net(dropout=0.5))
    made.model[3].register_forward_hook(lambda module, inputs, output: seen.append(output == 0))
    for _ in range(2):
        update(recipe(update=sharpness_aware(1e-9)), made, *examples())
    first, again, second_step, _ = seen
    assert torch.equal(first, again)
    assert not torch.equal(first, second_step)


def test_an_error_in_the_gradients_reaches_the_caller_and_leaves_the_weights():
    made = learner(net())
    before = flat(made.model)
    calls = []

    def failing(logits, labels):
        calls.append(logits)
        if len(calls) == 2:
            raise StopIteration("no end of a step")
        return F.cross_entropy(logits, labels)

    with pytest.raises(StopIteration, match="no end of a step"):
        update(recipe(loss=failing, update=sharpness_aware(0.5)), made, *examples())
    assert torch.equal(flat(made.model), before)


def all_ones(asked: list[int]) -> Gradients:
    """Return a function that sets each gradient to 1, and appends the sizes of its batches to `asked`."""

    def gradients(recipe, learner, images, labels):
        asked.append(len(images))
        for p in learner.parameters.values():
            p.grad = torch.ones_like(p)
        return torch.tensor(7.0)

    return gradients


def test_gradients_of_ones_own_answer_every_update():
    asked = []
    made = learner(net(), lr=0.25)
    before = flat(made.model)
    assert update(recipe(gradients=all_ones(asked), update=sharpness_aware(0.5)), made, *examples(8)).loss == 7.0
    assert asked == [8, 8]
    assert torch.allclose(flat(made.model), before - 0.25, atol=1e-15)


CHOICES = {"log_every": 3, "validate_every": "4steps", "checkpoint_every": "5steps", "norm": "batch"}
LANES = (
    {"seed": 0, "optim.lr": 0.1, "regularizer": ["dropout", "l2"], "probe": ["update_ratio", "activations"]},
    {"seed": 1, "optim.lr": 0.02, "mix": "mixup", "clip": 0.5, "average": "swa", "probe": ["grad_norm"]},
)


def lane(number, **more):
    return build(small({**CHOICES, **LANES[number], "steps": 12, **more}))


def alone(made):
    rows = RecordedRows()
    log = Log(screens=[rows])
    status = train(made.recipe, made.learner, made.batches, made.validation, log, lambda: None)
    log.close()
    return status, results_of(made, rows)


def packed(lanes):
    """Drive runs in lock step with one backward pass through the sum of their losses; return what each leaves."""
    rows = [RecordedRows() for _ in lanes]
    logs = [Log(screens=[kept]) for kept in rows]
    loops = [
        steps(made.recipe, made.learner, made.batches, made.validation, log, lambda: None)
        for made, log in zip(lanes, logs, strict=True)
    ]
    ended: dict[int, str] = {}
    asked = {number: next(loop) for number, loop in enumerate(loops)}
    while asked:
        losses = {number: loss_of(lanes[number], *batch) for number, batch in asked.items()}
        sum(whole for whole, _ in losses.values()).backward()
        asked = {}
        for number, (_, mean) in losses.items():
            try:
                asked[number] = loops[number].send(mean)
            except StopIteration as end:
                ended[number] = end.value
    for log in logs:
        log.close()
    return [(ended[number], results_of(made, rows[number])) for number, made in enumerate(lanes)]


def loss_of(made, images, labels):
    """Return the loss () to go backward from, and the mean loss without penalties."""
    recipe, learner = made.recipe, made.learner
    learner.zero_grad()
    recipe.reseed(learner.step)
    mean = recipe.loss(learner.model(images), labels)
    return sum((penalty(learner.model) for penalty in recipe.penalties), mean), mean.detach()


@pytest.mark.parametrize("sam", [False, True], ids=["plain", "two passes"])
def test_a_packer_that_drives_two_runs_in_lock_step_leaves_what_each_leaves_alone(sam):
    def made(number, **more):
        given = lane(number, **more)
        return replace(given, recipe=replace(given.recipe, update=sharpness_aware(0.05))) if sam else given

    assert packed([made(0), made(1)]) == [alone(made(0)), alone(made(1))]


def test_a_run_that_ends_early_leaves_the_pack_and_the_other_goes_on():
    assert packed([lane(0, steps=5), lane(1)]) == [alone(lane(0, steps=5)), alone(lane(1))]


def test_a_loop_that_is_closed_in_a_step_closes_its_probes_and_batches():
    made = lane(0)
    loop = steps(made.recipe, made.learner, made.batches, made.validation, Log(), lambda: None)
    next(loop)
    hooks = [m._forward_hooks for m in made.learner.model.modules()]
    assert any(hooks), "the activations probe listens in the first step"
    loop.close()
    assert not any(hooks)


def test_a_second_pass_that_is_not_finite_is_traced_and_leaves_the_weights():
    made = build(small({"steps": 5, "validate_every": "5steps", "log_every": 1}))
    loss, passes = made.recipe.loss, []

    def spoilt(logits, labels):
        passes.append(logits.requires_grad)
        return loss(logits, labels) * (math.nan if made.learner.step == 2 and sum(passes) % 2 == 0 else 1)

    made = replace(made, recipe=replace(made.recipe, loss=spoilt, update=sharpness_aware(0.05)))
    before = []
    watch = made.recipe.mix
    seen = replace(
        made.recipe,
        mix=lambda x, y, step: (before.append(flat(made.learner.model)) if step == 2 else None, watch(x, y, step))[1],
    )
    with pytest.raises(Diverged) as caught:
        train(seen, made.learner, made.batches, {}, Log(), lambda: None)
    assert made.learner.step == 2
    assert torch.equal(flat(made.learner.model), before[0])
    said = str(explain_divergence(caught.value, made.recipe, made.learner, made.batches, {}))
    assert said.startswith("diverged at step 3: the loss is not finite (the model's output is)")
    assert torch.equal(flat(made.learner.model), before[0])


def test_driving_returns_what_a_generator_returns_without_asking():
    def silent():
        return "nothing to ask"
        yield

    assert drive(silent(), recipe(), learner(net())) == "nothing to ask"
