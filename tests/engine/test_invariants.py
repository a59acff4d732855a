"""Faults of the training loop: each is found within three steps, under its own name."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from checked_runs import run_checked
from small_runs import build, small
from torch import nn

from runner.components.average.running import Running
from runner.components.optim.schedulefree import _ScheduleFreeOptimizer
from runner.engine import evaluation
from runner.engine import recipe as recipe_module
from runner.engine.fast_step import Stepper
from runner.engine.learner import Learner
from runner.engine.recipe import apply_gradients
from runner.errors import InvariantViolated

STEPS = 4
FAULTS = {}


def fault(invariant, /, step=3, **choices):
    """Note a fault (experiment, monkeypatch) -> None or changed experiment, with the invariant that must catch it."""

    def enter(function):
        FAULTS[function.__name__] = (invariant, step, function, small({"steps": STEPS, **choices}))
        return function

    return enter


def first(experiment):
    return next(iter(experiment.learner.model.parameters()))


def with_recipe(experiment, **changed):
    return replace(experiment, recipe=replace(experiment.recipe, **changed))


def instead_of_step(experiment, change):
    """Let `change(step, gradients)` make the optimizer's step."""
    made = experiment.learner.stepper
    experiment.learner.stepper = Stepper(lambda gradients: change(made.step, gradients), made.zero_grad)


@fault("gradients_cleared")
def zero_grad_is_left_out(experiment, patch):
    experiment.learner.zero_grad = lambda: None


@fault("optimizer", step=1)
def the_optimizer_misses_a_layer(experiment, patch):
    group = experiment.learner.optimizer.param_groups[0]
    group["params"] = group["params"][1:]


@fault("optimizer", step=1)
def the_optimizer_has_a_layer_twice(experiment, patch):
    groups = experiment.learner.optimizer.param_groups
    groups[-1]["params"] = [*groups[-1]["params"], groups[0]["params"][0]]


@fault("optimizer", step=1)
def the_optimizer_has_the_weights_of_a_copy(experiment, patch):
    for group in experiment.learner.optimizer.param_groups:
        group["params"] = [nn.Parameter(p.detach().clone()) for p in group["params"]]


@fault("frozen")
def a_frozen_layer_is_updated(experiment, patch):
    weight = first(experiment).requires_grad_(False)

    def step(make, gradients):
        make(gradients)
        with torch.no_grad():
            weight.sub_(1e-3)

    instead_of_step(experiment, step)


@fault("lr", step=1, scheduler="cosine", **{"scheduler.warmup": "3steps"})
def the_schedule_is_not_applied(experiment, patch):
    patch.setattr(Learner, "set_lr", lambda learner: 1.0)


@fault("lr", step=1, scheduler="linear")
def the_schedule_is_a_step_ahead(experiment, patch):
    def set_lr(learner):
        for group in learner.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * learner.schedule(learner.step + 1)

    patch.setattr(Learner, "set_lr", set_lr)


@fault("lr", step=1, **{"optim.rules": [{"match": "bias", "lr": 0.1}]})
def a_group_has_the_rate_of_another(experiment, patch):
    def set_lr(learner):
        for group in learner.optimizer.param_groups:
            group["lr"] = learner.optimizer.param_groups[0]["initial_lr"] * learner.schedule(learner.step)

    patch.setattr(Learner, "set_lr", set_lr)


@fault("average", average="ema")
def the_average_has_half_the_weight(experiment, patch):
    average = experiment.learner.average
    average.weight, weight = lambda step: weight(step) / 2, average.weight


@fault("average", average="ema", **{"average.warmup": False})
def the_average_has_another_decay(experiment, patch):
    experiment.learner.average.weight = lambda t: (1 - 0.9) / (1 - 0.9**t)


@fault("average", average="ema")
def the_average_is_updated_twice(experiment, patch):
    update = Running.update

    def twice(self, model, step):
        update(self, model, step)
        update(self, model, step)

    patch.setattr(Running, "update", twice)


@fault("average", average="ema")
def the_average_is_never_updated(experiment, patch):
    patch.setattr(Running, "update", lambda self, model, step: None)


@fault("average", average="polyak", **{"average.last": "100%"})
def the_mean_forgets(experiment, patch):
    experiment.learner.average.weight = lambda step: 1.0


_SCHEDULE_FREE = {"average": "schedulefree", "scheduler": "constant"}


