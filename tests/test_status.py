"""Properties of each status, and the exit code of each exception."""

import os
import pickle

import pytest

from runner.engine.interruption import Interrupted
from runner.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Diverged,
    Locked,
    PluginError,
    StorageError,
    TrialsFailed,
    escaped,
)
from runner.status import Status, ending, ending_of_code, print_error

# status: complete, finished, is_result, depends_on_score, retry
MEANING = {
    "running": (False, False, False, False, False),
    "done": (True, True, True, False, False),
    "stopped": (True, True, True, False, False),
    "diverged": (False, False, True, True, False),
    "failed": (False, False, False, False, True),
    "timeout": (False, False, False, False, True),
    "pruned": (False, True, True, True, False),
    "interrupted": (False, False, False, False, False),
}
ENDINGS = [
    (TrialsFailed("x"), "failed", 1, "x"),
    (ConfigError("x"), "failed", 2, "x"),
    (CheckpointError("x"), "failed", 3, "x"),
    (StorageError("x"), "failed", 4, "x"),
    (Diverged("x"), "diverged", 5, "x"),
    (Locked("x"), "failed", 6, "x"),
    (DataError("x"), "failed", 7, "x"),
    (PluginError("x"), "failed", 2, "x"),
    (Interrupted(2), "interrupted", 130, "SIGINT"),
    (Interrupted(15), "interrupted", 143, "SIGTERM"),
    (KeyboardInterrupt(), "interrupted", 130, "SIGINT"),
    (KeyError("x"), "failed", 70, "KeyError: 'x'"),
    (ValueError("x\ny"), "failed", 70, "ValueError: x"),
    (SystemExit(0), "failed", 70, "SystemExit(0): the code that ran ended the process"),
]


def test_every_status_has_its_meaning():
    found = {str(s): (s.complete, s.finished, s.is_result, s.depends_on_score, s.retry) for s in Status}
    assert found == MEANING


@pytest.mark.parametrize(("error", "status", "code", "reason"), ENDINGS, ids=lambda value: str(value))
def test_every_exception_has_its_ending(error, status, code, reason):
    found = ending(error)
    assert (found.status, found.exit_code, found.reason) == (status, code, reason)


@pytest.mark.parametrize(("code", "status"), [(0, "done"), (130, "interrupted"), (143, "interrupted"), (9, "failed")])
def test_an_exit_code_is_an_ending(code, status):
    found = ending_of_code(code)
    assert (found.status, found.exit_code, found.reason is None) == (status, code, code == 0)


def test_a_signal_prints_nothing_and_a_plugin_its_traceback_below_the_line(capsys):
    assert print_error(Interrupted(15)).exit_code == 143
    assert capsys.readouterr().err == ""
    error = PluginError("plugin a.py:1: KeyError: 'x'", ('  File "a.py", line 1, in f', "KeyError: 'x'"))
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert print_error(each).exit_code == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines == ["runner: error: plugin a.py:1: KeyError: 'x'", *error.lines]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("café 猫", "café 猫"), ("caf\udce9", r"caf\xe9"), ("a\nb\x1b[0m", r"a\nb\x1b[0m"), ("\ud800\x00", r"\ud800\x00")],
)
def test_a_name_is_escaped_where_it_cannot_be_printed(name, shown):
    assert escaped(name) == shown and escaped(name).isprintable()
    assert escaped(os.fsdecode(os.fsencode("ü") + b"\xff")) == r"ü\xff"
