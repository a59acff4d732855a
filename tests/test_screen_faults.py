"""Every write to a screen may fail, and no run, sweep or search notices: faults at each write, and streams misused."""

import ast
import errno
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from running import MLP, ROOT, command, result, run_in_child

import runner.assemble  # noqa: F401  (once, not in each child)
from runner import __main__ as entry

SMALL = (*MLP, "steps=4", "probe=[]", "figures=never")
IN_PROCESS = ("-m", *SMALL, "hydra/launcher=basic", "sweep=two")
COMMANDS = {
    "run": (*SMALL, "name=run"),
    "sweep": (*IN_PROCESS, "seed=0,1"),
    "search": (*IN_PROCESS, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optim.lr=interval(0.01,0.1)"),
    "failing": (*IN_PROCESS, "seed=0,1", "plugins=[odd]", "--config-dir=conf", "activation=odd"),
    "init report": (*SMALL, "task=init_report", "name=run"),
    "preview": (*SMALL, "task=preview", "name=run"),
}
CODES = {"failing": 1}
FAST = ("run",)
PROCESSES = ("-m", *SMALL, "sweep=two", "seed=0,1")
ERRORS = (errno.EIO, errno.EPIPE, errno.ENOSPC, errno.EAGAIN)


PLUGIN = """
import os, sys
from torch import nn
from runner.registry import register

@register("activation")
def odd() -> nn.Module:
    {body}
    return nn.ReLU()
"""


def write_plugin(folder, body):
    """Write a plugin whose activation `odd` does something when it is built."""
    (folder / "odd.py").write_text(PLUGIN.format(body=body))
    (folder / "conf" / "activation").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "activation" / "odd.yaml").write_text("name: odd\n")


class FaultyWrites:
    """`os.write` whose write number `at` to a standard stream fails, and if `forever` all later ones."""

    def __init__(self, at=0, error=errno.EIO, *, forever=False):
        self.at, self.error, self.forever = at, error, forever
        self.write, self.count, self.bytes = os.write, 0, 0

    def __call__(self, descriptor, data):
        if descriptor in (1, 2):
            self.count += 1
            if self.count == self.at or (self.forever and self.at and self.count > self.at):
                raise OSError(self.error, os.strerror(self.error))
        written = self.write(descriptor, data)
        self.bytes += written if descriptor in (1, 2) else 0
        return written


def on_terminal():
    """Make a terminal that someone reads the standard streams of this process."""
    above, below = pty.openpty()

    def read():
        while os.read(above, 4096):
            pass

    threading.Thread(target=read, daemon=True).start()
    for stream in (1, 2):
        os.dup2(below, stream)


def run_faulty(arguments, folder, writes, *, terminal=False, report=None):
    """Return the exit code of a command in a forked child whose writes to the screen fail."""

    def work():
        os.chdir(folder)
        write_plugin(folder, "raise ValueError('no')")
        sys.path.insert(0, "")
        if terminal:
            on_terminal()
        # As the interpreter does at its start
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        os.write = writes
        sys.argv = ["runner", *arguments]
        code = entry.command()
        if report:
            arrived = None if terminal else os.fstat(1).st_size
            report.write_text(json.dumps([writes.count, writes.bytes, arrived]))
        return code

    return run_in_child(work)


def left(folder):
    """Return the names of all files below a folder, and the results without their times."""
    names = {path.relative_to(folder) for path in folder.rglob("*") if not path.name.startswith("events.out")}
    found = {path: json.loads((folder / path).read_text()) for path in names if path.name == "result.json"}
    return names, {path: {**each, "seconds": 0} for path, each in found.items()}


