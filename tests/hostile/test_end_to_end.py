"""Bad inputs to `python -m runner`, one process each: a one-line error within two seconds and no files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import cases
from test_fuzz_config import SEED, argv

from runner.door.options import find_conf

ROOT = Path(__file__).parent.parent.parent
COUNT = 100
FEW = 2


def asked(words: list[str], folder: Path) -> tuple[int, str, float]:
    """Return exit code, standard error and seconds of CPU time of a command line given to a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "runner", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, done.stderr.decode(), seconds


def lines(count: int) -> list[list[str]]:
    """Return command lines that must be refused and that an operating system can pass on: no NUL, at most 100 kB."""
    drawn = (case for case in cases(find_conf(), SEED, 20 * count) if case.refused and not case.files)
    given = (list(case.words) for case in drawn)
    passed = [words for words in given if not any("\0" in word or len(word) > 100_000 for word in words)]
    return passed[:: max(1, len(passed) // count)][:count]


def refused(words: list[str], folder: Path) -> None:
    """Check how a wrong command line is answered, as it is typed: nothing shown, nothing asked for but the run."""
    code, err, seconds = asked(words, folder)
    assert code == 2, (words, err)
    assert err.startswith("runner: error: ") and err.count("\n") == 1, (words, err)
    assert seconds <= 2.0, (words, seconds)
    assert not list(folder.iterdir()), words


def test_a_few_wrong_command_lines_in_processes_of_their_own(tmp_path):
    for words in lines(FEW):
        refused(words, tmp_path)


@pytest.mark.slow
@pytest.mark.ci_slice
def test_wrong_command_lines_in_processes_of_their_own(tmp_path):
    given = lines(COUNT)
    assert len(given) == COUNT
    for words in given:
        refused(words, tmp_path)


@pytest.mark.slow
def test_wrong_config_files_in_processes_of_their_own(tmp_path):
    from config_files import RECIPES, case_of_recipe

    wrong = (
        "bomb",
        "tags",
        "deep list",
        "value over 1 MB",
        "NUL escaped",
        "big hex",
        "hydra callbacks",
        "key twice",
        "octal",
    )
    (tmp_path / "work").mkdir()
    for name in wrong:
        words = argv(case_of_recipe(name, RECIPES[name].encode()), tmp_path / name)
        refused(words, tmp_path / "work")
