"""Checkpoints by the clock, and the best weights that wait for them: decisions, copies, crashes meanwhile."""

import os
import signal
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from faults import RecordingDisk, disk_that_kills, file_contents, power_cuts, run_in_child
from running import job, result
from saving import is_checkpoint_of, save_step, weights_at
from small_runs import RecordedRows, build, small

from runner.engine.interruption import Stop
from runner.engine.logs.log import Log
from runner.engine.saving import cadence, checkpoint, storage
from runner.engine.saving.cadence import Automatic
from runner.engine.saving.checkpoint import load, read_weights, weights_file
from runner.engine.saving.held_weights import HeldWeights, StepWeights
from runner.engine.state_dict import StateDict
from runner.engine.train import train
from runner.errors import CheckpointError
from runner.tasks import start


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def decisions(clock, made, *, step_seconds, save_seconds, steps):
    """Return the steps after which a cadence saves, with steps and saves of a given length."""
    saved = []
    for step in range(1, steps + 1):
        clock.now += step_seconds
        if made.due(step) or made.overdue(step):
            with made.saving(step):
                clock.now += save_seconds
            saved.append(step)
            assert not made.overdue(step)
    return saved


def test_checkpoints_come_after_epochs_and_take_two_percent_of_the_time():
    clock = Clock()
    made = Automatic(10, 1000, clock=clock)
    saved = decisions(clock, made, step_seconds=0.01, save_seconds=0.01, steps=1000)
    # The first is expected to take 0.02 s, so it comes after a second; then each one needs half a second more.
    # After 500 steps and 5 saves 5.04 s have passed, of which 2 % are 0.1 s, less than six saves.
    assert saved[:2] == [100, 110] and all(step % 10 == 0 for step in saved)
    assert saved[-1] == 1000
    assert 0.01 * len(saved) <= 0.02 * clock.now + 0.01


def test_an_epoch_longer_than_a_minute_is_saved_each_minute_whatever_that_takes():
    clock = Clock()
    made = Automatic(10_000, 20_000, clock=clock)
    saved = decisions(clock, made, step_seconds=1.0, save_seconds=30.0, steps=600)
    assert saved == list(range(60, 601, 60))


def test_a_run_shorter_than_a_second_is_saved_at_its_end():
    clock = Clock()
    assert decisions(clock, Automatic(5, 50, clock=clock), step_seconds=0.01, save_seconds=0.01, steps=50) == [50]


class Pair:
    """The other one of two processes, which sees what its partner wants."""

    size = 2

    def __init__(self, rank, partner):
        self.rank, self.is_main, self._partner = rank, rank == 0, partner

    def max(self, number):
        return max(number, self._partner)


def test_only_the_main_process_looks_at_its_clock_and_both_save():
    clock = Clock()
    made = [Automatic(10, 100, Pair(rank, 0), clock=clock) for rank in (0, 1)]
    clock.now = 100.0
    assert [each.overdue(7) for each in made] == [True, False]
    for wish, other, wanted in [(False, -1, (0, False)), (False, 0, (0, True)), (True, -1, (0, True))]:
        stop = Stop(world=Pair(1, other))
        assert stop.agree(wish) == wanted[0] and (stop.agreed, stop.save) == wanted
    # A signal in one process and a wish in the other: both hear of the signal, which saves as well
    for own, wish, other in [(15, False, 0), (0, True, 15)]:
        stop = Stop(own, Pair(0, other))
        assert (stop.agree(wish), stop.save) == (15, True)


