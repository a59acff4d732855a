"""The learning rate of every step of a run is the schedule's, with accumulation, and after a resume."""

import itertools
import math

import pytest
import torch
from running import job, metrics

import runner.components  # noqa: F401
from runner.assemble import assemble
from runner.engine.train import update
from runner.errors import ConfigError
from runner.registry import names
from runner.tasks import start

STEPS, WARMUP, CUT = 24, 4, 11
PURE = [name for name in names("scheduler") if name != "plateau"]


def learner_of(name, *more, warmup=WARMUP, optim="sgd"):
    words = ["model=linear", f"optim={optim}", "optim.lr=0.4", f"scheduler={name}", f"scheduler.warmup={warmup}steps"]
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


CYCLE = ("scheduler.momentum=[0.8,0.95]", "optim.weight_decay=0")
CYCLED = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.4, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.4, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.4, betas=(0.9, 0.999)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.4, betas=(0.9, 0.999), weight_decay=0.0),
}


@pytest.mark.parametrize("name", CYCLED)
def test_a_run_with_a_cycled_momentum_equals_torch(name):
    made = learner_of("onecycle", *CYCLE, warmup=0, optim=name)
    twin = learner_of("onecycle", warmup=0)
    optimizer = CYCLED[name](twin.learner.model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.4, STEPS, base_momentum=0.8, max_momentum=0.95, div_factor=25, final_div_factor=1e4
    )
    for images, labels in twin.batches.stream(0, STEPS - 1):
        optimizer.zero_grad()
        twin.recipe.gradients(twin.recipe, twin.learner, images, labels)
        optimizer.step()
        schedule.step()
    rates(made, 0, STEPS - 1)
    for ours, theirs in zip(made.learner.model.parameters(), twin.learner.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


def momenta(made, start, stop):
    """Return the momentum of each group in each step."""
    found = []
    for images, labels in made.batches.stream(start, stop):
        made.learner.set_lr()
        groups = made.learner.optimizer.param_groups
        found.append([group["betas"][0] if "betas" in group else group["momentum"] for group in groups])
        update(made.recipe, made.learner, images, labels)
    return found


@pytest.mark.parametrize("name", ["momentum", "adamw", "muon", "muon_sgd", "lion", "nadam"])
def test_a_resumed_run_has_the_same_momentum(name):
    whole, cut, resumed = (learner_of("onecycle", *CYCLE, optim=name) for _ in range(3))
    found = momenta(whole, 0, STEPS)
    assert found[:WARMUP] == [[0.95] * len(found[0])] * WARMUP
    assert min(map(min, found)) == pytest.approx(0.8, abs=0.005) and found[-1][0] == pytest.approx(0.95)
    first = momenta(cut, 0, CUT)
    resumed.learner.load_weights(cut.learner.weights())
    resumed.learner.load_state_dict(cut.learner.state_dict(), cut.learner.weights())
    assert first + momenta(resumed, CUT, STEPS) == found
    for a, b in zip(whole.learner.model.parameters(), resumed.learner.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_group_with_a_window_has_the_whole_cycle_of_the_momentum_in_it():
    made = learner_of("onecycle", *CYCLE, "optim.rules=[{match:bias,until:12steps}]", warmup=0, optim="momentum")
    names_of = [group["name"] for group in made.learner.optimizer.param_groups]
    found = momenta(made, 0, STEPS)
    bias, others = (names_of.index(name) for name in ("no_decay bias", "decay"))
    assert [step[bias] for step in found[:12]] == [step[others] for step in found[::2]]


def test_a_schedule_that_starts_anew_cycles_the_momentum_anew():
    config = job("model=linear", "scheduler=onecycle", f"steps={STEPS}", "optim=momentum", *CYCLE).config
    made = assemble({**config, "extended_from": f"01234567@{CUT}", "extend_restart": True})
    short = assemble({**config, "steps": STEPS - CUT})
    found = [(made.learner.schedule(CUT + s), made.learner.schedule.momentum(CUT + s)) for s in range(STEPS - CUT)]
    assert found == [(short.learner.schedule(s), short.learner.schedule.momentum(s)) for s in range(STEPS - CUT)]


def test_the_momentum_is_logged_where_it_is_cycled(tmp_path):
    words = ("model=linear", "scheduler=onecycle", "steps=20", "log_every=5", "figures=never", "probe=[]")
    assert start(job(*words, *CYCLE, "optim=adam", f"hydra.run.dir={tmp_path / 'run'}")) == 0
    logged = {step: float(value) for step, tag, value in metrics(tmp_path / "run") if tag == "train/momentum"}
    assert set(logged) >= {5, 10, 15, 20} and logged[20] == pytest.approx(0.95) and logged[5] < 0.9


@pytest.mark.parametrize("optim", ["sgd", "adagrad", "adafactor", "rmsprop", "schedulefree", "schedulefree_sgd"])
def test_an_optimizer_without_a_momentum_cannot_cycle_it(optim):
    with pytest.raises(ConfigError, match=r"^scheduler.momentum: got \[0.8, 0.95\], .*"):
        learner_of("onecycle", *CYCLE, optim=optim)


def test_a_momentum_that_bfloat16_cannot_hold_is_refused():
    words = ("precision=pure_bf16", "device=cpu", "scheduler.momentum=[0.8,0.999]")
    with pytest.raises(ConfigError, match=r"keeps 0.999 of its value in each step \(momentum\)"):
        learner_of("onecycle", *words, optim="momentum")


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
