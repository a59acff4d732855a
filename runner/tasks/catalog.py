"""The catalog of groups, options and knobs, read from the YAML files, signatures and docstrings."""

from __future__ import annotations

import inspect
import itertools
import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml

from runner.errors import ConfigError
from runner.plain_yaml import read_text, yaml_files
from runner.registry import find, knobs, names
from runner.relations import Fields, OfLength, Regular
from runner.roles import Role, marks_in
from runner.schema import NotEmpty, alone, described
from runner.settings import GROUPS, SETTINGS

_Lines = Sequence[str]
_Pairs = list[tuple[yaml.Node, yaml.Node]]
# The sections of a Google style docstring
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields")
# Where the global fields are listed, beside the groups
SETTINGS_PART = "settings"
_NOT_KNOBS = ("name", "defaults")


@dataclass(frozen=True)
class Knob:
    """One value of an option: its default and comment as the YAML has them, and its type in words."""

    name: str
    default: str
    comment: str
    type: str = ""
    role: Role = Role.EXPERIMENT

    @property
    def note(self) -> str:
        """Return the comment, followed by the role unless that is the usual one."""
        return self.comment if self.role is Role.EXPERIMENT else f"{self.comment} (role: {self.role})".lstrip()


@dataclass(frozen=True)
class Option:
    """One option of a group."""

    name: str
    # The comment that its YAML begins with: what it is and its source
    about: str
    # The docstring of its component, empty if there is none
    doc: str
    knobs: tuple[Knob, ...]
    # False if the YAML is missing or begins without a comment: then the docstring says what the option is
    has_comment: bool = True

    @property
    def details(self) -> list[str]:
        """Return the docstring's paragraphs without its sections, and without a summary that the comment repeats."""
        summary, *paragraphs = self.doc.split("\n\n")
        found = [text for text in paragraphs if text.partition(":\n")[0] not in SECTIONS]
        return found if self.has_comment else [re.sub("^Return ", "Gives ", summary), *found]


@dataclass(frozen=True)
class Group:
    """One group of options, of which one or several are chosen."""

    name: str
    default: str | list[str] | None
    options: tuple[Option, ...]

    @property
    def several(self) -> bool:
        """Return True if any number of options may be chosen."""
        return isinstance(self.default, list)


def read_catalog(folders: Sequence[Path], *, plugins: bool = False) -> list[Group]:
    """Return the non-empty groups of the config folders (the package's first), in the order of config.yaml.

    With `plugins`, components without a YAML are listed, too.
    """
    found = []
    for name, default in _group_defaults(folders[0]):
        files = sorted((path for folder in folders for path in yaml_files(folder / name)), key=lambda p: p.stem)
        options = [_read_option(name, path, several=isinstance(default, list)) for path in files]
        if plugins:
            options += [
                _option_without_yaml(name, part) for part in names(name) if part not in {path.stem for path in files}
            ]
        found.append(Group(name, default, tuple(options)))
    return [group for group in found if group.options]


def read_settings(folder: Path) -> tuple[Knob, ...]:
    """Return the global fields with their types, as config.yaml has them."""
    lines = read_text(folder / "config.yaml").splitlines()
    pairs = [pair for pair in _parse_file(folder / "config.yaml", "\n".join(lines)) if pair[0].value in SETTINGS]
    return tuple(
        replace(knob, type=type_in_words(kind := SETTINGS[knob.name]), role=marks_in(kind).role)
        for knob in _leaf_knobs(lines, pairs, skipped=())
    )


def _group_defaults(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the groups of config.yaml and their defaults."""
    for entry in yaml.safe_load(read_text(folder / "config.yaml"))["defaults"]:
        if isinstance(entry, dict):
            yield from ((name, choice) for name, choice in entry.items() if not name.startswith("override "))


def _read_option(group: str, path: Path, *, several: bool) -> Option:
    """Return an option as its file describes it. Raises ConfigError for an unreadable file."""
    lines = read_text(path).splitlines()
    own = _parse_file(path, "\n".join(lines))
    words = {str(key.value): value for key, value in own}
    part = next(iter(words), path.stem) if several else words["name"].value if "name" in words else path.stem
    found = [*_chosen_options(lines, words.get("defaults")), *_leaf_knobs(lines, own)]
    if several:
        found = [replace(knob, name=knob.name.removeprefix(f"{path.stem}.")) for knob in found]
    kinds = knobs(find(group, str(part))) if str(part) in names(group) else {}
    typed = (_with_type(knob, group, kinds.get(knob.name)) for knob in found)
    comment, base = _header_comment(lines), _base_options(words.get("defaults"))
    about = ". ".join(filter(None, (comment.removesuffix(".") if base else comment, base)))
    return Option(path.stem, about, _docstring(group, str(part)), tuple(typed), has_comment=bool(comment))


def _with_type(knob: Knob, group: str, annotation: Any) -> Knob:
    """Return a knob with its type and role; every knob of a group that has a role as a whole has that one."""
    role = GROUPS.get(group) or (Role.EXPERIMENT if annotation is None else marks_in(annotation).role)
    return replace(knob, type="" if annotation is None else type_in_words(annotation), role=role)


def _parse_file(path: Path, text: str) -> _Pairs:
    """Return the keys and values of a file with their positions."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ConfigError(f"{path}: aliases (*) are not supported in a config")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    return root.value if isinstance(root, yaml.MappingNode) else []


def _header_comment(lines: _Lines) -> str:
    """Return the comment at the top of a file, in one line, without Hydra's directive."""
    found = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("#").strip() for line in found if "@package" not in line)


