"""Every option of every kind builds from its YAML, trains, resumes bit for bit, and differs from the others."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from cases import DOWNLOADS, OPTIONS, PICTURES, STEPS, choices
from running import job
from small_runs import MANY, ONE, RunResults, build, command_line_words, config, interrupted, small, uninterrupted

from runner.assemble import Experiment
from runner.errors import ConfigError, DataError
from runner.registry import names
from runner.settings import GROUPS


@cache
def run(kind: str, name: str) -> tuple[Experiment, RunResults]:
    """Return the results of three steps with an option."""
    return uninterrupted(choices(kind, name), STEPS)


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_trains_without_a_value_that_is_not_finite(kind: str, name: str) -> None:
    experiment, left = run(kind, name)
    learner = experiment.learner
    assert learner.step == STEPS
    for place, tensor in learner.weights().items():
        assert tensor.isfinite().all(), place
    numbers = [
        float(value) for _, tag, value in left.rows if isinstance(value, str) and tag.startswith(("train", "val"))
    ]
    assert numbers and all(map(torch.isfinite, map(torch.tensor, numbers)))


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_a_second_run_saved_and_restored_after_a_step_is_equal_bit_for_bit(kind: str, name: str, tmp_path) -> None:
    whole, again = run(kind, name)[1], interrupted(choices(kind, name), 1, STEPS, tmp_path)
    assert again.state == whole.state
    assert again.printed == whole.printed
    assert again.rows == whole.rows


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_trains_under_bf16_autocast(kind: str, name: str) -> None:
    experiment, left = uninterrupted({**choices(kind, name), "precision": "bf16"}, STEPS)
    assert all(tensor.isfinite().all() for tensor in experiment.learner.weights().values())
    assert {tensor.dtype for tensor in experiment.learner.weights().values()} <= {torch.float32, torch.int64}
    assert left.state != run(kind, name)[1].state


def shown(kind: str, name: str) -> Any:
    """Return what an option shows: weights and predictions, or the learning rates of a run, or the tags it logs."""
    left = run(kind, name)[1]
    if kind == "scheduler":
        return curve(choices(kind, name))
    if kind in GROUPS:
        return left.tags
    return left.state, left.printed


def curve(given: dict[str, Any]) -> list[Any]:
    """Return the learning rate's factor in each of 100 steps, and the momentum if it is cycled.

    The steps are scored: better at first only.
    """
    schedule = build({**given, "steps": 100}).learner.schedule
    scores = [0.1 + 0.0007 * step for step in range(10)] + [0.1] * 90
    factors = []
    for step, score in enumerate(scores):
        momentum = getattr(schedule, "momentum", None)
        factors.append((schedule(step), momentum and momentum(step)))
        schedule.observe(score)
    return factors


IN_ONE_PROCESS = {"batch", "sync_batch"}  # in which they are equal


@pytest.mark.parametrize("kind", [*ONE, *MANY])
def test_no_two_options_do_the_same(kind: str) -> None:
    found = [(name, shown(kind, name)) for each, name in OPTIONS if each == kind]
    for i, (name, what) in enumerate(found):
        same = [other for other, another in found[:i] if another == what and {name, other} != IN_ONE_PROCESS]
        assert not same, f"{kind}={name} does what {kind}={same} does"


@pytest.mark.parametrize("kind", MANY)
def test_every_option_differs_from_choosing_none(kind: str) -> None:
    for name in names(kind):
        given = choices(kind, name)
        without = uninterrupted({**{k: v for k, v in given.items() if not k.startswith(f"{kind}.")}, kind: []}, STEPS)[
            1
        ]
        chosen = run(kind, name)[1]
        if kind in GROUPS:
            # The tree has the scores of the validations, and a metric is one
            changed = {key for key in chosen.state if chosen.state[key] != without.state[key]}
            assert changed <= ({"tree"} if kind == "metric" else set()), f"{kind}={name} changes what it looks at"
            assert chosen.tags > without.tags, f"{kind}={name} logs nothing"
        else:
            assert chosen.state != without.state, f"{kind}={name} does nothing"


@pytest.mark.parametrize(("kind", "name"), [("model", name) for name in names("model") if name != "timm"])
def test_the_seed_decides(kind: str, name: str) -> None:
    given = choices(kind, name)
    assert uninterrupted({**given, "seed": 1}, STEPS)[1].state != run(kind, name)[1].state


@pytest.mark.parametrize("name", DOWNLOADS)
def test_data_that_are_not_there_are_refused_in_one_line(name: str, tmp_path) -> None:
    with pytest.raises(
        DataError, match=rf"data={name}: not in {tmp_path}, or damaged, and data.download is false"
    ) as refusal:
        build({"data": name, "data.root": str(tmp_path), "data.download": False})
    assert "\n" not in str(refusal.value)


def test_timm_is_there_or_refused_in_one_line() -> None:
    if find_spec("timm"):
        assert build(small({"model": "timm", **PICTURES})).learner.model
    else:
        with pytest.raises(ConfigError, match=r"^model=timm: timm is not installed; pip install timm$"):
            build(small({"model": "timm", **PICTURES}))


@pytest.mark.parametrize(
    "given",
    [
        {},
        choices("augment", "crop"),
        choices("regularizer", "dropout", p=0.25),
        choices("mix", "mixup", alpha=0.5) | {"clip": 1.0, "precision": "bf16"},
    ],
)
def test_these_configs_are_what_the_front_door_makes(given: dict[str, Any]) -> None:
    assert config({**given, "test": "end"}) == job(*command_line_words(given)).config
