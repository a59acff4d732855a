"""No task depends on its screen: closed pipes, full devices, missing streams and narrow encodings cost no result."""

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from running import MLP, ROOT, command, result, run_in_child

import runner.assemble  # noqa: F401  (once, not in each child)
from runner import __main__ as entry
from runner.streams import open_screen

SMALL = (*MLP, "steps=4", "probe=[]", "name=run")
TRAIN = (*SMALL, "figures=always", "test=end")
SWEEP = ("-m", *SMALL[:-1], "seed=0,1", "sweep=two")
SEARCH = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optim.lr=interval(0.01,0.1)")
TASKS = {
    "train": ((), TRAIN),
    "evaluate": (TRAIN, ("task=evaluate", "run=outputs/run", "task.split=val")),
    "sweep": ((), SWEEP),
    "the same sweep again": (SWEEP, SWEEP),
    "search": (
        (),
        (
            "-m",
            *SMALL[:-1],
            "sweep=two",
            "hydra/sweeper=optuna",
            "hydra.sweeper.n_trials=2",
            "optim.lr=interval(0.01,0.1)",
        ),
    ),
    "compare": (SWEEP, ("task=compare", "runs=outputs/sweeps/two")),
    "preview": ((), (*SMALL, "task=preview")),
    "profile": ((), (*SMALL, "task=profile", "task.steps=2", "task.warmup=1")),
    "init_report": ((), (*SMALL, "task=init_report")),
    "notebook": (TRAIN, ("task=notebook",)),
}
FAST = ("train", "sweep", "compare")
ANSWERS = {"list": ("task=list",), "help": ("--help",), "config": ("--cfg", "job"), "version": ("--version",)}


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


LOST = {
    "a pipe without a reader": closed_pipe,
    "a full device": lambda: os.open("/dev/full", os.O_WRONLY),
    "no stream": lambda: None,
}


def run_with_lost(arguments, folder, make_stream):
    """Return the exit code of a command in a forked child whose stdout and stderr are lost streams."""

    def work():
        os.chdir(folder)
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            stream = make_stream()
            if stream is None:
                os.close(descriptor)
            else:
                os.dup2(stream, descriptor)
            # As the interpreter does at its start
            setattr(sys, name, None if stream is None else os.fdopen(descriptor, "w", closefd=False))
        sys.argv = ["runner", *arguments]
        return entry.command()

    return run_in_child(work)


def run(*arguments, folder):
    """Run a command whose output nobody needs."""
    assert run_with_lost(arguments, folder, lambda: os.open(os.devnull, os.O_WRONLY)) == 0


def results(folder):
    """Return all results below a folder, without their times."""
    found = {path.relative_to(folder): json.loads(path.read_text()) for path in folder.rglob("result.json")}
    return {path: {**each, "seconds": 0} for path, each in sorted(found.items())}


@pytest.mark.parametrize(
    "task",
    [each if each in FAST else pytest.param(each, marks=[pytest.mark.slow, pytest.mark.ci_slice]) for each in TASKS],
)
def test_a_task_leaves_the_same_whatever_happens_to_its_screen(tmp_path, task):
    before, arguments = TASKS[task]
    left = {}
    begun = tmp_path / "begun"
    begun.mkdir()
    if before:
        run(*before, folder=begun)
    for way in ("a screen", *LOST):
        folder = tmp_path / way
        shutil.copytree(begun, folder)
        if way == "a screen":
            run(*arguments, folder=folder)
        else:
            assert run_with_lost(arguments, folder, LOST[way]) == 0, way
        files = {path.relative_to(folder) for path in folder.rglob("*") if not path.name.startswith("events.out")}
        left[way] = files, results(folder)
    assert all(found == left["a screen"] for found in left.values())
    assert left["a screen"][0]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_nobody_could_read_is_an_error_but_a_reader_may_stop_early(tmp_path, answer):
    assert run_with_lost(ANSWERS[answer], tmp_path, LOST["a pipe without a reader"]) == 0
    assert run_with_lost(ANSWERS[answer], tmp_path, LOST["no stream"]) == 0
    assert run_with_lost(ANSWERS[answer], tmp_path, LOST["a full device"]) == 4


