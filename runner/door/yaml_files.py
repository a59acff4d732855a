"""Config files as plain dicts, read only after their text has been found harmless."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner import plain_yaml
from runner.errors import ConfigError


@cache
def document(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds, interpolations unresolved.

    Raises ConfigError, naming file and line, for what is no plain YAML mapping: too large or deep, anchors, tags.
    """
    text = plain_yaml.read(path)
    try:
        content = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except yaml.YAMLError as error:
        raise ConfigError(plain_yaml.where(path, error)) from error
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    return content  # type: ignore[return-value]
