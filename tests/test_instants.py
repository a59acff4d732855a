"""Runs that start at the same instant, clocks that go backwards, two processes on one run folder."""

import signal
import socket
import time

import kills
import pytest
from running import events, result

from runner.__main__ import main

WORDS = (
    *("model=mlp", "model.hidden=[4]", "regularizer=[dropout]", "probe=[]", "figures=never", "test=never"),
    *("steps=8", "checkpoint_every=3steps", "validate_every=4steps"),
)


def started(place, *words, before=lambda: None):
    output = place / f"printed {len(list(place.glob('printed *')))}"

    def work():
        before()
        return main(list(words))

    child = kills.start_child(work, output)
    return child, output


def test_ten_runs_started_in_the_same_instant_have_ten_folders(tmp_path):
    instant = time.time() + 1

    def before():
        time.sleep(max(0.0, instant - time.time()))

    children = []
    for number in range(10):
        place = tmp_path / f"{number}"
        place.mkdir()
        children.append(started(place, *WORDS, f"outputs={tmp_path}/outputs", "name=twin", before=before))
    for child, output in children:
        code, printed = kills.wait_for_child(child, output)
        assert code == 0, printed
    folders = sorted(path for path in (tmp_path / "outputs").iterdir() if path.is_dir())
    assert {folder.name for folder in folders} == {"twin", *(f"twin-{number}" for number in range(2, 11))}
    for folder in folders[1:]:
        assert kills.differences(folders[0], folder) == ""


@pytest.mark.parametrize("hours", [-1, -24 * 365], ids=["an hour", "a year"])
def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, hours):
    code, printed = kills.wait_for_child(*started(tmp_path, *WORDS, f"hydra.run.dir={tmp_path / 'whole'}"))
    assert code == 0, printed
    made = kills.job(*WORDS, f"hydra.run.dir={tmp_path / 'run'}")
    output = tmp_path / "killed"
    code, printed = kills.run_child(lambda: kills.run(made, "step.forward:6"), output)
    assert code == -signal.SIGKILL, printed

    def before():
        now, ticks = time.time, iter(range(10**9))
        time.time = lambda: now() + 3600 * hours - next(ticks)  # and it goes on going backwards

    code, printed = kills.wait_for_child(*started(tmp_path, f"resume={tmp_path / 'run'}", before=before))
    assert code == 0, printed
    assert kills.differences(tmp_path / "whole", tmp_path / "run") == ""
    steps = [step for step, tag, _ in events(tmp_path / "run") if tag == "2 train/loss"]
    assert steps == list(range(1, 9))  # in the order in which TensorBoard reads the files


@pytest.fixture
def busy(tmp_path):
    """Yield the folder of a run whose process waits in its first validation, and that process."""
    folder, go = tmp_path / "run", tmp_path / "go"

    def before():
        from runner.engine import train

        validate = train.validate

        def waiting(*arguments):
            (tmp_path / "there").touch()
            while not go.exists():
                time.sleep(0.02)
            return validate(*arguments)

        train.validate = waiting

    child, output = started(tmp_path, *WORDS, f"hydra.run.dir={folder}", before=before)
    while not (tmp_path / "there").exists():
        time.sleep(0.02)
    yield folder, child
    go.touch()
    code, printed = kills.wait_for_child(child, output)
    assert code == 0, printed
    assert result(folder)["status"] == "done"


@pytest.mark.parametrize("words", [["resume={}"], ["hydra.run.dir={}", *WORDS], ["task=evaluate", "run={}"]])
def test_a_second_process_on_a_run_folder_is_told_who_has_it_and_changes_nothing(busy, tmp_path, words):
    folder, child = busy
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, printed = kills.wait_for_child(*started(tmp_path, *(word.format(folder) for word in words)))
    assert code == 6
    assert printed == f"runner: error: {folder}: locked by pid {child} on {socket.gethostname()}\n"
    assert {path: path.read_bytes() for path in before} == before


def test_two_processes_that_go_on_with_a_killed_run_at_once_are_one(tmp_path):
    folder = tmp_path / "run"
    made = kills.job(*WORDS, f"hydra.run.dir={folder}")
    code, _ = kills.run_child(lambda: kills.run(made, "step.forward:6"), tmp_path / "k")
    assert code == -signal.SIGKILL
    two = [started(tmp_path, f"resume={folder}") for _ in range(2)]
    ended = [kills.wait_for_child(*each) for each in two]
    assert sorted(code for code, _ in ended) in ([0, 6], [0, 0]), ended
    assert result(folder)["status"] == "done"
    assert [step for step, tag, _ in events(folder) if tag == "2 train/loss"] == list(range(1, 9))


def test_a_dead_process_keeps_nobody_out(tmp_path):
    folder = tmp_path / "run"
    made = kills.job(*WORDS, f"hydra.run.dir={folder}")
    kills.run_child(lambda: kills.run(made, "step.forward:6"), tmp_path / "k")
    assert (folder / ".lock").read_text().split()[1] == socket.gethostname()
    code, printed = kills.wait_for_child(*started(tmp_path, f"resume={folder}"))
    assert code == 0, printed
