"""The wheel is complete: it runs from a folder outside the repository."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel from a copy of the sources and unpack it, as an installation does."""
    where = tmp_path_factory.mktemp("wheel")
    for folder in ("runner", "conf"):
        shutil.copytree(ROOT / folder, where / "source" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, where / "source")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(where), "."]
    subprocess.run(build, cwd=where / "source", check=True, capture_output=True, timeout=300)
    with zipfile.ZipFile(next(where.glob("*.whl"))) as wheel:
        wheel.extractall(where / "site")
    return where / "site"


def test_every_config_and_module_is_in_the_wheel(installed):
    configs = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    shipped = installed / "runner/conf"
    assert {path.relative_to(shipped) for path in shipped.rglob("*.yaml")} == configs
    assert (installed / "runner/py.typed").is_file()
    modules = {path.relative_to(ROOT) for path in (ROOT / "runner").rglob("*.py")}
    assert {path.relative_to(installed) for path in installed.rglob("*.py")} == modules


def test_the_wheel_trains_from_any_folder(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    arguments = ["model=mlp", "steps=2", "figures=never", "name=first"]
    command = [sys.executable, "-m", "runner", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "first" / "result.json").is_file()


def test_the_console_script_is_the_front_door():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"runner": "runner.__main__:command"}
