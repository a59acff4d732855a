"""Every example of docs/using.md runs as written, in order, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT

BLOCK = re.compile(r"^```(python)?\n(.*?)^```$", re.M | re.S)


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path):
    blocks = BLOCK.findall((ROOT / "docs/using.md").read_text())
    assert len(blocks) == 8
    printed, python = [], ""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for language, text in blocks:
        # Blocks of Python go on where the last one ended
        python += text if language else ""
        words = [sys.executable, "-c", python] if language else ["bash", "-c", text]
        ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        printed.append(ended.stdout)
    assert "torch.Size([5, 10])" in printed[-1]
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 21
    assert (tmp_path / "digits.json").is_file()
