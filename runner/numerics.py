"""The numerics version: which changes of the code changed results, and which values reproduce the old results.

A change that alters a number gets an entry in `runner.changes` and a line in CHANGELOG.md. The version is that of the
last entry. A checkpoint's manifest stores the version that wrote it; a manifest without a version has version 1. A run
of an older version is evaluated as before. It resumes only if its config uses no part that has changed since, or with
`resume_numerics=new`.

New and renamed keys are in `runner.key_history`, knobs that became settings in `MOVED` of `runner.knob_places`.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.batch_sizes import undivided
from runner.changes import CHANGES
from runner.errors import CheckpointError
from runner.key_history import ADDED, RENAMED
from runner.knob_places import MOVED, knobs_of, place_of, with_knobs, with_moved, with_moved_back

_Config = Mapping[str, Any]
_FIRST = 1
BEFORE_SCHEMA_2 = 2  # the last version that wrote results of schema 1
META = "numerics"  # the entry of a manifest's `meta`

COMMAND_ONLY = ("resume_numerics", "resume_data", "rerun")  # settings that are never taken from a saved config

# By setting: the old name of a value, and its name now
RENAMED_VALUES: dict[str, dict[str, str]] = {
    "monitor": {"train/accuracy": "train_eval/accuracy"},
}


def current() -> int:
    """Return the numerics version of this code."""
    return max((change.version for change in CHANGES), default=_FIRST)


def version_in(meta: Mapping[str, Any], where: object) -> int:
    """Return the version that wrote a checkpoint; CheckpointError if it is malformed, or newer than this code."""
    found = meta.get(META, _FIRST)
    if type(found) is not int or found < _FIRST:
        raise CheckpointError(f"{where}: its numerics version is malformed")
    if found > current():
        raise CheckpointError(
            f"{where}: was written with numerics version {found}, newer than {current()} of this runner; update runner"
        )
    return found


def check_unchanged(config: _Config, version: int, where: object, *, accept: bool, scores_only: bool = False) -> bool:
    """Return True if a run would continue with formulas other than those that it began with.

    Args:
        config: The run's config, completed.
        version: The numerics version that wrote its checkpoint.
        where: The run's folder, for the message.
        accept: True for `resume_numerics=new`; otherwise such a run is rejected.
        scores_only: Consider only changes of the scores of given weights, as an evaluation does.

    Raises:
        CheckpointError: A part that the config uses has changed and this is not accepted.
    """
    changed = [
        each
        for each in CHANGES
        if each.version > version and (each.scores or not scores_only) and each.concerns(config)
    ]
    if changed and not accept:
        parts = "; ".join(f"{each.part}: {each.says}" for each in changed)
        raise CheckpointError(
            f"{where}: was trained with numerics version {version} and uses what has changed since ({parts}); "
            "to continue with the new numbers: resume_numerics=new"
        )
    return bool(changed)


def completed(config: _Config) -> dict[str, Any]:
    """Return a saved config with the keys that were added later, at the values that reproduce the old numbers.

    Renamed knobs and values have their new names.
    """
    found = renamed(config)
    for key, value in ADDED.items():
        group, option, knob = place_of(key)
        if not option:
            found.setdefault(group, value)
        elif (knobs := knobs_of(found, group, option)) is not None and knob not in knobs:
            found[group] = with_knobs(found[group], option, {**knobs, knob: value})
    return found


def renamed(config: _Config) -> dict[str, Any]:
    """Return a config with the new names of its knobs; a value under the old name replaces one under the new name.

    Values of settings have their new names, too.
    """
    found = {key: renamed_value(key, value) for key, value in dict(config).items()}
    for key, new in RENAMED.items():
        group, option, old = place_of(key)
        knobs = knobs_of(found, group, option)
        if knobs is not None and old in knobs:
            kept = {name: value for name, value in knobs.items() if name not in (old, new)}
            found[group] = with_knobs(found[group], option, {**kept, new: knobs[old]})
    return with_moved(found)


def old_names(config: _Config) -> Iterator[tuple[str, str]]:
    """Yield the old names that a config uses for renamed knobs, each with the new name, as dotted keys."""
    for key, new in {**RENAMED, **MOVED}.items():
        group, option, old = place_of(key)
        knobs = knobs_of(config, group, option)
        if knobs is not None and old in knobs and key in MOVED:
            yield f"{group}.{old}", new
        elif knobs is not None and old in knobs:
            place = group if "name" in config[group] else f"{group}.{option}"
            yield f"{place}.{old}", f"{place}.{new}"


def mentions_old_name(text: str) -> bool:
    """Return False if a text has no old name of a knob in it."""
    return any(place_of(key)[2] in text for key in (*RENAMED, *MOVED))


def same_config(saved: Any, config: _Config) -> bool:
    """Return True if a saved config, also of an older version, equals this one except for `COMMAND_ONLY`."""
    saved, config = (undivided(completed(each)) if isinstance(each, Mapping) else {} for each in (saved, config))
    return bool(saved) and saved | dict.fromkeys(COMMAND_ONLY) == config | dict.fromkeys(COMMAND_ONLY)


def stripped(config: _Config) -> dict[str, Any]:
    """Return a config without the added keys that have their old values, and with the old names of knobs and values.

    Hashes use this form, so that a new key or a new name does not change the hash of every configuration.
    """
    found = {key: _old_name(key, value) for key, value in dict(config).items()}
    for key, value in ADDED.items():
        group, option, knob = place_of(key)
        if not option:
            if group in found and found[group] == value:
                del found[group]
        elif (knobs := knobs_of(found, group, option)) is not None and knob in knobs and knobs[knob] == value:
            found[group] = with_knobs(found[group], option, {k: v for k, v in knobs.items() if k != knob})
    for key, new in RENAMED.items():
        group, option, old = place_of(key)
        if (knobs := knobs_of(found, group, option)) is not None and new in knobs:
            found[group] = with_knobs(found[group], option, {old if k == new else k: v for k, v in knobs.items()})
    return with_moved_back(found)


def renamed_value(key: str, value: Any) -> Any:
    """Return the new name of a setting's value."""
    # Other values may not be hashable
    return RENAMED_VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value


def _old_name(key: str, value: Any) -> Any:
    """Return the old name of a setting's value."""
    return next((old for old, new in RENAMED_VALUES.get(key, {}).items() if new == value), value)
