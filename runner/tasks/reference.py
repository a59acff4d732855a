"""docs/reference.md: components by kind and the engine's contracts, from YAML files, signatures and docstrings."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Sequence

from runner import components
from runner.components.optim import groups as parameter_groups
from runner.engine import clock, contracts, losses, recipe, stage_plan
from runner.tasks.catalog import SECTIONS, Group, Knob, Option
from runner.trackers import contract

# Modules whose classes, functions and type aliases a plugin's author needs, and which of them; None for all
_CONTRACTS = (
    (contracts, None),
    (clock, None),
    (losses, ("Loss", "LossFunction", "Prediction")),
    (parameter_groups, ("Groups",)),
    (stage_plan, ("StagePlan", "Transfer")),
    (contract, ("TrackedRow", "TrackedRun", "Tracker")),
    (recipe, ("Batch", "Update", "Gradients", "apply_gradients", "Recipe")),
)
# Start of a list of files in a package's docstring
_FILE_ENTRY = re.compile(r"(- )?`?\w+(\.py|/)")
COMMAND = "python -m runner task=list task.format=markdown > docs/reference.md"
_RECIPE = "recipe"


def usage(group: Group) -> tuple[str, str, str]:
    """Return how a group's options are chosen, an example of choosing and setting, and the default."""
    option = next((o for o in group.options if o.knobs), group.options[0])
    key = f"{group.name}.{option.name}" if group.several else group.name
    knobs = "".join(f" {key}.{knob.name}={knob.default}" for knob in option.knobs[:1] if " " not in knob.default)
    if group.name == _RECIPE:
        return "choose one, or none", f"{group.name}={option.name}", "none"
    if isinstance(group.default, list):
        return "any number, in order", f"'{group.name}=[{option.name}]'{knobs}", f"[{','.join(group.default)}]"
    return "choose one", f"{group.name}={option.name}{knobs}", str(group.default)


def reference_page(groups: list[Group], settings: Sequence[Knob], *, with_contracts: bool) -> str:
    """Return the groups, the global fields, and the engine's contracts if asked for, as a page of Markdown."""
    lines = [
        "# Reference",
        "",
        f"Made by `{COMMAND}` from `conf/`, signatures and docstrings; a test fails when it is stale.",
        "A knob is set by its dotted name: `optim.lr=0.1`, and `augment.crop.padding=4` where several may be chosen.",
        "A knob changes the experiment unless it has another role: execution (how the same numbers are computed),",
        "observation (what is recorded) or path (where files are). Runs that differ in those alone are repeats.",
        "",
        *(f"- [{group.name}](#{group.name}): {', '.join(option.name for option in group.options)}" for group in groups),
    ]
    if settings:
        lines.append("- [settings](#settings): the fields of every run, `epochs`, `seed`, `device`, ...")
    if with_contracts:
        lines.append("- [Engine contracts](#engine-contracts): what components get and return, for authors of plugins")
    for group in groups:
        how, example, default = usage(group)
        lines += ["", f"## {group.name}", "", f"{how.capitalize()}: `{example}`; default `{default}`."]
        lines += _kind_lines(group.name)
        for option in group.options:
            lines += _option_lines(group.name, option)
    if settings:
        lines += ["", "## settings", "", "The fields of every run: `epochs=10`.", "", *map(_knob_line, settings)]
    return "\n".join([*lines, *(_contract_lines() if with_contracts else [])]) + "\n"


def _kind_lines(kind: str) -> Iterator[str]:
    """Yield the docstring of a kind's module without its list of files."""
    doc = inspect.getdoc(getattr(components, kind, None)) or ""
    paragraphs = [text for text in doc.split("\n\n") if not _FILE_ENTRY.match(text)]
    yield from _docstring_lines("\n\n".join(paragraphs))


def _option_lines(group: str, option: Option) -> Iterator[str]:
    """Yield the lines of an option: its YAML's comment, its docstring and its knobs."""
    yield from ("", f"### {group}={option.name}")
    if option.about:
        yield from ("", _escape(option.about))
    yield from _docstring_lines(option.doc)
    if option.knobs:
        yield from ("", *map(_knob_line, option.knobs))


def _knob_line(knob: Knob) -> str:
    """Return a knob as a list item."""
    kind = f" ({_escape(knob.type)})" if knob.type else ""
    return f"- `{knob.name}: {knob.default}`{kind} {_escape(knob.note)}".rstrip()


