"""The invariants in whole runs: nothing but an error line says that they are there."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from checked_runs import run_checked
from running import checkpoint_checksums, job, killed_in_step, metrics, result, run_in_child, starter
from small_runs import build, config, small

from runner import tasks
from runner.assemble.average_formulas import last_mean, means_at, schedule_free
from runner.assemble.invariants import invariants_of
from runner.engine.invariants import attach
from runner.engine.invariants.attach import NoInvariants
from runner.engine.learner import Learner
from runner.errors import Diverged, InvariantViolated
from runner.status import ending

WORDS = ("model=mlp", "model.hidden=[16]", "steps=6", "validate_every=2steps", "figures=never", "regularizer=[dropout]")


def outcome(folder, *words):
    assert starter(folder, *WORDS, *words)() == 0
    return metrics(folder), checkpoint_checksums(folder), result(folder)["scores"]


def test_rows_checkpoints_and_scores_are_the_same_without_them(tmp_path):
    assert outcome(tmp_path / "on") == outcome(tmp_path / "off", "invariants=never")


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_run_resumed_after_any_step_has_the_same_results(tmp_path, step):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert starter(whole, *WORDS, "checkpoint_every=1steps")() == 0
    run_in_child(killed_in_step(step, starter(cut, *WORDS, "checkpoint_every=1steps")))
    assert not (cut / "result.json").exists() or result(cut)["status"] != "done"
    assert tasks.start(job(f"resume={cut}")) == 0
    assert checkpoint_checksums(cut) == checkpoint_checksums(whole)
    assert metrics(cut) == metrics(whole)


def test_a_violation_ends_the_run_as_failed_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Learner, "set_lr", lambda learner: 1.0)
    with pytest.raises(InvariantViolated) as raised:
        starter(tmp_path / "run", *WORDS, "scheduler.warmup=4steps")()
    text = str(raised.value)
    assert text.startswith("invariant 'lr' is violated in step 1: the learning rate of ") and "\n" not in text
    assert "look at scheduler" in text and "invariants=never" in text
    assert ending(raised.value).exit_code == 1
    # A worker of a sweep sends it to its parent
    assert str(pickle.loads(pickle.dumps(raised.value))) == text
    assert result(tmp_path / "run")["status"] == "failed"
    assert not (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_device_is_never_waited_for(tmp_path, monkeypatch):
    """On a GPU the evidence is judged when the log has copied it: here the CPU stands for one."""
    made = build(small({"steps": 5, "log_every": 1, "validate_every": "5steps"}))
    copies = []
    monkeypatch.setattr("runner.engine.logs.log._MIN_FLUSH_INTERVAL", 0.0)
    monkeypatch.setattr(attach, "to_host", copies.append)
    monkeypatch.setattr(attach, "_is_on_host", lambda model: False)
    run_checked(small({"log_every": 1, "validate_every": "5steps"}), 5, tmp_path / "run", experiment=made)
    assert not copies
    made = build(small({"steps": 5, "log_every": 1, "validate_every": "5steps"}))
    made.learner.average.update = lambda model, step: None
    with pytest.raises(InvariantViolated, match="'average' is violated in step 1"):
        run_checked(small({"log_every": 1, "validate_every": "5steps"}), 5, tmp_path / "faulty", experiment=made)
    assert made.learner.step == 3 and not copies


def test_after_the_third_step_the_functions_are_the_plain_ones(tmp_path):
    made = build(small({"steps": 4}))
    seen = []
    plain = made.recipe.update

    def update(recipe, learner, images, labels):
        seen.append((recipe is watched.recipe, recipe.clip is watched.recipe.clip))
        return plain(recipe, learner, images, labels)

    watched = replace(made, recipe=replace(made.recipe, update=update))
    run_checked(small({}), 4, tmp_path / "run", experiment=watched)
    assert seen == [(False, False)] * 3 + [(True, True)]
    assert not any(module._forward_hooks for module in made.learner.model.modules())


def test_never_and_resumed_runs_have_no_checks():
    made = build(small({}))
    values = small({})
    assert type(invariants_of({**config(values), "invariants": "never"}, made, resumed=False)) is NoInvariants
    assert type(invariants_of({**config(values), "invariants": "auto"}, made, resumed=True)) is NoInvariants


def test_the_formulas_of_plain_means_by_hand():
    third = pytest.approx(1 / 3)
    assert means_at(0, 1.0)(3) == {1: third, 2: third, 3: third}
    assert means_at(2, 5.0)(1) == {1: 1.0} and means_at(2, 5.0)(3) == {2: 1.0}
    assert means_at(9, 2.5)(3) == {3: 1.0} and means_at(0, 1.5)(3) is None
    assert last_mean(10, 8, 1)(2) == {2: 1.0} and last_mean(10, 8, 1)(4) == {3: 0.5, 4: 0.5}
    assert last_mean(100, 4, 2)(3) == {1: third, 2: third, 3: third}
    assert last_mean(100, 2, 2)(3) == {2: 0.5, 3: 0.5}


def test_the_formula_of_the_schedule_free_average_is_its_algorithm():
    # Equations 3 to 5 of arXiv 2405.15682 for one weight, with warm-up
    random = np.random.default_rng(0)
    share, rates, y = 0.8, [0.0, 0.1, 0.2, 0.2], 1.5
    x = z = y
    models, squares = {0: y}, 0.0
    for step, rate in enumerate(rates, 1):
        squares += rate**2
        z -= rate * random.normal()
        c = rate**2 / squares if squares else 0.0
        x = (1 - c) * x + c * z
        models[step] = (1 - share) * z + share * x
        weights = schedule_free(share, lambda step: rates[step - 1])(step)
        assert sum(weight * models[i] for i, weight in weights.items()) == pytest.approx(x, abs=1e-12)


@pytest.mark.parametrize("rate", [1e-3, 1e-9, 1e-30])
def test_steps_that_rounding_swallows_are_no_alarm(tmp_path, rate):
    run_checked(small({"optim": "sgd", "optim.lr": rate}), 3, tmp_path / "run")


def test_a_batch_of_the_whole_data_set_may_repeat(tmp_path):
    choices = small({"data.limit": 16, "data.batch_size": 16, "average": "none"})
    run_checked(choices, 4, tmp_path / "run")


def test_non_finite_steps_are_left_to_the_check_of_divergence(tmp_path):
    made = build(small({"steps": 4}))
    loss = made.recipe.loss
    made = replace(made, recipe=replace(made.recipe, loss=lambda z, y: loss(z, y) * torch.nan))
    with pytest.raises(Diverged):
        run_checked(small({}), 4, tmp_path / "run", experiment=made)


def test_the_rows_have_no_tag_of_the_invariants(tmp_path):
    assert starter(tmp_path / "run", *WORDS)() == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows and not any("invariant" in tag for row in rows for tag in row)
