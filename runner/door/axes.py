"""What a sweep goes over, and the overrides of each of its trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import IntervalSweep

from runner.door.compose import Parts, plain
from runner.door.options import RECIPE, Conf
from runner.door.overrides import Given, allow, parse, spread
from runner.errors import ConfigError

MOST = 10_000  # trials of one sweep


@dataclass(frozen=True)
class Space:
    """What a sweep goes over: the command line on top of the YAML's `hydra.sweeper.params`."""

    given: list[Given]  # of the command line, Hydra's own included
    searched: list[Given]  # of the YAML
    basic: bool  # Hydra's own sweeper: every combination

    @property
    def axes(self) -> list[Given]:
        """Return one override per key, in Hydra's order."""
        ours = [each for each in self.given if not each.of_hydra]
        return list({each.key: each for each in [*self.searched, *ours]}.values())

    @property
    def swept(self) -> list[str]:
        """Return the keys that differ between trials."""
        return [each.key for each in self.axes if each.swept]

    def of_hydra(self, key: str) -> Any:
        """Return what the command line sets a key of Hydra's to."""
        return next((each.value for each in self.given if each.key == key), None)


def searched(conf: Conf, parts: Parts) -> list[Given]:
    """Return the search space that a recipe, or `hydra.sweeper.params`, sets."""
    wished = plain(parts.hydra.sweeper.get("params")) or {}
    return [in_yaml(conf, key, text, example="0.1,0.01") for key, text in wished.items()]


def in_yaml(conf: Conf, key: str, text: object, *, example: str) -> Given:
    """Return an override that stands under `hydra.sweeper.params`; `example` is such a text for `optim.lr`."""
    if not isinstance(text, (str, int, float)):
        raise ConfigError(f"hydra.sweeper.params.{key}: must be text, as in 'optim.lr: {example}' in a recipe")
    each = parse(f"{key}={str(text).lower() if isinstance(text, bool) else text}")
    if each.key == "plugins":
        raise ConfigError("plugins: may be given on the command line only, a file must not import code")
    allow(conf, each)
    return spread(conf, each)


def trials(space: Space) -> Iterator[list[Given]]:
    """Yield the overrides of every trial, or of each end and choice where a sweeper picks the trials."""
    written = [texts(each, basic=space.basic) for each in space.axes]
    count = math.prod(map(len, written)) if space.basic else sum(map(len, written))
    if count > MOST:
        raise ConfigError(f"{space.swept[0]}: the sweep has {count} trials or more, must be at most {MOST}")
    columns = [
        [parse(f"{each.key}={text}") for text in column] for each, column in zip(space.axes, written, strict=True)
    ]
    for each in itertools.chain(*columns):
        if each.value is None and each.key == RECIPE and RECIPE in space.swept:
            raise ConfigError(
                f"{RECIPE}: got null in a sweep, but Hydra composes each trial with a recipe or all without"
            )
    if space.basic:
        yield from map(list, itertools.product(*columns))
    else:
        yield from one_by_one(columns)


def one_by_one(columns: list[list[Given]]) -> Iterator[list[Given]]:
    """Yield each value once, the other axes at their first."""
    first = [column[0] for column in columns]
    yield first
    for index, column in enumerate(columns):
        for each in column[1:]:
            yield [*first[:index], each, *first[index + 1 :]]


def texts(each: Given, *, basic: bool) -> list[str]:
    """Return the values of an override: one, those of a sweep, or the ends of an interval."""
    if not each.swept:
        return [each.text]
    if isinstance(each.value, IntervalSweep):
        if basic:
            raise ConfigError(
                f"{each.key}: got {each.text}, but Hydra's own sweeper tries listed values only; "
                f"list them ({each.key}=0.1,0.01) or choose a sweeper that searches (hydra/sweeper=...)"
            )
        return [str(each.value.start), str(each.value.end)]
    try:
        found = list(itertools.islice(each.parsed.sweep_string_iterator(), MOST + 1))
    except (ValueError, OverflowError) as error:  # of a range
        raise ConfigError(f"{each.key}: got {each.text}, which is no range ({error})") from error
    if not found:
        raise ConfigError(f"{each.key}: got {each.text}, which has no values")
    return found
