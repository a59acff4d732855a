"""A short run against the ordinary loop: the same losses bit for bit, no validation unless asked, no files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import RecordedRows, as_bits, build, checkpoint_content
from small_runs import train_to as ordinary

from runner.engine.contracts import Probe
from runner.engine.logs.log import Log
from runner.engine.short_run import short_run
from runner.errors import Diverged

CHOICES = {
    "model": "cnn", "augment": ["crop", "hflip"], "augment.crop.padding": 1, "mix": "mixup", "regularizer": ["dropout"],
    "average": "ema", "scheduler.warmup": "5steps", "steps": 12, "validate_every": "4steps", "log_every": 3,
}  # fmt: skip
TIMED = {"time/step_ms", "time/examples_per_second", "time/data_wait", "time/peak_memory_mb"}


@pytest.fixture(scope="module")
def whole():
    """The loss of steps 1 to 11 of the ordinary run; a validation would put the scored training split in its place."""
    rows = RecordedRows()
    ordinary(build({**CHOICES, "validate_every": "12steps"}), 12, Log(screens=[rows]))
    return [value for step, tag, value in rows if tag == "train/loss" and step < 12]


def short(experiment, steps, **options):
    return short_run(experiment.recipe, experiment.learner, experiment.batches, steps=steps, **options)


def refuse(*_):
    raise AssertionError("a run without validation was scored")


def losses(curves):
    return [as_bits(value) for value in curves["train/loss"].values.tolist()]


def test_losses_are_those_of_the_first_steps_of_the_run(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = build(CHOICES)
    experiment = replace(experiment, recipe=replace(experiment.recipe, predict=refuse))
    curves = short(experiment, 7)
    assert losses(curves) == whole[:7]
    assert curves["train/loss"].steps.tolist() == list(range(1, 8))
    assert {tag: list(curve.steps) for tag, curve in curves.items() if tag.startswith(("time/", "train/lr"))} == {
        tag: [7] for tag in {*TIMED, "train/lr"}
    }
    assert all(curve.values.dtype == np.float64 and curve.steps.dtype == np.int64 for curve in curves.values())
    assert experiment.learner.step == 7 and experiment.learner.patience.last == {}
    assert not list(tmp_path.iterdir())


def test_a_second_short_run_continues_and_all_state_is_that_of_one(whole):
    parts, one = build(CHOICES), build(CHOICES)
    found = [losses(short(parts, steps)) for steps in (3, 4)]
    assert found == [whole[:3], whole[3:7]]
    short(one, 7)
    assert checkpoint_content(parts) == checkpoint_content(one)


def test_validation_is_that_of_the_run_when_asked_for(whole):
    experiment, compared = build(CHOICES), build(CHOICES)
    curves = short(experiment, 6, validation=experiment.validation)
    rows = RecordedRows()
    ordinary(compared, 6, Log(screens=[rows]))
    for tag in ("train/loss", "train/loss_average", "val/loss", "val/accuracy", "_best/val_accuracy"):
        wanted = [(step, value) for step, each, value in rows if each == tag]
        assert list(zip(curves[tag].steps.tolist(), map(as_bits, curves[tag].values.tolist()), strict=True)) == wanted
    assert curves["val/loss"].steps.tolist() == [4, 6]
    assert checkpoint_content(experiment) == checkpoint_content(compared)


def test_probes_and_looks_come_as_often_as_asked():
    seen = []

    def watch(watched):
        outcome = yield
        seen.append(float(outcome.loss))
        return {"doubled": 2 * outcome.loss.detach(), "values": torch.zeros(3)}

    curves = short(build(CHOICES), 6, log_every=2, probes=[Probe(1, watch)])
    assert curves["doubled"].values.tolist() == [2 * loss for loss in seen] and "values" not in curves
    assert curves["time/step_ms"].steps.tolist() == [2, 4, 6]


def test_a_run_that_diverges_says_so_and_a_sink_has_what_it_logged():
    rows = RecordedRows()
    experiment = build({**CHOICES, "optim.lr": 1e30, "scheduler.warmup": "0steps"})
    with pytest.raises(Diverged):
        short(experiment, 12, log_every=1, sinks=[rows])
    assert [step for step, tag, _ in rows if tag == "train/loss"][:1] == [1]