def check_all_writes(tmp_path, task, *, terminal):
    whole = tmp_path / "whole"
    whole.mkdir()
    report = tmp_path / "report"
    expected = CODES.get(task, 0)
    assert run_faulty(COMMANDS[task], whole, FaultyWrites(), terminal=terminal, report=report) == expected
    count, counted, arrived = json.loads(report.read_text())
    # Nothing goes to the screen another way
    assert arrived in (counted, None)
    assert count > 3
    for at in range(1, count + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        forever = at % 2 == 1
        error = ERRORS[at // 2 % (3 if forever else 4)]
        code = run_faulty(COMMANDS[task], folder, FaultyWrites(at, error, forever=forever), terminal=terminal)
        assert (code, left(folder)) == (expected, left(whole)), (at, errno.errorcode[error], forever)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "task",
    [each if each in FAST else pytest.param(each, marks=[pytest.mark.slow, pytest.mark.ci_slice]) for each in COMMANDS],
)
def test_any_write_to_a_pipe_may_fail(tmp_path, task):
    check_all_writes(tmp_path, task, terminal=False)


@pytest.mark.parametrize("task", ["run", pytest.param("sweep", marks=[pytest.mark.slow, pytest.mark.ci_slice])])
def test_any_write_to_a_terminal_may_fail(tmp_path, task):
    check_all_writes(tmp_path, task, terminal=True)


MISUSES = {
    "closes the streams": "sys.stdout.close(); sys.stderr.close()",
    "closes the descriptors": "os.close(1); os.close(2)",
    "removes the streams": "sys.stdout = sys.stderr = None",
    "puts full files there": "sys.stdout = open('/dev/full', 'w'); sys.stderr = open('/dev/full', 'w')",
    "puts closed files there": "sys.stdout = sys.stderr = open(os.devnull, 'w'); sys.stdout.close()",
    "puts ascii files there": "sys.stdout = sys.stderr = open(os.devnull, 'w', encoding='ascii')",
    "detaches": "import io; sys.stdout = io.TextIOWrapper(sys.stdout.detach(), 'ascii')",
    "closes what it detached": "sys.stdout.detach().close(); sys.stderr.detach().close()",
    "uses the interpreter's": "sys.__stdout__.write('x\\u2502'); sys.__stdout__.close(); sys.__stderr__.close()",
    "redirects": "os.dup2(os.open('said', os.O_CREAT | os.O_RDWR), 1)",
}
ODD = ("plugins=[odd]", "--config-dir=conf", "activation=odd", "name=run", "note=gr\u00f6\u00dfer")


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("misuse", MISUSES)
def test_a_plugin_that_misuses_the_streams_ends_no_run(tmp_path, misuse):
    write_plugin(tmp_path, MISUSES[misuse])

    def work():
        os.chdir(tmp_path)
        sys.path.insert(0, "")
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        sys.argv = ["runner", *SMALL, *ODD]
        code = entry.command()
        # What the interpreter does at its end: an error would be exit code 120
        sys.stdout.flush()
        sys.stderr.flush()
        return code

    assert run_in_child(work) == 0
    folder = tmp_path / "outputs" / "run"
    assert result(folder)["status"] == "done"
    # No file got what was meant for the screen
    assert not [path for path in folder.rglob("*") if path.is_file() and b"saved in  " in path.read_bytes()]
    if misuse == "redirects":
        assert "saved in  " in (tmp_path / "said").read_text()


def test_a_process_that_loads_data_may_print_though_the_screen_is_lost():
    """As `multiprocessing` starts it: by a fork server, which knows no door."""
    from runner.engine.loading import _start_worker

    def work():
        full = os.open("/dev/full", os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(full, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        _start_worker(None, 0)
        sys.stdout.write("x" * 100_000)
        sys.stdout.flush()
        return 0

    assert run_in_child(work) == 0


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int count;
ssize_t write(int descriptor, const void *data, size_t size) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next) next = dlsym(RTLD_NEXT, "write");
    if ((descriptor == 1 || descriptor == 2) && ++count >= atoi(getenv("FAULT_AT"))) {
        errno = atoi(getenv("FAULT"));
        return -1;
    }
    return next(descriptor, data, size);
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """A library for LD_PRELOAD that makes the writes to standard streams fail, in every process."""
    if sys.platform != "linux" or not shutil.which("gcc"):
        pytest.skip("needs gcc on Linux")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    built = ["gcc", "-shared", "-fPIC", "-O1", "-o", folder / "shim.so", folder / "shim.c", "-ldl"]
    subprocess.run(built, check=True, timeout=60)
    return folder / "shim.so"


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("at", [1, 2, 4, 7])
@pytest.mark.parametrize("words", [COMMANDS["run"], PROCESSES, (*PROCESSES[:-1], *COMMANDS["search"][-3:])])
def test_writes_that_fail_in_every_process_cost_no_result(tmp_path, shim, words, at):
    fault = {"LD_PRELOAD": str(shim), "FAULT_AT": str(at), "FAULT": str(ERRORS[at % 3])}
    assert command(*words, cwd=tmp_path, **fault).returncode == 0
    found = [result(path.parent)["status"] for path in (tmp_path / "outputs").rglob("result.json")]
    assert found == ["done"] * (1 if words is COMMANDS["run"] else 2)


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("words", [PROCESSES, (*PROCESSES[:-1], *COMMANDS["search"][-3:])], ids=["sweep", "search"])
def test_a_sweep_goes_on_when_its_terminal_is_closed(tmp_path, words):
    above, below = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", *(word for word in words if word != "steps=4"), "steps=300"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdout=below,
        stderr=below,
        # nohup and disown: the terminal's hangup is ignored
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(below)
    shown = b""
    while b"\x1b[" not in shown:
        shown += os.read(above, 4096)
    os.close(above)
    assert process.wait(timeout=300) == 0
    found = [result(path.parent)["status"] for path in (tmp_path / "outputs").rglob("result.json")]
    assert found == ["done"] * 2


# The files that may name the standard streams, make a console of rich or print in another way
# `session.py` redirects one stream to the other and prints nothing
ALLOWED = {"streams.py", "printing.py", "rich_console.py", "session.py"}
STREAMS = {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}
CALLS = {
    "print", "rich.print", "rich.get_console", "traceback.print_exc", "traceback.print_exception", "traceback.print_tb",
    "traceback.print_stack", "faulthandler.enable", "logging.basicConfig", "logging.StreamHandler",
}  # fmt: skip


def prints_past_the_guard(tree):
    """Yield what in a module writes to the screen in a way of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in STREAMS:
            yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in ("sys", "rich.console", "rich", "tqdm"):
            named = {alias.name for alias in node.names}
            # A module of rich is no console, and a name for the type checker makes none
            if named & {"stdout", "stderr", "Console", "print", "get_console", "tqdm"}:
                yield node.lineno
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            to_standard_stream = called in ("os.write", "os.fdopen", "open") and ast.unparse(node.args[0]) in ("1", "2")
            if called in CALLS or to_standard_stream:
                yield node.lineno


@pytest.mark.parametrize("path", sorted((ROOT / "runner").rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_prints_past_the_guard(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        # Names for the type checker only
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    if path.name not in ALLOWED:
        assert list(prints_past_the_guard(tree)) == []


@pytest.mark.parametrize(
    "text",
    ["print(1)", "sys.stdout.write(x)", "from sys import stderr", "from rich.console import Console", "os.write(2, x)",
     "traceback.print_exc()", "f(file=sys.stderr)"],
)  # fmt: skip
def test_the_gate_sees(text):
    assert list(prints_past_the_guard(ast.parse(text)))
