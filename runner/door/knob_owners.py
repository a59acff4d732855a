"""The options of a group that have a knob."""

from __future__ import annotations

from runner.door.options import Conf, chosen_options, template, templates
from runner.door.overrides import parse_override


def has_knob(conf: Conf, group: str, text: str, knob: str) -> bool:
    """Return True if an option of a group, or one of several, has a knob."""
    chosen = chosen_options(conf, group, parse_override(f"{group}={text}").value)
    first = knob.partition(".")[0]
    if conf.several(group):
        return first in templates(conf, group, chosen)
    return all(first in template(conf, group, option) for option in chosen)
