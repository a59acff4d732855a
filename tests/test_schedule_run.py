"""The learning rate of every step of a run is the schedule's, with accumulation, and after a resume."""

import itertools
import math

import pytest
import torch
from running import job

import runner.components  # noqa: F401
from runner.assemble import assemble
from runner.engine.train import update
from runner.registry import names

STEPS, WARMUP, CUT = 24, 4, 11
PURE = [name for name in names("scheduler") if name != "plateau"]


def learner_of(name, *more, warmup=WARMUP):
    words = ["model=linear", "optim=sgd", "optim.lr=0.4", f"scheduler={name}", f"scheduler.warmup={warmup}steps"]
    return assemble(job(*words, f"steps={STEPS}", "data.batch_size=8", "accumulate=2", *more).config)


def rates(made, start, stop):
    found = []
    for images, labels in made.batches.stream(start, stop):
        made.learner.set_lr()
        found.append({group["lr"] for group in made.learner.optimizer.param_groups})
        update(made.recipe, made.learner, images, labels)
    return found


@pytest.mark.parametrize("name", PURE)
def test_each_step_has_the_rate_of_the_schedule_also_after_a_resume(name):
    whole = learner_of(name)
    found = rates(whole, 0, STEPS)
    assert found == [{0.4 * whole.learner.schedule(step)} for step in range(STEPS)]
    cut, resumed = learner_of(name), learner_of(name)
    first = rates(cut, 0, CUT)
    resumed.learner.load_weights(cut.learner.weights())
    resumed.learner.load_state_dict(cut.learner.state_dict(), cut.learner.weights())
    assert first + rates(resumed, CUT, STEPS) == found


def test_the_cosine_of_a_run_is_the_formula():
    def formula(step):
        if step < WARMUP:
            return 0.4 * (step + 1) / WARMUP
        return 0.4 * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))

    found = [rate for rates_of_step in rates(learner_of("cosine"), 0, STEPS) for rate in rates_of_step]
    assert found == pytest.approx([formula(step) for step in range(STEPS)], rel=1e-12)


def test_a_plateau_lowers_the_rate_of_the_next_step_and_survives_a_resume():
    words = ["scheduler.patience=1", "scheduler.gamma=0.5"]
    made, again = learner_of("plateau", *words, warmup=0), learner_of("plateau", *words, warmup=0)
    for score in (0.5, 0.4, 0.4, 0.4):
        made.learner.record_scores({"val/accuracy": score})
    made.learner.set_lr()
    assert made.learner.optimizer.param_groups[0]["lr"] == 0.2
    again.learner.load_state_dict(made.learner.state_dict(), made.learner.weights())
    again.learner.set_lr()
    assert again.learner.optimizer.param_groups[0]["lr"] == 0.2
    for learner in (made.learner, again.learner):
        learner.record_scores({"val/accuracy": 0.4})
        learner.set_lr()
    assert again.learner.schedule.state_dict() == made.learner.schedule.state_dict()


RESTING = "optim.rules=[{match:bias,lr:2,until:6steps}]"


def test_tensors_that_rest_early_go_through_the_whole_schedule_before():
    made = learner_of("linear", RESTING, warmup=0)
    bias = made.learner.model.get_parameter("head.bias")
    seen, values = [], []
    for images, labels in made.batches.stream(0, STEPS):
        made.learner.set_lr()
        seen.append({group["name"]: group["lr"] for group in made.learner.optimizer.param_groups})
        update(made.recipe, made.learner, images, labels)
        values.append(bias.detach().clone())
    early = [0.8 * (1 - step * 4 / STEPS) for step in range(6)] + [0.0] * (STEPS - 6)  # four times as fast
    assert [step["no_decay bias"] for step in seen] == pytest.approx(early, abs=1e-12)
    assert [step["decay"] for step in seen] == pytest.approx([0.4 * (1 - s / STEPS) for s in range(STEPS)], abs=1e-12)
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(values)]
    assert moved == [True] * 5 + [False] * (STEPS - 6)
    assert bias.grad is None and not bias.requires_grad


@pytest.mark.parametrize("cut", [3, CUT])
def test_a_resumed_run_lets_the_same_tensors_rest(cut):
    whole, first, second = (learner_of("linear", RESTING) for _ in range(3))
    found = rates(whole, 0, STEPS)
    before = rates(first, 0, cut)
    second.learner.load_weights(first.learner.weights())
    second.learner.load_state_dict(first.learner.state_dict(), first.learner.weights())
    assert before + rates(second, cut, STEPS) == found
    for name, parameter in second.learner.model.named_parameters():
        assert torch.equal(parameter, whole.learner.model.get_parameter(name))