def _docstring_lines(doc: str, *, with_args: bool = False) -> Iterator[str]:
    """Yield a docstring's paragraphs and its Returns, Raises and Yields sections, and Args if asked for."""
    for paragraph in filter(None, doc.split("\n\n")):
        title, _, body = paragraph.partition(":\n")
        if title not in SECTIONS:
            yield from ("", _escape(" ".join(paragraph.split())))
        elif title == "Args" and with_args:
            yield from ("", *(f"- `{name}`: {_escape(about)}" for name, about in map(_named, _items(body))))
        # The attributes of a class are listed with its members
        elif title not in ("Args", "Attributes"):
            yield from (line for item in _items(body) for line in ("", f"**{title}** {_escape(item)}"))


def _items(body: str) -> list[str]:
    """Return the items of a section of a docstring, one line each."""
    return [" ".join(item.split()) for item in re.split(r"\n(?=\S)", inspect.cleandoc(body))]


def _named(item: str) -> tuple[str, str]:
    """Return the name and the description of an item of Args or Attributes."""
    name, _, about = item.partition(": ")
    return name, about


def _attributes(doc: str) -> dict[str, str]:
    """Return the descriptions in the Attributes section of a docstring by name; `a, b: ...` describes both."""
    sections = (paragraph.partition(":\n") for paragraph in doc.split("\n\n"))
    items = [_named(item) for title, _, body in sections if title == "Attributes" for item in _items(body)]
    return {name: about for names, about in items for name in names.split(", ")}


def _contract_lines() -> Iterator[str]:
    """Yield the part on engine contracts: classes, functions and type aliases in the order of their modules."""
    yield from ("", "## Engine contracts", "", "What components get from the engine and return to it.")
    yield from ("", "CONTRIBUTING.md shows how to add an option, and a method that makes steps in another way (SAM).")
    for module, names in _CONTRACTS:
        source = inspect.getsource(module)
        lines = source.splitlines()
        yield from ("", f"**From `{module.__name__}`**")
        if names is None:
            yield from _docstring_lines(inspect.getdoc(module) or "")
        for node in ast.parse(source).body:
            if not _name_of(node).startswith("_") and (names is None or _name_of(node) in names):
                yield from _definition(lines, node)


def _name_of(node: ast.stmt) -> str:
    """Return the name that a statement defines; `_` for any other statement."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return node.name if isinstance(node, ast.ClassDef | ast.FunctionDef) else "_"


def _definition(lines: list[str], node: ast.stmt) -> Iterator[str]:
    """Yield the lines of a class with its members, of a function with its signature, or of a type alias."""
    yield from ("", f"### {_name_of(node)}")
    if isinstance(node, ast.ClassDef):
        doc = ast.get_docstring(node) or ""
        yield from _docstring_lines(doc, with_args=True)
        members = [_member(lines, member, _attributes(doc)) for member in node.body]
        yield from ("", *filter(None, members)) if any(members) else ()
    elif isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        yield from ("", f"`{node.name}({ast.unparse(node.args)}){returns}`")
        yield from _docstring_lines(ast.get_docstring(node) or "", with_args=True)
    elif isinstance(node, ast.Assign):
        comment = _comment_of(lines, node)
        yield from ("", f"`{ast.unparse(node.value)}`")
        yield from ("", _escape(comment)) if comment else ()


def _member(lines: list[str], node: ast.stmt, attributes: dict[str, str]) -> str:
    """Return a public field or method of a class as a list item, empty for anything else.

    A field is described in the Attributes section of the class, or by its comment.
    """
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        default = f" = {ast.unparse(node.value)}" if node.value else ""
        field = f"- `{node.target.id}: {ast.unparse(node.annotation)}{default}`"
        return f"{field} {_escape(attributes.get(node.target.id) or _comment_of(lines, node))}".rstrip()
    if isinstance(node, ast.FunctionDef) and (node.name == "__call__" or not node.name.startswith("_")):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        about = " ".join((ast.get_docstring(node) or "").split())
        return f"- `{node.name}({ast.unparse(node.args)}){returns}` {_escape(about)}".rstrip()
    return ""


def _comment_of(lines: list[str], node: ast.stmt) -> str:
    """Return the comment after a statement, or the comment lines directly above it."""
    _, found, text = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset :].partition("#")
    above: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if found or not line.strip().startswith("#"):
            break
        above.insert(0, line.strip().lstrip("#").strip())
    return text.strip() if found else " ".join(above)


def _escape(words: str) -> str:
    """Return text with Markdown's special characters escaped, except code in backticks."""
    parts = words.split("`")
    return "`".join(re.sub(r"([*<\[\]])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts))
