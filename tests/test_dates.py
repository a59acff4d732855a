"""Validations, checkpoints and reports to a pruner come at rounded dates, also in resumed runs and after old ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from typing import Any

import optuna
import pytest
from running import job
from small_runs import RecordedRows, build, interrupted, small, uninterrupted

from runner import concerns, numerics
from runner.assemble import Experiment, assemble
from runner.engine.logs.log import Log
from runner.engine.train import train
from runner.search.pruning import make_should_prune

STEPS = 23
EVERY = [("3.6steps", 3.6), ("2.5steps", 2.5), ("15%", 3.45), ("40examples", 2.5), ("0.2steps", 1), ("99steps", 99)]


def saving(saved: list[int], made: Experiment) -> Callable[[], None]:
    return lambda: saved.append(made.learner.step)


@pytest.mark.parametrize(("every", "period"), EVERY)
def test_a_run_validates_and_saves_at_rounded_dates_and_after_the_last_step(every: str, period: float) -> None:
    for what in ("validate_every", "checkpoint_every"):
        choices = {"steps": STEPS, "validate_every": "23steps", "checkpoint_every": "23steps", what: every}
        made, rows = build(small({**choices, "monitor": "val/loss"})), RecordedRows()
        saved: list[int] = []
        with closing(Log(screens=[rows])) as log:
            train(made.recipe, made.learner, made.batches, made.validation, log, saving(saved, made))
        validated = sorted({step for step, tag, _ in rows if tag == "val/loss"})
        dates = sorted({d for k in range(1, 100) if (d := round(k * period)) <= STEPS} | {STEPS})
        if what == "validate_every":
            assert validated == dates
        else:
            assert validated == [STEPS] and saved == dates


def test_three_tenths_of_an_epoch_recur_as_such() -> None:
    made = assemble(job("model=linear", "epochs=2", "validate_every=0.3epochs").config)
    per_epoch, recipe = made.recipe.steps_per_epoch, made.recipe
    assert per_epoch % 10 != 0
    wanted = {round(k * 3 * per_epoch / 10) for k in range(1, 7)} | {2 * per_epoch}
    assert {s for s in range(1, 2 * per_epoch + 1) if recipe.due(recipe.validate_every, s)} == wanted


@pytest.mark.parametrize("at", [2, 5, 8, 10])
def test_a_resumed_run_keeps_its_dates_and_its_numbers(at: int, tmp_path: Any) -> None:
    given = small(
        {
            "steps": 14,
            "validate_every": "2.5steps",
            "average": "swa",
            "average.start": "0%",
            "average.every": "1.5steps",
            "scheduler": "step",
            "scheduler.every": "3.3steps",
        }
    )
    _, whole = uninterrupted(given, 14)
    assert interrupted(given, at, 14, tmp_path) == whole


@pytest.mark.parametrize(("every", "total"), [(5, 20), (5, 23), (Fraction(5, 2), 20), (Fraction(18, 5), 23), (30, 23)])
def test_a_pruner_counts_validations(every: Any, total: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(study_name="s", storage=storage)
    trial = study.ask()
    monkeypatch.setattr("runner.search.pruning.open_storage", lambda path, folder: storage)
    search = {
        "storage": "",
        "study": "s",
        "trial": trial._trial_id,
        "pruner": {"name": "hyperband", "max_resource": None},
    }
    should_prune = make_should_prune(search, every=every, total=total)
    dates = sorted({d for k in range(1, 100) if (d := round(k * every)) <= total} | {total})
    for step in dates:
        should_prune(1.0, step)
    assert sorted(storage.get_trial(trial._trial_id).intermediate_values) == list(range(1, len(dates) + 1))


@pytest.mark.parametrize(("total", "length"), [(30, 22), (45, 33), (52, 46), (60, 26), (100, 49), (7, 7)])
def test_the_schedule_within_a_window_is_at_the_whole_step_reached(total: int, length: int) -> None:
    rule = f"optim.rules=[{{match: head.weight, active: [null, {length}steps]}}]"
    words = ["model=linear", "scheduler=linear", "optim.lr=1.0", f"steps={total}", rule]
    learner = assemble(job(*words).config).learner
    (group,) = [g for g in learner.optimizer.param_groups if "active" in g] or learner.optimizer.param_groups[:1]
    found = [learner.rate(group, step) for step in range(length)]
    assert found == pytest.approx([1 - (k * total // length) / total for k in range(length)], rel=1e-12)


CONCERNED = {
    "validate_every": [
        ("validate_every=1epoch", False),
        ("validate_every=0.3epochs", True),
        ("validate_every=10%", False),  # of 30 epochs
        ("epochs=15 validate_every=10%", True),
        ("steps=100 validate_every=7%", False),
        ("steps=150 validate_every=7%", True),
        ("validate_every=640examples", False),
        ("validate_every=100examples", True),
        ("validate_every=2.5steps", True),
    ],
    "scheduler=step with a fraction of a step as `every`": [
        ("scheduler=step", False),
        ("scheduler=step epochs=7", True),
        ("scheduler=step scheduler.every=25steps epochs=7", False),
    ],
    "scheduler=cosine_restarts": [
        ("scheduler=cosine", False),
        ("scheduler=cosine_restarts", False),
        ("scheduler=cosine_restarts epochs=7", True),
        ("scheduler=cosine_restarts steps=100", False),
        ("scheduler=cosine_restarts steps=101", True),
        ("scheduler=cosine_restarts steps=100 scheduler.growth=2", True),
        ("scheduler=cosine_restarts steps=100 scheduler.warmup=5%", True),
        ("scheduler=cosine_restarts steps=100 scheduler.cycle=30steps", True),
    ],
    "scheduler=onecycle": [
        ("scheduler=onecycle", False),
        ("scheduler=onecycle steps=101", True),
        ("scheduler=onecycle steps=100", False),
        ("scheduler=onecycle scheduler.peak=0%", True),
    ],
    "optim.rules with a window of steps": [
        ("steps=30 optim.rules=[{match:head,until:22steps}]", True),
        ("steps=30 optim.rules=[{match:head,active:[null,15steps]}]", False),
        ("optim.rules=[{match:head,active:[null,15steps]}]", True),
        ("optim.rules=[{match:head,lr:2}]", False),
    ],
    "average=swa from the start": [
        ("average=swa", False),
        ("average=swa average.start=0%", True),
        ("average=swa steps=20 average.start=1%", True),
        ("average=swa steps=200 average.start=1%", False),
    ],
    "average=swa with a fraction of a step as `every`": [
        ("average=swa", False),
        ("average=swa average.every=0.5epochs", True),
    ],
    "augment=resized_crop": [("augment=[crop]", False), ("augment=[crop,resized_crop]", True)],
    "augment=random_erasing": [("augment=[crop]", False), ("augment=[random_erasing]", True)],
    "augment=trivialaugment": [
        ("augment=[trivialaugment]", True),
        ("augment=[trivialaugment] data=cifar10", False),
        ("augment=[trivialaugment] data=imagefolder data.root=. data.size=[32,28]", True),
        ("augment=[trivialaugment] data=imagefolder data.root=. data.size=[64,32]", False),
    ],
    "predict=ten_crop": [
        ("predict=plain", False),
        ("predict=ten_crop", True),  # 7 of 8 pixels
        ("predict=ten_crop predict.crop=0.75", False),
        ("predict=ten_crop data=cifar10", False),
        ("predict=ten_crop data=imagefolder data.root=. data.size=[32,40]", True),
    ],
}


@pytest.mark.parametrize(
    ("part", "words", "concerned"), [(p, *case) for p, cases in CONCERNED.items() for case in cases]
)
def test_a_change_concerns_the_runs_whose_numbers_it_changes(part: str, words: str, concerned: bool) -> None:
    (change,) = [each for each in numerics.CHANGES if each.part == part]
    assert change.concerns(job(*words.split(" ")).config) is concerned


def test_a_malformed_config_is_concerned_and_breaks_nothing() -> None:
    config = job("scheduler=step", "steps=100").config
    for broken in ({"data": None}, {"steps": "many"}, {"validate_every": None}, {"scheduler": {"name": "step"}}):
        for change in numerics.CHANGES:
            assert change.concerns({**config, **broken}) in (True, False)
    assert concerns.validates_between_steps({**config, "validate_every": None})