def _chosen_options(lines: _Lines, entries: yaml.Node | None) -> Iterator[Knob]:
    """Yield the options of other groups in a file's defaults list."""
    for entry in entries.value if isinstance(entries, yaml.SequenceNode) else ():
        for key, value in entry.value if isinstance(entry, yaml.MappingNode) else ():
            name = key.value.removeprefix("override ").removeprefix("/")
            yield Knob(name, _source_text(lines, value), _comment_after(lines, value.end_mark))


def _base_options(entries: yaml.Node | None) -> str:
    """Return the options of its own group that a file extends, in words; empty if there are none."""
    scalars = [entry.value for entry in entries.value if isinstance(entry, yaml.ScalarNode)] if entries else []
    named = [value for value in scalars if value != "_self_"]
    return f"Extends {', '.join(named)}." if named else ""


def _leaf_knobs(lines: _Lines, pairs: _Pairs, prefix: str = "", skipped: Sequence[str] = _NOT_KNOBS) -> Iterator[Knob]:
    """Yield the values of a mapping and its nested mappings, under dotted names."""
    for key, value in pairs:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from _leaf_knobs(lines, value.value, f"{name}.")
        elif name not in skipped:
            block = value.start_mark.line > key.start_mark.line
            yield Knob(
                name, _source_text(lines, value), _comment_after(lines, key.end_mark if block else value.end_mark)
            )


def _source_text(lines: _Lines, node: yaml.Node) -> str:
    """Return a value as the file writes it, in one line."""
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return f"[{', '.join(_source_text(lines, item) for item in node.value)}]"
    first, last = node.start_mark, node.end_mark
    text = "\n".join(lines[first.line : last.line + 1])
    cut = len(lines[last.line]) - last.column if last.line < len(lines) else 0
    return " ".join(text[first.column : len(text) - cut].split())


def _comment_after(lines: _Lines, place: yaml.Mark) -> str:
    """Return the comment after a position, with indented comment lines that continue it."""
    _, mark, text = lines[place.line][place.column :].partition("#")
    found = [text.strip()]
    for following in lines[place.line + 1 :] if mark else ():
        if not following.startswith(" ") or not following.lstrip().startswith("#"):
            break
        found.append(following.strip().lstrip("#").strip())
    return " ".join(found)


def _docstring(kind: str, name: str) -> str:
    """Return a component's docstring, empty if there is no such component."""
    return (inspect.getdoc(find(kind, name)) or "") if name in names(kind) else ""


def _option_without_yaml(kind: str, name: str) -> Option:
    """Return an option for a component without a YAML, from its signature."""
    found = (
        Knob(knob, "?", type_in_words(annotation), role=marks_in(annotation).role)
        for knob, annotation in knobs(find(kind, name)).items()
    )
    about = f"Requires {kind}/{name}.yaml in --config-dir."
    return Option(name, about, _docstring(kind, name), tuple(found), has_comment=False)


def type_in_words(annotation: Any) -> str:
    """Return a knob's type and range in words: `number >= 0 and <= 1`, `'zeros', 'reflect'`, `null`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (None, type(None)):
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(map(type_in_words, arguments))
    if origin is list:
        return f"list of: {type_in_words(arguments[0])}"
    if origin is Annotated:
        kind, rule = alone(annotation)
        if isinstance(rule, Fields):
            return f"mapping of {', '.join(name for name, _ in rule.types)}"
        if isinstance(rule, OfLength | Regular):
            return rule.says
        if rule is None or isinstance(rule, NotEmpty):
            return type_in_words(kind)
    try:
        return described(annotation).removeprefix("a ")
    except KeyError:
        return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
