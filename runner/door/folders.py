"""The folders that `hydra.run.dir`, `hydra.sweep.dir` and `hydra.sweep.subdir` name, with their references resolved.

A reference is `${now:%Y-%m-%d}` (when the command began), `${hydra.job.num}` and others of Hydra's, or a key of the
config. Each is resolved once. A sweep's own file keeps the moment, so that `resume=` finds the trials again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner import user_paths
from runner.door.compose import quote
from runner.door.overrides import ParsedOverride, parse_override
from runner.errors import ConfigError, brief

_RUN, SWEEP, SUBDIR = "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"
_REFERENCE = re.compile(r"\$\{([^${}]*)\}")
_SAYS = (
    "${now:%Y-%m-%d}, ${hydra.job.name}, ${hydra.job.num}, ${hydra.job.override_dirname}, ${hydra.runtime.cwd}, "
    "${hydra.runtime.choices.optim} or a key of the config as in ${optim.lr}"
)
# Bytes of a name in the file systems in use
_MOST_BYTES = 255
# References whose values differ between the trials of a sweep
_OF_TRIALS = ("hydra.job.num", "hydra.job.id", "hydra.job.override_dirname")
# The value of a reference; None if there is none of this name
Look = Callable[[str], str | None]


def with_moment(given: Iterable[ParsedOverride]) -> list[ParsedOverride]:
    """Return overrides with `${now:...}` in their folders replaced by the present moment, the same in all of them."""
    moment = time.localtime()

    def look(name: str) -> str | None:
        return time.strftime(name.removeprefix("now:"), moment) if name.startswith("now:") else None

    return [_with_moment(each, look) if _refers(each) else each for each in given]


def _with_moment(given: ParsedOverride, look: Look) -> ParsedOverride:
    text = _replaced(given, look)
    if "${" in _REFERENCE.sub("", text):
        # Hydra could not read it
        raise _unknown(given, "a ${ without its }, or one in another, is not supported")
    return _with_text(given, text)


def _unknown(given: ParsedOverride, why: str) -> ConfigError:
    """Return the error for a reference without a value."""
    return ConfigError(f"{given.key}: got '{brief(str(given.value))}', must refer to {_SAYS}; {why}")


def _refers(given: ParsedOverride) -> bool:
    return given.key in (_RUN, SWEEP, SUBDIR) and "${" in str(given.value)


def _with_text(given: ParsedOverride, text: str) -> ParsedOverride:
    """Return the override of a folder with another name; its word as typed follows."""
    return parse_override(f"{given.key}={quote(text)}")


def _replaced(given: ParsedOverride, look: Look) -> str:
    """Return the text of a folder with the references replaced that have a value."""

    def value(match: re.Match[str]) -> str:
        # Hydra writes ${hydra:job.num} and ${hydra.job.num}
        found = look(re.sub(r"^hydra:", "hydra.", match[1]))
        return match[0] if found is None else found

    try:
        return _REFERENCE.sub(value, str(given.value))
    except ValueError as error:
        raise ConfigError(
            f"{given.key}: got '{brief(str(given.value))}', which cannot be formatted ({error})"
        ) from error


def resolved(given: ParsedOverride, look: Look) -> str:
    """Return the text of a folder with all its references replaced; raises ConfigError for one without a value."""
    text = _replaced(given, look)
    if match := _REFERENCE.search(text):
        raise _unknown(given, f"'{match[0]}' is none of them")
    # Of a path as typed the disk says more
    if text != str(given.value) and any(len(os.fsencode(part)) > _MOST_BYTES for part in text.split("/")):
        raise ConfigError(f"{given.key}: got '{brief(text)}', must have names of at most {_MOST_BYTES} bytes")
    return text


def look_up(
    config: Mapping[str, Any], choices: Mapping[str, Any], words: Iterable[str], number: int | None = None
) -> Look:
    """Return what finds the values of references for one run: its config, options, overrides and number in a sweep."""

    def look(name: str) -> str | None:
        if name in ("hydra.job.num", "hydra.job.id"):
            return None if number is None else str(number)
        if name == "hydra.job.name":
            return "runner"
        if name == "hydra.job.override_dirname":
            return ",".join(sorted(word.lstrip("+") for word in words if not word.startswith("hydra")))
        if name == "hydra.runtime.cwd":
            return user_paths.absolute(".")
        if name.startswith("hydra.runtime.choices."):
            found = choices.get(name.removeprefix("hydra.runtime.choices."))
            return None if found is None else str(found)
        return _value_at(config, name)

    return look


def _value_at(config: Any, name: str) -> str | None:
    """Return the value at a key of a config as text, None if there is none."""
    for part in name.split("."):
        if isinstance(config, (list, tuple)) and part.isdecimal() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, Mapping) and part in config:
            config = config[part]
        else:
            return None
    return str(config)


def with_run_folder(
    given: Sequence[ParsedOverride], config: Mapping[str, Any], choices: Mapping[str, Any]
) -> list[ParsedOverride]:
    """Return the overrides of a single run with the references in its folder replaced."""
    words = [each.typed for each in given]
    look = look_up(config, choices, words)
    return [_with_text(each, resolved(each, look)) if each.key == _RUN and _refers(each) else each for each in given]


def sweep_folder(
    given: ParsedOverride, config: Mapping[str, Any], choices: Mapping[str, Any], swept: Iterable[str]
) -> Path:
    """Return the folder of a sweep; raises ConfigError if its name differs between the trials."""
    if differing := [name for name in references(given) if _differs(name, swept)]:
        says = f"'${{{differing[0]}}}' differs between the trials; use it in {SUBDIR}"
        raise ConfigError(f"{given.key}: got '{brief(str(given.value))}', must be one folder for all trials: {says}")
    return Path(resolved(given, look_up(config, choices, ())))


def references(given: ParsedOverride) -> list[str]:
    """Return the references in the name of a folder."""
    return [re.sub(r"^hydra:", "hydra.", name) for name in _REFERENCE.findall(str(given.value))]


def _differs(name: str, swept: Iterable[str]) -> bool:
    """Return True if the value of a reference differs between the trials that sweep some keys."""
    key = name.removeprefix("hydra.runtime.choices.")
    return name in _OF_TRIALS or any(
        f"{key}.".startswith(f"{each}.") or f"{each}.".startswith(f"{key}.") or each == "recipe" for each in swept
    )
