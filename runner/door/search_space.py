"""The space of a search: Hydra's sweeps as axes, and the choices that each axis depends on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, RangeSweep

from runner.door.compose import Parts
from runner.door.knob_owners import has_knob
from runner.door.listed_values import expand_glob, override_in_yaml, range_count
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride, choice_texts
from runner.errors import ConfigError, unknown
from runner.search.decimals import nth_in_range
from runner.search.space import MAX_GRID_POINTS, Axis, Space

_LOG = "log"
_EXAMPLE = "tag(log,interval(1e-3,1))"


@dataclass(frozen=True)
class _SearchOverride:
    """An override of a search, and the option of a group (or value of a key) that it applies to; None for all."""

    given: ParsedOverride
    condition: tuple[str, str] | None = None


def search_overrides(conf: Conf, params: Mapping[str, Any], given: Sequence[ParsedOverride]) -> list[_SearchOverride]:
    """Return what `hydra.sweeper.params` and the command line set; the command line wins."""
    found = []
    for key, value in params.items():
        if isinstance(value, dict):
            group, _, option = str(key).partition("=")
            if not option:
                says = "must be text, or a condition like 'optim=adam' with keys below it"
                raise ConfigError(f"hydra.sweeper.params.{key}: {says}")
            if group in conf.files and option not in conf.files[group]:
                raise unknown(f"hydra.sweeper.params.{key}", "option", option, conf.files[group])
            found += [
                _SearchOverride(override_in_yaml(conf, name, text, example=_EXAMPLE), (group, option))
                for name, text in value.items()
            ]
        else:
            found.append(_SearchOverride(override_in_yaml(conf, key, value, example=_EXAMPLE)))
    ours = [_SearchOverride(expand_glob(conf, each)) for each in given if not each.sets_hydra]
    typed = {each.given.key for each in ours}
    return [*(each for each in found if each.given.key not in typed), *ours]


def make_space(conf: Conf, parts: Parts, overrides: Sequence[_SearchOverride]) -> tuple[Space, list[ParsedOverride]]:
    """Return the space, and the overrides that are the same for every point."""
    fixed = [each.given for each in overrides if not each.condition and not each.given.swept]
    unconditional = {
        each.given.key: _make_axis(each.given) for each in overrides if not each.condition and each.given.swept
    }
    conditional = []
    for each in overrides:
        if each.condition:
            conditional += _conditional(conf, parts, fixed, unconditional, each)
    for axis in conditional:
        # The condition holds for all points
        if axis.when is None:
            unconditional[axis.key] = replace(axis, label="")
            fixed = [each for each in fixed if each.key != axis.key]
    conditional = [axis for axis in conditional if axis.when]
    axes = [_restricted(conf, axis, unconditional, conditional) for axis in unconditional.values()]
    axes = [axis for axis in axes if axis.when is None or axis.when[1]]
    if not axes:
        raise ConfigError("hydra/sweeper: the space is empty; add something like 'optim.lr=tag(log,interval(1e-3,1))'")
    return Space((*(a for a in axes if not a.when), *(a for a in axes if a.when), *conditional)), fixed


def _conditional(
    conf: Conf,
    parts: Parts,
    fixed: Sequence[ParsedOverride],
    unconditional: Mapping[str, Axis],
    override: _SearchOverride,
) -> list[Axis]:
    """Return the axis of an override that applies to one option; unconditional if every point has that option."""
    assert override.condition is not None
    key, option = override.condition
    axis = replace(_make_axis(override.given), label=option)
    if key in unconditional:
        if unconditional[key].kind != "choice":
            raise ConfigError(f"hydra.sweeper.params.{key}={option}: {key} has no choices here")
        return [replace(axis, when=(key, (option,)))] if option in unconditional[key].choices else []
    texts = [each.text for each in fixed if each.key == key] or parts.chosen.get(key, [])
    return [axis] if option in texts else []


def _restricted(conf: Conf, axis: Axis, unconditional: Mapping[str, Axis], conditional: Sequence[Axis]) -> Axis:
    """Return an axis that applies to the options of its group that have the knob and no axis of their own."""
    group, _, knob = axis.key.partition(".")
    others = {each.when[0]: each.when[0] for each in conditional if each.key == axis.key and each.when}
    key = next(iter(others), group if knob and group in conf.defaults else None)
    if key is None or key not in unconditional or unconditional[key].kind != "choice":
        return axis
    choices = unconditional[key].choices
    having = choices
    if key == group and knob:
        having = tuple(text for text in choices if has_knob(conf, group, text, knob)) or choices
    own = {text for each in conditional if each.key == axis.key and each.when for text in each.when[1]}
    left = tuple(text for text in having if text not in own)
    return axis if left == choices else replace(axis, when=(key, left))


def _make_axis(given: ParsedOverride) -> Axis:
    """Return a sweep as an axis, one value as an axis of one choice."""
    value = given.value
    if not given.swept:
        return Axis(key=given.key, kind="choice", choices=(given.text,))
    if strange := sorted(value.tags - {_LOG}):
        raise unknown(given.key, "tag", str(strange[0]), [_LOG])
    log = _LOG in value.tags
    axis = _numeric_axis(given, log) if isinstance(value, (IntervalSweep, RangeSweep)) else _choice_axis(given, log)
    if log and axis.low <= 0:
        raise ConfigError(f"{given.key}: got {given.text}, but a logarithmic axis must be above 0")
    return axis


def _numeric_axis(given: ParsedOverride, log: bool) -> Axis:
    """Return the axis of an interval or a range; a range ends before its second number, as everywhere in Hydra."""
    value = given.value
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ConfigError(f"{given.key}: got {given.text}, must be an interval from a number to a larger one")
        whole = isinstance(low, int) and isinstance(high, int)
        step = 1.0 if whole and not log else None
        return Axis(key=given.key, kind="int" if whole else "float", low=low, high=high, step=step, log=log)
    count = range_count(given)
    if not 0 < count <= MAX_GRID_POINTS:
        raise ConfigError(f"{given.key}: got {given.text}, which has {'no' if not count else 'too many'} values")
    whole = all(isinstance(each, int) for each in (value.start, value.stop, value.step))
    ends = [nth_in_range(value.start, value.step, index) for index in (0, count - 1)]
    step = abs(float(value.step))
    if log and not (whole and step == 1):
        raise ConfigError(f"{given.key}: got {given.text}, but a logarithmic range has whole numbers and the step 1")
    kind = "int" if whole else "float"
    return Axis(key=given.key, kind=kind, low=min(ends), high=max(ends), step=None if log else step, log=log)  # type: ignore[arg-type]


def _choice_axis(given: ParsedOverride, log: bool) -> Axis:
    """Return the axis of listed values."""
    if log:
        raise ConfigError(f"{given.key}: got {given.text}, but only an interval or a range can be logarithmic")
    texts = choice_texts(given)
    # shuffle() gives another order each time, but a resumed search needs the same space
    if getattr(given.value, "shuffle", False):
        texts.sort()
    if twice := next((text for text, count in Counter(texts).items() if count > 1), None):
        raise ConfigError(f"{given.key}: given twice ('{twice}')")
    return Axis(key=given.key, kind="choice", choices=tuple(texts))
