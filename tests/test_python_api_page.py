"""Every block of docs/python_api.md runs as written, one after the other."""

import re
import subprocess
import sys

import pytest
from running import ROOT

PAGE = (ROOT / "docs" / "python_api.md").read_text()
PART = """
from runner.registry import register
from torch import nn


@register("activation")
def mish():
    return nn.Mish()
"""
CHECKS = """
assert str(result.config["activation"]) == "{'name': 'leaky', 'slope': 0.2}"
assert message.startswith("model: unknown option 'mlpp'; did you mean 'mlp'?")
assert reason.startswith("diverged at step")
assert len(axes.lines[0].get_xdata()) == 2 and curves.png
assert len(results) == 6 and best.score == max(each.score for each in results)
assert config["model"]["name"] == "vit" and model.classes[3] == "3"
"""


@pytest.mark.ci_slice
@pytest.mark.slow
def test_the_blocks_of_the_page_run(tmp_path):
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "parts.py").write_text(PART)
    (tmp_path / "my_conf" / "activation").mkdir(parents=True)
    (tmp_path / "my_conf" / "activation" / "mish.yaml").write_text("name: mish\n")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (tmp_path / "page.py").write_text("\n".join([f"import sys\nsys.path.insert(0, {str(ROOT)!r})", *blocks, CHECKS]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_page_lists_the_attributes_and_errors():
    import runner

    for name in ("folder", "status", "reason", "steps", "epochs", "seconds", "scores", "config"):
        assert name in runner.Result.__dataclass_fields__
        assert f"`{name}`" in PAGE
    for name in ("score", "history", "figures", "load"):
        assert hasattr(runner.Result, name)
    for error in re.findall(r"`(\w+(?:Error|Diverged|Locked|Interrupted))`", PAGE):
        assert issubclass(getattr(runner, error), BaseException)
