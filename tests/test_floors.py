"""The table of packages in CONTRIBUTING.md is complete, and every import obeys it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "runner"
MODULES = sorted(ROOT.rglob("*.py"))
ARCHITECTURE = (ROOT.parent / "CONTRIBUTING.md").read_text().partition("## Architecture")[2].partition("\n## ")[0]
TABLE = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", ARCHITECTURE, re.M)
FLOORS = [name for name, _ in TABLE]  # in import order
ROWS_ABOVE, NOTHING = "rows above", "nothing"


def part_of(module: str) -> str:
    """Return the row of the table that a module of `runner` belongs to; of the package itself nothing."""
    return module.split(".")[1] if "." in module else ""


def allowed(part: str) -> set[str]:
    """Return the rows of the table that the modules of a row may import, their own among them."""
    words = dict(TABLE)[part]
    above = FLOORS[: FLOORS.index(part)]
    named = above if words == ROWS_ABOVE else re.findall(r"`(\w+)`", words)
    assert named or words == NOTHING, f"cannot read what {part} may import: {words}"
    assert set(named) <= set(above), f"the table lets {part} import a row below it"
    return {part, *named}


def name_of(path: Path) -> str:
    return ".".join(["runner", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_table_lists_every_module_and_package_once():
    found = {
        path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path.is_dir() and any(path.glob("**/*.py")))
    }
    assert sorted(FLOORS) == sorted(found - {"__init__"})


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_obey_the_table(path):
    part = part_of(name_of(path))
    if path == ROOT / "__init__.py":
        # The names of the Python API, which it imports when they are used; see tests/test_api_names.py
        return
    for target in imports(path):
        other = part_of(target)
        if target.startswith("runner.") and other in FLOORS:
            assert part and other in allowed(part), (
                f"{name_of(path)} imports {target}; CONTRIBUTING.md does not allow it"
            )


@pytest.mark.parametrize("path", sorted((ROOT / "engine").rglob("*.py")), ids=name_of)
def test_engine_knows_no_names_and_no_config(path):
    for target in imports(path):
        assert not target.startswith(("runner.registry", "runner.components", "hydra", "omegaconf"))


@pytest.mark.parametrize("path", sorted((ROOT / "components").rglob("*.py")), ids=name_of)
def test_components_import_no_other_kind(path):
    kind = name_of(path).split(".")[2] if path.parent != ROOT / "components" else path.stem
    for target in imports(path):
        if target.startswith("runner.components."):
            assert target.split(".")[2] == kind, f"{name_of(path)} imports {target}"
        assert not target.startswith(("hydra", "omegaconf"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_slow_imports_wait_until_they_are_used(path):
    for target in imports(path, top_only=True):
        assert target.split(".")[0] not in {"torchvision", "sklearn", "matplotlib", "PIL", "timm", "optuna"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_way_from_data_to_code(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "yaml.load", "yaml.unsafe_load", "pickle.load", "pickle.loads"}
            assert not called.endswith("instantiate")
            for keyword in node.keywords:
                assert not (keyword.arg == "weights_only" and ast.unparse(keyword.value) != "True")
    assert not {"pickle", "dill", "cloudpickle", "shelve"} & {target.split(".")[0] for target in imports(path)}
