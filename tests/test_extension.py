"""CONTRIBUTING.md by doing it: an option is one function and one YAML, also from outside."""

import re
from pathlib import Path

from running import command

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()


def block(language, containing):
    blocks = re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)
    return next(text for text in blocks if containing in text)


def lab(tmp_path):
    header = "from torch import nn\n\nfrom runner.registry import register\n\n\n"
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "parts.py").write_text(header + block("python", "def mish"))
    (tmp_path / "my_conf" / "activation").mkdir(parents=True)
    (tmp_path / "my_conf" / "activation" / "mish.yaml").write_text(block("yaml", "name: mish"))


def test_the_example_of_contributing_works_from_outside(tmp_path):
    lab(tmp_path)
    arguments = ["--config-dir", "my_conf", "plugins=[my_lab.parts]", "activation=mish"]
    done = command(*arguments, "model=mlp", "steps=2", "figures=never", "name=mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "name: mish" in (tmp_path / "outputs" / "mine" / "config.yaml").read_text()
    refused = command("resume=outputs/mine", cwd=tmp_path)
    assert refused.returncode == 2
    assert "activation: unknown option 'mish'" in refused.stderr
    assert command("resume=outputs/mine", "plugins=[my_lab.parts]", cwd=tmp_path).returncode == 0


def test_a_nearly_right_name_of_ours_is_suggested_with_the_users_own(tmp_path):
    lab(tmp_path)
    done = command("--config-dir", "my_conf", "activation=misch", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("runner: error: activation: unknown option 'misch'; did you mean 'mish'?")
    assert not (tmp_path / "outputs").exists()


def test_a_yaml_cannot_import_code(tmp_path):
    lab(tmp_path)
    (tmp_path / "my_conf" / "recipe").mkdir()
    (tmp_path / "my_conf" / "recipe" / "mine.yaml").write_text("# @package _global_\nplugins: [my_lab.parts]\n")
    done = command("--config-dir", "my_conf", "recipe=mine", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "plugins" in done.stderr
