"""A typo in any key, option or enumerated value: the error line suggests the right word."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from typos import is_suggested, typos

import runner.components  # noqa: F401  (registers them)
from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.options import Conf, find_conf
from runner.door.overrides import read_overrides
from runner.errors import ConfigError
from runner.registry import checked as checked_knobs
from runner.registry import find, knobs, option_config
from runner.schema import check
from runner.settings import SETTINGS
from runner.tasks import load_tasks

SEED = 20_261_121
SHARE = 0.95


def refusal(work) -> str | None:
    """Return the error line, None if there is none because the typo is a valid word."""
    try:
        work()
    except ConfigError as error:
        return str(error)
    return None


def top_level(conf: Conf, rng: random.Random, each: int, step: int) -> Iterator[tuple[str, str, str]]:
    """Yield (true word, typo, line) of the first words: groups and global fields."""
    for word in [*conf.defaults, *SETTINGS]:
        for typo in typos(word, rng, each):
            if (line := refusal(lambda typo=typo: read_overrides(conf, [f"{typo}=1"]))) and "got" not in line:
                yield word, typo, line


def options(conf: Conf, rng: random.Random, each: int, step: int) -> Iterator[tuple[str, str, str]]:
    """Yield (true word, typo, line) of the options of every group."""
    for group, files in conf.files.items():
        for word in files:
            for typo in typos(word, rng, each):
                if line := refusal(lambda group=group, typo=typo: read_overrides(conf, [f"{group}={typo}"])):
                    yield word, typo, line


def keys(conf: Conf, rng: random.Random, each: int, step: int) -> Iterator[tuple[str, str, str]]:
    """Yield (true word, typo, line) of the knobs of every option, or of every `step`th."""
    for group, name in every_option(conf)[::step]:
        parts = compose_parts(conf, read_overrides(conf, [f"{group}={name}"]))
        known = parts.config[group][name] if conf.several(group) else parts.config[group]
        place = f"{group}.{name}" if conf.several(group) else group
        for word in known:
            for typo in typos(word, rng, each):

                def given(place=place, typo=typo, parts=parts):
                    compose_run(conf, parts, read_overrides(conf, [f"{place}.{typo}=1"]))

                if (line := refusal(given)) and "got" not in line:
                    yield word, typo, line


def values(conf: Conf, rng: random.Random, each: int, step: int) -> Iterator[tuple[str, str, str]]:
    """Yield (true word, typo, line) of the words that a global field or a knob can be."""
    for key, kind in SETTINGS.items():
        for word in words(kind):
            for typo in typos(word, rng, each):
                if line := refusal(lambda key=key, typo=typo, kind=kind: check(key, typo, kind)):
                    yield word, typo, line
    for group, name in every_option(conf):
        yield from knob_values(group, name, rng, each)


def every_option(conf: Conf) -> list[tuple[str, str]]:
    """Return group and name of the options that have knobs."""
    return [(group, name) for group, files in conf.files.items() if group != "recipe" for name in files]


def knob_values(group: str, name: str, rng: random.Random, each: int) -> Iterator[tuple[str, str, str]]:
    """Yield (true word, typo, line) of the words that the knobs of one option can be."""
    given = option_config(group, name, key=group)
    given = given if "name" in given else given[name]
    given = {key: value for key, value in given.items() if key != "name"}
    for key, kind in knobs(find(group, name)).items():
        for word in words(kind):
            for typo in typos(word, rng, each):
                wrong = {**given, key: [typo] if get_origin(kind) is list or listed(kind) else typo}
                line = refusal(lambda wrong=wrong: checked_knobs(find(group, name), group, wrong))
                if line:
                    yield word, typo, line


def listed(kind: Any) -> bool:
    """Return True if a type accepts a list of words."""
    return any(get_origin(part) is list or listed(part) for part in get_args(kind) if not isinstance(part, str))


def words(kind: Any) -> list[str]:
    """Return the words that a type enumerates."""
    if get_origin(kind) is Literal:
        return [word for word in get_args(kind) if isinstance(word, str)]
    return [word for part in get_args(kind) if not isinstance(part, (str, bool, int)) for word in words(part)]


KINDS = {"top level": top_level, "options": options, "keys": keys, "values": values}


def share(kind: str, each: int, step: int) -> tuple[int, list[tuple[str, str, str]]]:
    """Return how many typos of a kind were refused, and those whose line does not name the true word."""
    conf = find_conf()
    load_tasks()
    with hydra_opened(conf):
        found = list(KINDS[kind](conf, random.Random(SEED), each, step))
    return len(found), [case for case in found if not is_suggested(case[2], case[0])]


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_word_is_among_the_first_three(kind):
    count, missed = share(kind, 1, 40)
    assert count > 40
    assert 1 - len(missed) / count >= SHARE, missed[:20]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_true_word_is_among_the_first_three_of_many_typos(kind):
    count, missed = share(kind, 6, 1)
    print(f"{kind}: {count - len(missed)} of {count}")  # noqa: T201
    assert 1 - len(missed) / count >= SHARE, missed[:20]
