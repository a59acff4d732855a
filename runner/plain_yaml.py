"""Load untrusted config files: size, nesting, tags and anchors are checked before any object is built."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import yaml

from runner import user_paths
from runner.errors import KEY, ConfigError, brief, wrong

# Limits of a file: bytes, values, levels of nesting
_MAX_BYTES = 1_000_000
_MAX_VALUES = 2_000
MAX_DEPTH = 24
# Numbers that YAML 1.1 reads in base 8 or 60
_NOT_DECIMAL = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
# Characters of a text, a key or an override
MAX_LENGTH = 10_000
# An interpolation that refers to a value, or an escaped \${, which is no interpolation
_REFERENCE = r"(?<!\\)(\\\\)*\\\$\{|\$\{[\w.\[\]-]+\}"
_MISSING = "???"
# The largest integer of torch and numpy
_MAX_INT = 2**63 - 1
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_YAML = "tag:yaml.org,2002"
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def conf_folder() -> Path:
    """Return runner's config folder: inside the installed package, else beside it."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package / "conf", package.parent / "conf") if (path / "config.yaml").is_file())


def _read(path: Path) -> str:
    """Return the text of a plain YAML file.

    Raises ConfigError, with file and line, if it is too large or too deep, has anchors or tags, or is not a mapping.
    """
    text = read_text(path)
    try:
        _inspect(path, text)
    except yaml.YAMLError as error:
        raise ConfigError(error_message(path, error)) from error
    return text


def yaml_files(folder: Path) -> list[Path]:
    """Return the YAML files in a folder, sorted, none if there is no such folder."""
    return [folder / name for name in user_paths.listed(folder) if name.endswith(".yaml")]


def read_text(path: Path) -> str:
    """Return the text of a file; raises ConfigError if it cannot be read, is too large, or is not UTF-8."""
    found = user_paths.status(path)
    try:
        if found and not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path}: must be a file")
        if found and found.st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: is larger than {_MAX_BYTES} bytes, too large for a config")
        return Path(user_paths.full(path)).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def load(path: Path) -> Any:
    """Return the content of a plain YAML file; raises ConfigError like `_read`, and for values that no config has."""
    try:
        content = _Loader(_read(path)).get_single_data()  # `safe_load` by libyaml, if installed
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    check_values(content, f"{path}: ")
    return content


class _ConfigLoader(_Loader):  # type: ignore[misc]
    """The scalars and keys of OmegaConf's YAML: `1e-3` is a number too, a date is a text, each key stands once."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in rules if tag != f"{_YAML}:timestamp"]
        for first, rules in _Loader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; raises ConstructorError for a key given twice and for null."""
        found: set[str] = set()
        for key, _ in node.value:
            if key.tag == f"{_YAML}:null":
                raise yaml.constructor.ConstructorError(None, None, "a key must not be null", key.start_mark)
            if key.tag == f"{_YAML}:str":
                if key.value in found:
                    problem = f"found duplicate key {key.value}"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                found.add(key.value)
        return super().construct_mapping(node, deep=deep)  # type: ignore[no-any-return]


