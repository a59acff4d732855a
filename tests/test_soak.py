"""Many runs in one process do not leak: `python tests/soak.py` makes a thousand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc"),
]

# Python doubles the table of its interned strings in one run: 3.7 MiB, and the old one's place stays reserved
INTERNED = 6


def soaked(runs, warm_up, timeout):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "soak.py"), str(runs), str(warm_up)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def check(found, most):
    grown = found["grown"]
    assert grown.pop("MiB") <= most, found
    assert all(count <= 0 for count in grown.values()), found


@pytest.mark.ci_slice
def test_sixty_runs_in_one_process_leave_nothing(tmp_path):
    check(soaked(60, 40, 600), 5 + INTERNED)


def test_a_thousand_runs_in_one_process_leave_nothing():
    found = soaked(1000, 100, 6000)
    check(found, 10 + INTERNED)
    assert found["seconds"]["last"] <= 1.5 * found["seconds"]["first"]
