"""Imports go down only: __main__, door, _plugins -> tasks -> assemble -> components -> engine, registry, schema."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "runner"
MODULES = sorted(ROOT.rglob("*.py"))
FLOORS = [
    "errors",
    "roles",
    "relations",
    "schema",
    "settings",
    "numerics",
    "plain_yaml",
    "registry",
    "annotations",
    "keys",
    "expand_user",
    "engine",
    "components",
    "search",
    "assemble",
    "comparing",
    "tasks",
    "sweeps",
    "door",
    "__main__",
]


def floor(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    return FLOORS.index("door" if part == "_plugins" else part) if part else -1


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


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_only(path):
    own = name_of(path)
    for target in imports(path):
        if target.startswith("runner.") and floor(target) >= 0:
            assert floor(target) <= floor(own), f"{own} imports {target}, which lies above it"


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
