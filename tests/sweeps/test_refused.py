"""docs/sweeps.md, "What is rejected": each row gives its error line, before anything is written."""

import re

import pytest
from running import ROOT

from runner.__main__ import main

PAGE = (ROOT / "docs" / "sweeps.md").read_text().partition("## What is rejected")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| `([^`]+)` \| `(.+?)` \| .+ \|$", PAGE, re.M)


@pytest.mark.parametrize(("asked", "line"), ROWS)
def test_each_row_is_refused_in_its_words(asked, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "model=mlp", *asked.split()]) == 2
    assert capsys.readouterr().err == f"runner: error: {line}\n"
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_the_table_is_left_unread():
    assert len(re.findall(r"^\| `", PAGE, re.M)) == len(ROWS) > 30
