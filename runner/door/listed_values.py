"""The listed values of a key: `0.1,0.01`, `range(0,5)`, `glob(*)`."""

from __future__ import annotations

import random

from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep

from runner.door.options import Conf
from runner.door.overrides import ParsedOverride, check_allowed, choice_texts, parse_override
from runner.errors import ConfigError, unknown
from runner.search.decimals import count_in_range, nth_in_range


def expand_glob(conf: Conf, given: ParsedOverride) -> ParsedOverride:
    """Return a sweep with `glob(...)` written out as the options that it matches."""
    pattern = given.value
    if not isinstance(pattern, Glob):
        return given
    if given.key not in conf.defaults:
        raise ConfigError(f"{given.key}: got {given.text}, but only options of a group can be globbed")
    matches = pattern.filter(sorted(conf.files[given.key]))
    if not matches:
        raise unknown(given.key, "option", given.text, conf.files[given.key])
    return parse_override(f"{given.key}=choice({','.join(matches)})")


def override_in_yaml(
    conf: Conf, key: str, text: object, *, example: str, where: str = "hydra.sweeper.params"
) -> ParsedOverride:
    """Return an entry of `hydra.sweeper.params`, or of `where`, as an override; `example` is a value of `optim.lr`."""
    if not isinstance(text, (str, int, float)):
        raise ConfigError(f"{where}.{key}: must be text, as in 'optim.lr: {example}' in a recipe")
    each = parse_override(f"{key}={str(text).lower() if isinstance(text, bool) else text}")
    if each.key == "plugins":
        raise ConfigError("plugins: allowed on the command line only, because a file must not import code")
    check_allowed(conf, each)
    return expand_glob(conf, each)


def value_count(each: ParsedOverride) -> int:
    """Return how many values an override has, one or several; nothing is listed, because a range can be long."""
    if not each.swept:
        return 1
    if isinstance(each.value, IntervalSweep):
        raise ConfigError(
            f"{each.key}: got {each.text}, but a grid tries listed values only; "
            f"list them ({each.key}=0.1,0.01) or choose a sweeper that searches (hydra/sweeper=...)"
        )
    count = range_count(each) if isinstance(each.value, RangeSweep) else len(list(each.parsed.sweep_iterator()))
    if not count:
        raise ConfigError(f"{each.key}: got {each.text}, which has no values")
    return count


def range_count(each: ParsedOverride) -> int:
    """Return how many values a range has; raises ConfigError for a step of 0 and for infinite ends."""
    value = each.value
    try:
        return count_in_range(value.start, value.stop, value.step)
    except ValueError as error:
        raise ConfigError(f"{each.key}: got {each.text}, which is not a valid range ({error})") from error


def values_of(each: ParsedOverride) -> list[ParsedOverride]:
    """Return an override for each of the values of one."""
    return [parse_override(f"{each.key}={text}") for text in _texts(each)]


def _texts(each: ParsedOverride) -> list[str]:
    """Return the values of an override, one or several, as texts."""
    if not each.swept:
        return [each.text]
    value = each.value
    if not isinstance(value, RangeSweep):
        return choice_texts(each)
    # Hydra adds steps up in binary
    texts = [str(nth_in_range(value.start or 0, value.step, index)) for index in range(range_count(each))]
    if value.shuffle:
        random.shuffle(texts)
    return texts
