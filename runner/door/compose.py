"""From overrides to one checked config: the choices are composed, plain values are set on a copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from runner.door.check import check_config
from runner.door.check_files import check_option_file, check_primary_file
from runner.door.metrics import with_monitored_metric
from runner.door.options import RECIPE, Conf, chosen_options, default_choice, option_values, primary_file
from runner.door.overrides import ParsedOverride
from runner.door.shipped import compose_shipped
from runner.door.sizes import sizes_as_pairs
from runner.errors import ConfigError, RunnerError, short_reason, wrong
from runner.expand_user import expand_paths
from runner.numerics import mentions_old_name, old_names, renamed
from runner.plain_yaml import check_interpolations, line_of
from runner.registry import MAIN, registered_in
from runner.user_paths import near

# Interpolations can refer to each other, so that n of them can expand to 3^(n/3) values
_MOST_REFERENCES = 12


class Parts:
    """The composition of the choices: the groups and the recipe, without plain values.

    Args:
        config: The composed config.
        choices: The option of each group, as Hydra names it.
        chosen: The options of each group.
        hydra: Returns Hydra's own config.
        sets_hydra: A word or a file may configure Hydra.

    """

    def __init__(
        self,
        config: DictConfig,
        choices: Mapping[str, Any],
        chosen: dict[str, list[str]],
        hydra: Callable[[], DictConfig],
        *,
        sets_hydra: bool,
    ) -> None:
        self.config, self.choices, self.chosen, self.sets_hydra = config, choices, chosen, sets_hydra
        self._compose_hydra = hydra

    @cached_property
    def hydra(self) -> DictConfig:
        """Return Hydra's own config, composed when it is first needed."""
        return self._compose_hydra()

    @property
    def many(self) -> bool:
        """True if a file or a word asks for a sweep, as `-m` does."""
        return self.sets_hydra and getattr(self.hydra.mode, "name", None) == "MULTIRUN"

    @property
    def searched(self) -> dict[str, Any]:
        """Return the values to try that a recipe lists in `hydra.sweeper.params`."""
        found = to_plain(self.hydra.sweeper.get("params")) or {} if self.sets_hydra else {}
        if not isinstance(found, dict):
            raise wrong("hydra.sweeper.params", found, "keys with the values to try")
        return found


@contextmanager
def hydra_opened(conf: Conf) -> Iterator[None]:
    """Initialize Hydra with the config folders, unless that is done already; nothing is run."""
    # Late, here and below: most command lines need little of Hydra, whose import takes longer than their answer
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

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
    picked = {each.key: each.value for each in given if picks_option(conf, each)}
    if not any(each.sets_hydra for each in given) and (shipped := compose_shipped(conf, picked)):
        config, chosen = OmegaConf.create(shipped[0]), shipped[1]
        # As Hydra does
        OmegaConf.set_struct(config, value=True)
        choices = {group: next(iter(chosen[group]), None) for group in conf.defaults if not conf.several(group)}
        return Parts(_with_new_names(config), choices, chosen, lambda: _composed(conf, given)[1], sets_hydra=False)
    config, hydra = _composed(conf, given)
    choices = hydra.runtime.choices
    chosen = {group: _chosen_in_group(conf, group, choices, given) for group in conf.defaults}
    return Parts(_with_new_names(config), choices, chosen, lambda: hydra, sets_hydra=True)


def _composed(conf: Conf, given: Sequence[ParsedOverride]) -> tuple[DictConfig, DictConfig]:
    """Return what Hydra composes of the overrides' choices: the config, and Hydra's own."""
    from runner.door.hydra_compose import composed_by_hydra

    with hydra_opened(conf):
        config = composed_by_hydra(conf, choice_words(conf, given), given)
    with open_dict(config):
        return config, config.pop("hydra")


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
    expand_paths(found := renamed(found))
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
    options = parts.chosen.get(group, [])
    if own := [file for option in options if not conf.is_shipped(file := conf.files[group][option])]:
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


def to_plain(value: Any) -> Any:
    """Return OmegaConf's value as Python's."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def quote(text: str | Path) -> str:
    """Return a text quoted for Hydra's grammar."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(str(text), Quote.single).with_quotes()
