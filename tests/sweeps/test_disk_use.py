"""The disk that a sweep will take: near what finished runs take, said in one line, refused where it is not free."""

import math
import os
import signal
from pathlib import Path

import pytest
from running import job

from runner.__main__ import main
from runner.assemble.run_size import run_size
from runner.engine.saving import disk
from runner.errors import StorageError
from runner.sweeps import disk_use, run_sizes
from runner.sweeps.disk_use import check_space
from runner.tasks import start

SMALL = ("steps=60", "augment=[]", "figures=never", "test=never", "device=cpu", "predictions=never", "threads=1")
# The best step of these is not the last one
WORSE = ("monitor=val/loss", "scheduler=constant", "norm=none", "validate_every=5steps")


def taken(folder: Path) -> int:
    """Return the bytes that the files of a run occupy on the disk, in whole blocks."""
    return sum(path.stat().st_blocks * 512 for path in (folder, *folder.rglob("*")))


RUNS = {
    "mlp, sgd": ("model=mlp", "model.hidden=[256]", "optim=sgd", "optim.lr=3", "average=none", *WORSE),
    "many logs": ("model=mlp", "model.hidden=[16,16]", "steps=1000", "log_every=1"),
    "cnn, adam, ema": ("model=cnn", "optim=adam", "optim.lr=0.05", "average=ema", *WORSE),
    "explicit dates": ("model=mlp", "model.hidden=[256]", "optim.lr=1", "checkpoint_every=1steps", *WORSE),
    "blocks of averages": ("model=mlp", "model.hidden=[256]", "average=polyak", "average.blocks=4", "keep=best+last"),
    "large preprocessing": ("model=linear", "preprocess=zca", "data=gaussian", "data.size=32", "data.train=400"),
    "best": ("model=mlp", "model.hidden=[256]", "optim=adam", "keep=best"),
    "none": ("model=mlp", "model.hidden=[256]", "keep=none", "probe=[]"),
    "muon": ("model=mlp", "model.hidden=[256,256]", "optim=muon", "optim.lr=0.05", "keep=best+last"),
    "adafactor": ("model=mlp", "model.hidden=[256,64]", "optim=adafactor", "keep=best+last"),
    "amsgrad": ("model=mlp", "model.hidden=[256]", "optim=adam", "optim.amsgrad=true", "average=none"),
    "distribution of weights": ("model=mlp", "model.hidden=[64]", "average=swag", "average.rank=5", "optim=adam"),
    "snapshots": ("model=mlp", "model.hidden=[256]", "average=snapshots", "scheduler=cosine_restarts"),
    "snapshots of checkpoints": (
        *("model=mlp", "model.hidden=[256]", "average=snapshots", "average.at=[10steps,20steps,60steps]"),
        *("checkpoint_every=10steps", "keep=best"),
    ),
    "predictions": ("model=mlp", "model.hidden=[8]", "predictions=always", "data=gaussian", "data.val=9000"),
}


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_the_estimate_is_near_what_the_finished_run_takes(tmp_path, words):
    given = {word.partition("=")[0]: word for word in (*SMALL, *words)}
    made = job(*given.values(), f"hydra.run.dir={tmp_path / 'run'}")
    final, most = run_size(made.config)
    assert start(made) == 0
    assert 0.8 < final / taken(tmp_path / "run") < 1.3
    assert most >= final


def test_nothing_is_downloaded_for_an_estimate(tmp_path):
    config = job("data=mnist", f"data.root={tmp_path}", "data.download=true").config
    assert run_sizes.estimated([config]) == [None]
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_ends_its_process_costs_the_estimate_only(monkeypatch):
    assert run_sizes.estimated_in_fork([job("model=mlp").config]) == run_sizes.estimated([job("model=mlp").config])
    monkeypatch.setattr(run_sizes, "_sizes", lambda configs: os.kill(os.getpid(), signal.SIGKILL))
    assert run_sizes.estimated_in_fork([{}, {}]) == [None, None]
    monkeypatch.setattr(run_sizes, "_LIMIT", 0.2)
    monkeypatch.setattr(run_sizes, "_sizes", lambda configs: run_sizes.time.sleep(60))
    assert run_sizes.estimated_in_fork([{}]) == [None]


class Launcher:
    """Gives each run a size: a number for its model."""

    def __init__(self, *sizes, at_once=1):
        self.given, self.asked, self._at_once = sizes, [], at_once

    def sizes(self, configs, trials):
        self.asked += [(len(configs), trials)]
        return list(self.given[: len(configs)])

    def at_once(self):
        return self._at_once


@pytest.fixture
def free(monkeypatch):
    """Set the free bytes."""
    return lambda count: monkeypatch.setattr(disk_use, "free_bytes", lambda folder: count)


def trials(tmp_path, *words):
    """Return jobs, one for each word."""
    return [job("model=mlp", word, f"hydra.run.dir={tmp_path / word}") for word in words]


def said(jobs, launcher, tmp_path, count=None):
    lines = []
    check_space(jobs, launcher, tmp_path, lines.append, count)
    return "".join(lines)


LRS = ("optim.lr=0.1", "optim.lr=0.2", "optim.lr=0.3")


