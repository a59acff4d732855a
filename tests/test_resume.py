"""A resumed run equals the uninterrupted one bit for bit: state, metrics.jsonl and event files."""

import random

import pytest
from running import MLP, checkpoint_checksums, events, job, killed_in_step, metrics, result, run_in_child

import runner.tasks.train  # noqa: F401  (once, before the forks)
from runner.tasks import start

STEPS = 90  # 19 steps in an epoch
EVERYTHING = (
    *MLP,
    "augment=[crop,hflip,cutout]",
    "augment.crop.padding=1",
    "augment.cutout.size=2",
    "mix=mixup",
    "regularizer=[dropout,l2]",
    "average=ema",
    "scheduler.warmup=10steps",
    "clip=1.0",
    "probe.update_ratio.every=10",
    "figures=never",
    f"steps={STEPS}",
    "validate_every=13steps",
    "checkpoint_every=7steps",
)


def run(folder, *more):
    return lambda: start(job(*EVERYTHING, *more, f"hydra.run.dir={folder}"))


def resume(folder):
    return lambda: start(job(f"resume={folder}"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_in_child(run(folder)) == 0
    return folder


def same(one, other):
    assert checkpoint_checksums(one) == checkpoint_checksums(other)
    assert metrics(one) == metrics(other)
    assert events(one) == events(other)
    assert result(one)["scores"] == result(other)["scores"]


def test_two_whole_runs_are_equal(whole, tmp_path):
    assert run_in_child(run(tmp_path / "run")) == 0
    same(whole, tmp_path / "run")
    assert len({step for step, tag, _ in metrics(whole) if tag == "train/loss"}) == STEPS


KILLS = sorted(random.Random(7).sample(range(8, STEPS + 1), 5))


@pytest.mark.parametrize("step", [*KILLS, 20, STEPS])
def test_resume_equals_uninterrupted(whole, tmp_path, step):
    folder = tmp_path / "run"
    assert run_in_child(killed_in_step(step, run(folder))) == -9
    assert result(folder)["status"] == "running"
    assert run_in_child(resume(folder)) == 0
    same(whole, folder)
    assert result(folder)["status"] == "done"


def test_a_run_killed_twice_still_equals(whole, tmp_path):
    folder = tmp_path / "run"
    assert run_in_child(killed_in_step(31, run(folder))) == -9
    assert run_in_child(killed_in_step(61, resume(folder))) == -9
    assert run_in_child(resume(folder)) == 0
    same(whole, folder)


def test_a_run_killed_before_its_first_checkpoint_starts_again_and_says_so(whole, tmp_path, capfd):
    folder = tmp_path / "run"
    assert run_in_child(killed_in_step(5, run(folder))) == -9
    assert start(job(f"resume={folder}")) == 0
    assert "no checkpoint: starts at step 0" in capfd.readouterr().err
    same(whole, folder)


def test_resume_of_a_finished_run_trains_nothing(whole, capfd):
    before = checkpoint_checksums(whole), metrics(whole)
    assert start(job(f"resume={whole}")) == 0
    assert (checkpoint_checksums(whole), metrics(whole)) == before
    assert "test, best weights" in capfd.readouterr().out


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("step", [27, 38])
def test_resume_with_balanced_sampling_equals_uninterrupted(tmp_path, step):
    assert run_in_child(run(tmp_path / "whole", "data.sampling=balanced")) == 0
    assert run_in_child(killed_in_step(step, run(tmp_path / "killed", "data.sampling=balanced"))) == -9
    assert run_in_child(resume(tmp_path / "killed")) == 0
    same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("optim=adamw", "accumulate=2"),
        ("scheduler=step", "patience=2", "precision=bf16"),
        ("update=sam", "clip_by=value"),
    ],
)
def test_resume_equals_uninterrupted_with_other_parts(tmp_path, more):
    assert run_in_child(run(tmp_path / "whole", *more)) == 0
    assert run_in_child(killed_in_step(27, run(tmp_path / "killed", *more))) == -9
    assert run_in_child(resume(tmp_path / "killed")) == 0
    same(tmp_path / "whole", tmp_path / "killed")
