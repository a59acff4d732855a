"""The names of the Python API: importing runner imports no torch, and each name is there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import runner

ROOT = Path(runner.__file__).parent


def test_importing_runner_imports_nothing_that_is_slow():
    code = "import runner, sys; print(sorted({'torch', 'hydra', 'numpy', 'yaml'} & set(sys.modules)), dir(runner))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("[] ")
    assert "'load'" in printed


def test_every_name_is_found_where_the_table_says():
    for name, module in runner._API.items():
        assert getattr(runner, name).__module__ == module
    assert set(runner._API) <= set(dir(runner))


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    seen = {a.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
    assert {name: seen.get(name) for name in runner._API} == runner._API


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'runner' has no attribute 'lod'"):
        runner.lod  # noqa: B018
