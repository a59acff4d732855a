"""What may be chosen: every group with its options and their knobs, as the YAML files and the docstrings have it."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from runner.errors import ConfigError
from runner.registry import find, knobs, names
from runner.roles import Role, marks_in
from runner.settings import GROUPS

Lines = Sequence[str]
Pairs = list[tuple[yaml.Node, yaml.Node]]
NOT_KNOBS = ("name", "defaults")


@dataclass(frozen=True)
class Knob:
    """One value of an option: its default as the YAML writes it, and the comment beside it."""

    name: str
    default: str
    comment: str
    role: Role = Role.EXPERIMENT


@dataclass(frozen=True)
class Option:
    """One option of a group."""

    name: str
    about: str  # the comment that its YAML begins with: what it is, and where it comes from
    meaning: str  # the first line of its component's docstring; empty where there is none
    knobs: tuple[Knob, ...]


@dataclass(frozen=True)
class Group:
    """One group, which an option is chosen from, or several."""

    name: str
    default: str | list[str] | None
    options: tuple[Option, ...]

    @property
    def several(self) -> bool:
        """Tell whether any number of options may be chosen."""
        return isinstance(self.default, list)


def catalogue(folders: Sequence[Path], *, plugins: bool = False) -> list[Group]:
    """Return the groups of the config folders (ours first), in the order of our config.yaml; empty ones are left out.

    With `plugins`, components that have no YAML yet are listed too.
    """
    found = []
    for name, default in defaults(folders[0]):
        files = sorted((path for folder in folders for path in (folder / name).glob("*.yaml")), key=lambda p: p.stem)
        options = [option(name, path, several=isinstance(default, list)) for path in files]
        if plugins:
            options += [bare(name, part) for part in names(name) if part not in {path.stem for path in files}]
        found.append(Group(name, default, tuple(options)))
    return [group for group in found if group.options]


def defaults(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the groups of our config.yaml with what they are by default."""
    for entry in yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["defaults"]:
        if isinstance(entry, dict):
            yield from ((name, choice) for name, choice in entry.items() if not name.startswith("override "))


def option(group: str, path: Path, *, several: bool) -> Option:
    """Return an option as its file describes it. Raises ConfigError for a file that cannot be read."""
    lines = path.read_text(encoding="utf-8").splitlines()
    own = parsed(path, "\n".join(lines))
    words = {str(key.value): value for key, value in own}
    part = next(iter(words), path.stem) if several else words["name"].value if "name" in words else path.stem
    found = [*chosen(lines, words.get("defaults")), *leaves(lines, own)]
    if several:
        found = [replace(knob, name=knob.name.removeprefix(f"{path.stem}.")) for knob in found]
    if group != "recipe":
        found = [replace(knob, role=role_of(group, str(part), knob.name)) for knob in found]
    return Option(path.stem, header(lines), meaning(group, str(part)) or below(words.get("defaults")), tuple(found))


def role_of(group: str, part: str, knob: str) -> Role:
    """Return the role of a knob; every knob of a group that has a role as a whole has that one."""
    if group in GROUPS or part not in names(group):
        return GROUPS.get(group, Role.EXPERIMENT)
    return marks_in(knobs(find(group, part)).get(knob)).role


def parsed(path: Path, text: str) -> Pairs:
    """Return the keys and values of a file with their places."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ConfigError(f"{path}: aliases (*) are not taken in a config")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    return root.value if isinstance(root, yaml.MappingNode) else []


def header(lines: Lines) -> str:
    """Return the comment that a file begins with, in one line; Hydra's directive is none."""
    found = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("#").strip() for line in found if "@package" not in line)


def chosen(lines: Lines, entries: yaml.Node | None) -> Iterator[Knob]:
    """Yield what a file chooses of other groups in its defaults list."""
    for entry in entries.value if isinstance(entries, yaml.SequenceNode) else ():
        for key, value in entry.value if isinstance(entry, yaml.MappingNode) else ():
            name = key.value.removeprefix("override ").removeprefix("/")
            yield Knob(name, source(lines, value), comment(lines, value.end_mark))


def below(entries: yaml.Node | None) -> str:
    """Return the options of its own group that a file builds on, in words; empty if there are none."""
    scalars = [entry.value for entry in entries.value if isinstance(entry, yaml.ScalarNode)] if entries else []
    named = [value for value in scalars if value != "_self_"]
    return f"Builds on {', '.join(named)}." if named else ""


def leaves(lines: Lines, pairs: Pairs, prefix: str = "") -> Iterator[Knob]:
    """Yield the values of a mapping and of the mappings below it, under dotted names."""
    for key, value in pairs:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from leaves(lines, value.value, f"{name}.")
        elif name not in NOT_KNOBS:
            block = value.start_mark.line > key.start_mark.line
            yield Knob(name, source(lines, value), comment(lines, key.end_mark if block else value.end_mark))


def source(lines: Lines, node: yaml.Node) -> str:
    """Return a value as the file writes it, in one line."""
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return f"[{', '.join(source(lines, item) for item in node.value)}]"
    first, last = node.start_mark, node.end_mark
    text = "\n".join(lines[first.line : last.line + 1])
    cut = len(lines[last.line]) - last.column if last.line < len(lines) else 0
    return " ".join(text[first.column : len(text) - cut].split())


def comment(lines: Lines, place: yaml.Mark) -> str:
    """Return the comment after a place, with the indented comment lines that go on with it."""
    _, mark, text = lines[place.line][place.column :].partition("#")
    found = [text.strip()]
    for following in lines[place.line + 1 :] if mark else ():
        if not following.startswith(" ") or not following.lstrip().startswith("#"):
            break
        found.append(following.strip().lstrip("#").strip())
    return " ".join(found)


def meaning(kind: str, name: str) -> str:
    """Return what a component gives, by the first line of its docstring; empty if there is no such component."""
    if name not in names(kind):
        return ""
    return re.sub("^Return ", "Gives ", (inspect.getdoc(find(kind, name)) or "").partition("\n")[0])


def bare(kind: str, name: str) -> Option:
    """Return an option for a component that has no YAML, from its signature."""
    found = (
        Knob(knob, "?", shown(annotation), marks_in(annotation).role)
        for knob, annotation in knobs(find(kind, name)).items()
    )
    return Option(name, f"Can be chosen once --config-dir has {kind}/{name}.yaml.", meaning(kind, name), tuple(found))


def shown(annotation: Any) -> str:
    """Return a knob's type in words."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
