"""Frozen parameters do not change by a bit, and change again when their window begins, also in resumed runs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from running import job
from small_runs import as_bits, interrupted, small, uninterrupted
from small_runs import build as build_choices
from torch import Tensor

from runner.assemble import Experiment, assemble
from runner.engine.evaluation import evaluate
from runner.engine.forward import FastForward, plain_forward
from runner.engine.parts import mode
from runner.engine.train import update
from runner.errors import ConfigError
from runner.registry import names

STEPS, FIRST, END = 12, 4, 9
WINDOW = {"match": "^block", "active": [f"{FIRST}steps", f"{END}steps"]}
WINDOWS: dict[str, Any] = {"model": "cnn", "norm": "batch", "average": "none", "optim.rules": [WINDOW], "steps": STEPS}
PULLED = {"regularizer": ["l2", "max_norm"], "regularizer.max_norm.limit": 0.05, "optim.weight_decay": 0.1}


def build(given: dict[str, Any]) -> Experiment:
    return build_choices(small(given))


def choices(optim: str, **more: Any) -> dict[str, Any]:
    """Return a run whose first layers have a window, with everything that could change their weights."""
    schedule = {"scheduler": "constant"} if optim == "schedulefree" else {"scheduler": "linear"}
    return {**WINDOWS, **PULLED, **schedule, "optim": optim, **more}


def frozen_in(step: int) -> bool:
    """Return True if the layers are frozen in a step; the first step is 0."""
    return not FIRST <= step < END


def snapshot(experiment: Experiment) -> dict[str, Any]:
    """Return weights, buffers and optimizer state of the layers with the window, bit for bit."""
    model, optimizer = experiment.learner.model, experiment.learner.optimizer
    found = {name: as_bits(tensor) for name, tensor in model.state_dict().items() if name.startswith("block")}
    for name, parameter in model.named_parameters():
        kept = optimizer.state.get(parameter, {}) if name.startswith("block") else {}
        found |= {f"{key} of {name}": as_bits(value) for key, value in kept.items()}
    return found


def train_step_by_step(experiment: Experiment) -> list[dict[str, Any]]:
    """Train step by step, with a validation after each, and return the snapshots before and after all steps."""
    found = [snapshot(experiment)]
    validation = experiment.validation["val"]
    for images, labels in experiment.batches.stream(0, STEPS):
        experiment.learner.set_lr()
        update(experiment.recipe, experiment.learner, images, labels)
        evaluate(experiment.recipe, experiment.learner, validation)
        found.append(snapshot(experiment))
    return found


@pytest.mark.parametrize("optim", names("optim"))
def test_weights_statistics_and_state_stand_still_while_frozen_and_move_inside_the_window(optim: str) -> None:
    experiment = build(choices(optim))
    found = train_step_by_step(experiment)
    for step, (before, after) in enumerate(itertools.pairwise(found)):
        if frozen_in(step):
            assert before == after, f"step {step}"
        else:
            moved = [name for name, value in after.items() if value != before.get(name)]
            weights = [name for name in after if name.endswith((".weight", ".bias", ".running_mean"))]
            assert set(weights) <= set(moved), f"step {step}"
    head = {name for name in experiment.learner.model.state_dict() if not name.startswith("block")}
    assert head, "something is trained beside"


@pytest.mark.parametrize("average", ["lookahead", "ema", "polyak", "swa"])
def test_no_average_moves_a_frozen_weight(average: str) -> None:
    extra = {"average": average, **({"average.every": 2} if average == "lookahead" else {})}
    found = train_step_by_step(build(choices("momentum", **extra)))
    assert [a == b for a, b in itertools.pairwise(found)] == [frozen_in(step) for step in range(STEPS)]


def test_the_average_of_a_weight_frozen_from_the_start_is_the_weight() -> None:
    experiment = build(choices("momentum", average="ema", **{"optim.rules": [{**WINDOW, "active": ["100%", None]}]}))
    start = snapshot(experiment)
    assert train_step_by_step(experiment)[-1] == start
    averaged = experiment.learner.average.module.state_dict()
    kept = {name: value for name, value in start.items() if name in averaged}
    assert kept and {name: as_bits(averaged[name]) for name in kept} == kept


def adam_by_hand(w: np.ndarray, gradients: list[np.ndarray], rates: list[float]) -> np.ndarray:
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def momentum_by_hand(w: np.ndarray, gradients: list[np.ndarray], rates: list[float]) -> np.ndarray:
    v = np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        v = 0.9 * v + g
        w = w - lr * v
    return w


def lion_by_hand(w: np.ndarray, gradients: list[np.ndarray], rates: list[float]) -> np.ndarray:
    m = np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        w = w - lr * np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
    return w


@pytest.mark.parametrize(
    ("optim", "by_hand"), [("adam", adam_by_hand), ("momentum", momentum_by_hand), ("lion", lion_by_hand)]
)
def test_a_thawed_weight_takes_the_steps_of_an_optimizer_that_begins_there(optim: str, by_hand: Any) -> None:
    """Count its steps from the thaw, at the rates of the whole (linear) schedule inside the window."""
    rule = {"match": "head.weight", "lr": 2.0, "active": [f"{FIRST}steps", f"{END}steps"]}
    words = {"model": "linear", "optim": optim, "optim.weight_decay": 0.0, "scheduler": "linear", "steps": STEPS}
    experiment = build({**words, "optim.lr": 0.01, "optim.rules": [rule], "average": "none"})
    weight = experiment.learner.model.get_parameter("head.weight")
    start = weight.detach().double().numpy().copy()
    gradients: list[np.ndarray] = []
    for step, (images, labels) in enumerate(experiment.batches.stream(0, STEPS)):
        experiment.learner.set_lr()
        update(experiment.recipe, experiment.learner, images, labels)
        assert (weight.grad is None) == frozen_in(step)
        gradients += [weight.grad.double().numpy().copy()] if weight.grad is not None else []
    # Step k of the window is at k / 5 of the run's 12 steps, rounded down
    rates = [0.02 * (1 - int(k * STEPS / (END - FIRST)) / STEPS) for k in range(END - FIRST)]
    np.testing.assert_allclose(weight.detach().numpy(), by_hand(start, gradients, rates), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("at", [2, FIRST, 6, END, 10])
@pytest.mark.parametrize("optim", ["adamw", "muon_sgd", "schedulefree"])
def test_a_run_resumed_anywhere_round_its_thaw_is_the_uninterrupted_one(optim: str, at: int, tmp_path: Any) -> None:
    given = choices(optim)
    _, whole = uninterrupted(small(given), STEPS)
    assert interrupted(small(given), at, STEPS, tmp_path) == whole


def norms(experiment: Experiment) -> list[torch.nn.Module]:
    return [m for m in experiment.learner.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_a_frozen_batch_norm_is_in_evaluation_mode_and_validation_does_not_thaw_it() -> None:
    experiment = build(choices("momentum"))
    learner, validation = experiment.learner, experiment.validation["val"]
    flags = []
    for step, (images, labels) in enumerate(experiment.batches.stream(0, STEPS)):
        learner.set_lr()
        evaluate(experiment.recipe, learner, validation)
        flags.append({norm.training for norm in norms(experiment)})
        assert learner.model.training
        if step == 0:
            handle = norms(experiment)[0].register_forward_hook(check_running_statistics_are_used)
            update(experiment.recipe, learner, images, labels)
            handle.remove()
        else:
            update(experiment.recipe, learner, images, labels)
    assert flags == [{not frozen_in(step)} for step in range(STEPS)]


def check_running_statistics_are_used(norm: torch.nn.BatchNorm2d, inputs: tuple[Tensor], y: Tensor) -> None:
    mean, var = (t.view(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var))
    shift, scale = norm.bias.view(1, -1, 1, 1), norm.weight.view(1, -1, 1, 1)
    torch.testing.assert_close(y, (inputs[0] - mean) / (var + norm.eps).sqrt() * scale + shift)


def test_a_batch_norm_with_a_trained_bias_keeps_to_the_batch() -> None:
    rule = {"match": r"block.*weight", "active": [None, "1steps"]}
    experiment = build({**WINDOWS, "optim.rules": [rule]})
    for images, labels in experiment.batches.stream(0, 3):
        experiment.learner.set_lr()
        update(experiment.recipe, experiment.learner, images, labels)
        assert all(norm.training for norm in norms(experiment))


def test_each_module_gets_its_own_flag_back_also_after_an_error() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2)))
    model[1][0].eval()
    flags = [module.training for module in model.modules()]
    for training in (True, False):
        with pytest.raises(ZeroDivisionError), mode(model, training=training) as same:
            assert same is model and {module.training for module in model.modules()} == {training}
            raise ZeroDivisionError
        assert [module.training for module in model.modules()] == flags


def test_penalties_are_zero_while_all_their_weights_are_frozen() -> None:
    rule = {"match": "weight", "active": ["2steps", None]}
    experiment = build({**WINDOWS, "norm": "none", "regularizer": ["l1", "elastic_net"], "optim.rules": [rule]})

    def values() -> list[float]:
        return [penalty(experiment.learner.model).item() for penalty in experiment.recipe.penalties]

    found = [values()]
    for images, labels in experiment.batches.stream(0, 3):
        experiment.learner.set_lr()
        update(experiment.recipe, experiment.learner, images, labels)
        found.append(values())
    assert [[value > 0 for value in row] for row in found] == [[False] * 2] * 3 + [[True] * 2]


def test_the_faster_forward_is_made_again_when_other_parameters_are_frozen() -> None:
    """A CUDA graph has the gradients of its capture; here the plain forward stands in for the graph."""
    experiment = build(choices("momentum"))
    made: list[int] = []

    def make(model: torch.nn.Module, images: Tensor) -> Any:
        made.append(experiment.learner.step)
        return lambda images: plain_forward(model, images)

    fast = FastForward(experiment.learner.model, make, examples=16, on_failure=lambda error: None)
    experiment.learner.freezing._changed = fast.reset
    for images, _ in experiment.batches.stream(0, STEPS):
        experiment.learner.set_lr()
        fast(experiment.learner.model, images)
        experiment.learner.step += 1
    assert made == [0, FIRST, END]


def test_a_state_saved_before_groups_had_these_entries_goes_on_the_same() -> None:
    given = choices("lamb")
    ends = []
    for stripped in (False, True):
        first, second = build(given), build(given)
        train_step_by_step(first)
        state = first.learner.state_dict()
        for group in state["optimizer"]["param_groups"] if stripped else ():
            for key in ("label", "decays", "active"):
                group.pop(key, None)
        second.learner.load_weights(first.learner.weights())
        second.learner.load_state_dict(state, first.learner.weights())
        for images, labels in second.batches.stream(STEPS, STEPS + 3):
            second.learner.set_lr()
            update(second.recipe, second.learner, images, labels)
        ends.append({name: as_bits(value) for name, value in second.learner.model.state_dict().items()})
    assert ends[0] == ends[1]


REFUSED = {
    "optim.rules=[{match:i,active:[3steps,null]}]": "all parameters would be frozen from step 0 to step 3",
    "optim.rules=[{match:head,active:[null,3steps]},{match:i,active:[5steps,null]}]": "frozen from step 3 to step 5",
    "optim.rules=[{match:i,active:[null,7steps]}]": "all parameters would be frozen from step 7 on, and the run has 12",
    "optim.rules=[{match:i,active:[100%,null]}]": "all parameters would be frozen from step 0 on",
    "optim.rules=[{match:head,active:[6steps,2steps]}]": "got active=[6steps,2steps], must begin before it ends",
}


@pytest.mark.parametrize(("words", "line"), REFUSED.items())
def test_a_step_without_trained_parameters_is_refused_in_one_line(words: str, line: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        assemble(job("model=mlp", "norm=none", f"steps={STEPS}", words).config)
    assert line in str(refusal.value)
    assert str(refusal.value).startswith("optim.rules: ") and "\n" not in str(refusal.value)


def rates(given: dict[str, Any], count: int) -> list[dict[str, float]]:
    """Return the rates that are logged, by tag, for each step."""
    experiment = build(given)
    found = []
    for _ in range(count):
        experiment.learner.set_lr()
        found.append(experiment.learner.rates())
        experiment.learner.step += 1
    return found


def test_one_rate_is_logged_where_all_groups_have_the_same() -> None:
    given = {"model": "mlp", "steps": 4, "optim": "sgd", "optim.lr": 0.5, "scheduler": "linear"}
    assert rates(given, 4) == [{"train/lr": 0.5 * (1 - step / 4)} for step in range(4)]
    plain = {**given, "optim.rules": [{"match": "bias", "weight_decay": 0.5}]}
    assert rates(plain, 4) == rates(given, 4)


def test_rates_that_differ_are_logged_by_name_or_expression() -> None:
    rules = [
        {"match": r"head\.weight", "lr": 3.0, "name": "head"},
        {"match": r"head.*(bias)", "active": ["2steps", None]},
    ]
    found = rates({"model": "mlp", "steps": 4, "optim": "sgd", "optim.lr": 0.5, "optim.rules": rules}, 4)
    cosine = [0.5 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert [row["train/lr"] for row in found] == pytest.approx(cosine)
    assert [row["train/lr/default"] for row in found] == pytest.approx(cosine)
    assert [row["train/lr/head"] for row in found] == pytest.approx([3 * value for value in cosine])
    assert [row["train/lr/head._bias"] for row in found] == pytest.approx([0, 0, cosine[0], cosine[2]])
    assert {tag for row in found for tag in row} == {
        f"train/lr{end}" for end in ("", "/default", "/head", "/head._bias")
    }


def test_the_two_rates_of_muon_sgd_are_logged() -> None:
    given = {"model": "mlp", "steps": 4, "optim": "muon_sgd", "optim.lr": 0.5, "optim.sgd_lr": 0.25}
    (row, *_) = rates(given, 1)
    assert (row["train/lr/muon"], row["train/lr/sgd"]) == (0.5, 0.25)


def test_the_tags_of_rates_are_in_the_log_of_a_run() -> None:
    given = {"model": "mlp", "optim.rules": [{"match": "head", "lr": 2.0}], "log_every": 1, "steps": 3}
    _, left = uninterrupted(small(given), 3)
    assert {(3, "train/lr"), (3, "train/lr/default"), (3, "train/lr/head")} <= left.tags
