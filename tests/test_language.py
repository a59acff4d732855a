"""The rules of language that a machine can check, over the code and the configs."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from running import ROOT

PRONOUNS = ("it", "its", "they", "this", "that", "these", "those", "what", "which", "who", "whether", "we", "ours")
BRITISH = re.compile(
    r"colour|behaviour|favour|neighbour|centre|grey|(?:normal|initial|optim|regular|quant|vectori)is[ea]"
)


def starts(text: str) -> str:
    """Return the first word of a docstring in lower case."""
    return re.split(r"[^\w']", text.strip(), maxsplit=1)[0].lower()


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (place, docstring) of a file's module, classes and functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'name', 'module')}", text


# A rule: what no docstring may be
DOCSTRINGS: dict[str, Callable[[str], bool]] = {
    "begins with `Tell whether`; write `Return True if ...`": lambda text: text.startswith("Tell whether"),
    "begins with a pronoun; begin with a verb or a noun": lambda text: starts(text) in PRONOUNS,
}


@pytest.mark.parametrize("wrong", DOCSTRINGS.values(), ids=DOCSTRINGS)
def test_no_docstring(wrong):
    files = [path for folder in ("runner", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    assert [place for path in files for place, text in docstrings(path) if wrong(text)] == []


def module_of(path: Path) -> str:
    """Return the dotted name of a file below the root."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def public_names(path: Path) -> Iterator[str]:
    """Yield a file's public names, but for components, modules and optimizers, whose names users see."""
    tree = ast.parse(path.read_text())
    components = {
        word.id
        for node in tree.body
        if isinstance(node, ast.Expr) and "register" in ast.unparse(node)
        for word in ast.walk(node)
        if isinstance(word, ast.Name)
    }
    for node in tree.body:
        names = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            words = [*map(ast.unparse, node.decorator_list), *map(ast.unparse, getattr(node, "bases", ()))]
            shown = ("register", "Module", "nn.", "Optimizer")
            names = [] if any(part in word for word in words for part in shown) else [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        yield from (name for name in names if not name.startswith("_") and name not in components)


def uses(path: Path) -> set[tuple[str, str]]:
    """Return (module, name) for each name of `runner` that a file imports, reads off a module, or has in a text."""
    text, aliases, found = path.read_text(), dict[str, str](), set[tuple[str, str]]()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("runner"):
            found |= {(str(node.module), each.name) for each in node.names}
            aliases |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            aliases |= {each.asname or each.name: each.name for each in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add((aliases.get(ast.unparse(node.value), ast.unparse(node.value)), node.attr))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr") and len(node.args) > 1:
            found.add((aliases.get(ast.unparse(node.args[0]), ""), str(getattr(node.args[1], "value", ""))))
    found |= {(module, name) for module, name in re.findall(r"(runner(?:\.\w+)+)[.:](\w+)", text)}
    for module, names in re.findall(r"from (runner[\w.]*) import ([\w, ]+)", text):  # also in code that a text holds
        found |= {(module, name.strip()) for name in names.split(",")}
    return {each for each in found if each[0] != module_of(path)}


@pytest.mark.ci_slice
@pytest.mark.slow
def test_what_only_its_own_file_uses_begins_with_an_underscore():
    files = {folder: sorted((ROOT / folder).rglob("*.py")) for folder in ("runner", "tests", "benchmarks", "docs")}
    used = {use for paths in files.values() for path in paths for use in uses(path)}
    texts = "\n".join(path.read_text() for path in files["tests"])  # plugins in texts of tests: `train.update = slow`
    alone = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files["runner"]
        if path.name not in ("contracts.py", "__init__.py") or path.parent.name not in ("engine", "runner")
        for name in public_names(path)
        if (module_of(path), name) not in used and f"{path.stem}.{name}" not in texts
    ]
    assert alone == []


def test_functions_and_files_keep_to_their_size():
    files = [path for folder in ("runner", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    long = [str(path.relative_to(ROOT)) for path in files if len(path.read_text().splitlines()) > 250]
    long += [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 40
    ]
    assert long == []


def keys(value: object) -> Iterator[str]:
    """Yield every key of nested mappings."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def test_names_and_keys_of_configs_are_spelled_american():
    names = {
        str(path.relative_to(ROOT)): [path.stem, *keys(yaml.safe_load(path.read_text()))]
        for path in (ROOT / "conf").rglob("*.yaml")
    }
    wrong = [(path, key) for path, found in names.items() for key in found if BRITISH.search(key)]
    assert wrong == []


def test_the_rules_find_what_they_forbid():
    assert BRITISH.search("color_centre") and BRITISH.search("normalised") and not BRITISH.search("color_jitter")
    tell, pronoun = DOCSTRINGS.values()
    assert tell("Tell whether it is so.") and not tell("True if it is so.")
    assert pronoun("What a run leaves.") and not pronoun("Whatever.") and not pronoun("Return it.")
