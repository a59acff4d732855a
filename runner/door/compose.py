"""From overrides to one checked config: Hydra composes the choices, plain values are set on a copy."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from runner.door.check import check_config
from runner.door.check_files import check_option_file, check_primary_file
from runner.door.metrics import with_monitored_metric
from runner.door.options import RECIPE, Conf, chosen_options, default_choice, option_values, primary_file
from runner.door.overrides import ParsedOverride
from runner.door.sizes import sizes_as_pairs
from runner.errors import ConfigError, RunnerError, short_reason, unknown
from runner.expand_user import expand_paths
from runner.numerics import mentions_old_name, old_names, renamed
from runner.plain_yaml import check_interpolations, error_message, line_of
from runner.registry import MAIN, registered_in
from runner.user_paths import near

# Interpolations can refer to each other, so that n of them can expand to 3^(n/3) values
_MOST_REFERENCES = 12
# Hydra's launchers and the packages that provide them
_LAUNCHERS = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}


class Parts(NamedTuple):
    """Hydra's composition of the choices: the groups and the recipe, without plain values."""

    config: DictConfig
    hydra: DictConfig
    chosen: dict[str, list[str]]  # the options of each group


@contextmanager
def hydra_opened(conf: Conf) -> Iterator[None]:
    """Initialize Hydra with the config folders, unless that is done already; nothing is run."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(_home(conf)), job_name="runner", version_base="1.3"):
        yield


def _home(conf: Conf) -> Path:
    """Return the folder of the primary config, because Hydra searches it only in its main folder."""
    return primary_file(conf, conf.primary).parent


def picks_option(conf: Conf, given: ParsedOverride) -> bool:
    """Return True if an override picks options of a group (and does not set knobs)."""
    return given.key in conf.defaults and (given.swept or not isinstance(given.value, dict))


def compose_parts(conf: Conf, given: Sequence[ParsedOverride]) -> Parts:
    """Return the composition of the overrides' choices; the user's files are checked before Hydra reads them."""
    check_primary_file(conf)
    for each in given:
        if picks_option(conf, each):
            for option in chosen_options(conf, each.key, each.value):
                check_option_file(conf, each.key, option)
    words = choice_words(conf, given)
    try:
        config = compose(conf.primary, words, return_hydra_config=True)
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
    with open_dict(config):
        hydra = config.pop("hydra")
    chosen = {group: _chosen_in_group(conf, group, hydra.runtime.choices, given) for group in conf.defaults}
    return Parts(_with_new_names(config), hydra, chosen)


def choice_words(conf: Conf, given: Sequence[ParsedOverride]) -> list[str]:
    """Return the choices of the overrides as words for Hydra; a choice of `null` is left out."""
    others = [quote(f"file://{folder}") for folder in conf.folders if folder != _home(conf)]
    chosen = [each for each in given if each.sets_hydra or (picks_option(conf, each) and each.value is not None)]
    return [f"hydra.searchpath=[{','.join(others)}]", *(each.word for each in chosen)]


def _chosen_in_group(conf: Conf, group: str, choices: Mapping[str, Any], given: Sequence[ParsedOverride]) -> list[str]:
    """Return the options of a group in a composition."""
    typed = [each.value for each in given if each.key == group and picks_option(conf, each)]
    if typed == [None] and choices.get(group) is not None:
        raise ConfigError(f"{group}: got null, but the config '{conf.primary}' sets {choices.get(group)}")
    if not conf.several(group):
        return chosen_options(conf, group, choices.get(group))
    return chosen_options(conf, group, typed[0]) if typed else default_choice(conf, group, choices.get(RECIPE))


def with_values_set(conf: Conf, parts: Parts, given: Sequence[ParsedOverride]) -> DictConfig:
    """Return the composed config with the plain values of the overrides set; a copy if there are any."""
    values = [each for each in given if not each.sets_hydra and not picks_option(conf, each)]
    if not values:
        return parts.config
    config = copy.deepcopy(parts.config)
    keys = {each.key for each in given}
    for each in values:
        if each.value == {} and OmegaConf.select(config, each.key, default={}):
            raise ConfigError(f"{each.key}: got {{}}, which would be merged into the old value and change nothing")
        try:
            OmegaConf.update(config, each.key, each.value, merge=True, force_add=True)
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            raise ConfigError(f"{each.key}: cannot be set there: {short_reason(error)}") from error
        if mentions_old_name(each.word):
            config = _with_new_names(config, keys)
    return config


def _with_new_names(config: DictConfig, typed: Container[str] = ()) -> DictConfig:
    """Return a config with the new names of its knobs; ConfigError if both names of one are `typed`."""
    # As it is written: reading values would resolve interpolations
    raw: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    names = dict(old_names(raw))
    for old, new in names.items():
        if old in typed and new in typed:
            raise ConfigError(f"{old}: given together with {new}, its new name; must be one of the two")
    return OmegaConf.create(renamed(raw)) if names else config


def compose_run(conf: Conf, parts: Parts, given: Sequence[ParsedOverride]) -> dict[str, Any]:
    """Return the config of one run as plain values, resolved and checked."""
    config = resolve(with_values_set(conf, parts, given))
    typed = [each.key for each in given if not picks_option(conf, each)]
    if config.get("plugins") and "plugins" not in typed:
        raise ConfigError("plugins: allowed on the command line only, because a file must not import code")
    if MAIN in (config.get("plugins") or ()) and not registered_in(MAIN):
        raise ConfigError(
            f"plugins: got {MAIN}, the components of a notebook or script; call runner.train where they are defined, "
            "or put them into a module"
        )
    config, chosen = with_monitored_metric(conf, config, parts.chosen)
    try:
        config = sizes_as_pairs(conf, config, chosen)
        check_config(conf, config, chosen)
    except RunnerError as error:
        raise ConfigError(f"{error}{_origin(conf, parts, str(error).partition(':')[0], typed)}") from error
    return config


def resolve(config: DictConfig) -> dict[str, Any]:
    """Return a config as plain dicts: interpolations resolved, `~` expanded in paths, values under their new names."""
    raw = OmegaConf.to_container(config, resolve=False)
    check_interpolations(raw)
    references = str(raw).count("${")
    if references > _MOST_REFERENCES:
        raise ConfigError(f"config: holds {references} interpolations, must be at most {_MOST_REFERENCES}")
    try:
        found: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {short_reason(error)}") from error
    found = renamed(found)
    expand_paths(found)
    return found


def _origin(conf: Conf, parts: Parts, key: str, typed: Iterable[str]) -> str:
    """Return words that name the file that sets a wrong key, with the line; empty if the command line sets it."""
    if any(key == word or key.startswith(f"{word}.") or word.startswith(f"{key}.") for word in typed):
        return ""
    group, _, knob = key.partition(".")
    for name, inside in ((RECIPE, key), (group, knob)):
        for option in parts.chosen.get(name, []):
            if _holds(option_values(conf, name, option), inside):
                file = conf.files[name][option]
                line = None if conf.is_shipped(file) else line_of(file, inside)
                return f" (set by {name}={option}{f', {near(file)}:{line}' if line else ''})"
    # A key that is missing is in no file
    if own := [
        file for option in parts.chosen.get(group, []) if not conf.is_shipped(file := conf.files[group][option])
    ]:
        return f" ({near(own[0])})" if knob else ""
    if conf.primary != "config" and (line := line_of(file := primary_file(conf, conf.primary), key)):
        return f" (set in {near(file)}:{line})"
    return ""


def _holds(content: Any, key: str) -> bool:
    """Return True if a nested mapping sets a dotted key."""
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


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


def to_plain(value: Any) -> Any:
    """Return OmegaConf's value as Python's."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def quote(text: str | Path) -> str:
    """Return a text quoted for Hydra's grammar."""
    return QuotedString(str(text), Quote.single).with_quotes()
