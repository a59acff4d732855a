"""Check the space of a search at both ends of each axis and at each choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.door.options import Conf
from runner.door.overrides import ParsedOverride, parse_override
from runner.door.variants import Composer
from runner.errors import ConfigError
from runner.search.exclusions import Exclusion, is_excluded
from runner.search.samplers import first_allowed
from runner.search.space import Axis, Space


def check_ends(
    conf: Conf,
    composer: Composer,
    space: Space,
    fixed: Sequence[ParsedOverride],
    exclusions: Sequence[Exclusion] = (),
) -> dict[str, Any]:
    """Check each axis at its ends, or at each choice, with every option that it applies to; return one config.

    Points that are left out may be wrong.
    """
    first = {axis.name: axis.end_texts()[0] for axis in space.axes}
    for axis in space.axes:
        group = axis.when[0] if axis.when else axis.key.partition(".")[0]
        options = axis.when[1] if axis.when else next((a.choices for a in space.axes if a.key == group), ("",))
        for end in axis.end_texts():
            for option in options if group != axis.key else ("",):
                values = {**first, axis.name: end, **({group: option} if option else {})}
                if not is_excluded(space, exclusions, space.active_point(values)):
                    check_point(composer, space, fixed, axis, values)
    if is_excluded(space, exclusions, space.active_point(first)):
        allowed = first_allowed(space, exclusions)
        first |= {axis.name: axis.text(axis.rounded(allowed[axis.name])) for axis in space.axes if axis.name in allowed}
    return check_point(composer, space, fixed, space.axes[0], first)


def check_point(
    composer: Composer, space: Space, fixed: Sequence[ParsedOverride], axis: Axis, values: dict[str, str]
) -> dict[str, Any]:
    """Return the config of one point, checked; `values` holds a text for each axis."""
    keys = {each.name: each.key for each in space.axes}
    own = [parse_override(f"{keys[name]}={text}") for name, text in space.active_point(values).items()]
    try:
        return composer.trial(with_point(fixed, own)).config
    except ConfigError as error:
        if axis.kind == "float" and "must be a whole number" in str(error):
            raise ConfigError(f"{error}; for whole numbers: int(interval(...))") from error
        raise


def with_point(fixed: Sequence[ParsedOverride], own: Sequence[ParsedOverride]) -> list[ParsedOverride]:
    """Return overrides, options before knobs; those of the point replace those that all points share."""
    keys = {each.key for each in own}
    return [*(each for each in fixed if each.key not in keys), *own]
