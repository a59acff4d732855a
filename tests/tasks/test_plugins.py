"""An error in a user's plugin is one line with its file and line, wherever it is raised."""

import pytest
from running import ROOT, command, result

SMALL = ["model=mlp", "steps=2", "figures=never", "name=mine"]
PART = """
import sys
import torch
from torch import nn

from runner.registry import register


class Bad(nn.Module):
    def forward(self, x):
        {forward}


@register("activation")
def bad() -> nn.Module:
    {build}
    return Bad()
"""


@pytest.fixture
def lab(tmp_path):
    """Return a function that runs with a plugin of this text."""

    def run(text, *words):
        (tmp_path / "my_lab").mkdir()
        (tmp_path / "my_lab" / "parts.py").write_text(text)
        (tmp_path / "my_conf" / "activation").mkdir(parents=True)
        (tmp_path / "my_conf" / "activation" / "bad.yaml").write_text("name: bad\n")
        return command("--config-dir", "my_conf", "plugins=[my_lab.parts]", *SMALL, *words, cwd=tmp_path)

    return run


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = 1 / 0\n", "ZeroDivisionError: division by zero (my_lab/parts.py:2)"),
        ("def f(:\n", "SyntaxError: "),
        ("import no_such_module\n", "No module named 'no_such_module' (my_lab/parts.py:1)"),
        ("\nraise SystemExit(0)\n", "SystemExit: 0 (my_lab/parts.py:2)"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line(lab, tmp_path, text, said):
    done = lab(text)
    assert done.returncode == 2
    assert done.stderr.startswith(f"runner: error: plugins: cannot import 'my_lab.parts': {said}")
    assert "my_lab/parts.py:" in done.stderr
    # Below the line is what Python says, from the plugin's frame on
    below = done.stderr.splitlines()[1:]
    assert "runner: error" not in "".join(below) and "importlib" not in done.stderr
    assert f'File "{tmp_path}/my_lab/parts.py", line ' in done.stderr
    assert said.split(" (")[0].removesuffix(": ").split(":")[0] in "".join(below)
    assert not (tmp_path / "outputs").exists()


def test_a_plugin_that_is_not_there_has_no_place(tmp_path):
    done = command("plugins=[no_such_lab]", *SMALL, cwd=tmp_path)
    line = "runner: error: plugins: cannot import 'no_such_lab': No module named 'no_such_lab'\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_a_component_that_raises_when_built_is_the_plugins(lab, tmp_path):
    done = lab(PART.format(build="raise KeyError('width')", forward="return x"), "activation=bad")
    assert done.returncode == 2
    first, second, place, *_, last = done.stderr.splitlines()
    assert first == "runner: error: plugin my_lab/parts.py:16: KeyError: 'width'"
    assert second == "Traceback (most recent call last):"
    assert f'{tmp_path}/my_lab/parts.py", line 16' in place
    assert last == "KeyError: 'width'"
    assert "bug in runner" not in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        ("raise ValueError('too cold\\nhere')", "ValueError: too cold"),
        ("return x @ torch.ones(3)", "RuntimeError: "),  # torch raises, in the plugin's call
        ("sys.exit(0)", "SystemExit: 0"),
    ],
)
def test_a_component_that_raises_in_a_step_is_the_plugins_in_the_result_too(lab, tmp_path, forward, said):
    # The examples on which components are tried before step 1 are passed in evaluation mode
    done = lab(PART.format(build="pass", forward=f"if self.training: {forward}\n        return x"), "activation=bad")
    assert done.returncode == 2
    line = next(each for each in done.stderr.splitlines() if each.startswith("runner: error"))
    assert line.startswith(f"runner: error: plugin my_lab/parts.py:11: {said}")
    assert "Traceback" in done.stderr.partition(line)[2]
    assert f"{ROOT}/runner/" not in done.stderr
    ended = result(tmp_path / "outputs" / "mine")
    assert (ended["status"], ended["exit"]) == ("failed", 2)
    assert f"runner: error: {ended['reason']}" == line


@pytest.mark.parametrize("forward", ["raise ValueError('cold')", "return x @ torch.ones(3)"])
def test_a_component_that_raises_at_once_leaves_nothing_behind(lab, tmp_path, forward):
    done = lab(PART.format(build="pass", forward=forward), "activation=bad")
    assert done.returncode == 2
    assert done.stderr.startswith("runner: error: plugin my_lab/parts.py:11: ")
    assert not (tmp_path / "outputs").exists()


def test_a_bug_with_plugins_in_use_names_them(tmp_path):
    (tmp_path / "quiet.py").write_text("import runner.tasks.train\nrunner.tasks.train.assemble = None\n")
    done = command("plugins=[quiet]", *SMALL, cwd=tmp_path)
    assert done.returncode == 70
    assert "plugins in use: quiet" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.endswith("(a plugin is in use: what it returns may be wrong; else please report the lines above)")