def test_what_is_held_is_a_copy_and_its_memory_is_used_again():
    weights = StateDict({"a": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)})
    weights.versions = {"a": 2}
    held = HeldWeights()
    assert held.of(0) is None
    held.copy(weights, 5)
    weights["a"].add_(1)
    assert held.of(4) is None
    best = held.of(5)
    assert (best.step, best.weights.versions) == (5, {"a": 2})
    assert torch.equal(best.weights["a"], torch.arange(6.0).reshape(2, 3)) and best.weights["count"] == 3
    pointer = best.weights["a"].data_ptr()
    held.copy(weights, 6)
    assert held.of(6).step == 6 and torch.equal(held.of(6).weights["a"], weights["a"])
    assert held.of(6).weights["a"].data_ptr() == pointer
    held.clear()
    assert held.of(6) is None
    held.copy(StateDict({"a": torch.zeros(4)}), 7)
    assert held.of(7).weights["a"].shape == (4,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_weights_of_a_gpu_are_held_as_they_were():
    weights = StateDict({"a": torch.arange(1 << 20, device="cuda"), "b": torch.ones(3)})
    held = HeldWeights()
    for step in (1, 2):
        wanted = weights["a"].cpu()
        held.copy(weights, step)
        weights["a"].add_(1)
        assert torch.equal(held.of(step).weights["a"], wanted)


def best(step):
    return StepWeights(step, StateDict(weights_at(step)))


def test_best_weights_are_saved_beside_a_checkpoint_and_no_run_resumes_from_them(tmp_path):
    save_step(tmp_path, 10)
    save_step(tmp_path, 20, keep=[15], earlier=[best(15)])
    assert is_checkpoint_of(load(tmp_path), 20)
    found = read_weights(weights_file(tmp_path, 15))
    assert all(torch.equal(found[name], tensor) for name, tensor in weights_at(15).items())
    assert checkpoint.meta_of(weights_file(tmp_path, 15)) == {"threads": 20, "versions": None}
    # Not that of step 15, though it is newer
    (tmp_path / "checkpoints" / "00000020.json").write_bytes(b"damaged")
    assert is_checkpoint_of(load(tmp_path), 10)
    assert load(tmp_path, before=20).step == 10


def test_old_best_weights_go_and_are_not_counted_among_the_newest(tmp_path):
    save_step(tmp_path, 10)
    save_step(tmp_path, 20, keep=[15], earlier=[best(15)])
    save_step(tmp_path, 30, keep=[25], earlier=[best(25)])
    names = {name.partition(".")[0] for name in storage.names(tmp_path / "checkpoints")}
    assert names == {"00000020", "00000025", "00000030"}


def test_best_weights_replace_a_full_checkpoint_of_their_step(tmp_path):
    save_step(tmp_path, 10)
    save_step(tmp_path, 15)
    save_step(tmp_path, 20, keep=[15], earlier=[best(15)])
    assert [name for name in storage.names(tmp_path / "checkpoints") if name.startswith("00000015")] == [
        "00000015.1.weights.safetensors",
        "00000015.json",
    ]
    read_weights(weights_file(tmp_path, 15))


def test_a_kill_before_any_operation_leaves_no_checkpoint_without_its_best_weights(tmp_path):
    seen = set()
    for at in range(100):
        run = tmp_path / str(at)
        run.mkdir()
        save_step(run, 10)

        def body(run=run, at=at):
            storage.disk = disk_that_kills(at)
            save_step(run, 20, keep=[15], earlier=[best(15)], newest=1)

        code = run_in_child(body)
        snapshot = load(run)
        assert is_checkpoint_of(snapshot, snapshot.step) and not snapshot.notes
        if snapshot.step == 20:
            read_weights(weights_file(run, 15))
        seen.add((code, snapshot.step))
        save_step(run, 30, keep=[25], earlier=[best(25)], newest=1)
        assert len(file_contents(run)) == 5
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert seen == {(-signal.SIGKILL, 10), (-signal.SIGKILL, 20), (0, 20)}


def test_the_power_may_go_at_any_moment_while_best_weights_are_saved(tmp_path, monkeypatch):
    run, cut = tmp_path / "run", tmp_path / "cut"
    run.mkdir()
    save_step(run, 10)
    before = file_contents(run)
    disk = RecordingDisk()
    monkeypatch.setattr(storage, "disk", disk)
    save_step(run, 20, keep=[15], earlier=[best(15)], newest=1)
    monkeypatch.undo()
    seen, known = set(), set()
    for moment in range(len(disk.events) + 1):
        for files in power_cuts(before, disk.events[:moment]):
            key = tuple(sorted((str(path), data) for path, data in files.items()))
            if key in known:
                continue
            known.add(key)
            for path, data in files.items():
                (cut / path.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
                (cut / path.relative_to(run)).write_bytes(data)
            snapshot = load(cut)
            assert is_checkpoint_of(snapshot, snapshot.step) and not snapshot.notes
            if snapshot.step == 20:
                read_weights(weights_file(cut, 15))
            seen.add(snapshot.step)
            for path in sorted(cut.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    assert seen == {10, 20} and len(known) > 10


def test_a_manifest_must_list_weights(tmp_path):
    save_step(tmp_path, 20, keep=[15], earlier=[best(15)])
    with pytest.raises(CheckpointError, match="no checkpoint of step 16"):
        load(tmp_path, step=16)
    assert load(tmp_path, step=15) is None


# In runs

CHOICES = {"steps": 12, "validate_every": "3steps", "log_every": 4}


def saves(made, clock, *, seconds):
    """Train with a clock that goes on by `seconds` in each step; return rows, saved steps, and what was held then."""
    rows, saved = RecordedRows(), []
    automatic = Automatic(made.recipe.steps_per_epoch, made.recipe.total_steps, clock=clock)
    mix = made.recipe.mix

    def passing(images, labels, step):
        clock.now += seconds
        return mix(images, labels, step)

    def commit():
        kept = automatic.held.of(made.learner.patience.best_step)
        saved.append((made.learner.step, kept.step if kept else None))

    recipe = replace(made.recipe, cadence=automatic, mix=passing)
    with closing(Log(screens=[rows])) as log:
        train(recipe, made.learner, made.batches, made.validation, log, commit)
    return [row for row in rows if not row[1].startswith("time/")], saved


def test_the_clock_changes_no_row_and_the_best_weights_are_part_of_the_next_checkpoint():
    runs = {seconds: build(small({**CHOICES, "optim.lr": 0.01, "monitor": "val/loss"})) for seconds in (0.0, 14.0)}
    rows, saved = zip(*(saves(made, Clock(), seconds=seconds) for seconds, made in runs.items()), strict=True)
    assert rows[0] == rows[1]
    patience = runs[0.0].learner.patience
    assert [step for step, _ in saved[0]] == [12] and [step for step, _ in saved[1]] == [5, 10, 12]
    for step, held in (*saved[0], *saved[1]):
        # What is held is never what the checkpoint has itself
        assert held is None or held < step
    assert {held for _, held in saved[0]} == {patience.best_step if patience.best_step < 12 else None}
    assert saved[1][0] == (5, 3)


def test_no_weights_that_are_not_finite_are_held():
    from runner.errors import Diverged

    made = build(small({**CHOICES, "average": "ema", "norm": "batch"}))
    validate = made.learner.patience.observe

    def spoiled(scores, step):
        next(made.learner.model.buffers()).fill_(torch.nan)
        return validate(scores, step)

    made.learner.patience.observe = spoiled
    with pytest.raises(Diverged, match=r"diverged at step 3: .* is not finite after this step"):
        saves(made, Clock(), seconds=0.0)


WORDS = ("model=mlp", "model.hidden=[8]", "steps=30", "validate_every=4steps", "figures=never", "probe=[]")
WORDS = (*WORDS, "monitor=val/loss", "optim.lr=0.5", "average=none", "norm=none", "scheduler=constant")


def selected(folder):
    """Return the best scores of a run, and the bytes of its weights."""
    found = result(folder)
    weights = read_weights(folder / found["weights"])
    return found["scores"], {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


@pytest.mark.parametrize("longest", [0.0, 1e9], ids=["each step", "only at the end"])
def test_a_run_that_the_clock_saves_selects_the_weights_of_a_run_with_dates(tmp_path, monkeypatch, longest):
    monkeypatch.setattr(cadence, "_LONGEST", longest)
    for name, every in [("dates", "5steps"), ("clock", "auto")]:
        assert start(job(*WORDS, f"checkpoint_every={every}", f"hydra.run.dir={tmp_path / name}")) == 0
    assert selected(tmp_path / "clock") == selected(tmp_path / "dates")
    best_step = result(tmp_path / "clock")["scores"]["val"]["best"]["step"]
    assert result(tmp_path / "clock")["weights"] == f"checkpoints/{best_step:08d}.weights.safetensors"


def test_the_best_step_is_not_the_last_one_here(tmp_path):
    assert start(job(*WORDS, f"hydra.run.dir={tmp_path / 'run'}")) == 0
    assert result(tmp_path / "run")["scores"]["val"]["best"]["step"] < 28
    manifests = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.json"))
    assert len(manifests) == 2 and manifests[-1] == "00000030.json"


def test_a_signal_saves_what_is_held(tmp_path, monkeypatch):
    from runner.engine import train as loop

    validate, calls = loop.validate, []

    def signalled(*arguments):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", signalled)
        with pytest.raises(KeyboardInterrupt):
            start(job(*WORDS, f"hydra.run.dir={tmp_path / 'run'}"))
    assert result(tmp_path / "run")["steps"] == 28
    best_step = load(tmp_path / "run").state["learner"]["patience"]["best"]["step"]
    read_weights(weights_file(tmp_path / "run", best_step))
    assert start(job(f"resume={tmp_path / 'run'}")) == 0
    assert start(job(*WORDS, f"hydra.run.dir={tmp_path / 'whole'}")) == 0
    assert selected(tmp_path / "run") == selected(tmp_path / "whole")
