"""YAML that anyone may have written: found harmless and of a size that a config has, before anything is built of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from runner.errors import ConfigError

LARGEST = 1_000_000  # bytes of a file
MOST = 2_000  # values in it
DEEPEST = 24  # levels of nesting
ODD = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(path: Path) -> str:
    """Return the text of a plain YAML file.

    Raises ConfigError, naming file and line, for what is no plain YAML mapping: too large or deep, anchors, tags.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: is larger than {LARGEST} bytes, too large for a config")
        text = path.read_text(encoding="utf-8")
        inspect(path, text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(where(path, error)) from error
    return text


def inspect(path: Path, text: str) -> None:
    """Refuse what a config has no use for and a parser could be hurt by, without building any object."""
    depth = values = 0
    for event in yaml.parse(text, Loader=Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{path}:{line}: anchors and aliases (& and *) are not taken in a config")
        if tag := getattr(event, "tag", None):
            raise ConfigError(f"{path}:{line}: tags ({tag}) are not taken in a config")
        if depth == 0 and isinstance(event, (yaml.ScalarEvent, yaml.SequenceStartEvent)):
            raise ConfigError(f"{path}:{line}: must be a mapping of words to values, key: value")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and ODD.fullmatch(event.value):
            raise ConfigError(f"{path}:{line}: {event.value} would be read in base 8 or 60; write it in base 10")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        values += isinstance(event, yaml.NodeEvent)
        if depth > DEEPEST:
            raise ConfigError(f"{path}:{line}: is nested deeper than {DEEPEST} levels")
        if values > MOST:
            raise ConfigError(f"{path}:{line}: holds more than {MOST} values, too many for a config")


def where(path: Path, error: yaml.YAMLError) -> str:
    """Return file, line and problem of a YAML error."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{path}{f':{mark.line + 1}' if mark else ''}: {problem or str(error).splitlines()[0]}"
