"""docs/doctor.md: its example of a symptom works, and its example of output is what runner prints."""

import re
import shlex

import pytest
from hand_made import facts, history, series
from running import ROOT, command

from runner.doctor import Severity, diagnose

PAGE = (ROOT / "docs" / "doctor.md").read_text()


def test_the_example_of_a_symptom_finds_slow_data(monkeypatch):
    (source,) = re.findall(r"^```python\n(.+?)^```", PAGE, re.M | re.S)
    exec(source, {"__name__": "my_lab.symptoms"})
    waiting = history(facts(), **{"time/data_wait": series([0.1, 0.3, 0.5], [50, 100, 150])})
    (found,) = [each for each in diagnose(waiting) if each.id == "slow_data"]
    assert found.severity is Severity.HINT and found.evidence.steps == (50, 150)
    assert found.evidence.numbers["share"] == 0.3
    busy = history(facts(), **{"time/data_wait": series([0.1, 0.1, 0.5], [50, 100, 150])})
    assert not [each for each in diagnose(busy) if each.id == "slow_data"]


@pytest.mark.slow
def test_the_example_of_output_is_what_is_printed(tmp_path):
    block = re.search(r"^```\n\$ python -m runner (.+?)\n\.\.\.\n(.+?)^```", PAGE, re.M | re.S)
    printed = command(*shlex.split(block[1]), cwd=tmp_path).stdout
    assert re.sub(r"\s+", " ", block[2]).strip() in re.sub(r"\s+", " ", printed)