@fault("average", optim="schedulefree_sgd", **_SCHEDULE_FREE)
def the_schedule_free_average_is_that_of_the_last_step(experiment, patch):
    advance = _ScheduleFreeOptimizer.advance

    def forgetful(self, group, *tensors):
        group["squares"] = 0.0
        advance(self, group, *tensors)

    patch.setattr(_ScheduleFreeOptimizer, "advance", forgetful)


@fault("average", optim="schedulefree", **_SCHEDULE_FREE)
def the_schedule_free_average_is_the_fast_sequence(experiment, patch):
    patch.setattr(_ScheduleFreeOptimizer, "averaged", lambda self: {p: state["z"] for p, state in self.state.items()})


@fault("evaluation", step=1, average="none")
def validation_runs_in_training_mode(experiment, patch):
    @contextmanager
    def mode(model, *, training):
        yield model

    patch.setattr(evaluation, "mode", mode)


@fault("evaluation", step=1, average="none")
def validation_leaves_evaluation_mode(experiment, patch):
    @contextmanager
    def mode(model, *, training):
        yield model.eval()

    patch.setattr(evaluation, "mode", mode)


@fault("evaluation", step=1)
def validation_draws_random_numbers(experiment, patch):
    predict = experiment.recipe.predict

    def drawing(model, images):
        torch.rand(3)
        return predict(model, images)

    return with_recipe(experiment, predict=drawing)