def test_trials_that_differ_in_rates_and_seeds_are_estimated_once(tmp_path, free):
    free(310 * 10**9)
    launcher = Launcher(*[(400_000_000, 500_000_000)] * 2, at_once=2)
    jobs = trials(tmp_path, *LRS, "seed=7")
    assert said(jobs, launcher, tmp_path) == "disk          about 1.6 GB for 4 trials, 310.0 GB free\n"
    assert launcher.asked == [(1, 4)]
    # With weight decay or momentum at 0 an optimizer may need less
    said(trials(tmp_path, "optim.momentum=0", "optim.momentum=0.9"), launcher, tmp_path)
    assert launcher.asked[1] == (2, 2)


def test_sizes_of_different_models_are_added_and_unknown_ones_are_left_out(tmp_path, free):
    free(10**12)
    jobs = trials(tmp_path, "model.hidden=[8]", "model.hidden=[9]", "model.hidden=[10]")
    assert "about 3.0 MB for 3 trials," in said(jobs, Launcher((10**6,) * 2, (2 * 10**6,) * 2, (0, 0)), tmp_path)
    assert "about 3.0 MB for 2 trials of 3," in said(jobs, Launcher((10**6,) * 2, None, (2 * 10**6,) * 2), tmp_path)
    assert said(jobs, Launcher(None, None, None), tmp_path) == ""


def test_what_running_trials_need_beside_their_results_counts(tmp_path, free):
    jobs, size = trials(tmp_path, *LRS), (10**6, 5 * 10**6)
    free(11 * 10**6)
    line = said(jobs, Launcher(size, at_once=2), tmp_path)
    assert line == "disk          about 3.0 MB for 3 trials (up to 11.0 MB while they run), 11.0 MB free\n"
    with pytest.raises(StorageError, match=r"3 trials need about 15\.0 MB, 11\.0 MB are free; choose keep=best or"):
        said(jobs, Launcher(size, at_once=8), tmp_path)


def test_trials_with_a_result_and_checkpoints_that_are_there_do_not_count_again(tmp_path, free):
    free(10**7)
    jobs = trials(tmp_path, *LRS)
    for name, status in [(LRS[0], "done"), (LRS[1], "interrupted")]:
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        text = f'{{"schema": 2, "status": "{status}", "exit": 0, "reason": null, "steps": 1, "epochs": 1.0, '
        text += '"seconds": 1.0, "scores": {}, "weights": null, "test_reads": 0}'
        (tmp_path / name / "result.json").write_text(text)
    assert "about 8.0 MB for 2 trials," in said(jobs, Launcher((4 * 10**6,) * 2), tmp_path)
    assert disk_use.results_in(tmp_path) == 1
    with pytest.raises(StorageError):
        said(jobs, Launcher((6 * 10**6,) * 2), tmp_path)
    (tmp_path / LRS[1] / "checkpoints" / "00000001.weights.safetensors").write_bytes(bytes(3 * 10**6))
    assert "for 2 trials" in said(jobs, Launcher((6 * 10**6,) * 2), tmp_path)


def test_a_search_multiplies_the_mean_of_its_examples(tmp_path, free):
    free(10**9)
    jobs = trials(tmp_path, "model.hidden=[8]", "model.hidden=[9]")
    launcher = Launcher((10**6,) * 2, (3 * 10**6,) * 2)
    assert "about 40.0 MB for 20 trials," in said(jobs, launcher, tmp_path, count=20)
    assert "about 2.0 MB for each trial," in said(jobs, launcher, tmp_path, count=math.inf)
    assert said(jobs, launcher, tmp_path, count=0) == ""


@pytest.mark.ci_slice
@pytest.mark.slow
def test_many_models_are_sampled(tmp_path, free):
    free(10**9)
    jobs = trials(tmp_path, *(f"model.hidden=[{width}]" for width in range(1, 101)))
    launcher = Launcher(*[(10**6,) * 2] * 100)
    assert "about 100.0 MB for 100 trials," in said(jobs, launcher, tmp_path)
    assert launcher.asked == [(disk_use._MOST, 100)]


def test_free_space_is_that_of_the_place_where_the_folder_will_be(tmp_path, monkeypatch):
    assert disk.free_bytes(tmp_path / "a" / "b") == disk.free_bytes(tmp_path)
    found = os.statvfs(tmp_path)
    assert disk.free_bytes(tmp_path) == pytest.approx(found.f_bavail * found.f_frsize, rel=0.5)
    monkeypatch.setattr(disk.os, "statvfs", lambda path: type("Unknown", (), {"f_blocks": 0}))
    assert disk.free_bytes(tmp_path) is None


SWEEP = ("model=mlp", "model.hidden=[8]", "steps=2", "augment=[]", "probe=[]", "device=cpu")


@pytest.mark.parametrize(
    "words",
    [("-m", "seed=0,1"), ("-m", "seed=0,1", "hydra/launcher=basic")],
    ids=["runner", "hydra"],
)
def test_a_sweep_that_does_not_fit_leaves_nothing(tmp_path, monkeypatch, capfd, free, words):
    monkeypatch.chdir(tmp_path)
    free(1000)
    assert main([*words, *SWEEP]) == 4
    printed = capfd.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("runner: error: outputs/sweeps/") and "2 trials need about" in line
    assert line.endswith("1.0 kB are free; choose keep=best or keep=none, fewer trials, or another outputs=<folder>")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_says_what_it_will_take_before_its_first_trial(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", *SWEEP, "seed=0,1"]) == 0
    first, second, *_ = capfd.readouterr().out.splitlines()
    assert first.startswith("2 trials in ") and second.startswith("disk          about ")
    # Nothing is left to run
    assert main(["-m", *SWEEP, "seed=0,1"]) == 0
    assert "disk  " not in capfd.readouterr().out