def real(arguments, folder, **streams):
    """Start a real process of a command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return subprocess.Popen([sys.executable, "-m", "runner", *arguments], cwd=folder, env=environment, **streams)


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_reader_of_both_streams_that_stops_after_a_line_ends_no_run(tmp_path):
    process = real(("figures=never", *SMALL), tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert result(tmp_path / "outputs" / "run")["status"] == "done"


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_lost_screen_is_said_on_the_other_stream(tmp_path):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        process = real(("task=list",), tmp_path, stdout=full, stderr=subprocess.PIPE)
        assert process.communicate(timeout=120)[1].decode() == (
            "runner: error: standard output: cannot write (No space left on device)\n"
        )
        assert process.returncode == 4
        process = real(("figures=never", *SMALL), tmp_path, stdout=full, stderr=subprocess.PIPE)
        last = process.communicate(timeout=120)[1].decode().splitlines()[-1]
        assert (last, process.returncode) == (
            "runner: warning: standard output: cannot write (No space left on device)",
            0,
        )


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_run_goes_on_when_its_terminal_is_closed(tmp_path):
    above, below = pty.openpty()
    arguments = ("figures=never", *MLP, "probe=[]", "name=run", "steps=3000", "validate_every=100steps")
    # nohup and disown: the terminal's hangup is ignored
    process = real(
        arguments, tmp_path, stdout=below, stderr=below, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    os.close(below)
    shown = b""
    while b"step 100/" not in shown:
        shown += os.read(above, 4096)
    os.close(above)
    assert process.wait(timeout=120) == 0
    assert result(tmp_path / "outputs" / "run")["status"] == "done"


@pytest.mark.ci_slice
@pytest.mark.slow
def test_text_that_the_screen_cannot_show_is_escaped(tmp_path):
    asked = (*SMALL[:-1], "outputs=ausgänge", "note=größer")
    for ended in (command(*asked, cwd=tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C"),):
        assert ended.returncode == 0, ended.stderr
        assert "ausg\\xe4nge" in ended.stdout
    assert command("task=list", cwd=tmp_path, PYTHONIOENCODING="ascii").returncode == 0
    assert command("task=compare", "runs=ausgänge", cwd=tmp_path, PYTHONIOENCODING="ascii").returncode == 0


def test_a_full_non_blocking_pipe_is_waited_for():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    screen = open_screen(writer)
    text = "".join(f"{number}\n" for number in range(size))
    read = []

    def slow_reader():
        time.sleep(0.05)
        with os.fdopen(reader) as file:
            read.append(file.read())

    thread = threading.Thread(target=slow_reader)
    thread.start()
    screen.write(text)
    screen.flush()
    os.close(writer)
    thread.join()
    assert read == [text]


@pytest.mark.ci_slice
@pytest.mark.slow
def test_no_file_takes_the_number_of_a_missing_stream(tmp_path):
    script = "exec " + " ".join([sys.executable, "-m", "runner", "figures=never", *SMALL]) + " 0<&- 1>&- 2>&-"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, check=False).returncode == 0
    folder = tmp_path / "outputs" / "run"
    assert result(folder)["status"] == "done"
    # Nothing that was meant for the screen is in a file
    assert not [path for path in folder.rglob("*") if path.is_file() and b"val accuracy" in path.read_bytes()]


def test_only_the_guarded_streams_are_written_to():
    """Streams made elsewhere would not be guarded: their descriptors are opened in one file."""
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "runner").rglob("*.py")
        if any(
            word in path.read_text()
            for word in ("sys.__std", "fdopen(1", "fdopen(2", "os.write(1", "os.write(2", "open(1,", "open(2,")
        )
    }
    assert not found
