"""The probe of an early drop of the learning rate: the run again from its first step, without the drop.

No checkpoint from before the drop is needed, because a run repeats itself bit by bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from runner.assemble import Experiment, assemble
from runner.assemble.load_data import Loaded
from runner.doctor.checkup import Examined
from runner.doctor.order import in_order
from runner.doctor.probed import COMPARED, fall_of
from runner.doctor.probed_decay import DECAY, is_repeated, with_old_rate
from runner.engine.schedules import Pure
from runner.engine.short_run import short_run
from runner.errors import Diverged
from runner.tasks.job import Config
from runner.tasks.report import print_progress

# Factor between the rates of two steps that makes a drop, as in the rule
_DROP = 1.5


def without_drop(one: Examined, config: Config, loaded: Loaded) -> tuple[Examined, str | None]:
    """Return a run whose finding on an early drop is tested, or the run as it is and a note why it cannot be tested."""
    finding = next(each for each in one.findings if each.id == DECAY)
    if config["extend"] is not None:
        return one, f"{DECAY} not probed: the run began from another one's checkpoint (extend)"
    experiment = assemble(config, loaded=loaded)
    schedule = experiment.learner.schedule
    if type(schedule) is not Pure:
        return one, f"{DECAY} not probed: the learning rate depends on the scores, or the momentum changes with it"
    drop, end = _around(schedule, int(finding.evidence.numbers["drop_at_step"]), finding.evidence.steps[1])
    logged = one.history.series("train/loss").finite()
    before, own = logged.values[logged.steps <= drop], logged.values[(logged.steps > drop) & (logged.steps <= end)]
    if len(before) != drop or len(own) != end - drop or min(drop, len(own)) < COMPARED:
        return one, f"{DECAY} not probed: fewer than {COMPARED} losses in a row before or after the drop at step {drop}"
    print_progress(f"probe: trains {end} steps again from the start, without the drop of the rate after step {drop}")
    losses = _losses(experiment, schedule, drop, end)
    if not is_repeated(before, losses):
        return one, f"{DECAY} not probed: training again does not repeat the run up to the drop at step {drop}"
    tested = with_old_rate(finding, own, losses[drop:], fall_of(one.history), drop)
    return replace(one, findings=in_order(tested if each is finding else each for each in one.findings)), None


def _around(schedule: Pure, seen: int, last: int) -> tuple[int, int]:
    """Return the last step before the drop of the rate, and the last step before the next drop or the end.

    Args:
        schedule: The factor of the step after so many steps.
        seen: A step at which the lower rate was logged.
        last: The last step of the part after the drop.
    """
    drops = [step for step in range(1, last) if schedule(step) * _DROP < schedule(step - 1)]
    drop = max((step for step in drops if step < seen), default=0)
    return drop, min((step for step in drops if step > drop), default=last)


def _losses(experiment: Experiment, schedule: Pure, drop: int, end: int) -> NDArray[np.float64]:
    """Return the losses of all steps of the run without the drop, up to the one that diverges."""
    learner = experiment.learner
    learner.schedule = Pure(lambda step: schedule(min(step, drop - 1)))
    found = list[float]()
    try:
        # Up to the drop by itself, so that its losses are there if the rest diverges
        for steps in (drop, end - drop):
            curves = short_run(replace(experiment.recipe, probes=[]), learner, experiment.batches, steps=steps)
            found += curves["train/loss"].values.tolist()
    except Diverged:
        pass
    return np.array(found)
