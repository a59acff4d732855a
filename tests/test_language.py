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
KNOWN_KEYS = {"centre"}  # of data=imagefolder; the only one left


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


# A rule: what a docstring must not be, and the files and folders that do not obey it yet. Delete those that do.
DOCSTRINGS: dict[str, tuple[Callable[[str], bool], tuple[str, ...]]] = {
    "begins with `Tell whether`; write `True if ...`": (
        lambda text: text.startswith("Tell whether"),
        (),
    ),
    "begins with a pronoun; begin with a verb or a noun": (
        lambda text: starts(text) in PRONOUNS,
        (),
    ),
}
FOLDERS = ("runner", "benchmarks")


@pytest.mark.parametrize(("wrong", "open_parts"), DOCSTRINGS.values(), ids=DOCSTRINGS)
def test_no_docstring(wrong, open_parts):
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    closed = [
        path for path in files if not f"{path.relative_to(ROOT)}/".startswith(tuple(f"{part}/" for part in open_parts))
    ]
    assert len(closed) > 50
    assert [place for path in closed for place, text in docstrings(path) if wrong(text)] == []


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
    assert {key for _, key in wrong} == KNOWN_KEYS, wrong


def test_the_rules_find_what_they_forbid():
    assert BRITISH.search("color_centre") and BRITISH.search("normalised") and not BRITISH.search("color_jitter")
    (tell, _), (pronoun, _) = DOCSTRINGS.values()
    assert tell("Tell whether it is so.") and not tell("True if it is so.")
    assert pronoun("What a run leaves.") and not pronoun("Whatever.") and not pronoun("Return it.")
