"""Suggestions for an unknown key across groups, from the words of other libraries and from all knobs.

Only the line about an unknown key needs this module. A suggestion is checked: its options and keys exist with what the
command line chooses, and its values are of their types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from runner.door.field_keys import all_keys, note_on, templates_for
from runner.door.known_keys import Chosen, chosen_by, chosen_knobs, fits, owners_of
from runner.door.options import Conf, find_conf
from runner.door.overrides import ParsedOverride, parse_override
from runner.door.variants import hydra_text
from runner.errors import ConfigError, unknown
from runner.field_words import NOT_HERE, normalized, value_words
from runner.settings import SETTINGS
from runner.spelling import close, distance, nearest

_Words = list[str]

# Commands that one line suggests at most
_MOST = 3
# Letters of a word that is one edit away from too many others
_SHORT = 4
# Groups whose option nobody changes because of a knob
_FIXED = ("data", "model")


def unknown_first_word(conf: Conf, given: ParsedOverride, words: Sequence[str]) -> ConfigError:
    """Return the error for an override whose first word is neither a group nor a global field."""
    top = given.key if "/" in given.key else given.key.partition(".")[0]
    known = [*conf.defaults, *SETTINGS]
    hint = _hint(conf, chosen_by(conf, words), given.key, given.text, "")
    near = next(iter(nearest(top, known)))
    if not hint and "/" not in given.key and not close(top, near):
        hint = _misspelled(conf, chosen_by(conf, words), given.key, given.text)
    return unknown(given.key, "key", top, known, hint=hint)


def flag_hint(flag: str, value: str) -> str:
    """Return what to type instead of an unknown flag, in words; settings have no dashes."""
    conf, key = find_conf(), flag.lstrip("-").replace("-", "_")
    chosen = chosen_by(conf, ())
    if fits(conf, chosen, words := [f"{key}={value}"]):
        return _did_you_mean([words], "", "")
    return _hint(conf, chosen, key, value, "") or _misspelled(conf, chosen, key, value)


def unknown_top_key(conf: Conf, chosen: Chosen, key: str, value: Any) -> ConfigError:
    """Return the error for a key of a file that is neither a group nor a global field."""
    return unknown(key, "key", key, [*conf.defaults, *SETTINGS], hint=_hint(conf, chosen, *_first_leaf(key, value), ""))


def unknown_knob(conf: Conf, chosen: Chosen, key: str, value: Any, known: Sequence[str]) -> ConfigError:
    """Return the error for a key that the chosen option of its group does not have; `known` are those that it has."""
    place, _, name = key.rpartition(".")
    if words := [word for word in known if _same(word, name)]:
        return unknown(key, "key", name, known, hint=f"; did you mean '{words[0]}'?")
    if known and close(name, nearest(name, known)[0]):
        return unknown(key, "key", name, known)
    return unknown(key, "key", name, known, hint=_hint(conf, chosen, *_first_leaf(key, value), place))


def _first_leaf(key: str, value: Any) -> tuple[str, str]:
    """Return a key with its value as text, those of the first value in a mapping."""
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        key = f"{key}.{name}"
    text = hydra_text(value)
    if isinstance(value, str):
        with suppress(ConfigError):
            text = value if parse_override(f"{key}={value}").value == value else text
    return key, text


def _hint(conf: Conf, chosen: Chosen, key: str, text: str, place: str) -> str:
    """Return what to type instead of a key, in words; empty if nothing is sure. `place` is the group, if it is one."""
    name = key.rpartition(".")[2]
    if found := _commands(conf, chosen, key, text):
        return _did_you_mean(found, place, text)
    if note := note_on(key) or note_on(name):
        return f"; {note}"
    meant = [words[-1].partition("=")[0] for words in _from_table(key, text)]
    knobs = list(chosen_knobs(conf, chosen))
    keys = [each for each in meant if each in (*SETTINGS, *conf.defaults) or tuple(each.rsplit(".", 1)) in knobs]
    keys += [f"{where}.{knob}" for where, knob in knobs if _same(knob, name)]
    if keys:
        # The value is wrong, which the next line says
        return f"; did you mean '{keys[0]}'?"
    return _owners_in_words(conf, chosen, [*meant, f"*.{name}"], text, place)


def _owners_in_words(conf: Conf, chosen: Chosen, keys: Sequence[str], text: str, place: str) -> str:
    """Return which options that are not chosen have one of some keys, `*` for any group, in words."""
    for key in keys:
        group, _, name = key.rpartition(".")
        owners = list(owners_of(conf, group, name))
        if len(owners) == 1 and owners[0][0] not in _FIXED:
            words = _with_choice(conf, *owners[0], f"{name}={text}")
            if fits(conf, chosen, words):
                return _did_you_mean([words], place, text)
        if owners:
            first = dict.fromkeys(each for each, _ in owners)
            listed = [f"{each}={', '.join(option for other, option in owners if other == each)}" for each in first]
            return f"; '{name}' is a key of {'; '.join(listed)}"
    return ""


def _with_choice(conf: Conf, group: str, option: str, knob: str) -> _Words:
    """Return overrides that choose an option and set a knob of it."""
    if conf.several(group):
        return [f"{group}=[{option}]", f"{group}.{option}.{knob}"]
    return [f"{group}={option}", f"{group}.{knob}"]


def _did_you_mean(commands: Sequence[_Words], place: str, text: str) -> str:
    """Return commands as a question: words to copy, or the key alone where it is in the same group."""
    key, _, value = commands[0][0].partition("=")
    beside = key.removeprefix(f"{place}.")
    if place and len(commands) == 1 == len(commands[0]) and value == text and beside != key and "." not in beside:
        return f"; did you mean '{beside}'?"
    return f"; did you mean {' or '.join(' '.join(map(_quoted, words)) for words in commands[:_MOST])}?"


def _quoted(word: str) -> str:
    """Return an override in quotes, as a shell takes it."""
    # Late: only this line needs it
    import shlex

    return shlex.quote(word) if "'" in word else f"'{word}'"


def _commands(conf: Conf, chosen: Chosen, key: str, text: str) -> list[_Words]:
    """Return overrides that say what a key of others says: the first in the tables, else every knob of its name."""
    for words in _from_table(key, text):
        if fits(conf, chosen, words := _translated(conf, words)):
            return [words]
    name = key.rpartition(".")[2]
    found = [f"{place}.{knob}={text}" for place, knob in chosen_knobs(conf, chosen) if _same(knob, name)]
    if "." in key:
        found = [*(f"{setting}={text}" for setting in SETTINGS if _same(setting, name)), *found]
        found += [f"{group}={text}" for group in conf.defaults if _same(group, name)]
    return [words for word in found if fits(conf, chosen, words := _translated(conf, [word]))]


def _same(word: str, other: str) -> bool:
    return normalized(word) == normalized(other)


def _from_table(key: str, text: str) -> Iterator[_Words]:
    """Yield the overrides that the tables have for a key or the last word of it, with the value put in."""
    first, *rest = key.split(".")
    # `optimizer.weight_decay`: the group by another name
    groups = [each.removesuffix("={}") for each in templates_for(first) if re.fullmatch(r"\w+=\{\}", each)]
    if rest and rest != ["name"]:
        yield from ([f"{group}.{'.'.join(rest)}={text}"] for group in groups)
    elif rest:
        yield from ([f"{group}={text}"] for group in groups)
    for template_words in [*templates_for(key), *(templates_for(rest[-1]) if rest else ())]:
        value, mark, words = template_words.rpartition(": ")
        if not mark or normalized(value) == normalized(text):
            yield [word.replace("{}", text) for word in words.split()]


def _translated(conf: Conf, words: _Words) -> _Words:
    """Return overrides with the words of others for options and values replaced."""
    found: _Words = []
    for word in words:
        key, _, text = word.partition("=")
        ours = None if text in conf.files.get(key, ()) else _option_here(conf, key, text)
        found += ours.strip("'").split() if ours and "=" in ours else [f"{key}={ours or text}"]
    return found


def _option_here(conf: Conf, key: str, text: str) -> str | None:
    """Return what an option or value of others is here, None if it is not known."""
    ours = value_words(key, text)
    if ours is None:
        words = (text, text.rpartition(".")[2])
        return next((option for option in conf.files.get(key, ()) if any(_same(option, word) for word in words)), None)
    return None if ours == NOT_HERE else ours


def _misspelled(conf: Conf, chosen: Chosen, key: str, text: str) -> str:
    """Return the suggestion for a misspelled knob of a chosen option, or a misspelled key of others."""
    name = normalized(key.rpartition(".")[2])
    words = {*(knob for _, knob in chosen_knobs(conf, chosen)), *all_keys()}
    near = [word for word in sorted(words) if len(name) > _SHORT and distance(name, normalized(word)) == 1]
    return _hint(conf, chosen, near[0], text, "") if near else ""