_ConfigLoader.add_implicit_resolver(
    f"{_YAML}:float", re.compile(r"[-+]?[0-9]+(_[0-9]+)*(\.[0-9_]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


def load_config(path: Path) -> dict[str, Any]:
    """Return the mapping in a config file as OmegaConf reads it, with interpolations as text.

    libyaml takes a fifth of OmegaConf's time, and `--help` needs no OmegaConf. Raises ConfigError, with file and line,
    for what no config needs (too large or deep, anchors, tags, no mapping), and for a key that is null or given twice.
    """
    try:
        return _ConfigLoader(_read(path)).get_single_data() or {}
    except yaml.YAMLError as error:
        raise ConfigError(error_message(path, error)) from error
    except ValueError as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error


@cache
def loaded_config(path: Path) -> dict[str, Any]:
    """Return the mapping that a config file holds, read once for each process; nobody may change it."""
    return load_config(path)


def dump(content: Any) -> bytes:
    """Return plain values as a YAML file; libyaml, where installed, saves each trial of a sweep 20 ms."""
    return bytes(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True).encode())


def _inspect(path: Path, text: str) -> None:
    """Raise ConfigError for YAML features that no config needs and that can harm a parser; build no object."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{path}:{line}: anchors and aliases (& and *) are not supported in a config")
        if tag := getattr(event, "tag", None):
            raise ConfigError(f"{path}:{line}: tags ({tag}) are not supported in a config")
        if depth == 0 and isinstance(event, (yaml.ScalarEvent, yaml.SequenceStartEvent)):
            raise ConfigError(f"{path}:{line}: must be a mapping of words to values, key: value")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _NOT_DECIMAL.fullmatch(event.value):
            raise ConfigError(f"{path}:{line}: {event.value} would be read in base 8 or 60; write it in base 10")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        values += isinstance(event, yaml.NodeEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{path}:{line}: is nested deeper than {MAX_DEPTH} levels")
        if values > _MAX_VALUES:
            raise ConfigError(f"{path}:{line}: holds more than {_MAX_VALUES} values, too many for a config")


def line_of(path: Path, key: str) -> int | None:
    """Return the line of a dotted key in a YAML file, of the deepest part of it that is there; None if none is."""
    try:
        node, line = yaml.compose(read_text(path), Loader=_Loader), None
        for word in key.split("."):
            if isinstance(node, yaml.SequenceNode) and word.isdigit() and int(word) < len(node.value):
                node = node.value[int(word)]
                line = node.start_mark.line + 1
                continue
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            found = next(((name, value) for name, value in pairs if name.value == word), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
    except (yaml.YAMLError, ConfigError):
        return None
    return line


def error_message(path: Path, error: yaml.YAMLError) -> str:
    """Return the message of a YAML error: file, line and problem."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{path}{f':{mark.line + 1}' if mark else ''}: {problem or str(error).splitlines()[0]}"


def check_values(content: Any, key: str = "") -> None:
    """Raise ConfigError for keys that begin with an underscore, which Hydra imports and calls, and for unusable values.

    `key` is the key of the content, with a dot at its end.
    """
    if isinstance(content, Mapping):
        for name, value in content.items():
            _check_value(name, f"{key}{name}")
            check_key_name(str(name), f"{key}{name}")
            check_values(value, f"{key}{name}.")
    elif isinstance(content, (list, tuple)):
        for item in content:
            check_values(item, key)
    else:
        _check_value(content, key.removesuffix("."))


def check_key_name(name: str, key: str) -> None:
    """Raise ConfigError for a part of a key that begins with an underscore or a dollar sign."""
    if name.startswith(("_", "$")):
        raise ConfigError(f"{brief(key, KEY)}: a key must not start with '{name[0]}' (a config cannot call code)")


def _check_value(value: Any, key: str) -> None:
    """Raise ConfigError for a text that cannot be stored in a file or path, and for a number beyond 64 bits."""
    if isinstance(value, str) and not _storable(value):
        raise wrong(key, value, "text that UTF-8 can write, without NUL")
    if isinstance(value, str) and len(value) > MAX_LENGTH:
        raise wrong(key, value, f"at most {MAX_LENGTH} characters")
    if value == _MISSING:
        raise wrong(key, value, "a value (OmegaConf would keep the old one)")
    if isinstance(value, int) and abs(value) > _MAX_INT:
        raise ConfigError(f"{brief(key, KEY)}: got a number of {value.bit_length()} bits, must be at most {_MAX_INT}")


def check_interpolations(content: Any, key: str = "") -> None:
    """Raise ConfigError for interpolations that call a resolver, `${oc.env:...}`; `${optim.lr}` is allowed."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            check_interpolations(value, f"{key}{name}.")
    elif isinstance(content, (list, tuple)):
        for item in content:
            check_interpolations(item, key)
    elif isinstance(content, str) and "${" in content and "${" in re.sub(_REFERENCE, "", content):
        raise wrong(key.removesuffix("."), content, "a value, or a reference to one, as in ${optim.lr}")


def _storable(text: str) -> bool:
    """Return True if a text can be written to a file and be part of a path."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
