"""Composition by Hydra itself, and its errors in runner's words.

This imports all of Hydra, which takes longer than the rest of a command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml
from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from runner.door.options import Conf, read_yaml
from runner.door.overrides import ParsedOverride
from runner.errors import ConfigError, short_reason, unknown
from runner.plain_yaml import error_message

# Hydra's launchers and the packages that provide them
_LAUNCHERS = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}


def composed_by_hydra(conf: Conf, words: list[str], given: Sequence[ParsedOverride]) -> DictConfig:
    """Return what Hydra, which must be initialized, composes of words; `hydra` in it is Hydra's own config.

    `given` are the overrides of which the words are.
    """
    _extend_basic_sweeper(conf.folders[0])
    try:
        return compose(conf.primary, words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise hydra_error(error) from error
    except yaml.YAMLError as error:
        # Hydra's parser refuses some of what libyaml takes, such as a tab after a colon
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(error_message(Path(mark.name if mark else "config"), error)) from error
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        # OmegaConf raises these for a wrong value in Hydra's own config
        keys = [each.key for each in given if each.sets_hydra]
        raise ConfigError(f"{', '.join(keys) or 'config'}: cannot be set: {short_reason(error)}") from error


@cache
def _extend_basic_sweeper(shipped: Path) -> None:
    """Give Hydra's own sweeper, `hydra/sweeper=basic`, the settings of a grid."""
    # A file of that name would be checked against Hydra's schema, which has two keys
    file = shipped / "hydra" / "sweeper" / "grid.yaml"
    if file.is_file():
        ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=read_yaml(file), provider="runner")


def hydra_error(error: Exception) -> ConfigError:
    """Return a ConfigError for an error of Hydra's composition."""
    cause = error.__cause__
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and option in _LAUNCHERS:
            return ConfigError(f"{group}: '{option}' is not installed: pip install {_LAUNCHERS[option]}")
        return unknown(group, "option", option, error.options)
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.full_key:
        siblings = [str(key) for key in cause.parent_node or () if not str(key).startswith("_")]
        return unknown(cause.full_key, "key", str(cause.key), siblings or ["nothing, it has no keys"])
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return ConfigError(f"{cause.full_key}: {short_reason(cause)}")
    if isinstance(cause, OmegaConfBaseException):
        return ConfigError(f"{short_reason(error).rstrip(':')}: {short_reason(cause)}")
    return ConfigError(f"config: {short_reason(error)}")