@fault("evaluation", step=1, model="cnn", norm="batch")
def validation_updates_statistics(experiment, patch):
    predict = experiment.recipe.predict

    def updating(model, images):
        norms = [m.train() for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        found = predict(model, images)
        for norm in norms:
            norm.eval()
        return found

    return with_recipe(experiment, predict=updating)


@fault("evaluation", step=1)
def validation_changes_the_optimizer(experiment, patch):
    predict = experiment.recipe.predict

    def changing(model, images):
        state = experiment.learner.optimizer.state[first(experiment)]
        state["momentum_buffer"].mul_(0.5)
        return predict(model, images)

    return with_recipe(experiment, predict=changing)


@fault("train_mode", step=2)
def the_model_is_trained_in_evaluation_mode(experiment, patch):
    experiment.learner.at_step = [lambda step: experiment.learner.model.train(step == 0)]


@fault("dropout", step=2, regularizer=["dropout"])
def each_step_has_the_seed_of_the_first(experiment, patch):
    reseed = experiment.recipe.reseed
    return with_recipe(experiment, reseed=lambda step: reseed(min(step, 0)))


@fault("dropout", regularizer=["dropout"], **{"data.batch_size": 64})
def a_layer_drops_the_same_units_in_each_step(experiment, patch):
    for layer in experiment.learner.model.modules():
        if isinstance(layer, nn.Dropout):
            layer.register_forward_pre_hook(lambda layer, args: torch.default_generator.manual_seed(1) and None)


@fault("batches")
def each_step_has_the_same_batch(experiment, patch):
    batches = experiment.batches
    stream = type(batches).stream

    def same(self, start, stop):
        batch = next(stream(self, 0, 1))
        for _ in range(start, stop):
            yield batch

    patch.setattr(type(batches), "stream", same)


@fault("batches", augment=["translate"], **{"data.batch_size": 64})
def each_step_has_the_same_examples_augmented_anew(experiment, patch):
    batches = experiment.batches
    examples = type(batches).step_examples

    def same(self, start, stop):
        kept = next(examples(self, 0, 1))
        for each in examples(self, start, stop):
            yield replace(each, index=kept.index)

    patch.setattr(type(batches), "step_examples", same)


@fault("saved", step=STEPS)
def a_checkpoint_has_stale_weights(experiment, patch):
    old = experiment.learner.weights()
    for name, tensor in old.items():
        old[name] = tensor.clone()
    patch.setattr(Learner, "weights", lambda learner: old)


@fault("saved", step=STEPS)
def a_checkpoint_has_the_optimizer_of_the_start(experiment, patch):
    state_dict = Learner.state_dict

    def stale(learner):
        found = state_dict(learner)
        state = found["optimizer"]["state"]
        return {**found, "optimizer": {**found["optimizer"], "state": {k: {} for k in state}}}

    patch.setattr(Learner, "state_dict", stale)


@fault("clip", clip=0.01)
def clipping_measures_but_does_not_scale(experiment, patch):
    return with_recipe(experiment, clip=lambda model: nn.utils.get_total_norm([p.grad for p in model.parameters()]))


@fault("clip", clip=1e-4, clip_by="value")
def clipping_by_value_has_one_side(experiment, patch):
    def clip(model):
        for p in model.parameters():
            p.grad.clamp_(max=1e-4)

    return with_recipe(experiment, clip=clip)


@fault("clip", clip=0.001, clip_by="agc")
def adaptive_clipping_leaves_a_layer_out(experiment, patch):
    clip = experiment.recipe.clip

    def partly(model):
        kept = first(experiment).grad.clone()
        norms = clip(model)
        first(experiment).grad.copy_(kept)
        return norms

    return with_recipe(experiment, clip=partly)


@fault("clip", clip=0.01)
def the_update_does_not_clip(experiment, patch):
    def update(recipe, learner, images, labels):
        loss = yield images, labels
        return apply_gradients(replace(recipe, clip=lambda model: None), learner, loss)

    return with_recipe(experiment, update=update)


@fault("moves")
def the_second_step_is_skipped(experiment, patch):
    check = experiment.learner.gate.check
    experiment.learner.gate.check = lambda loss, gradients: check(loss, gradients) and experiment.learner.step != 1


@fault("moves")
def a_layer_is_set_back_after_each_step(experiment, patch):
    def step(make, gradients):
        kept = first(experiment).detach().clone()
        make(gradients)
        with torch.no_grad():
            first(experiment).copy_(kept)

    instead_of_step(experiment, step)


@fault("loss_weight", accumulate=2)
def micro_batches_are_added_and_not_averaged(experiment, patch):
    patch.setattr(recipe_module, "_weighted", lambda loss, share: loss)


@fault("loss_weight")
def the_backward_pass_runs_twice(experiment, patch):
    backward = torch.autograd.backward

    def twice(loss):
        backward(loss, retain_graph=True)
        backward(loss)

    patch.setattr(torch.autograd, "backward", twice)


@fault("penalty_weight", accumulate=2, regularizer=["l2"])
def a_penalty_is_added_for_each_micro_batch(experiment, patch):
    gradients_of = recipe_module.gradients_of

    def twice(objective, recipe, learner, images, labels):
        def with_penalty(recipe, model, x, y):
            return objective(recipe, model, x, y) + sum(penalty(model) for penalty in recipe.penalties)

        return gradients_of(with_penalty, recipe, learner, images, labels)

    patch.setattr(recipe_module, "gradients_of", twice)


@fault("penalty_weight", regularizer=["l2"])
def a_penalty_is_never_added(experiment, patch):
    gradients_of = recipe_module.gradients_of
    patch.setattr(
        recipe_module, "gradients_of", lambda o, recipe, *more: gradients_of(o, replace(recipe, penalties=[]), *more)
    )


@fault("unscaled", precision="fp16", clip=1.0)
def the_scaler_does_not_unscale(experiment, patch):
    experiment.learner.scaler.unscale_ = lambda optimizer: None


@fault("labels", step=1)
def labels_are_counted_from_one(experiment, patch):
    return with_recipe(experiment, mix=lambda images, labels, step: (images, labels + 1))


@fault("labels", step=1)
def labels_are_floats(experiment, patch):
    return with_recipe(experiment, mix=lambda images, labels, step: (images, labels.float()))


@fault("labels", step=1)
def soft_labels_do_not_sum_to_one(experiment, patch):
    soft = nn.functional.one_hot
    return with_recipe(experiment, mix=lambda images, labels, step: (images, 2.0 * soft(labels, 10)))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_loop_is_found_under_its_name(name, monkeypatch, tmp_path):
    invariant, step, inject, choices = FAULTS[name]
    experiment = build(choices)
    experiment = inject(experiment, monkeypatch) or experiment
    with pytest.raises(InvariantViolated) as raised:
        run_checked(choices, STEPS, tmp_path / "run", experiment=experiment)
    assert raised.value.invariant == invariant, raised.value
    assert re.search(rf"in step [1-{step}]\b", str(raised.value)), raised.value
    assert raised.value.exit_code == 1
    assert experiment.learner.step <= step


@pytest.mark.parametrize("name", FAULTS)
def test_the_same_run_without_the_fault_raises_nothing(name, tmp_path):
    *_, choices = FAULTS[name]
    run_checked(choices, STEPS, tmp_path / "run")
