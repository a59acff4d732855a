"""The number of CPU threads: a rule of the step's size, one knob, kept by a resumed run."""

import json
import math
import shutil

import pytest
import torch
from running import MLP, checkpoint_checksums, job, metrics, result
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from runner.__main__ import main
from runner.assemble import assemble, threads
from runner.engine.saving import checkpoint
from runner.engine.world import ALONE
from runner.tasks import start, train

SMALL = (*MLP, "steps=6", "checkpoint_every=2steps", "figures=never", "probe=[]")


@pytest.fixture(autouse=True)
def _same_threads_afterwards():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_environment_may_limit_the_threads(monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: range(8))
    for word, expected in {"": 4, "1": 1, "3": 3, "16": 4, "0": 4, "2,1": 4}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", word)
        assert chosen("auto", LARGE) == expected


class Pair:
    """Two processes."""

    rank, size = 0, 2


def chosen(setting, model, shape=(1, 28, 28), examples=64, world=ALONE):
    """Return the number of threads that is set."""
    number = threads.choose(setting, model, shape=shape, examples=examples, world=world)
    assert torch.get_num_threads() == number
    return number


LARGE = nn.Sequential(nn.Flatten(), nn.Linear(784, 60_000))
LITTLE = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (3, 3), (4, 4), (64, 4)])
def test_auto_is_one_thread_for_small_steps_and_at_most_four_for_large_ones(monkeypatch, cores, expected):
    monkeypatch.setattr(threads, "_cores", lambda: cores)
    assert chosen("auto", LITTLE) == 1
    assert chosen("auto", LARGE) == expected  # 3 * 64 * 784 * 60,000 = 9e9 multiplications
    assert chosen("auto", LARGE, examples=1) == 1
    assert chosen("auto", LITTLE, examples=10**6) == expected
    assert chosen("auto", LARGE, world=Pair()) == 1
    assert chosen(3, LITTLE) == 3


@pytest.mark.parametrize(
    "words",
    [["model=mlp"], ["model=cnn"], ["model=resnet"], ["model=vit"], ["model=torchvision", "model.arch=resnet18"]],
)
def test_multiplications_are_close_to_those_that_torch_counts(words):
    experiment = assemble(job(*words, "augment=[]").config)
    model, shape = experiment.learner.model, (1, 8, 8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    # A multiplication and an addition each; attention between tokens has no weights
    assert threads.multiplications(model, shape) == pytest.approx(counter.get_total_flops() / 2, rel=0.25)


def test_counting_leaves_model_and_random_numbers_as_they_were():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10))
    model[1].eval()
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    assert threads.multiplications(model, (1, 8, 8)) == 4 * 9 * 36 + 1440
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training and not model[1].training and not any(module._forward_hooks for module in model.modules())


def test_a_model_that_cannot_process_a_single_image_counts_as_large():
    assert threads.multiplications(nn.InstanceNorm2d(1, track_running_stats=False).train(), (1, 1, 1)) == math.inf


def test_the_number_stands_in_the_first_line_and_in_the_manifest(tmp_path, capfd):
    assert main([*SMALL, f"outputs={tmp_path}", "name=auto"]) == 0
    assert "on cpu (1 thread)\n" in capfd.readouterr().err
    assert main([*SMALL, f"outputs={tmp_path}", "name=two", "threads=2"]) == 0
    assert "on cpu (2 threads)\n" in capfd.readouterr().err
    found = {name: checkpoint.load(tmp_path / name).meta["threads"] for name in ("auto", "two")}
    assert found == {"auto": 1, "two": 2}
    environment = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert environment["threads"]["intra"] == 2


def interrupted(folder, number, *words):
    """Return the folder of a run with some number of threads, as it is after 4 of 6 steps."""
    # A forked process, which could be killed there, has no threads but one
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "keep_only", lambda *_, **__: 0)
        assert start(job(*SMALL, *words, f"threads={number}", f"hydra.run.dir={folder}")) == 0
    for path in (folder / "checkpoints").glob("*06.*"):
        path.unlink()
    left = {**result(folder), "status": "interrupted", "exit": 130, "scores": {}}
    (folder / "result.json").write_text(json.dumps(left))
    return folder


def test_a_resumed_run_keeps_its_number_whatever_the_default_is_now(tmp_path, capfd):
    folder = interrupted(tmp_path / "run", 2)
    whole = tmp_path / "whole"
    assert start(job(*SMALL, "threads=2", f"hydra.run.dir={whole}")) == 0
    torch.set_num_threads(1)
    capfd.readouterr()
    assert main([f"resume={folder}"]) == 0
    assert "threads:" not in capfd.readouterr().err
    assert torch.get_num_threads() == 2
    assert (metrics(folder), checkpoint_checksums(folder)) == (metrics(whole), checkpoint_checksums(whole))


def test_a_run_that_was_saved_before_there_was_a_setting_keeps_its_number_too(tmp_path):
    folder = interrupted(tmp_path / "run", 2)
    path = folder / "config.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("threads")))
    assert main([f"resume={folder}"]) == 0
    assert checkpoint.load(folder).meta["threads"] == 2


@pytest.mark.parametrize("given", ["1", "auto"])
def test_another_number_is_taken_if_it_is_given_and_said_in_one_line(tmp_path, capfd, given):
    folder = interrupted(tmp_path / "run", 2)
    capfd.readouterr()
    assert main([f"resume={folder}", f"threads={given}"]) == 0
    line = "  threads: 1 from here on, 2 before; the last digits of results may differ\n"
    assert line in capfd.readouterr().err
    assert checkpoint.load(folder).meta["threads"] == 1


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_trial_has_one_thread_its_own_number_or_that_of_the_launcher(tmp_path):
    sweep = ("-m", *SMALL, "seed=0,1", f"outputs={tmp_path}", "hydra.launcher.workers=1")

    def numbers(name):
        folders = [path.parent for path in (tmp_path / "sweeps" / name).glob("*/result.json")]
        assert len(folders) == 2
        return {checkpoint.load(folder).meta["threads"] for folder in folders}

    assert main([*sweep, "sweep=auto"]) == main([*sweep, "sweep=two", "threads=2"]) == 0
    assert main([*sweep, "sweep=alias", "threads=2", "hydra.launcher.threads=3"]) == 0
    assert [numbers(name) for name in ("auto", "two", "alias")] == [{1}, {2}, {3}]
    # The same sweep again, stopped before its end: the trial goes on with its number
    trial = next((tmp_path / "sweeps" / "alias").glob("seed=0-*"))
    shutil.rmtree(trial)
    interrupted(trial, 3, "seed=0")
    assert main([*sweep, "sweep=alias"]) == 0
    assert numbers("alias") == {3}
