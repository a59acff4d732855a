"""A signal that is ignored or blocked when a command starts stays so, in every process that the command starts."""

import ast
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import kills
import pytest
from running import ROOT, result
from trials import marked_processes, surviving_processes

from runner.engine import interruption

HUP, INT, TERM = signal.SIGHUP, signal.SIGINT, signal.SIGTERM
NAMES = ("HUP", "INT", "QUIT", "TERM", "PIPE", "TSTP", "TTIN", "TTOU", "USR1", "USR2", "ALRM", "WINCH")
ALL = [getattr(signal, f"SIG{name}") for name in NAMES]
SENT = [HUP, INT, signal.SIGQUIT, TERM, signal.SIGTSTP, signal.SIGUSR1, signal.SIGALRM]

# Each process waits in its first step until a file is there
HELD = """
import os, time
from pathlib import Path
from runner.engine.learner import Learner
place, step_optimizer = Path(os.environ["RUNNER_TEST_PLACE"]), Learner.step_optimizer

def held(learner, loss):
    if not (place / "go").exists():
        (place / f"began-{os.getpid()}").touch()
        while not (place / "go").exists():
            time.sleep(0.02)
    step_optimizer(learner, loss)

Learner.step_optimizer = held
"""
SMALL = ("model=mlp", "model.hidden=[4]", "augment=[]", "probe=[]", "figures=never", "plugins=[holding]")
SWEEP = ("-m", *SMALL, "steps=3", "sweep=s", "seed=0,1")
COMMANDS = {
    "run": (*SMALL, "steps=3", "name=run"),
    "sweep, 1 worker": (*SWEEP, "hydra.launcher.workers=1"),
    "sweep, 2 workers": (*SWEEP, "hydra.launcher.workers=2"),
    "sweep, basic": (*SWEEP, "hydra/launcher=basic"),
    "search": (
        *("-m", *SMALL, "steps=3", "sweep=s", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2"),
        "optim.lr=interval(0.01,0.1)",
    ),
    "grid_vs_random": (
        *("recipe=grid_vs_random", *SMALL, "steps=3", "name=run"),
        *("task.side=2", "task.draws=1", "hydra.launcher.workers=2"),
    ),
}


class Command:
    """`python -m runner` that starts with some signals ignored and some blocked."""

    def __init__(self, place, *words, ignored=(), blocked=(), shell=""):
        self.place, self.mark = place, uuid.uuid4().hex
        (place / "holding.py").write_text(HELD)
        paths = os.pathsep.join([str(ROOT), str(place)])
        more = {"PYTHONPATH": paths, "RUNNER_TEST_MARK": self.mark, "RUNNER_TEST_PLACE": str(place)}

        def before():
            for number in ALL:
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
            if signal.SIGCHLD in ignored:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

        line = [sys.executable, "-m", "runner", *words]
        self.process = subprocess.Popen(
            ["sh", "-c", shell, *line] if shell else line,
            cwd=place,
            env={**os.environ, "OMP_NUM_THREADS": "1", **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=before,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for pid in marked_processes(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def until(self, happened, seconds=120):
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.02)

    def until_held(self, count=1):
        self.until(lambda: len(list(self.place.glob("began-*"))) >= count)

    def send(self, numbers, *, only=False):
        """Send signals to all its processes, or only to the first one."""
        for pid in [self.process.pid] if only else marked_processes(self.mark):
            for number in numbers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def release(self):
        (self.place / "go").touch()

    def end(self):
        """Return exit code and output; fails if a process is left."""
        printed, _ = self.process.communicate(timeout=200)
        assert surviving_processes(self.mark) == []
        return self.process.returncode, printed

    def masks(self, field):
        """Return the set of signals in a field of each process's status, by pid."""
        found = {}
        for pid in marked_processes(self.mark):
            lines = dict(
                line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
            )
            mask = int(lines[field], 16)
            found[pid] = {signal.Signals(number) for number in range(1, 32) if mask >> (number - 1) & 1}
        return found

    def results(self):
        return [result(path.parent) for path in sorted(self.place.glob("outputs/**/result.json"))]


def workers_of(words):
    return 2 if "hydra.launcher.workers=2" in words else 1


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_ignored_signals_stay_ignored_in_all_processes_and_end_nothing(tmp_path, name):
    words = COMMANDS[name]
    with Command(tmp_path, *words, ignored=[*ALL, signal.SIGCHLD]) as command:
        command.until_held(workers_of(words))
        masks = command.masks("SigIgn")
        assert {pid: set(ALL) - mask for pid, mask in masks.items()} == {pid: set() for pid in masks}
        command.send(SENT)
        command.release()
        code, printed = command.end()
        assert code == 0, printed
        statuses = [each["status"] for each in command.results()]
        assert statuses == ["done"] * {"run": 1, "grid_vs_random": 9}.get(name, 2)


@pytest.mark.parametrize("name", ["run", "sweep, 2 workers"])
def test_blocked_signals_stay_blocked_in_all_processes(tmp_path, name):
    words, blocked = COMMANDS[name], {HUP, INT, TERM, signal.SIGUSR1}
    with Command(tmp_path, *words, blocked=[*blocked, signal.SIGCHLD]) as command:
        command.until_held(workers_of(words))
        masks = command.masks("SigBlk")
        assert {pid: blocked - mask for pid, mask in masks.items()} == {pid: set() for pid in masks}
        command.send([HUP, INT, TERM])
        command.release()
        code, printed = command.end()
        assert code == 0, printed
        assert {each["status"] for each in command.results()} == {"done"}


@pytest.mark.slow
@pytest.mark.ci_slice
def test_processes_that_load_images_ignore_what_the_run_ignores(tmp_path):
    (tmp_path / "images").mkdir()
    words = ("data=imagefolder", f"data.root={kills.write_color_images(tmp_path / 'images')}", "data.size=[12,12]")
    words = (*words, "data.batch_size=8", "data.placement=disk", "data.workers=2", *COMMANDS["run"])
    for change in ({"ignored": ALL}, {"blocked": [HUP, INT, TERM]}):
        with Command(tmp_path, *words, **change) as command:
            command.until_held()
            wanted = set(change.get("blocked", ALL)) - {signal.SIGPIPE}
            for pid, mask in command.masks("SigIgn" if "ignored" in change else "SigBlk").items():
                name = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"resource_tracker" not in name or "ignored" in change:
                    assert wanted - mask == set(), name
            command.send([HUP, INT, TERM])
            command.release()
            code, printed = command.end()
            assert code == 0, printed
        for path in (*tmp_path.glob("began-*"), tmp_path / "go"):
            path.unlink()


LONG = ("-m", *SMALL, "steps=200000", "checkpoint_every=100000steps", "validate_every=100000steps")
LONG = (*LONG, "sweep=s", "seed=0", "log_every=5")


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize(("ignored", "sent"), [([TERM], INT), ([INT], TERM), ([HUP], INT), ([TERM], HUP)], ids=str)
def test_a_sweep_that_ignores_some_signals_saves_its_trials_at_the_others(tmp_path, ignored, sent):
    """Also where SIGTERM, which stops trials, is ignored."""
    with Command(tmp_path, *LONG, ignored=ignored) as command:
        command.until_held()
        command.release()
        command.until(lambda: any(path.stat().st_size for path in tmp_path.glob("outputs/sweeps/s/*/metrics.jsonl")))
        command.send(ignored)
        command.send([sent], only=True)
        code, printed = command.end()
        assert code == 128 + sent, printed
        (found,) = command.results()
    assert (found["status"], found["steps"] > 0) == ("interrupted", True)
    (folder,) = tmp_path.glob("outputs/sweeps/s/*/checkpoints")
    assert int(min(folder.glob("*.json")).name.split(".")[0]) == found["steps"]


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_job_in_the_background_of_a_shell_script_ignores_ctrl_c(tmp_path):
    """A shell without job control starts `command &` with SIGINT ignored, in its own process group."""
    with Command(tmp_path, *COMMANDS["sweep, 2 workers"], shell='"$0" "$@" & wait $!') as command:
        command.until_held(2)
        command.send([INT])
        os.kill(command.process.pid, signal.SIGKILL)  # the shell itself has died of it, or does now
        command.release()
        assert surviving_processes(command.mark, 60) == []
        assert {each["status"] for each in command.results()} == {"done"}


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_signal_to_all_processes_of_a_sweep_lets_its_trials_save_themselves(tmp_path, number):
    """A scheduler that ends a job sends it to all: the trials get it from there and from the sweep."""
    with Command(tmp_path, *LONG) as command:
        command.until_held()
        command.release()
        command.until(lambda: any(path.stat().st_size for path in tmp_path.glob("outputs/sweeps/s/*/metrics.jsonl")))
        command.send([number])
        code, printed = command.end()
        assert code == 128 + number, printed
        (found,) = command.results()
    assert (found["status"], found["steps"] > 0) == ("interrupted", True)


@pytest.mark.parametrize("name", ["run", "sweep, 2 workers"])
def test_a_terminal_that_closes_lets_runs_save_themselves(tmp_path, name):
    """The kernel and the shell each send SIGHUP: the second one is no second request."""
    words = [word if word != "steps=3" else "steps=200000" for word in COMMANDS[name]]
    with Command(tmp_path, *words, "log_every=5", "checkpoint_every=100000steps") as command:
        command.until_held(workers_of(words))
        command.release()
        command.until(lambda: any(path.stat().st_size for path in tmp_path.glob("outputs/**/metrics.jsonl")))
        command.send([HUP, HUP], only=True)
        code, printed = command.end()
        assert code == 129, printed
        results = command.results()
    assert {each["status"] for each in results} == {"interrupted"}
    assert all(each["steps"] > 0 for each in results)


# What it is made of


def test_only_one_module_decides_about_signals():
    found = set()
    for path in (ROOT / "runner").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            words = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            names = {"signal.signal", "signal.default_int_handler", "signal.set_wakeup_fd", "signal.SIG_IGN"}
            names |= {"signal.pthread_sigmask", "signal.siginterrupt", "signal.sigwait", "signal.SIG_DFL"}
            if words in names:
                found.add(path.name)
    assert found == {"interruption.py"}


def test_a_signal_ignored_by_own_choice_is_given_back_and_another_one_is_not():
    before = {number: signal.getsignal(number) for number in (INT, TERM)}
    try:
        signal.signal(TERM, signal.SIG_IGN)
        interruption.ignore(INT, TERM)
        assert interruption.stop_signal() == TERM
        interruption.take_defaults(INT, TERM)
        assert signal.getsignal(INT) is signal.default_int_handler
        assert signal.getsignal(TERM) == signal.SIG_IGN
        assert interruption.stop_signal() == INT
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
