"""A killed and resumed run equals an uninterrupted one in state, logs and result.

`python tests/kills.py 300` makes the 300 kills by themselves; forty fixed ones run here, and ten through the command.
"""

import os
import re
import signal

import fault_points
import kills
import pytest
from running import ROOT, command, result

from runner.engine.saving import storage
from runner.engine.saving.disk import Disk
from runner.tasks import start

FORTY = 40


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def wholes(place):
    images = kills.write_images(place)
    return [kills.make_reference(bench, place, images=images) for bench in kills.BENCHES]


@pytest.mark.slow
@pytest.mark.ci_slice
def test_forty_killed_runs_end_as_if_they_never_were(wholes, place):
    (place / "forty").mkdir()
    assert kills.check_trials(kills.draw_trials(wholes, FORTY, 40), place / "forty") == {}


@pytest.mark.slow
@pytest.mark.ci_slice
def test_killed_runs_that_the_clock_saves_end_as_if_they_never_were(place):
    (place / "auto").mkdir()
    (place / "auto" / "pictures").mkdir()
    images = kills.write_images(place / "auto" / "pictures")
    wholes = [kills.make_reference(bench, place / "auto", images=images, auto=True) for bench in kills.BENCHES]
    assert kills.check_trials(kills.draw_trials(wholes, 2 * len(wholes), 7), place / "auto") == {}


@pytest.mark.slow
def test_three_hundred_killed_runs_end_as_if_they_never_were(wholes, place):
    (place / "all").mkdir()
    assert kills.check_trials(kills.draw_trials(wholes, 300, 0), place / "all") == {}


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.ci_slice), *range(1, 10)])
def test_a_killed_command_goes_on_as_if_it_never_was(place, number, tmp_path):
    bench = list(kills.BENCHES)[number % 6]
    words = {word.partition("=")[0]: word for word in (*kills.COMMON, *kills.BENCHES[bench])}.values()
    names = [name for name in fault_points.POINTS if name != "status.write"]
    kill = f"{names[number % len(names)]}:{number % 3 + 1}:0.5"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):  # the config, which TensorBoard shows too, has the run's name: both have the same
        folder.mkdir()
    assert command(*words, "name=run", cwd=whole).returncode == 0
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "at_start", ROOT / "tests")))
    died = command(*words, "name=run", cwd=killed, PYTHONPATH=paths, FAULT_POINT=kill)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert result(killed / "outputs" / "run")["status"] == "running"
    again = command("resume=outputs/run", cwd=killed)
    assert again.returncode == 0, again.stderr
    assert kills.differences(whole / "outputs" / "run", killed / "outputs" / "run") == ""


# What the trials are made with

QUICK = ("model=mlp", "model.hidden=[4]", "figures=never", "probe=[]", "steps=4", "validate_every=4steps")


def dies_at(kill, folder, tmp_path):
    made = kills.job(*QUICK, "checkpoint_every=2steps", f"hydra.run.dir={folder}")
    return kills.run_child(lambda: kills.run(made, kill), tmp_path / "printed")


@pytest.mark.parametrize("point", fault_points.POINTS)
def test_a_run_dies_at_each_point_and_goes_on(tmp_path, point):
    folder = tmp_path / "run"
    code, printed = dies_at(f"{point}:2:0.5", folder, tmp_path)
    assert code == -signal.SIGKILL, printed
    assert start(kills.job(f"resume={folder}")) == 0
    assert (result(folder)["status"], result(folder)["steps"]) == ("done", 4)
    assert not list(folder.rglob(".tmp-*"))


def test_a_run_killed_before_it_said_what_it_is_begins_again_in_its_folder(tmp_path):
    folder = tmp_path / "run"
    assert dies_at("status.write:1", folder, tmp_path)[0] == -signal.SIGKILL
    assert not (folder / "config.yaml").exists()
    assert start(kills.job(*QUICK, f"hydra.run.dir={folder}")) == 0
    assert result(folder)["status"] == "done"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["run"]


class DiesBetween(Disk):
    """Kills the process after the last checkpoint is written, before an older one is removed."""

    def unlink(self, path):
        if path.name == "00000002.json":
            os.kill(os.getpid(), signal.SIGKILL)
        super().unlink(path)


def test_a_run_killed_after_its_last_commit_leaves_no_checkpoint_too_many(tmp_path):
    words = (*QUICK, "checkpoint_every=1steps", "monitor=train_eval/accuracy")
    assert start(kills.job(*words, f"hydra.run.dir={tmp_path / 'whole'}")) == 0

    def work():
        storage.disk = DiesBetween()
        return start(kills.job(*words, f"hydra.run.dir={tmp_path / 'killed'}"))

    code, printed = kills.run_child(work, tmp_path / "printed")
    assert code == -signal.SIGKILL, printed
    assert (tmp_path / "killed" / "checkpoints" / "00000004.json").exists()
    assert start(kills.job(f"resume={tmp_path / 'killed'}")) == 0
    assert kills.file_names(tmp_path / "killed") == kills.file_names(tmp_path / "whole")


def test_the_product_has_no_fault_points():
    for path in (ROOT / "runner").rglob("*.py"):
        assert not re.search(r"RUNNER_(FAULT|TESTING)|\bFAULT_POINT\b|\bfault_points\b", path.read_text()), path


@pytest.mark.parametrize("text", ["step.forwrad:1", "step.forward:x", "step.forward"])
def test_a_fault_that_no_run_would_reach_is_an_error(text):
    with pytest.raises(ValueError, match=r"."):
        fault_points.parse(text)
