"""Config files as plain dicts, read only after their text has been found harmless."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.errors import ConfigError

LARGEST = 1_000_000  # bytes of a config file
DEEPEST = 24  # levels of nesting
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def document(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds, interpolations unresolved.

    Raises ConfigError, naming file and line, for what is no plain YAML mapping: too large or deep, anchors, tags.
    """
    text = read(path)
    try:
        inspect(path, text)
        content = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except yaml.YAMLError as error:
        raise ConfigError(where(path, error)) from error
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    return content  # type: ignore[return-value]


def read(path: Path) -> str:
    """Return the text of a config file."""
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: is larger than {LARGEST} bytes, too large for a config")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def inspect(path: Path, text: str) -> None:
    """Refuse what a config has no use for and a parser could be hurt by, without building any object."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{path}:{line}: anchors and aliases (& and *) are not taken in a config")
        if tag := getattr(event, "tag", None):
            raise ConfigError(f"{path}:{line}: tags ({tag}) are not taken in a config")
        if depth == 0 and isinstance(event, (yaml.ScalarEvent, yaml.SequenceStartEvent)):
            raise ConfigError(f"{path}:{line}: must be a mapping of words to values, key: value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ConfigError(f"{path}:{line}: is nested deeper than {DEEPEST} levels")


def where(path: Path, error: yaml.YAMLError) -> str:
    """Return file, line and problem of a YAML error."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{path}{f':{mark.line + 1}' if mark else ''}: {problem or str(error).splitlines()[0]}"
