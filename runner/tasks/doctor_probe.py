"""The probe of task=doctor: short trainings from a run's last checkpoint that test what its curves only suggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from runner.assemble import assemble
from runner.assemble.load_data import Loaded, load
from runner.doctor.checkup import Checkup, Examined
from runner.doctor.order import in_order
from runner.doctor.probed import FACTORS, SAME, STEPS, TESTS, fall_of, with_probe
from runner.doctor.probed_decay import DECAY
from runner.engine.saving import checkpoint
from runner.engine.saving.checkpoint import Snapshot
from runner.engine.saving.storage import printable
from runner.engine.schedules import Pure
from runner.engine.short_run import short_run
from runner.errors import CheckpointError, DataError, Diverged
from runner.tasks.doctor_replay import without_drop
from runner.tasks.job import Config
from runner.tasks.report import print_progress
from runner.tasks.restore import restore_snapshot

# Share of the largest rate of a run below which its rate has decayed: no step there says anything about the rate
_DECAYED = 0.05
# Steps at which the rate is looked at
_LOOKS = 200


def probed(checkup: Checkup, config: Config) -> Checkup:
    """Return the checkup of one run with its hints on the learning rate tested; nothing is written.

    Most trainings go on from the last checkpoint, on the same batches, at constant rates. A drop of the rate is tested
    by the whole run again without it.

    Raises:
        CheckpointError: The run has no checkpoint to go on from, and no finding that needs none.
        DataError: The data have changed.

    """
    (one,) = checkup.runs
    ids = {each.id for each in one.findings}
    if not ids & {*TESTS, DECAY}:
        return replace(checkup, notes=[*checkup.notes, "no finding that a probe can test"])
    loaded = load(config)
    if one.run.data not in (None, loaded.fingerprint.id):
        raise DataError(f"task.probe: the data of {printable(one.run.folder)} have changed since it was trained")
    notes = list(checkup.notes)
    for test in ([_at_other_rates] if ids & TESTS.keys() else []) + ([without_drop] if DECAY in ids else []):
        one, note = test(one, config, loaded)
        notes += [note] if note else []
    return replace(checkup, runs=[one], notes=notes)


def _at_other_rates(one: Examined, config: Config, loaded: Loaded) -> tuple[Examined, str | None]:
    """Return a run whose findings are tested from its last checkpoint, or the run as it is and a note."""
    tested = [each.id for each in one.findings if each.id in TESTS]
    folder = one.run.folder
    snapshot = checkpoint.load(folder)
    if snapshot is None:
        lacks = f"{printable(folder)} has no checkpoint to go on from"
        if all(each.id != DECAY for each in one.findings):
            raise CheckpointError(f"task.probe: {lacks}")
        return one, f"not probed: {', '.join(tested)}, because {lacks}"
    if note := _decayed(config, loaded, snapshot):
        return one, note
    needed = [SAME, *dict.fromkeys(TESTS[name] for name in tested)]
    print_progress(f"probe: {len(needed)} trainings of {STEPS} steps after step {snapshot.step}")
    losses = {factor: _losses(config, loaded, snapshot, factor) for factor in FACTORS if factor in needed}
    return _with_losses(one, losses, snapshot.step), None


def _with_losses(one: Examined, losses: dict[float, NDArray[np.float64]], step: int) -> Examined:
    """Return a run whose findings say what the trainings measured."""
    fall = fall_of(one.history)
    return replace(one, findings=in_order(with_probe(each, losses, fall, step) for each in one.findings))


def _decayed(config: Config, loaded: Loaded, snapshot: Snapshot) -> str | None:
    """Return a note if the rate has decayed by the checkpoint, None if it has not."""
    learner = assemble(config, fit=False, loaded=loaded).learner
    restore_snapshot(learner, snapshot)
    steps: Sequence[int] = np.linspace(0, learner.step - 1, _LOOKS).astype(int).tolist()
    share = learner.schedule(learner.step - 1) / max(map(learner.schedule, steps))
    if share >= _DECAYED:
        return None
    return (
        f"not probed: the learning rate has decayed to {share:.2g} of its largest value at the last checkpoint (step "
        f"{learner.step}), and no earlier one is kept"
    )


def _losses(config: Config, loaded: Loaded, snapshot: Snapshot, factor: float) -> NDArray[np.float64]:
    """Return the training losses of the steps after a checkpoint at a constant rate, as far as they are finite."""
    experiment = assemble(config, fit=False, loaded=loaded)
    learner = experiment.learner
    restore_snapshot(learner, snapshot)
    rate = learner.schedule(learner.step - 1) * factor
    learner.schedule = Pure(lambda step: rate)
    try:
        curves = short_run(replace(experiment.recipe, probes=[]), learner, experiment.batches, steps=STEPS)
    except Diverged:
        return np.zeros(0)
    return curves["train/loss"].values
